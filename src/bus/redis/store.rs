//! What every part of the bus shares: the way to the server, the names of our keys, who we are, and what time it is there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::args::KnownStreams;
use super::bell::Bell;
use super::dead::Shelf;
use super::discovery::Walk;
use super::door::Door;
use super::fault::Fault;
use super::keys::{self, Keys};
use super::link::Link;
use super::losses::{self, Beginnings};
use super::procedure::{Procedure, Procedures};
use super::{reply, takeover};
use crate::bus::BusError;
use crate::clock::Millis;
use crate::event::EntryId;
use crate::failpoint;

/// The shared part of a [`RedisBus`](super::RedisBus).
pub(super) struct Store {
    pub link: Link,
    pub keys: Keys,
    pub options: Options,
    pub procedures: Procedures,
    pub known: KnownStreams,
    pub beginnings: Beginnings,
    pub bell: Bell,
    /// Name of this process on the server: unique per start.
    pub process: String,
    /// Our consumer in every group.
    pub consumer: String,
    /// How far we are in looking for streams of others.
    pub walk: Walk,
    /// The server's time, when it last told us.
    now: AtomicI64,
    doors: Mutex<Vec<Weak<Door>>>,
    /// See [`Door::new`].
    pub batches: Arc<AtomicU64>,
    /// What closed inboxes held is on its way back, by group.
    going_back: Mutex<HashMap<Arc<str>, JoinHandle<()>>>,
    /// Ends every task of the bus.
    pub closed: CancellationToken,
}

impl Store {
    pub fn new(options: Options) -> Self {
        let process = format!("{}:{:08x}", options.instance, rand::random::<u32>());
        Self {
            link: Link::new(options.address.clone(), &options.instance, options.patience),
            keys: Keys::new(&options.prefix, &options.state_prefix, options.dead_letters_stream.as_deref()),
            procedures: Procedures::new(),
            known: KnownStreams::default(),
            beginnings: Beginnings::default(),
            bell: Bell::default(),
            consumer: keys::consumer(&process),
            process,
            options,
            walk: Walk::default(),
            now: AtomicI64::new(0),
            doors: Mutex::default(),
            batches: Arc::default(),
            going_back: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    /// One command, for those who tell others.
    pub async fn call(&self, command: &Cmd) -> Result<Value, BusError> {
        self.check_open()?;
        self.link.call(command).await.map_err(|fault| self.told(fault))
    }

    /// One script of ours, for those who tell others.
    pub async fn run(&self, procedure: &Procedure, call: &Cmd) -> Result<Value, BusError> {
        self.check_open()?;
        procedure.run(&self.link, call).await.map_err(|fault| self.told(fault))
    }

    /// `fault` as others see it.
    pub fn told(&self, fault: Fault) -> BusError {
        fault.told(&self.options.address.to_string())
    }

    /// `fault` as whoever opens the bus sees it.
    pub fn told_at_start(&self, fault: Fault) -> BusError {
        fault.told_at_start(&self.options.address.to_string())
    }

    /// The stream of dead letters.
    pub fn shelf(&self) -> Shelf<'_> {
        let Options { streams, dead_letters_layout, .. } = &self.options;
        Shelf { name: self.keys.dead(), layout: dead_letters_layout.as_ref(), streams }
    }

    // --- time and streams ---

    /// The server's time, as far as it is known here.
    pub fn now(&self) -> Millis {
        self.now.load(Ordering::Relaxed)
    }

    /// The server told its time.
    pub fn tell_time(&self, now: Millis) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// A call that looks at the time and at both ends of streams, and counts what was trimmed of them unread.
    pub fn look_call<'s>(&self, streams: impl Iterator<Item = &'s str>) -> Cmd {
        let mut call = self.procedures.look.call();
        call.arg(self.keys.prefix());
        for stream in streams {
            call.arg(stream);
            // Nobody else trims what is ours.
            if self.keys.is_own(stream) {
                call.arg("")
            } else {
                call.arg(self.beginnings.known(stream))
            };
        }
        call
    }

