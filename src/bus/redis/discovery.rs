//! Which streams there are.
//!
//! Whoever publishes to a stream of ours, or reads one, enters it in a set, so that nobody has to look for it. Streams that
//! others make are found by walking over the server's keys: once when a process first asks, then slowly for as long as
//! somebody in it does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::Value;

use super::fault::Fault;
use super::reply;
use super::store::Store;
use crate::bus::{BusError, Subscription, selection};
use crate::event::TypePattern;

/// Keys that the server looks at in one step.
const STEP: usize = 1000;
/// What a walk found holds for this long when another handler starts.
const FRESH: Duration = Duration::from_secs(10);
/// Between two walks.
const REST: Duration = Duration::from_secs(1);
/// Who asked for streams has a door by then, or asks again.
const ASKED: Duration = Duration::from_secs(60);
/// A step is followed by a pause of so many times its length: the server is looked through in 2 % of its time.
const SHARE: u32 = 50;

/// How far the walk over the server's keys is.
#[derive(Default)]
pub(super) struct Walk {
    state: Mutex<State>,
    /// Held while a whole walk is done, so that handlers that start together do one.
    walking: tokio::sync::Mutex<()>,
}

/// Streams of this prefix and type.
type Wanted = (String, TypePattern);

#[derive(Default)]
struct State {
    /// What somebody in this process asked for lately, and when: not everybody has a door yet.
    asked: Vec<(Wanted, Instant)>,
    cursor: Option<String>,
    finished: Option<Instant>,
}

impl State {
    /// A handler asks for these, beside those with an `open` door; true: the last walk has looked for them, a moment ago.
    fn ask_for(&mut self, patterns: &[Wanted], open: &[Wanted], now: Instant) -> bool {
        let wanted = self.wanted(open);
        // A walk notes only what somebody asks for.
        self.finished.take_if(|_| patterns.iter().any(|pattern| !wanted.contains(pattern)));
        let others = |(one, at): &(Wanted, Instant)| now - *at < ASKED && !patterns.contains(one);
        self.asked.retain(others);
        self.asked.extend(patterns.iter().map(|pattern| (pattern.clone(), now)));
        self.finished.is_some_and(|at| now - at < FRESH)
    }

    /// What a walk looks for.
    fn wanted(&self, open: &[Wanted]) -> Vec<Wanted> {
        self.asked.iter().map(|(pattern, _)| pattern).chain(open).cloned().collect()
    }

    /// A walk has ended. Who asked long ago is open, or gone.
    fn finish(&mut self, now: Instant) {
        self.finished = Some(now);
        self.asked.retain(|(_, at)| now - *at < ASKED);
    }
}

/// What the handlers that are open ask for by pattern.
fn open(store: &Store) -> Vec<Wanted> {
    store.doors().iter().flat_map(|door| door.subscription.discover.clone()).collect()
}

/// Every stream that there may be, where `wanted` asks for more than it names.
pub(super) async fn existing(store: &Store, wanted: &Subscription) -> Result<BTreeSet<String>, BusError> {
    if wanted.discover.is_empty() {
        return Ok(BTreeSet::new());
    }
    let _walking = store.walk.walking.lock().await;
    let fresh = store.walk.state.lock().ask_for(&wanted.discover, &open(store), Instant::now());
    if !fresh {
        store.walk.state.lock().cursor = None;
        while !step(store).await? {}
    }
    listed(store).await
}

/// Every stream that is known.
pub(super) async fn listed(store: &Store) -> Result<BTreeSet<String>, BusError> {
    let answer = store.call(redis::cmd("SMEMBERS").arg(store.keys.own("streams"))).await?;
    let names = reply::list(answer).map_err(|fault| store.told(fault))?;
    Ok(names.into_iter().filter_map(|name| reply::text(name).ok()).collect())
}

