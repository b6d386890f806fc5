//! Where events are stored: `[bus]`, and what is set for one kind of store only.
//!
//! A server's address may hold a password: it is handed to whoever connects, and shown to nobody.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::Origin;
use super::raw::Table;
use crate::event::check_type;
use crate::streams::{DEFAULT_STREAM, Streams};
use crate::units::show_duration;

/// What the host's keys and streams are called unless `redis.prefix` says otherwise.
const HOST_PREFIX: &str = "moontide:";
/// Most entries in one read.
const READ_MAX: usize = 10_000;
/// A read that ends sooner is one of many; a connection that is gone is noticed only after a read that ends later.
const BLOCK_MIN: Duration = Duration::from_millis(10);
const BLOCK_MAX: Duration = Duration::from_secs(60);
const REDIS_SCHEMES: [&str; 5] = ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix"];

/// `[bus]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bus {
    pub url: BusUrl,
    /// What said so.
    pub chosen_by: Origin,
    /// CloudEvents source of what is emitted.
    pub source: String,
}

/// Where events are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusUrl {
    /// `sqlite:PATH`
    SqliteFile(PathBuf),
    /// `memory:`
    Memory,
    /// `redis://…`, `rediss://…`, `redis+sentinel://…`, `rediss+sentinel://…` or `unix://…`
    Redis(RedisUrl),
}

/// The address of a server, with what it takes to get in. Shown without that.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// All of it, for whoever connects; not to be shown.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `url` without user, password and parameters: all that lies between `//` and the last `@`, and all from `?` on. What is no
/// address is shown from its last `@` on: it may have been meant as one.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, place)| format!("…@{place}"));
    };
    let (_, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let place = place.split_once('?').map_or(place, |(place, _)| place);
    format!("{scheme}://{place}")
}

/// Whether `url` is one of a server.
pub(super) fn is_server(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, place)| REDIS_SCHEMES.contains(&scheme) && !place.is_empty())
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SqliteFile(path) => write!(f, "sqlite:{}", path.display()),
            Self::Memory => f.write_str("memory:"),
            Self::Redis(url) => url.fmt(f),
        }
    }
}

impl BusUrl {
    /// Reads `sqlite:PATH`, `memory:` or the address of a server; the error says what would be right.
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("sqlite", ":memory:")) => Err("\"sqlite::memory:\" is written \"memory:\"".into()),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::SqliteFile(path.into())),
            Some(("sqlite", _)) => Err("names no file; write \"sqlite:data/moontide.db\"".into()),
            Some((scheme, rest)) if REDIS_SCHEMES.contains(&scheme) => match rest.strip_prefix("//") {
                Some(place) if !place.is_empty() => Ok(Self::Redis(RedisUrl(text.to_owned()))),
                _ if scheme == "unix" => Err("names no socket; write \"unix:///run/redis.sock\"".into()),
                _ => Err(format!("names no server; write \"{scheme}://localhost:6379\"")),
            },
            Some((scheme, _)) if ["kafka", "amqp", "amqps"].contains(&scheme) => Err(format!(
                "{scheme}: is not available in this version; write \"sqlite:PATH\", \"redis://HOST\" or \"memory:\""
            )),
            _ => {
                let shown = without_password(text);
                Err(format!("{shown:?} is no bus; write \"sqlite:PATH\", \"redis://HOST\" or \"memory:\""))
            }
        }
    }
}

/// `[sqlite]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sqlite {
    pub synchronous: Synchronous,
}

/// What a settle survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// A power failure.
    #[default]
    Full,
    /// A crash of the process.
    Normal,
}

/// `[redis]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// The host's own keys begin so; scripts cannot reach them.
    pub prefix: String,
    /// Before the keys of `ctx.kv`.
    pub state_prefix: String,
    /// A server that may throw away keys of ours is used nevertheless.
    pub allow_eviction: bool,
    /// Before the name of every channel.
    pub channel_prefix: String,
    /// Entries in one read, at most.
    pub batch: usize,
    /// How long the server holds a read in which nothing happens.
    pub block: Duration,
}

impl Redis {
    /// How state keys begin that would be the host's own, where `state_prefix` is none or begins as they do.
    pub(super) fn reserved_state(&self) -> Option<&str> {
        self.prefix.strip_prefix(&self.state_prefix)
    }
}

