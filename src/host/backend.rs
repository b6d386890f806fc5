//! The store, seen from each of its sides: the only place that names concrete buses.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::promise::{self, Promise};
use crate::bus::redis::{self, Address, Adopt, AdoptRules, RedisBus};
use crate::bus::sqlite::{self, Place, SqliteStore};
use crate::bus::{Bus, BusError, DeadLetters, Groups, Housekeeping, Intake, Ledger, Overview, StateAdmin};
use crate::channels::{Channel, Deliver};
use crate::clock::SystemClock;
use crate::config::{BusUrl, Config, RedisUrl, Synchronous};

/// How often the store trims its history and drops what expired.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// The store, seen from each of its sides.
#[derive(Clone)]
pub struct Backend {
    pub bus: Arc<dyn Bus>,
    pub intake: Arc<dyn Intake>,
    pub ledger: Arc<dyn Ledger>,
    pub dead: Arc<dyn DeadLetters>,
    pub state: Arc<dyn StateAdmin>,
    pub overview: Arc<dyn Overview>,
    pub groups: Arc<dyn Groups>,
    pub housekeeping: Arc<dyn Housekeeping>,
    pub(super) store: Store,
}

#[derive(Clone)]
pub(super) enum Store {
    Sqlite(Arc<SqliteStore>),
    Redis(Arc<RedisBus>),
}

impl Backend {
    fn of<S>(seen: &Arc<S>, store: Store) -> Self
    where
        S: Bus + Intake + Ledger + DeadLetters + StateAdmin + Overview + Groups + Housekeeping + 'static,
    {
        Self {
            bus: seen.clone(),
            intake: seen.clone(),
            ledger: seen.clone(),
            dead: seen.clone(),
            state: seen.clone(),
            overview: seen.clone(),
            groups: seen.clone(),
            housekeeping: seen.clone(),
            store,
        }
    }

    /// Whether nothing can be stored in this process any more; only a new process helps.
    pub fn is_closed(&self) -> bool {
        match &self.store {
            Store::Sqlite(store) => store.is_closed(),
            Store::Redis(bus) => bus.is_closed(),
        }
    }

    /// Listens to channels, where the store has any.
    pub fn listen(&self, channels: Vec<Channel>) {
        if let Store::Redis(bus) = &self.store {
            bus.listen(channels);
        }
    }

    /// Hears nothing more; what was heard is still taken.
    pub fn stop_listening(&self) {
        if let Store::Redis(bus) = &self.store {
            bus.stop_listening();
        }
    }

    /// Waits until nothing can be stored in this process any more, though nobody closed the store; answers why.
    pub async fn lost(&self) -> String {
        match &self.store {
            Store::Sqlite(store) => store.lost().await,
            Store::Redis(_) => std::future::pending().await,
        }
    }

    /// Closes the store: what this process still holds goes back uncharged.
    pub async fn close(&self) {
        match &self.store {
            Store::Sqlite(store) => store.close().await,
            Store::Redis(bus) => bus.close().await,
        }
    }
}

/// Opens the store that the configuration names; `instance` names this process in it.
///
/// # Errors
/// When the store cannot be opened; the text names the file or the server, the cause and what to do.
pub async fn open(config: &Config, instance: Option<&str>) -> Result<Backend, BusError> {
    match &config.bus.url {
        BusUrl::SqliteFile(path) => {
            sqlite(SqliteStore::open, sqlite_options(Place::File(path.clone()), config, instance))
        }
        BusUrl::Memory => sqlite(SqliteStore::open, sqlite_options(Place::Memory, config, instance)),
        BusUrl::Redis(url) => open_redis(redis_options(url, config, instance)?).await,
    }
}

/// Opens the store to publish events, and waits for an answer as long as `emit.timeout` says.
///
/// # Errors
/// As [`open`].
pub async fn open_to_publish(config: &Config) -> Result<Backend, BusError> {
    let patience = config.emit.timeout;
    match &config.bus.url {
        BusUrl::SqliteFile(path) => {
            let options = sqlite_options(Place::File(path.clone()), config, None);
            sqlite(SqliteStore::open, sqlite::Options { patience, ..options })
        }
        BusUrl::Memory => open(config, None).await,
        BusUrl::Redis(url) => open_redis(redis::Options { patience, ..redis_options(url, config, None)? }).await,
    }
}

/// Opens the store only to look at it: nothing is written, and what would change it is refused.
///
/// # Errors
/// As [`open`], and where there is no store.
pub async fn look(config: &Config) -> Result<Backend, BusError> {
    match &config.bus.url {
        BusUrl::SqliteFile(path) => sqlite(SqliteStore::look, sqlite_options(Place::File(path.clone()), config, None)),
        BusUrl::Memory | BusUrl::Redis(_) => open(config, None).await,
    }
}

