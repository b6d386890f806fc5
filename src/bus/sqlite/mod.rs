//! The embedded store: bus and ledger in one SQLite file, or in memory.
//!
//! Everything that changes goes through one writer thread (`writer`), in one transaction for all that waits; reads have
//! connections of their own. Several processes share a file: they write in turn (`locks`), notice each other's commits
//! (`doorbell`) and take over from those that died (`process`, `takeover`). The way of an entry: `due` or a publish appends
//! it (`tx`), `claim` hands it out, `settle` ends it, `retention` trims it; for a bus that keeps nothing, `carried` stands in for
//! claim and trimming. The schema, with the views for people, is
//! `schema.sql`.

mod carried;
mod claim;
mod dead;
mod doorbell;
mod due;
mod fault;
mod group;
mod handover;
mod inbox;
mod intake;
mod locks;
mod look;
mod lost;
mod operate;
mod overview;
mod process;
mod reader;
mod record;
mod retention;
mod row;
mod schema;
mod settle;
mod span;
mod state;
mod step;
mod store;
mod takeover;
mod trouble;
mod tx;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::relay::{Fence, Keeper};
use super::{
    Bus, BusError, Claim, DeadFilter, DeadId, DeadLetter, DeadLetters, Features, GroupStatus, HandlerReport, Intake,
    Ledger, Overview, Recorded, Replayed, StateAdmin, StateEntry, Subscribed, Subscription, TakenIn, Undecodable,
};
use crate::clock::{Clock, SystemClock};
use crate::event::{EntryId, Event};
use crate::failpoint;
use crate::outcome::{Emit, RecordKey, Write};
use crate::streams::Streams;

use carried::Fences;
use doorbell::Doorbell;
use fault::Fault;
use inbox::{Door, SqliteInbox};
use locks::Turns;
use look::Access;
use lost::Vital;
use store::Store;
use tx::Tx;
use writer::Writer;

/// Where the store lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    /// Gone with the process; nobody else can share it.
    Memory,
}

impl Place {
    fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Memory => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "sqlite:{}", path.display()),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// The disk: what was answered survives a power cut.
    #[default]
    Full,
    /// The operating system: a power cut can take the last commits, all or none of each.
    Normal,
}

impl Synchronous {
    fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// How the store is opened.
#[derive(Clone)]
pub struct Options {
    pub place: Place,
    pub synchronous: Synchronous,
    /// A process whose heartbeat stands still for this long is taken for dead.
    pub recovery_time: Duration,
    /// Name of this process, for people.
    pub instance: String,
    /// Where types live, and how much of the past each stream keeps.
    pub streams: Arc<Streams>,
    /// The store's time: due times, windows, ages. Ownership never asks it.
    pub clock: Arc<dyn Clock>,
    /// A group without a living handler stops holding back trimming after this time.
    pub forget_group_after: Duration,
    /// Dead letters go when they are this old; `None`: never.
    pub dead_letters_retain: Option<Duration>,
    /// How often history is trimmed and what expired is removed.
    pub upkeep_every: Duration,
    /// How long a program outside may hold the write lock before the store is away.
    pub patience: Duration,
}

impl Options {
    /// The defaults, for a store at `place`.
    pub fn at(place: Place) -> Self {
        Self {
            place,
            synchronous: Synchronous::Full,
            recovery_time: Duration::from_secs(10),
            instance: format!("process {}", std::process::id()),
            streams: Arc::default(),
            clock: Arc::new(SystemClock),
            forget_group_after: Duration::from_secs(7 * 24 * 3600),
            dead_letters_retain: None,
            upkeep_every: Duration::from_secs(1),
            patience: schema::PATIENCE,
        }
    }
}

/// The store. Dropping it stops it at once and tidies nothing, as a crash would; [`SqliteStore::close`] is the orderly end.
pub struct SqliteStore {
    store: Arc<Store>,
    /// Dropped to stop the doorbell.
    stop: Mutex<Option<Sender<()>>>,
    writer: Thread,
    doorbell: Thread,
}

impl SqliteStore {
    /// Opens the store; creates the file and the folders above it where they are missing.
    ///
    /// # Errors
    /// [`BusError::Unusable`] says what is wrong with the file and what to do; [`BusError::Away`] that it is locked.
    pub fn open(options: Options) -> Result<Arc<Self>, BusError> {
        let name = options.place.to_string();
        Self::start(options).map_err(|fault| fault.told(&name))
    }

    /// Opens a store that is there only to look at it, and writes nothing, not even who looks; what would change it is refused.
    /// One of an older format is brought forward first, as [`SqliteStore::open`] does.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn look(options: Options) -> Result<Arc<Self>, BusError> {
        let looking = match options.place.path() {
            Some(path) => look::open(&options, path).map_err(|fault| fault.told(&options.place.to_string()))?,
            None => None,
        };
        let Some(store) = looking else { return Self::open(options) };
        let (stop, writer, doorbell) = Default::default();
        Ok(Arc::new(Self { store: Arc::new(store), stop, writer, doorbell }))
    }

    fn start(options: Options) -> Result<Arc<Self>, Fault> {
        let mut conn = schema::open_writer(&options.place, options.patience)?;
        schema::check(&conn, &options.place)?;
        let turns = options.place.path().map(|path| Turns::open(path)).transpose()?;
        let turn = turns.as_ref().map(Turns::take).transpose()?;
        schema::prepare(&mut conn, options.synchronous)?;
        let (me, alive) = process::register(&mut conn, &options)?;
        drop(turn);
        let looking = options.place.path().map(|path| schema::open_reader(path, Access::Shared)).transpose()?;
        let (queue, work) = mpsc::channel();
        let store = Arc::new(Store::new(options, me, alive, queue)?);
        let writer = Writer { conn, turns, store: store.clone(), queue: work };
        let doorbell = Doorbell::new(store.clone(), looking);
        let (stop, stopped) = mpsc::channel();
        let writer = thread("sqlite-writer", &store, move || writer.run())?;
        let doorbell = thread("sqlite-doorbell", &store, move || doorbell.run(&stopped))?;
        Ok(Arc::new(Self { store, stop: Mutex::new(Some(stop)), writer, doorbell }))
    }

