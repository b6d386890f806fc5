//! Whether a server can be used, and what it promises.
//!
//! Owns what is refused before anything is written: servers that are too old, clusters, servers that may throw our keys away,
//! and stores that a newer version has written. What a server does not tell (some hosts forbid CONFIG) is not held against it.

use std::collections::HashMap;

use super::fault::Fault;
use super::link::Link;
use super::store::Store;
use super::{Options, reply};
use crate::bus::BusError;
use crate::bus::promise::{self, Promise, Written};

/// Number of the form in which our keys are written; a store that was written in a newer one is not touched.
const FORMAT: i64 = 1;
/// The oldest server that has all we need.
const OLDEST: (u32, u32) = (7, 0);
/// What an idempotency record takes on the server, its key and its place among the keys included: measured over 100,000
/// records on Redis 7.0.15.
pub const RECORD_BYTES: u64 = 230;

/// Refuses a server that cannot be used.
pub(super) async fn check(store: &Store) -> Result<(), BusError> {
    let told = |fault| store.told_at_start(fault);
    let info = info(&store.link).await.map_err(told)?;
    refuse(&info, store.options.allow_eviction).map_or(Ok(()), |why| Err(told(Fault::Unusable(why))))?;
    let mut write = redis::cmd("SET");
    write.arg(store.keys.own("format")).arg(FORMAT).arg("NX").arg("GET");
    let found = store.link.call(&write).await.map_err(told)?;
    let found = if found == redis::Value::Nil { FORMAT } else { reply::int(&found).map_err(told)? };
    if found > FORMAT {
        let why = format!(
            "it was written by a newer version of moontide (format {found}, this one knows {FORMAT}); use that one"
        );
        return Err(told(Fault::Unusable(why)));
    }
    Ok(())
}

/// What the server at the address of `options` promises.
///
/// # Errors
/// When it cannot be asked.
pub async fn promises(options: &Options) -> Result<Vec<Promise>, BusError> {
    let store = Store::new(options.clone());
    let told = |fault| store.told(fault);
    let info = info(&store.link).await.map_err(told)?;
    refuse(&info, options.allow_eviction).map_or(Ok(()), |why| Err(told(Fault::Unusable(why))))?;
    let has_replicas = info.get("connected_slaves").is_some_and(|count| count != "0");
    Ok(promise::of_redis(written(&store.link, &info).await, has_replicas))
}

async fn info(link: &Link) -> Result<HashMap<String, String>, Fault> {
    let text = reply::text(link.call(&redis::cmd("INFO")).await?)?;
    let pair = |line: &str| line.trim().split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// Why a server that says this of itself cannot be used.
fn refuse(info: &HashMap<String, String>, allow_eviction: bool) -> Option<String> {
    let say = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
    if say("redis_mode") == "cluster" {
        return Some(
            "it is a cluster, and one settle cannot span its nodes; use a single server or one with sentinels".into(),
        );
    }
    let mut numbers = say("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        let version = say("redis_version");
        return Some(format!("it is version {version}; at least Redis 7.0 or Valkey 7.2 is needed"));
    }
    let policy = say("maxmemory_policy");
    if !matches!(policy, "" | "noeviction") && !allow_eviction {
        return Some(format!(
            "its maxmemory-policy is {policy}: when its memory is full it throws away keys, events and idempotency records \
             among them; set it to noeviction, or say redis.allow_eviction = true"
        ));
    }
    None
}

async fn written(link: &Link, info: &HashMap<String, String>) -> Written {
    match info.get("aof_enabled").map(String::as_str) {
        Some("0") => return Written::Snapshots,
        Some(_) => {}
        None => return Written::Unknown,
    }
    let answer = link.call(redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await;
    let pairs = answer.and_then(reply::pairs).unwrap_or_default();
    match pairs.first().map(|(_, value)| &value[..]) {
        Some(b"always") => Written::Always,
        Some(b"everysec") => Written::EverySecond,
        Some(b"no") => Written::WhenTheSystemLikes,
        _ => Written::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_says_why() {
        let sound = [("redis_mode", "standalone"), ("redis_version", "7.0.15"), ("maxmemory_policy", "noeviction")];
        for (name, value, why) in [
            ("redis_mode", "cluster", Some("cluster")),
            ("redis_version", "6.2.14", Some("6.2.14")),
            ("redis_version", "10.1.0", None),
            ("maxmemory_policy", "volatile-ttl", Some("redis.allow_eviction")),
            ("maxmemory_policy", "", None),
        ] {
            let info: HashMap<String, String> =
                sound.iter().chain([&(name, value)]).map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let refused = refuse(&info, false);
            assert_eq!(refused.is_some(), why.is_some(), "{name} {value}");
            assert!(refused.is_none_or(|text| text.contains(why.unwrap_or_default())), "{name} {value}");
            assert!(name != "maxmemory_policy" || refuse(&info, true).is_none());
        }
    }
}
