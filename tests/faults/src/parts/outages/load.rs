//! What every fault of the store is made under: processes at work, numbers that are published, and the look afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use moontide::bus::BusError;
use moontide_stage::process::Process;
use rand::Rng as _;

use crate::findings::Findings;
use crate::parts::merge;
use crate::seen::{Kind, Unit};
use crate::stage::Stage;
use crate::truth::{self, Truth};

const PROCESSES: usize = 3;
/// Numbers that are published before a fault, and while it lasts.
const BEFORE: u64 = 30;
const MEANWHILE: u64 = 10;
/// Nothing may be committed for so long after a fault is over: the longest pause between two looks at a store, and some.
const BOUND: Duration = Duration::from_secs(6);

pub struct Load {
    pub stage: Stage,
    pub processes: Vec<(String, Process)>,
    /// What faults took away, as predicted.
    pub gone: BTreeSet<Unit>,
    /// Events were in hand when their group vanished.
    pub expects_reset: bool,
    pub found: Findings,
}

impl Load {
    pub async fn new(mut stage: Stage) -> Self {
        let processes: Vec<_> = (0..PROCESSES).map(|_| stage.start()).collect();
        let all = processes.len() as u64;
        stage.until("all processes have started", async || stage.said("handlers from ") >= all).await;
        Self { stage, processes, gone: BTreeSet::new(), expects_reset: false, found: Findings::default() }
    }

    /// Numbers are on their way.
    pub async fn begin(&mut self) {
        self.stage.feed(BEFORE).await;
        self.stage.pause(0..40).await;
    }

    /// While `fault` lasts, numbers are published: taken when it is over, at the latest.
    pub async fn meanwhile(&mut self, fault: impl AsyncFnOnce(&Stage)) {
        let last = self.stage.last() + MEANWHILE;
        let events = (self.stage.last() + 1..=last).flat_map(truth::events).collect();
        tokio::join!(self.stage.publish(events), fault(&self.stage));
        self.stage.goes_on_after(last);
    }

    /// `predicted` are no longer there, or will not happen.
    pub fn lose(&mut self, predicted: impl IntoIterator<Item = Unit>) {
        let before = self.gone.len();
        self.gone.extend(predicted);
        self.found.predicted += (self.gone.len() - before) as u64;
    }

    /// The fault `kind` is over: measures how long it takes until something is committed, and checks everything.
    pub async fn end(&mut self, kind: &str) {
        let (ended, first) = (Instant::now(), self.stage.last() + 1);
        self.stage.feed(2).await;
        let keys: Vec<String> = (first..first + 2).map(|n| format!("ticks/{n}")).collect();
        let ledger = self.stage.backend.ledger.clone();
        let is_committed = async || {
            let read: Result<_, BusError> = ledger.read(&keys).await;
            read.is_ok_and(|values| values.iter().any(Option::is_some))
        };
        self.stage.until("something is committed", is_committed).await;
        self.found.fault(kind, 1);
        self.found.recovered(kind, ended.elapsed());
        self.found.bounds.insert(kind.to_owned(), u64::try_from(BOUND.as_millis()).unwrap_or(u64::MAX));
        self.stage.feed(MEANWHILE).await;
        let truth = Truth::without(self.stage.last(), self.gone.clone());
        let mut step = self.stage.check_against(&truth).await;
        step.events = 0;
        for (name, process) in &mut self.processes {
            if let Some(status) = process.status() {
                step.wrong(format!("process {name} ended: {status}\n{}", self.stage.tail()));
            }
        }
        merge(&mut self.found, step, &format!("after {kind}"));
    }

    /// All that was found.
    pub fn over(mut self) -> Findings {
        self.found.events = Truth::of(self.stage.last()).events();
        self.found
    }

    /// How long a fault lasts.
    pub fn a_while(&mut self) -> Duration {
        Duration::from_millis(self.stage.rng.random_range(100..900))
    }
}

/// All that happens for the numbers from `first` to `last`.
pub fn units(first: u64, last: u64) -> impl Iterator<Item = Unit> {
    let unit = |kind, n: i64| Unit { kind, n };
    (first as i64..=last as i64).flat_map(move |n| {
        let others = [Kind::Doom, Kind::Order, Kind::Step].map(|kind| unit(kind, n));
        [unit(Kind::Tick, n), unit(Kind::Tock, n), unit(Kind::Tock, -n)].into_iter().chain(others)
    })
}