pub(super) fn read_bus(mut table: Table<'_>) -> Bus {
    let text = table.text("url");
    let chosen_by = table.origin_of("url");
    let url = BusUrl::parse(&text).unwrap_or_else(|message| {
        table.note("url", message);
        BusUrl::Memory
    });
    let source = table.text("source");
    if source.is_empty() || source.len() > 256 || source.chars().any(|c| c.is_whitespace() || c.is_control()) {
        table.note("source", format!("{source:?} can be no source; a name or URI without spaces can: \"moontide\""));
    }
    table.close();
    Bus { url, chosen_by, source }
}

pub(super) fn read_sqlite(mut table: Table<'_>) -> Sqlite {
    let synchronous = table.choice("synchronous", &[("full", Synchronous::Full), ("normal", Synchronous::Normal)]);
    table.close();
    Sqlite { synchronous }
}

pub(super) fn read_redis(mut table: Table<'_>, streams: &Streams) -> Redis {
    let prefix = table.text("prefix");
    let state_prefix = table.text("state_prefix");
    let allow_eviction = table.truth("allow_eviction");
    let channel_prefix = table.text("channel_prefix");
    if channel_prefix.len() > 256 || channel_prefix.chars().any(|c| c.is_whitespace() || c.is_control()) {
        table.note(
            "channel_prefix",
            format!("{channel_prefix:?} can begin no channel; write it without spaces: \"events:\""),
        );
    }
    let batch = table.need("batch", |table| table.optional_count("batch", 1..=READ_MAX));
    let block = table.duration("block", BLOCK_MIN);
    if block > BLOCK_MAX {
        table.note("block", format!("is too long; at most {:?}", show_duration(BLOCK_MAX)));
    }
    for (key, text, least) in [("prefix", &prefix, 1), ("state_prefix", &state_prefix, 0)] {
        if text.len() < least || text.len() > 256 || (!text.is_empty() && check_type(text).is_err()) {
            table.note(key, format!("{text:?} can begin no key; letters, digits and . _ - : / can: \"shop:\""));
        }
    }
    if !prefix.is_empty() && state_prefix.starts_with(&prefix) {
        let message = "state_prefix begins with prefix: scripts would write the host's own keys";
        table.note_among(&["prefix", "state_prefix"], message);
    }
    let names = streams.rules.iter().map(|rule| rule.name.as_str()).chain([DEFAULT_STREAM]);
    // What stands under the usual prefix was refused already.
    let names = names.filter(|name| !name.starts_with(HOST_PREFIX));
    for name in names.map(|name| name.trim_end_matches("{type}")) {
        if !prefix.is_empty() && (name.starts_with(&prefix) || (prefix.starts_with(name) && name.ends_with(':'))) {
            table.note("prefix", format!("{prefix:?} would take streams called {name:?} for the host's own"));
        }
    }
    table.close();
    Redis { prefix, state_prefix, allow_eviction, channel_prefix, batch, block }
}

/// Why no stream of events can be called `name`, if none can. `{type}` stands at the end and after something: streams named
/// after types are found by what precedes it.
pub(super) fn check_stream_name(name: &str) -> Result<(), String> {
    let fixed = name.strip_suffix("{type}").unwrap_or(name);
    if fixed.is_empty() {
        return Err("must begin with something fixed: \"shop\" or \"shop:{type}\"".into());
    }
    if fixed.contains("{type}") {
        return Err(format!("{name:?} has {{type}} elsewhere than at its end; write \"shop:{{type}}\""));
    }
    if fixed.starts_with(HOST_PREFIX) {
        return Err(format!("{name:?} belongs to the host; choose a name that does not begin with {HOST_PREFIX:?}"));
    }
    check_type(fixed).map_err(|_| format!("{name:?} is no name; letters, digits and . _ - : / make one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("redis://localhost", "redis://localhost"),
            ("redis://user:geheim@host:6380/2", "redis://host:6380/2"),
            ("rediss://:ge@h/eim@host/0?x=geheim", "rediss://host/0"),
            ("redis+sentinel://u:geheim@a:1,b:2/main", "redis+sentinel://a:1,b:2/main"),
            ("rediss+sentinel://a/main?sentinel_password=geheim", "rediss+sentinel://a/main"),
            ("unix://:geheim@/run/redis.sock", "unix:///run/redis.sock"),
        ] {
            let parsed = BusUrl::parse(url).expect("it names a server");
            assert_eq!(
                (parsed.to_string().as_str(), format!("{parsed:?}").as_str()),
                (shown, &*format!("Redis({shown})"))
            );
        }
        for mistyped in ["redi://u:geheim@host", "u:geheim@host", ":geheim@host:6379"] {
            let error = BusUrl::parse(mistyped).expect_err("it is no bus");
            assert!(!error.contains("geheim") && error.contains("host"), "{error}");
        }
    }
}
