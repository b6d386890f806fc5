//! Adopts what silent consumers of others hold, for handlers of which the operator says so.
//!
//! What is adopted is nobody's first, as if it had never been delivered, and is handed out from there like everything that was
//! given back: by whichever process has room. The server's clock decides nothing, and the server itself looks again whether there was
//! a sign of life, in the step that moves the entries. Every step is bounded, however much a consumer holds.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tokio::time::Instant;

use super::fault::Fault;
use super::procedure::Procedure;
use super::reply;
use super::silence::{SAME, Sign, Silence};
use super::store::Store;
use super::takeover::{self, MOVED_MAX};

static ADOPT: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/claim.lua"),
        include_str!("scripts/ids.lua"),
        include_str!("scripts/adopt.lua")
    ))
});

/// From whom a handler's group adopts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopt {
    /// Names of consumers; `*` stands for anything. Consumers of ours are never meant.
    pub consumers: Vec<String>,
    /// For how long they were silent.
    pub idle: Duration,
}

impl Adopt {
    fn names(&self, consumer: &[u8]) -> bool {
        self.consumers.iter().any(|pattern| fits(pattern.as_bytes(), consumer))
    }
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts.filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|window| window == part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

type Rules = dyn Fn(&str) -> Option<Adopt> + Send + Sync;

/// What the operator says about a handler, by its name.
#[derive(Clone)]
pub struct AdoptRules(Arc<Rules>);

impl AdoptRules {
    pub fn new(of: impl Fn(&str) -> Option<Adopt> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    fn of(&self, handler: &str) -> Option<Adopt> {
        (self.0)(handler)
    }
}

impl fmt::Debug for AdoptRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdoptRules")
    }
}

/// Looks once per heartbeat, until the bus is closed.
pub(super) async fn adopt_on(store: Arc<Store>, rules: AdoptRules) {
    let period = store.options.beat_period();
    let mut adopter = Adopter { store, rules, watched: HashMap::new() };
    let mut looked: Option<Instant> = None;
    let mut said = None;
    loop {
        let now = Instant::now();
        // A look after one that came too late counts as one in time: whatever held us up may have held up the others.
        let passed = looked.map_or(Duration::ZERO, |looked| (now - looked).min(2 * period));
        looked = Some(now);
        let wrong = adopter.round(passed).await.err().map(|fault| fault.cause());
        if let Some(cause) = &wrong {
            looked = None;
            if wrong != said {
                tracing::warn!("nothing is adopted from consumers of others meanwhile: {cause}");
            }
        }
        said = wrong;
        tokio::time::sleep_until(now + period).await;
    }
}

/// A group on a stream.
type Place = (Arc<str>, Arc<str>);

pub(super) struct Adopter {
    pub store: Arc<Store>,
    pub rules: AdoptRules,
    pub watched: HashMap<Place, Silence>,
}

impl Adopter {
    /// Looks everywhere, `passed` after the last time, and adopts what is to be adopted.
    pub async fn round(&mut self, passed: Duration) -> Result<(), Fault> {
        let mut served = HashSet::new();
        for door in self.store.doors().iter().filter(|door| !door.is_closed()) {
            let Some(adopt) = self.rules.of(&door.subscription.handler) else { continue };
            for stream in door.sources().into_iter().filter(|stream| *stream != door.retry) {
                let place = (stream, door.subscription.group.clone());
                let silence = self.watched.entry(place.clone()).or_default();
                look(&self.store, &place, &adopt, silence, passed).await?;
                served.insert(place);
            }
        }
        self.watched.retain(|place, _| served.contains(place));
        Ok(())
    }
}

async fn look(
    store: &Store,
    place: &Place,
    adopt: &Adopt,
    silence: &mut Silence,
    mut passed: Duration,
) -> Result<(), Fault> {
    let mut adopted: HashMap<Bytes, (u64, u64)> = HashMap::new();
    let looked = loop {
        let silent = silence.silent(adopt.idle);
        let consumers = match step(store, place, &silent).await {
            Ok(consumers) => consumers,
            Err(fault) => break Err(fault),
        };
        let moved: u64 = consumers.iter().map(|consumer| consumer.adopted).sum();
        for consumer in consumers.iter().filter(|consumer| consumer.adopted > 0) {
            let (all, lost) = adopted.entry(consumer.name.clone()).or_default();
            (*all, *lost) = (*all + consumer.adopted, *lost + consumer.lost);
        }
        let named = consumers.into_iter().filter(|consumer| adopt.names(&consumer.name));
        silence.look(named.map(|consumer| (consumer.name, consumer.sign, consumer.pending)).collect(), passed);
        passed = Duration::ZERO;
        let goes_on = silent.is_empty() || moved > 0;
        if !goes_on || silence.silent(adopt.idle).is_empty() {
            break Ok(());
        }
    };
    for (consumer, (entries, lost)) in adopted {
        tell(place, &consumer, entries, lost);
    }
    looked
}

fn tell((stream, group): &Place, consumer: &[u8], entries: u64, lost: u64) {
    let (stream, group, consumer) = (&**stream, &**group, &*String::from_utf8_lossy(consumer));
    tracing::info!(group, stream, consumer, entries, lost, "adopted what a silent consumer held");
}

/// A consumer of others.
struct Foreign {
    name: Bytes,
    sign: Sign,
    pending: u64,
    /// In this step.
    adopted: u64,
    /// Of these: deleted meanwhile.
    lost: u64,
}

/// Looks once, and adopts some of what `silent` hold.
async fn step(store: &Store, (stream, group): &Place, silent: &[(Bytes, Sign)]) -> Result<Vec<Foreign>, Fault> {
    let mut call = takeover::begin(&ADOPT, store, stream, group);
    call.arg(MOVED_MAX).arg(SAME);
    for (name, sign) in silent {
        call.arg(&name[..]).arg(sign.asked).arg(sign.held);
    }
    reply::list(ADOPT.run(&store.link, &call).await?)?.into_iter().map(foreign).collect()
}

fn foreign(value: Value) -> Result<Foreign, Fault> {
    let mut parts = reply::list(value)?.into_iter();
    let name = reply::bytes(parts.next().unwrap_or_default())?.unwrap_or_default();
    let mut next = || reply::int(&parts.next().unwrap_or_default());
    let asked = next()?;
    let mut count = || next().map(i64::unsigned_abs);
    let (held, pending, adopted, lost) = (count()?, count()?, count()?, count()?);
    Ok(Foreign { name, sign: Sign { asked, held }, pending, adopted, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("worker-1", "worker-1", true),
            ("worker-1", "worker-12", false),
            ("worker-*", "worker-12", true),
            ("worker-*", "worker-", true),
            ("worker-*", "a worker-1", false),
            ("*", "anything/at:all", true),
            ("*-old", "a-old-old", true),
            ("a*a", "a", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "acb", false),
            ("*b*", "abc", true),
            ("**", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let adopt = Adopt { consumers: vec![pattern.into()], idle: Duration::ZERO };
            assert_eq!(adopt.names(name.as_bytes()), expected, "{pattern} against {name}");
        }
    }
}