/// Goes on walking, for as long as somebody in this process asks for streams by pattern, until the bus is closed.
pub(super) async fn walk_on(store: Arc<Store>) {
    loop {
        let began = Instant::now();
        let idle = store.walk.state.lock().wanted(&open(&store)).is_empty();
        let ended = idle || step(&store).await.unwrap_or(true);
        let pause = if ended { REST } else { began.elapsed() * SHARE };
        tokio::time::sleep(pause).await;
    }
}

/// Looks at some keys; true: that was the last step of a walk.
async fn step(store: &Store) -> Result<bool, BusError> {
    let cursor = store.walk.state.lock().cursor.clone().unwrap_or_else(|| "0".into());
    let mut scan = redis::cmd("SCAN");
    scan.arg(&cursor).arg("COUNT").arg(STEP).arg("TYPE").arg("stream");
    let (next, names) = page(store.call(&scan).await?).map_err(|fault| store.told(fault))?;
    let patterns = store.walk.state.lock().wanted(&open(store));
    let asked = |name: &String| !store.keys.is_own(name) && patterns.iter().any(|one| selection::fits(name, one));
    let names: Vec<String> = names.into_iter().filter(asked).collect();
    note(store, names).await?;
    let ended = next == "0";
    let mut state = store.walk.state.lock();
    state.cursor = (!ended).then_some(next);
    if ended {
        state.finish(Instant::now());
    }
    Ok(ended)
}

/// Enters streams in the set, and rings for those that are new.
async fn note(store: &Store, names: Vec<String>) -> Result<(), BusError> {
    if names.is_empty() {
        return Ok(());
    }
    let known = store.call(redis::cmd("SMISMEMBER").arg(store.keys.own("streams")).arg(&names)).await?;
    let known = reply::list(known).map_err(|fault| store.told(fault))?;
    let unknown = names.iter().zip(known).filter(|(_, known)| !matches!(known, Value::Int(1))).map(|(name, _)| name);
    for name in unknown {
        store.call(redis::cmd("SADD").arg(store.keys.own("streams")).arg(name)).await?;
        let mut ring = redis::cmd("XADD");
        ring.arg(store.keys.own("bell")).arg("MAXLEN").arg("~").arg(1000).arg("*").arg("stream").arg(name);
        store.call(&ring).await?;
    }
    Ok(())
}

/// One answer of SCAN; names that are not text cannot be asked for.
pub(super) fn page(answer: Value) -> Result<(String, Vec<String>), Fault> {
    let mut parts = reply::list(answer)?.into_iter();
    let next = reply::text(parts.next().unwrap_or_default())?;
    let names = reply::list(parts.next().unwrap_or_default())?;
    Ok((next, names.into_iter().filter_map(|name| reply::text(name).ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asks_for_any_more_is_not_looked_for() {
        let pattern = |n: usize| ("events:".to_owned(), TypePattern::parse(&format!("t{n}.*")).expect("a pattern"));
        let (mut state, start) = (State::default(), Instant::now());
        let after = |seconds: usize| start + Duration::from_secs(seconds as u64);
        assert!(!state.ask_for(&[pattern(0)], &[], start), "nobody has looked yet");
        state.finish(start);
        assert!(state.ask_for(&[pattern(0)], &[], after(1)), "the last walk looked for it");
        assert!(!state.ask_for(&[pattern(1)], &[], after(1)), "but not for that");
        let open = [pattern(0)];
        for n in 2..1000 {
            state.ask_for(&[pattern(n)], &open, after(n));
            state.finish(after(n));
        }
        assert_eq!(state.wanted(&open).len(), 1 + ASKED.as_secs() as usize, "one that is open, and a minute of others");
        assert_eq!(state.wanted(&open).last(), Some(&pattern(0)));
        state.finish(after(2000));
        assert_eq!((state.wanted(&open), state.wanted(&[])), (open.to_vec(), Vec::new()));
        assert!(state.ask_for(&open, &open, after(2001)), "the walks go on looking for what is open");
    }
}