    /// The last entry of each of the `streams` that were looked at.
    pub fn looked<'s>(&self, streams: impl Iterator<Item = &'s str>, answer: Value) -> Result<Vec<EntryId>, Fault> {
        let mut parts = reply::list(answer)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        self.tell_time(reply::int(&next())?);
        let mut lasts = Vec::new();
        for stream in streams {
            lasts.push(reply::entry_id(next())?);
            let first = reply::entry_id(next())?;
            if !self.keys.is_own(stream) {
                self.beginnings.found(stream, first);
            }
        }
        losses::tell(next())?;
        Ok(lasts)
    }

    /// The last entry of each of `streams`.
    pub async fn look<'s>(&self, streams: impl Iterator<Item = &'s str> + Clone) -> Result<Vec<EntryId>, Fault> {
        let answer = self.procedures.look.run(&self.link, &self.look_call(streams.clone())).await?;
        self.looked(streams, answer)
    }

    // --- inboxes ---

    /// The inboxes that are open here.
    pub fn doors(&self) -> Vec<Arc<Door>> {
        self.doors.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Makes a door known, so that news reach it.
    pub fn add_door(&self, door: &Arc<Door>) {
        let mut doors = self.doors.lock();
        doors.retain(|door| door.strong_count() > 0);
        doors.push(Arc::downgrade(door));
    }

    /// Another process, or this one, said something in the stream `bell`.
    pub fn heard(&self, what: &[u8], name: &str) {
        for door in self.doors() {
            match what {
                b"freed" if *name == *door.subscription.group => door.ring_left(),
                b"died" => door.ring_left(),
                b"stream" if finds(&door, name) => door.ring_reopen(),
                _ => {}
            }
        }
    }

    /// What a closed inbox held goes back.
    pub fn give_back_later(self: &Arc<Self>, door: &Door) {
        // What came by channel lies nowhere that it could go back to.
        let held: Vec<_> = door.close().into_iter().filter(|(stream, ..)| !self.keys.is_channel(stream)).collect();
        if held.is_empty() || self.is_closed() {
            return;
        }
        let (store, group) = (self.clone(), door.subscription.group.clone());
        let before = self.going_back.lock().remove(&group);
        let going = tokio::spawn({
            let group = group.clone();
            async move {
                if let Some(before) = before {
                    drop(before.await);
                }
                if let Err(fault) = give_back(&store, &group, held).await {
                    tracing::warn!(
                        group = &*group,
                        "what its inbox held could not be given back: {}",
                        store.told(fault)
                    );
                }
            }
        });
        self.going_back.lock().insert(group, going);
    }

    /// Waits until what the last inbox of `group` held has gone back.
    pub async fn gone_back(&self, group: &str) {
        let going = self.going_back.lock().remove(group);
        if let Some(going) = going {
            drop(going.await);
        }
    }

    // --- the end ---

    /// Runs `task` until the bus is closed.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        tokio::spawn(async move { closed.run_until_cancelled(task).await });
    }

    /// From now on nothing is answered.
    pub fn close(&self) {
        self.closed.cancel();
        self.doors().iter().for_each(|door| door.bell.notify_one());
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub fn check_open(&self) -> Result<(), BusError> {
        if self.is_closed() { Err(BusError::Closed) } else { Ok(()) }
    }
}

async fn give_back(store: &Store, group: &str, mut held: Vec<(Arc<str>, EntryId, u32)>) -> Result<(), Fault> {
    failpoint::reached("give_back.before");
    held.sort_unstable();
    for of_one in held.chunk_by(|(a, ..), (b, ..)| a == b) {
        let entries: Vec<_> = of_one.iter().map(|(_, entry, times)| (*entry, *times)).collect();
        failpoint::during("give_back.sent", takeover::give_back(store, &of_one[0].0, group, &entries)).await?;
    }
    failpoint::reached("give_back.after");
    Ok(())
}

/// Whether `stream` is one that the handler looks for.
fn finds(door: &Door, stream: &str) -> bool {
    let looks_for = |(prefix, pattern): &(String, crate::event::TypePattern)| {
        stream.strip_prefix(prefix.as_str()).is_some_and(|rest| pattern.matches(rest))
    };
    door.subscription.discover.iter().any(looks_for) && !door.sources().iter().any(|source| **source == *stream)
}