    /// Ends in order: what waits to be written is written, what this process still holds goes back uncharged, then the
    /// threads stop.
    pub async fn close(&self) {
        // First, so that no heartbeat follows the farewell.
        self.stop_doorbell();
        failpoint::reached("farewell.before");
        let left = self.store.call(|tx| failpoint::after("farewell.sent", process::farewell(tx))).await;
        failpoint::reached("farewell.after");
        if left.is_ok()
            && let Some(alive) = self.store.alive.lock().take()
        {
            alive.remove();
        }
        self.stop();
    }

    /// Whether nothing can be written any more: it was closed, or its writer ended by a defect.
    pub fn is_closed(&self) -> bool {
        self.store.is_stopped()
    }

    /// Waits until nothing can be stored in this process any more, though nobody closed the store; answers why.
    pub async fn lost(&self) -> String {
        self.store.lost.wait().await
    }

    fn stop_doorbell(&self) {
        self.stop.lock().take();
        self.join(&self.doorbell);
    }

    fn stop(&self) {
        self.store.stop();
        self.stop_doorbell();
        self.join(&self.writer);
    }

    fn join(&self, thread: &Thread) {
        if let Some(thread) = thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!(store = self.store.name(), "a thread of the store panicked");
        }
    }
}

type Thread = Mutex<Option<JoinHandle<()>>>;

fn thread(name: &'static str, store: &Arc<Store>, work: impl FnOnce() + Send + 'static) -> std::io::Result<Thread> {
    let vital = Vital { store: store.clone(), thread: name };
    let body = move || {
        let _vital = vital;
        work();
    };
    Ok(Mutex::new(Some(std::thread::Builder::new().name(name.into()).spawn(body)?)))
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Bus for SqliteStore {
    fn features(&self) -> Features {
        let file = self.store.path().is_some();
        Features { one_store: true, marks: true, durable: file, shared: file, history: true }
    }

    async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        if emits.is_empty()
            && let Some(error) = self.store.unwritable()
        {
            // A transaction without a write would go through.
            return Err(error);
        }
        let work = move |tx: &mut Tx<'_>| failpoint::after("publish.sent", due::publish(tx, &emits, None));
        failpoint::after("publish.after", self.store.call(work).await)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError> {
        let subscription = Arc::new(subscription);
        let wanted = subscription.clone();
        let (group, began) = self.store.call(move |tx| failpoint::after("open.sent", group::open(tx, &wanted))).await?;
        let door = Arc::new(Door::new(subscription, group));
        self.store.add_door(&door);
        Ok(Subscribed { inbox: Arc::new(SqliteInbox { store: self.store.clone(), door }), began })
    }
}

impl Keeper for SqliteStore {
    fn fence(&self) -> Arc<dyn Fence> {
        Arc::new(Fences(self.store.clone()))
    }
}

#[async_trait]
impl Intake for SqliteStore {
    async fn take_in(&self, emits: Vec<Emit>, claim: Claim) -> Result<TakenIn, BusError> {
        let work = move |tx: &mut Tx<'_>| failpoint::after("intake.sent", intake::take_in(tx, &emits, &claim));
        failpoint::after("intake.after", self.store.call(work).await)
    }
}

#[async_trait]
impl Ledger for SqliteStore {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, BusError> {
        let keys = keys.to_vec();
        self.store.read(move |conn, now| state::read(conn, &keys, now)).await
    }

    async fn recorded(&self, keys: &[RecordKey]) -> Result<Vec<Option<Recorded>>, BusError> {
        let keys = keys.to_vec();
        self.store.read(move |conn, now| record::recorded(conn, &keys, now)).await
    }
}

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn list(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, BusError> {
        self.store.read(move |conn, _| dead::list(conn, &filter)).await
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>, BusError> {
        self.store.read(move |conn, _| dead::get(conn, id)).await
    }

    async fn replay(&self, id: DeadId) -> Result<Replayed, BusError> {
        self.store.call(move |tx| dead::replay(tx, id)).await
    }

    async fn discard(&self, ids: &[DeadId]) -> Result<u64, BusError> {
        let ids = ids.to_vec();
        self.store.call(move |tx| dead::discard(tx, &ids)).await
    }
}

#[async_trait]
impl StateAdmin for SqliteStore {
    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<StateEntry>, BusError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.store.read(move |conn, now| state::scan(conn, &prefix, after.as_deref(), limit, now)).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<bool>, BusError> {
        self.store.call(move |tx| state::write(tx, &writes)).await
    }
}

#[async_trait]
impl Overview for SqliteStore {
    async fn groups(&self) -> Result<Vec<GroupStatus>, BusError> {
        self.store.read(|conn, _| overview::groups(conn)).await
    }

    async fn report(&self, reports: Vec<HandlerReport>) -> Result<(), BusError> {
        self.store.call(move |tx| overview::report(tx, &reports)).await
    }

    async fn reports(&self) -> Result<Vec<HandlerReport>, BusError> {
        let place = self.store.options.place.clone();
        self.store.read(move |conn, _| overview::reports(conn, &place)).await
    }

    async fn history(
        &self,
        stream: &str,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Result<Event, Undecodable>)>, BusError> {
        let stream = stream.to_owned();
        self.store.read(move |conn, _| overview::history(conn, &stream, after, limit)).await
    }
}
