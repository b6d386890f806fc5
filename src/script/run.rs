//! One run: its budgets, what it did so far, and how it ended.
//!
//! Owns the rule that an end is final: whatever was decided first (by the script, a deadline, a limit, the host) stays,
//! even if the script catches the error with `pcall`. Does not know VMs or threads.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use mlua::Table;

use super::buffer::Buffer;
use super::calls::Calls;
use super::lookups::Lookups;
use super::steps::Book;
use super::{Limits, Program, Services};
use crate::bus::{Delivery, Steps};
use crate::event::{Event, Json};
use crate::hot::{HotGuard, HotKeys};
use crate::outcome::{Failure, FailureKind, Outcome, Release};
use crate::units::show_duration;

/// What the run is doing, which decides what it may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The top level of its file.
    Loading,
    /// The function that makes the idempotency key.
    Key,
    /// `handle`.
    Handling,
}

/// What a run's end means for its VM, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ruin {
    None,
    /// No new runs; waiting ones may finish.
    Retired,
    /// At the memory limit, or a panic in the host: nothing in it can be trusted.
    Dead,
}

/// What a run over a delivery has besides budgets.
pub(super) struct Task {
    pub delivery: Arc<Delivery>,
    pub hot: Arc<HotKeys>,
    pub steps: Arc<dyn Steps>,
    /// How long steps are kept whose event is never settled.
    pub kept: Duration,
    pub services: Arc<Services>,
    pub lookups: Rc<Lookups>,
    pub program: Arc<Program>,
}

impl Task {
    /// The event; `None` for a delivery that could not be decoded, which never runs.
    pub fn event(&self) -> Option<&Event> {
        self.delivery.event.as_ref().ok()
    }
}

pub(super) struct Run {
    pub phase: Cell<Phase>,
    /// Number of the VM it is in; 0: none yet.
    pub vm: Cell<u64>,
    pub task: Option<Task>,
    pub limits: Limits,
    pub started: Instant,
    timeout: Duration,
    cpu: Cell<Duration>,
    end: RefCell<Option<Outcome>>,
    ruin: Cell<Ruin>,
    /// The VM's memory limit was hit while this run was polled.
    out_of_memory: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Set where it yielded to its neighbours; whoever polls it clears it.
    pub preempted: Cell<bool>,
    /// The error that reached the top, taken apart.
    pub fault: RefCell<Option<Failure>>,
    /// Message of the latest refusal of something that cannot be an effect.
    pub unfit: RefCell<Option<String>>,
    /// The decoded `event.data`, while the script runs: emitted as it is, its text leaves as it came.
    pub data: RefCell<Option<Table>>,
    pub buffer: RefCell<Buffer>,
    /// The idempotency key of its event.
    pub key: OnceCell<String>,
    pub calls: RefCell<Calls>,
    /// What it waits for outside, if it does.
    pub waits_for: RefCell<Option<String>>,
    pub steps: RefCell<Book>,
    pub held: RefCell<Vec<HotGuard>>,
    /// What every event that it emits says of its maker and of its chain; made for the first one.
    pub signature: OnceCell<Json>,
}

impl Run {
    /// A run over a delivery; its clock starts now.
    pub fn handling(task: Task, limits: Limits, timeout: Duration) -> Self {
        Self::new(Some(task), Phase::Key, limits, timeout)
    }

    /// The run of a file's top level: only budgets.
    pub fn loading(limits: Limits) -> Self {
        // Nothing can wait there: the processor budget is the bound, this one only has to be above it.
        let timeout = limits.cpu + Duration::from_secs(60);
        Self::new(None, Phase::Loading, limits, timeout)
    }

    fn new(task: Option<Task>, phase: Phase, limits: Limits, timeout: Duration) -> Self {
        Self {
            phase: Cell::new(phase),
            vm: Cell::new(0),
            task,
            limits,
            started: Instant::now(),
            timeout,
            cpu: Cell::default(),
            end: RefCell::default(),
            ruin: Cell::new(Ruin::None),
            out_of_memory: Cell::default(),
            waker: RefCell::default(),
            preempted: Cell::default(),
            fault: RefCell::default(),
            unfit: RefCell::default(),
            data: RefCell::default(),
            buffer: RefCell::default(),
            key: OnceCell::new(),
            calls: RefCell::default(),
            waits_for: RefCell::default(),
            steps: RefCell::default(),
            held: RefCell::default(),
            signature: OnceCell::new(),
        }
    }

    /// Ends the run, unless it has ended, and wakes whoever polls it.
    pub fn end(&self, outcome: Outcome) {
        self.end.borrow_mut().get_or_insert(outcome);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Whether everything further is in vain.
    pub fn ended(&self) -> bool {
        self.out_of_memory.get() || self.end.borrow().is_some()
    }

    /// What ended it.
    pub fn take_end(&self) -> Option<Outcome> {
        self.end.borrow_mut().take()
    }

    /// Ends it as a failure.
    pub fn fail(&self, kind: FailureKind, message: String) {
        self.end(Outcome::Failed(Failure::new(kind, message)));
    }

    /// The VM's memory limit was hit.
    pub fn fail_memory(&self) {
        self.out_of_memory.set(true);
        self.ruin(Ruin::Dead);
    }

    /// Whether the VM's memory limit was hit.
    pub fn is_out_of_memory(&self) -> bool {
        self.out_of_memory.get()
    }

    /// A defect of the host: the VM is not to be trusted any more.
    pub fn fail_host(&self, message: String) {
        self.fail(FailureKind::Host, message);
        self.ruin(Ruin::Dead);
    }

    /// The wall-clock deadline has passed.
    pub fn time_out(&self) {
        let mut message = format!("took longer than timeout = \"{}\"", show_duration(self.timeout));
        if let Some(what) = &*self.waits_for.borrow() {
            message.push_str(&format!(", waiting for {what}"));
        }
        self.fail(FailureKind::Timeout, message);
    }

    /// When [`Run::time_out`] is due.
    pub fn deadline(&self) -> Instant {
        self.started + self.timeout
    }

    /// `failure` with the place where the script was, where it has none.
    pub fn located(&self, mut failure: Failure) -> Failure {
        if let Some(fault) = self.fault.take().filter(|_| failure.file.is_none()) {
            (failure.file, failure.line, failure.trace) = (fault.file, fault.line, fault.trace);
        }
        failure
    }

    fn ruin(&self, ruin: Ruin) {
        self.ruin.set(self.ruin.get().max(ruin));
    }

    /// What it did to its VM.
    pub fn ruins(&self) -> Ruin {
        self.ruin.get()
    }

    /// Ends the run if a budget is used up; `since` is when it was last resumed.
    pub fn check_budgets(&self, since: Instant, releasing: bool) {
        let now = Instant::now();
        if self.cpu.get() + now.duration_since(since) > self.limits.cpu {
            let message =
                format!("used more than limits.cpu = \"{}\" of processor time", show_duration(self.limits.cpu));
            self.fail(FailureKind::Cpu, message);
            self.ruin(Ruin::Retired);
        } else if now >= self.deadline() {
            self.time_out();
        } else if releasing && self.phase.get() != Phase::Loading {
            self.end(Outcome::Released(Release::Stopping));
        }
    }

    /// Charges the time since `since`.
    pub fn charge(&self, since: Instant) {
        self.cpu.set(self.cpu.get() + since.elapsed());
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        self.cpu.get()
    }

    /// Remembers whom to wake when something ends the run from outside.
    pub fn watch(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}
