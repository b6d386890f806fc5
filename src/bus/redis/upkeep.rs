//! What is done now and then: trimming, counting what was lost, removing what is too old.
//!
//! Each process says that it and its groups are here; one of those that have any, whoever comes first, does the rest: a command
//! that ends soon may have a configuration of its own. Every step is bounded, whatever has piled up. Owns that nothing is trimmed which a group still needs, unless that group is one of ours which nobody
//! has served for long; nor what is others' to trim: streams that no rule of ours names and that we do not publish to.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::procedure::Procedure;
use super::store::Store;
use super::sweep::Sweep;
use super::{discovery, group, losses, reply};
use crate::bus::{BusError, backoff};
use crate::clock::Millis;
use crate::failpoint;

/// Streams that are trimmed in one round.
const STREAMS_MAX: usize = 200;
/// Entries that one call trims from a stream.
const TRIMMED_MAX: usize = 10_000;

static TICK: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/effects.lua"), include_str!("scripts/tick.lua"))));
static TRIM: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/ids.lua"),
        include_str!("scripts/lost.lua"),
        include_str!("scripts/trim.lua")
    ))
});

/// Goes round until the bus is closed.
pub(super) async fn keep_up(store: Arc<Store>) {
    let mut upkeep = Upkeep::new(store.clone());
    let mut failures = 0;
    loop {
        match upkeep.round().await {
            Ok(()) => failures = 0,
            Err(BusError::Closed) => return,
            Err(error) => {
                failures += 1;
                tracing::debug!("upkeep waits: {error}");
            }
        }
        tokio::time::sleep(store.options.upkeep_every.max(if failures > 0 {
            backoff(failures)
        } else {
            Duration::ZERO
        }))
        .await;
    }
}

pub(super) struct Upkeep {
    store: Arc<Store>,
    /// Streams on which every group that asks for them stands.
    welcomed: HashSet<String>,
    /// The stream that was trimmed last.
    reached: Option<String>,
    sweep: Sweep,
}

impl Upkeep {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, welcomed: HashSet::new(), reached: None, sweep: Sweep::default() }
    }

    /// Does what there is to do, if it is our turn.
    pub async fn round(&mut self) -> Result<(), BusError> {
        let Some(now) = self.tick().await? else { return Ok(()) };
        failpoint::reached("upkeep.before");
        let mut streams = discovery::listed(&self.store).await?;
        // Whoever emits to it: nothing in the stream of dead letters is trimmed.
        streams.retain(|stream| !self.store.keys.is_own(stream));
        self.welcome(&streams).await?;
        for stream in self.next(&streams) {
            self.trim(&stream, now).await?;
        }
        let oldest = self.store.options.dead_letters_retain.map(|retain| before(now, retain));
        failpoint::after("upkeep.after", self.sweep.step(&self.store, oldest).await)
    }

    /// Says that we are here; answers the server's time where the round is ours.
    async fn tick(&self) -> Result<Option<Millis>, BusError> {
        let every = self.store.options.upkeep_every.as_millis().max(1) as u64;
        let mut call = TICK.call();
        call.arg(self.store.keys.prefix()).arg(&self.store.process).arg(every);
        for door in self.store.doors().iter().filter(|door| !door.is_closed()) {
            call.arg(&*door.subscription.group);
        }
        let now = reply::int(&self.store.run(&TICK, &call).await?).map_err(|fault| self.store.told(fault))?;
        Ok((now > 0).then_some(now))
    }

    /// Puts every group that asks for a stream, and is away, at its first entry, so that nothing in it is trimmed before the
    /// group has come back.
    async fn welcome(&mut self, streams: &BTreeSet<String>) -> Result<(), BusError> {
        let new: Vec<&String> = streams.iter().filter(|name| !self.welcomed.contains(*name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for (name, selection) in group::selections(&self.store).await? {
            for stream in new.iter().filter(|stream| selection.selects(stream)) {
                group::stand_at_first(&self.store, &name, stream).await?;
            }
        }
        self.welcomed.clone_from(&streams.iter().cloned().collect());
        Ok(())
    }

    /// The streams whose turn it is.
    fn next(&mut self, streams: &BTreeSet<String>) -> Vec<String> {
        let after = |name: &&String| self.reached.as_ref().is_none_or(|reached| *name > reached);
        let turn: Vec<String> = streams.iter().filter(after).take(STREAMS_MAX).cloned().collect();
        self.reached = turn.last().cloned().filter(|_| turn.len() == STREAMS_MAX);
        turn
    }

    async fn trim(&self, stream: &str, now: Millis) -> Result<(), BusError> {
        let options = &self.store.options;
        let retain = options.streams.retain(stream);
        let oldest = retain.age.map(|age| before(now, age).to_string()).unwrap_or_default();
        let length = retain.length.map(|length| length.to_string()).unwrap_or_default();
        let mut call = TRIM.call();
        call.arg(self.store.keys.prefix()).arg(stream).arg(u8::from(options.streams.retain_by_rule(stream).is_some()));
        call.arg(oldest).arg(length).arg(before(now, options.forget_group_after)).arg(TRIMMED_MAX);
        let trimmed = failpoint::during("upkeep.sent", self.store.run(&TRIM, &call)).await?;
        losses::tell(trimmed).map_err(|fault| self.store.told(fault))
    }
}

fn before(now: Millis, age: Duration) -> Millis {
    now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)).max(0)
}
