//! Whose turn it is on a script thread.
//!
//! Owns the order in which runs are polled: what is new or was woken comes first; a run that used up its turn waits behind
//! them, in a queue of its own. Neither starves: after so many of the first kind one of the second is due. A round ends with
//! the first turn that was used up, so that timers and new work are looked at. Knows nothing of scripts.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::meter::Signal;

/// Polls of runs that were woken before one that was preempted is due.
const WOKEN_MAX: usize = 64;
/// As how many of them one counts that used up its turn.
const SPENT_COUNTS: usize = WOKEN_MAX / 4;

/// What a poll says of itself, and what it is told.
#[derive(Default)]
pub(super) struct Manners {
    /// Set by a run that used up its turn.
    pub spent: Cell<bool>,
    /// The run that is polled has had its share: it leaves as soon as somebody else is called.
    pub gives_way: Cell<bool>,
}

/// The runs of a thread, each a future.
pub(super) struct Turns<F> {
    seats: Vec<Seat<F>>,
    free: Vec<usize>,
    calls: Arc<Calls>,
    woken: VecDeque<usize>,
    spent: VecDeque<usize>,
    /// Polls since a preempted run had its turn.
    passed: usize,
    round_over: bool,
}

struct Seat<F> {
    run: Option<F>,
    call: Arc<Call>,
    waker: Waker,
    spent: bool,
}

/// Who was woken, by any thread, and is not in a queue yet.
struct Calls {
    seats: Mutex<VecDeque<usize>>,
    thread: AtomicWaker,
    signal: Arc<Signal>,
}

/// Wakes one seat.
struct Call {
    seat: usize,
    /// It waits for its turn already.
    waits: AtomicBool,
    calls: Arc<Calls>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.waits.swap(true, Ordering::AcqRel) {
            self.calls.seats.lock().push_back(self.seat);
            self.calls.signal.call();
            self.calls.thread.wake();
        }
    }
}

impl<F: Future + Unpin> Turns<F> {
    /// No runs; whoever is woken calls by `signal`.
    pub fn new(signal: Arc<Signal>) -> Self {
        let calls = Arc::new(Calls { seats: Mutex::default(), thread: AtomicWaker::new(), signal });
        let (seats, free, woken, spent) = Default::default();
        Self { seats, free, calls, woken, spent, passed: 0, round_over: false }
    }

    /// Takes in a new run.
    pub fn push(&mut self, run: F) {
        let seat = self.free.pop().unwrap_or_else(|| self.add_seat());
        self.seats[seat].spent = false;
        self.seats[seat].run = Some(run);
        if !self.seats[seat].call.waits.swap(true, Ordering::AcqRel) {
            self.woken.push_back(seat);
        }
    }

    fn add_seat(&mut self) -> usize {
        let seat = self.seats.len();
        let call = Arc::new(Call { seat, waits: AtomicBool::default(), calls: self.calls.clone() });
        self.seats.push(Seat { run: None, waker: call.clone().into(), call, spent: false });
        seat
    }

    /// Whether all runs have ended.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.seats.len()
    }

    /// How many runs have used up a turn and wait for another.
    pub fn preempted(&self) -> usize {
        self.spent.len()
    }

    /// Begins a round; whoever is woken from now on wakes the thread.
    pub fn begin_round(&mut self, cx: &Context<'_>) {
        self.calls.thread.register(cx.waker());
        self.take_calls();
        self.round_over = false;
    }

    /// Ends it; if somebody waits for a turn, there is another one at once.
    pub fn end_round(&mut self, cx: &Context<'_>) {
        self.take_calls();
        if !self.woken.is_empty() || !self.spent.is_empty() {
            cx.waker().wake_by_ref();
        }
    }

    fn take_calls(&mut self) {
        let mut calls = self.calls.seats.lock();
        for seat in calls.drain(..) {
            let queue = if self.seats[seat].spent { &mut self.spent } else { &mut self.woken };
            queue.push_back(seat);
        }
    }

    /// Polls the next run that is new or was woken. `None`: there is none, or others are due.
    pub fn poll_woken(&mut self, manners: &Manners) -> Option<Poll<F::Output>> {
        if self.woken.is_empty() {
            self.take_calls();
        }
        if self.round_over || self.passed >= WOKEN_MAX {
            return None;
        }
        let seat = self.woken.pop_front()?;
        self.passed += 1;
        let polled = self.poll(seat, manners);
        if self.seats[seat].spent {
            self.passed += SPENT_COUNTS;
            self.round_over = true;
        }
        Some(polled)
    }

    /// Gives the run that waits longest of the preempted ones its turn. It gives way to others unless they had theirs.
    pub fn poll_preempted(&mut self, manners: &Manners) -> Option<Poll<F::Output>> {
        if self.round_over {
            return None;
        }
        let is_due = std::mem::take(&mut self.passed) >= WOKEN_MAX;
        let seat = self.spent.pop_front()?;
        self.round_over = true;
        manners.gives_way.set(!is_due);
        let polled = self.poll(seat, manners);
        manners.gives_way.set(false);
        Some(polled)
    }

    fn poll(&mut self, at: usize, manners: &Manners) -> Poll<F::Output> {
        let seat = &mut self.seats[at];
        seat.call.waits.store(false, Ordering::Release);
        seat.spent = false;
        // A call for a run that has ended meanwhile.
        let Some(run) = &mut seat.run else { return Poll::Pending };
        let polled = Pin::new(run).poll(&mut Context::from_waker(&seat.waker));
        let spent = manners.spent.take();
        if polled.is_ready() {
            seat.run = None;
            self.free.push(at);
        } else {
            // Only who goes on at once was preempted; where the script could not be left, it may wait for something now.
            seat.spent = spent && seat.call.waits.load(Ordering::Acquire);
        }
        polled
    }
}

#[cfg(test)]
mod tests;
