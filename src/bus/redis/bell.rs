//! The doorbell: one blocking read per process, for all inboxes that found nothing.
//!
//! Reads no event for anybody: it only learns that a stream has grown, wakes the inboxes that wait for it, and leaves the
//! stream out until they wait again. Besides it hears what processes tell each other in the stream `bell`. A thousand idle
//! handlers of one stream cost the server one blocked client.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::Notify;

use super::door::Door;
use super::fault::{self, Fault};
use super::link::Dedicated;
use super::reply;
use super::store::Store;
use crate::bus::backoff;
use crate::event::EntryId;

/// How much longer than the server holds a read its answer is waited for, before the connection counts as broken.
const MARGIN: Duration = Duration::from_secs(1);
/// The longest time before a new connection is tried; whether there is a server at all is found out elsewhere.
const AFTER_FAILURE_MAX: Duration = Duration::from_millis(400);
/// How soon a read that could not be interrupted, because the server did not have it yet, is interrupted again.
const AGAIN: Duration = Duration::from_micros(200);

/// Who waits for what.
#[derive(Default)]
pub(super) struct Bell {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    armed: HashMap<Arc<str>, Armed>,
    /// What the read under way would notice.
    watched: HashMap<Arc<str>, EntryId>,
}

struct Armed {
    /// Only what comes after this rings.
    after: EntryId,
    doors: Vec<Weak<Door>>,
}

impl Bell {
    /// `door` is rung once when one of `streams` has an entry after the one that is named with it.
    pub fn arm(&self, door: &Arc<Door>, streams: impl Iterator<Item = (Arc<str>, EntryId)>) {
        let mut state = self.state.lock();
        let mut unnoticed = false;
        for (stream, after) in streams {
            unnoticed |= state.watched.get(&stream).is_none_or(|watched| *watched > after);
            let armed = state.armed.entry(stream).or_insert_with(|| Armed { after, doors: Vec::new() });
            armed.after = armed.after.min(after);
            armed.doors.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(door)));
            armed.doors.push(Arc::downgrade(door));
        }
        if unnoticed {
            self.changed.notify_one();
        }
    }

    /// What to watch now.
    fn watch(&self, control: &Arc<str>, after: EntryId, block: Duration) -> Cmd {
        let mut state = self.state.lock();
        state.watched = state.armed.iter().map(|(stream, armed)| (stream.clone(), armed.after)).collect();
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(1).arg("BLOCK").arg(block.as_millis() as u64).arg("STREAMS");
        let watched: Vec<_> = state.watched.iter().collect();
        read.arg(&**control);
        for (stream, _) in &watched {
            read.arg(&***stream);
        }
        read.arg(after.to_string());
        for (_, after) in &watched {
            read.arg(after.to_string());
        }
        read
    }

    /// `stream` has grown.
    fn ring(&self, stream: &str) {
        let armed = self.state.lock().armed.remove(stream);
        let doors = armed.into_iter().flat_map(|armed| armed.doors);
        doors.filter_map(|door| door.upgrade()).for_each(|door| door.ring());
    }

    fn ring_all(&self) {
        let armed = std::mem::take(&mut self.state.lock().armed);
        let doors = armed.into_values().flat_map(|armed| armed.doors);
        doors.filter_map(|door| door.upgrade()).for_each(|door| door.ring());
    }
}

/// Listens until the bus is closed.
pub(super) async fn listen(store: Arc<Store>) {
    let mut listener = Listener { control: store.keys.own("bell").into(), store, after: None, connection: None };
    let mut failures = 0;
    while !listener.store.is_closed() {
        match listener.once().await {
            Ok(()) => failures = 0,
            Err(_) => {
                // Whatever was said meanwhile may have been said to another server.
                (listener.connection, listener.after) = (None, None);
                // Whoever waits tries for himself, and says what is wrong.
                listener.store.bell.ring_all();
                failures += 1;
                tokio::time::sleep(backoff(failures).min(AFTER_FAILURE_MAX)).await;
            }
        }
    }
}

struct Listener {
    store: Arc<Store>,
    control: Arc<str>,
    /// What was heard last of the other processes.
    after: Option<EntryId>,
    connection: Option<(Dedicated, i64)>,
}

impl Listener {
    async fn once(&mut self) -> Result<(), Fault> {
        // First: it shows whether the shared connection is dead, on which everybody else would wait for long.
        let (connection, client) = self.connect().await?;
        let after = match self.after {
            Some(after) => after,
            None => self.begin().await?,
        };
        let read = self.store.bell.watch(&self.control, after, self.store.options.block);
        let answer = self.read(connection, client, &read).await?;
        for stream in reply::list(answer)? {
            let mut parts = reply::list(stream)?.into_iter();
            let name = reply::text(parts.next().unwrap_or_default())?;
            match *name == *self.control {
                true => self.hear(parts.next().unwrap_or_default())?,
                false => self.store.bell.ring(&name),
            }
        }
        Ok(())
    }

    /// Begins to hear with what comes now; all inboxes look once, because they may have missed something.
    async fn begin(&mut self) -> Result<EntryId, Fault> {
        let looked = self.store.look([&*self.control].into_iter()).await?;
        let after = looked.into_iter().next().unwrap_or(EntryId(0, 0));
        self.after = Some(after);
        for door in self.store.doors() {
            door.ring_left();
            door.look_for_streams();
        }
        Ok(after)
    }

    async fn connect(&mut self) -> Result<(Dedicated, i64), Fault> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let mut dedicated = self.store.link.dedicated(self.store.options.block + MARGIN).await?;
        let client = dedicated.connection.send_packed_command(redis::cmd("CLIENT").arg("ID")).await;
        let client = fault::checked(client.map_err(|error| fault::of(&error))?)?;
        self.store.link.prove().await;
        Ok(self.connection.insert((dedicated, reply::int(&client)?)).clone())
    }

    /// The read's answer; when there is something else to watch, the read is cut short.
    async fn read(&self, dedicated: Dedicated, client: i64, read: &Cmd) -> Result<Value, Fault> {
        let Dedicated { mut connection, left } = dedicated;
        let mut reading = std::pin::pin!(connection.send_packed_command(read));
        let answer = tokio::select! {
            biased;
            answer = &mut reading => Some(answer),
            () = self.store.bell.changed.notified() => None,
            () = left.cancelled() => return Err(Fault::Away("the server may be another one now".into())),
        };
        let answer = match answer {
            Some(answer) => answer,
            None => loop {
                let mut unblock = redis::cmd("CLIENT");
                unblock.arg("UNBLOCK").arg(client);
                let wait = match self.store.link.call(&unblock).await {
                    Ok(Value::Int(1)) | Err(Fault::Barred(_)) => self.store.options.block,
                    Ok(_) => AGAIN,
                    Err(fault) => return Err(fault),
                };
                if let Ok(answer) = tokio::time::timeout(wait, &mut reading).await {
                    break answer;
                }
            },
        };
        answer.map_err(|error| fault::of(&error)).and_then(fault::checked)
    }

    fn hear(&mut self, entries: Value) -> Result<(), Fault> {
        for entry in reply::list(entries)? {
            let (id, fields) = reply::entry(entry)?;
            self.after = Some(id);
            for (what, name) in fields.unwrap_or_default() {
                self.store.heard(&what, &String::from_utf8_lossy(&name));
            }
        }
        Ok(())
    }
}
