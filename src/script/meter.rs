//! Who runs on a script thread just now, and whether it may go on.
//!
//! Owns the interrupt callback's answer: one relaxed load while nothing is up; every tick of the watchdog the budgets are
//! looked at, and the run yields to its neighbours if it used up its turn; a run that was preempted before yields as soon as
//! another one is called. A run that has ended errors at every further interrupt, so that loops of `pcall` end too.
//! Budgets are wall time of the slices in which a run was polled.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use mlua::VmState;

use super::run::Run;
use super::turns::Manners;

const TICK: u8 = 1;
const END: u8 = 2;
const CALL: u8 = 4;

/// The shortest turn: who had less when a tick came goes on until the next, so that no light run is taken for a busy one.
const TURN_MIN: Duration = Duration::from_micros(500);

/// What a script thread and the watchdog share.
#[derive(Default)]
pub(super) struct Signal {
    bits: AtomicU8,
    /// The host stops: every run ends at its next tick.
    pub releasing: AtomicBool,
}

impl Signal {
    /// Called by the watchdog about every millisecond.
    pub fn tick(&self) {
        self.bits.fetch_or(TICK, Ordering::Relaxed);
    }

    /// Somebody wants to be polled: a run that has had its share gives way.
    pub fn call(&self) {
        self.bits.fetch_or(CALL, Ordering::Relaxed);
    }

    /// Whoever called until now is about to be seen.
    pub fn heard(&self) {
        self.bits.fetch_and(!CALL, Ordering::Relaxed);
    }
}

/// The meter of one script thread; its VMs share it.
pub(super) struct Meter {
    signal: Arc<Signal>,
    /// False where no watchdog ticks: the clock is read at every interrupt.
    watched: bool,
    slice: RefCell<Option<(Rc<Run>, Instant)>>,
    pub manners: Manners,
}

impl Meter {
    /// A meter whose signal is ticked by a watchdog.
    pub fn watched(signal: Arc<Signal>) -> Rc<Self> {
        Rc::new(Self { signal, watched: true, slice: RefCell::default(), manners: Manners::default() })
    }

    /// A meter on its own: for loading.
    pub fn unwatched() -> Rc<Self> {
        let signal = Arc::new(Signal::default());
        signal.tick();
        Rc::new(Self { signal, watched: false, slice: RefCell::default(), manners: Manners::default() })
    }

    /// The run that is being polled.
    pub fn current(&self) -> Option<Rc<Run>> {
        self.slice.borrow().as_ref().map(|(run, _)| run.clone())
    }

    /// `run` is polled until the guard is dropped.
    pub fn enter(&self, run: &Rc<Run>) -> Slice<'_> {
        let outer = self.slice.replace(Some((run.clone(), Instant::now())));
        self.raise_end(run.ended());
        Slice { meter: self, outer }
    }

    /// The current run has ended: its next interrupt is its last.
    pub fn end_current(&self) {
        self.raise_end(true);
    }

    fn raise_end(&self, up: bool) {
        if up {
            self.signal.bits.fetch_or(END, Ordering::Relaxed);
        } else {
            self.signal.bits.fetch_and(!END, Ordering::Relaxed);
        }
    }

    /// The interrupt callback.
    pub fn check(&self) -> mlua::Result<VmState> {
        match self.signal.bits.load(Ordering::Relaxed) {
            0 => Ok(VmState::Continue),
            _ => self.look(),
        }
    }

    fn look(&self) -> mlua::Result<VmState> {
        let called = self.watched && self.signal.bits.fetch_and(!(TICK | CALL), Ordering::Relaxed) & CALL != 0;
        let slice = self.slice.borrow();
        let Some((run, since)) = slice.as_ref() else { return Ok(VmState::Continue) };
        run.check_budgets(*since, self.signal.releasing.load(Ordering::Relaxed));
        if run.ended() {
            self.raise_end(true);
            return Err(mlua::Error::RuntimeError("this run has ended".into()));
        }
        let yields = called && self.manners.gives_way.get() || since.elapsed() >= TURN_MIN;
        if !self.watched || !yields {
            return Ok(VmState::Continue);
        }
        run.preempted.set(true);
        self.manners.spent.set(true);
        Ok(VmState::Yield)
    }
}

/// A stretch of time that is charged to a run.
pub(super) struct Slice<'a> {
    meter: &'a Meter,
    outer: Option<(Rc<Run>, Instant)>,
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        if let Some((run, since)) = self.meter.slice.replace(self.outer.take()) {
            run.charge(since);
        }
        self.meter.raise_end(false);
    }
}