/// Removes everything on the configuration's server whose name begins with `prefix`; where events lie in a file, nothing.
///
/// # Errors
/// Where the server cannot be reached; some of it may be left then.
pub async fn erase(config: &Config, prefix: &str) -> Result<(), BusError> {
    match &config.bus.url {
        BusUrl::Redis(url) => redis::erase(&address(url)?, prefix).await,
        BusUrl::SqliteFile(_) | BusUrl::Memory => Ok(()),
    }
}

fn address(url: &RedisUrl) -> Result<Address, BusError> {
    Address::parse(url.secret()).map_err(|cause| BusError::Unusable { store: url.to_string(), cause })
}

fn sqlite(
    open: fn(sqlite::Options) -> Result<Arc<SqliteStore>, BusError>,
    options: sqlite::Options,
) -> Result<Backend, BusError> {
    let store = open(options)?;
    Ok(Backend::of(&store, Store::Sqlite(store.clone())))
}

fn sqlite_options(place: Place, config: &Config, instance: Option<&str>) -> sqlite::Options {
    sqlite::Options {
        synchronous: match config.sqlite.synchronous {
            Synchronous::Full => sqlite::Synchronous::Full,
            Synchronous::Normal => sqlite::Synchronous::Normal,
        },
        recovery_time: config.recovery_time,
        instance: instance.map_or_else(default_instance, str::to_owned),
        streams: config.streams.clone(),
        clock: Arc::new(SystemClock),
        forget_group_after: config.forget_group_after,
        dead_letters_retain: config.dead_letters.retain,
        upkeep_every: UPKEEP_EVERY,
        ..sqlite::Options::at(place)
    }
}

async fn open_redis(options: redis::Options) -> Result<Backend, BusError> {
    let bus = RedisBus::open(options).await?;
    Ok(Backend::of(&bus, Store::Redis(bus.clone())))
}

fn redis_options(url: &RedisUrl, config: &Config, instance: Option<&str>) -> Result<redis::Options, BusError> {
    Ok(redis::Options {
        allow_eviction: config.redis.allow_eviction,
        prefix: config.redis.prefix.clone(),
        state_prefix: config.redis.state_prefix.clone(),
        recovery_time: config.recovery_time,
        instance: instance.map_or_else(default_instance, str::to_owned),
        streams: config.streams.clone(),
        forget_group_after: config.forget_group_after,
        dead_letters_retain: config.dead_letters.retain,
        dead_letters_stream: config.dead_letters.stream.clone(),
        dead_letters_layout: config.dead_letters.layout.clone(),
        upkeep_every: UPKEEP_EVERY,
        read_max: config.redis.batch,
        block: config.redis.block,
        adopt: adopt_rules(config),
        ..redis::Options::at(address(url)?)
    })
}

fn adopt_rules(config: &Config) -> Option<AdoptRules> {
    let adopting = config.adopting();
    adopting.patterns().next()?;
    Some(AdoptRules::new(move |handler| {
        let adopt = adopting.of(handler)?;
        Some(Adopt { consumers: adopt.consumers.clone(), idle: adopt.idle })
    }))
}

/// What the store that the configuration names promises.
///
/// # Errors
/// When it is a server that cannot be asked, or used.
pub async fn promises(config: &Config) -> Result<Vec<Promise>, BusError> {
    match &config.bus.url {
        BusUrl::SqliteFile(_) => Ok(promise::of_sqlite_file(config.sqlite.synchronous == Synchronous::Full)),
        BusUrl::Memory => Ok(promise::of_memory()),
        BusUrl::Redis(url) => {
            let mut promises = redis::promises(&redis_options(url, config, None)?).await?;
            let delivers = |how| config.channels.iter().any(|channel| channel.deliver == how);
            let mirrors = !config.streams.mirrors.is_empty();
            promises.extend(promise::of_channels(delivers(Deliver::Stream), delivers(Deliver::Direct), mirrors));
            Ok(promises)
        }
    }
}

/// About how many bytes an idempotency record takes in the memory of the store; `None`: it lies on a disk.
pub fn record_bytes(config: &Config) -> Option<u64> {
    matches!(config.bus.url, BusUrl::Redis(_)).then_some(redis::RECORD_BYTES)
}

/// The name of this process where none was given: host name and process id.
pub(super) fn default_instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "host" } else { host }, std::process::id())
}
