//! What everybody in a history shares: the store, the truth, the trace, and the one source of chance.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bus::Door;
use crate::capacity::Capacity;
use crate::editions::{self, Edition};
use crate::flaw::Flaw;
use crate::plan::Plan;
use crate::process::Process;
use crate::store::{Elapsed, ProcessId, Store};
use crate::trace::{Step, Trace};
use crate::truth::{Truth, place};

/// A key that holds no number.
pub const TEXT: &str = "text";

/// What everybody shares.
pub struct World {
    pub plan: Plan,
    pub store: Mutex<Store>,
    pub truth: Mutex<Truth>,
    pub trace: Mutex<Trace>,
    pub capacity: Mutex<Capacity>,
    /// By slot: the process that is there.
    pub processes: Mutex<BTreeMap<usize, Arc<Process>>>,
    rng: Mutex<SmallRng>,
    began: Instant,
    doors: Mutex<Vec<Weak<Door>>>,
    /// What is due next may be something else.
    pub due: Notify,
    /// Something was settled, or somebody died.
    pub changed: Notify,
    /// Calls are not answered (true) or refused (false), to anybody.
    pub cut: Mutex<Option<bool>>,
    pub refuses_letters: Mutex<bool>,
    /// All faults are over.
    pub mended: Mutex<bool>,
    last_process: Mutex<ProcessId>,
}

impl World {
    /// The world of a plan; `seed` decides all that the plan leaves open.
    pub fn new(plan: Plan, seed: u64, flaw: Option<Flaw>) -> Self {
        let store = Store::new(flaw, plan.recovery, plan.shared_letters);
        Self {
            plan,
            store: Mutex::new(store),
            truth: Mutex::default(),
            trace: Mutex::default(),
            capacity: Mutex::default(),
            processes: Mutex::default(),
            rng: Mutex::new(SmallRng::seed_from_u64(!seed)),
            began: Instant::now(),
            doors: Mutex::default(),
            due: Notify::new(),
            changed: Notify::new(),
            cut: Mutex::default(),
            refuses_letters: Mutex::default(),
            mended: Mutex::default(),
            last_process: Mutex::default(),
        }
    }

    /// How much free time of its group an event may wait for: a death, and that it is noticed; a call that is not answered,
    /// and the pause after it; and whatever runs in the slots of the process that has it in hand.
    pub fn wait_max(&self) -> Elapsed {
        self.plan.recovery + self.plan.recovery / 8 + 15_000
    }

    /// Milliseconds since the history began.
    pub fn elapsed(&self) -> Elapsed {
        self.began.elapsed().as_millis() as Elapsed
    }

    pub fn note(&self, step: Step) {
        self.trace.lock().push(self.elapsed(), step);
    }

    pub fn next_process(&self) -> ProcessId {
        let mut last = self.last_process.lock();
        *last += 1;
        *last
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&self, end: u64) -> u64 {
        self.rng.lock().random_range(0..end)
    }

    /// So many of a hundred times.
    pub fn chance(&self, percent: u32) -> bool {
        percent > 0 && self.rng.lock().random_range(0..100) < percent
    }

    pub fn number(&self) -> u64 {
        self.rng.lock().random()
    }

    /// The way to the store or back.
    pub async fn way(&self) {
        if self.plan.latency_max > 0 {
            tokio::time::sleep(Duration::from_millis(self.below(self.plan.latency_max + 1))).await;
        }
    }

    /// Lets others go first, or not.
    pub async fn shake(&self) {
        while self.chance(self.plan.shaken) {
            tokio::task::yield_now().await;
        }
    }

    /// Somebody listens for news of its group.
    pub fn listen(&self, door: &Arc<Door>) {
        let mut doors = self.doors.lock();
        doors.retain(|door| door.strong_count() > 0);
        doors.push(Arc::downgrade(door));
    }

    /// Spreads what happened in the store.
    pub fn spread_news(&self) {
        let news = self.store.lock().take_news();
        let now = self.elapsed();
        for (group, number) in news.ready {
            let free = self.capacity.lock().free(place(&group), now);
            self.truth.lock().ready(&group, number, free);
        }
        let doors: Vec<_> = self.doors.lock().iter().filter_map(Weak::upgrade).collect();
        doors.iter().filter(|door| news.groups.contains(&door.group)).for_each(|door| door.ring());
        if news.due {
            self.due.notify_one();
        }
        self.changed.notify_one();
    }

    /// What a process loads that comes in the place of `before`.
    pub fn edition_after(&self, before: &Process) -> Arc<Edition> {
        if *self.mended.lock() { editions::first(0) } else { before.edition() }
    }

    /// What processes can do has changed.
    pub fn weigh_all(&self) {
        self.processes.lock().values().for_each(|process| process.weigh());
    }

    /// A process looks whether anybody left something behind.
    pub fn ring_orphaned(&self, process: ProcessId) {
        let now = self.elapsed();
        let doors: Vec<_> = self.doors.lock().iter().filter_map(Weak::upgrade).collect();
        for door in doors.iter().filter(|door| door.process == process) {
            if self.store.lock().has_orphans(&door.group, now) {
                door.ring();
            }
        }
    }

    /// What a process holds waits from now on, or not any more.
    pub fn holds(&self, process: ProcessId, waits: bool) {
        let held = self.store.lock().held_by(process);
        let now = self.elapsed();
        for (group, number) in held {
            let free = self.capacity.lock().free(place(&group), now);
            match waits {
                true => self.truth.lock().ready(&group, number, free),
                false => self.truth.lock().in_hand(&group, number),
            }
        }
    }
}
