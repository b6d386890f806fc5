//! What one inbox has: its streams, what was read and not handed out, what is in hand, and which settles are unanswered.
//!
//! Pure bookkeeping under one lock; the ways to the server are in `reader` and `inbox`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::held::{Held, Standing};
use crate::bus::{Answer, BusError, Delivery, Run, Subscription};
use crate::event::EntryId;

/// One inbox' books.
pub(super) struct Door {
    pub subscription: Arc<Subscription>,
    /// The host's own stream of the group.
    pub retry: Arc<str>,
    pub bell: Notify,
    /// There may be new entries.
    new: AtomicBool,
    /// There may be entries that others left behind, or of ours that we do not know of.
    left: AtomicBool,
    /// The group vanished somewhere, or there may be streams to join.
    reopen: AtomicBool,
    /// Rung when a read has ended.
    read_ended: Notify,
    /// The highest number of a batch that any inbox of this process has had.
    highest: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    sources: Vec<Arc<str>>,
    /// Read, not handed out.
    waiting: VecDeque<Delivery>,
    /// Of types that nobody asked for, not acknowledged yet.
    unwanted: Vec<(Arc<str>, EntryId)>,
    reading: bool,
    failed: Option<BusError>,
    held: Held,
    batches: Batches,
    /// The source whose entries go first.
    turn: usize,
    closed: bool,
}

/// Settles that are not answered, by their numbers.
struct Batches {
    unanswered: HashMap<u64, (Arc<[Run]>, Batch)>,
    next: u64,
}

/// A settle on its way.
#[derive(Clone)]
pub(super) struct Batch {
    /// The same however often it is sent.
    pub number: u64,
    /// Which of its runs are sent; what becomes of the others is known.
    pub sent: Arc<[usize]>,
}

/// What an inbox that is asked for deliveries does.
pub(super) enum Next {
    Deliver(Vec<Delivery>),
    Read,
    Wait,
}

/// Why something is read.
pub(super) struct Reasons {
    pub left: bool,
    pub reopen: bool,
}

/// Settles that may be unanswered at a time; older ones are given up by whoever asked.
const UNANSWERED_MAX: usize = 32;

impl Door {
    /// An inbox counts on from `highest`: the server remembers the answers to the last inbox of the group by their numbers.
    pub fn new(
        subscription: Arc<Subscription>,
        retry: Arc<str>,
        sources: Vec<Arc<str>>,
        highest: Arc<AtomicU64>,
    ) -> Self {
        let next = highest.load(Ordering::Acquire) + 1;
        let state = State {
            sources,
            waiting: VecDeque::new(),
            unwanted: Vec::new(),
            reading: false,
            failed: None,
            held: Held::default(),
            batches: Batches { unanswered: HashMap::new(), next },
            turn: 0,
            closed: false,
        };
        Self {
            subscription,
            retry,
            bell: Notify::new(),
            new: AtomicBool::new(true),
            left: AtomicBool::new(true),
            reopen: AtomicBool::new(false),
            read_ended: Notify::new(),
            highest,
            state: Mutex::new(state),
        }
    }

    /// A stream of it has grown.
    pub fn ring(&self) {
        self.new.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// Others may have left something behind.
    pub fn ring_left(&self) {
        self.left.store(true, Ordering::Release);
        self.ring();
    }

    /// The group is to be opened again before the next read.
    pub fn ring_reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.ring();
    }

    /// There may be streams that it asks for and of which it was not told.
    pub fn look_for_streams(&self) {
        if !self.subscription.discover.is_empty() {
            self.ring_reopen();
        }
    }

    /// The streams that it reads.
    pub fn sources(&self) -> Vec<Arc<str>> {
        self.state.lock().sources.clone()
    }

    pub fn set_sources(&self, sources: Vec<Arc<str>>) {
        self.state.lock().sources = sources;
    }

    /// Which source's entries go first this time.
    pub fn next_turn(&self) -> usize {
        let mut state = self.state.lock();
        state.turn = state.turn.wrapping_add(1);
        state.turn
    }

    /// What to do for somebody who asks for `max` deliveries.
    pub fn next(&self, max: usize) -> Result<Next, BusError> {
        let mut state = self.state.lock();
        if !state.waiting.is_empty() {
            let count = max.min(state.waiting.len());
            let deliveries = state.waiting.drain(..count).collect();
            // Whoever else waits can have the rest, or go for more.
            self.bell.notify_one();
            return Ok(Next::Deliver(deliveries));
        }
        if let Some(error) = state.failed.take() {
            self.bell.notify_one();
            return Err(error);
        }
        if state.closed || state.reading || !self.new.swap(false, Ordering::AcqRel) {
            return Ok(Next::Wait);
        }
        state.reading = true;
        Ok(Next::Read)
    }

    /// Why the read that begins now is more than a look for new entries.
    pub fn reasons(&self) -> Reasons {
        Reasons { left: self.left.swap(false, Ordering::AcqRel), reopen: self.reopen.swap(false, Ordering::AcqRel) }
    }

    /// A reason stands again: it could not be followed, or there is more.
    pub fn again(&self, reasons: &Reasons) {
        self.left.fetch_or(reasons.left, Ordering::AcqRel);
        self.reopen.fetch_or(reasons.reopen, Ordering::AcqRel);
    }

    /// A read ended; `more`: there may be more.
    pub fn read(&self, deliveries: Vec<Delivery>, more: bool) {
        let mut state = self.state.lock();
        state.reading = false;
        state.waiting.extend(deliveries);
        self.new.fetch_or(more, Ordering::AcqRel);
        drop(state);
        self.read_ended.notify_waiters();
        self.bell.notify_one();
    }

    /// Hands in what comes by itself; false: there are `max` that wait already, and it is dropped.
    pub fn hand(&self, delivery: Delivery, max: usize) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.waiting.len() >= max {
            state.held.end(&delivery, Standing::Void);
            return false;
        }
        state.waiting.push_back(delivery);
        drop(state);
        self.bell.notify_one();
        true
    }

    /// A read ended after the inbox was closed: what it brought is given back.
    pub fn read_in_vain(&self) {
        self.state.lock().reading = false;
        self.read_ended.notify_waiters();
    }

    /// Waits until no read is under way. To be asked of a closed inbox: no other one begins.
    pub async fn has_read(&self) {
        let mut ended = std::pin::pin!(self.read_ended.notified());
        loop {
            ended.as_mut().enable();
            if !self.state.lock().reading {
                return;
            }
            ended.as_mut().await;
            ended.set(self.read_ended.notified());
        }
    }

    /// A read failed. What the server handed out meanwhile, it handed out to nobody.
    pub fn read_failed(&self, error: BusError) {
        let mut state = self.state.lock();
        state.reading = false;
        state.failed = Some(error);
        self.left.store(true, Ordering::Release);
        self.new.store(true, Ordering::Release);
        drop(state);
        self.read_ended.notify_waiters();
        self.bell.notify_one();
    }

    /// With what is in hand.
    pub fn with_held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.state.lock().held)
    }

    /// Notes an entry that nobody asked for.
    pub fn unwanted(&self, stream: &Arc<str>, entry: EntryId) {
        self.state.lock().unwanted.push((stream.clone(), entry));
    }

    /// What is to be acknowledged besides; it is not handed out twice.
    pub fn take_unwanted(&self) -> Vec<(Arc<str>, EntryId)> {
        std::mem::take(&mut self.state.lock().unwanted)
    }

    /// They could not be acknowledged.
    pub fn put_back_unwanted(&self, entries: Vec<(Arc<str>, EntryId)>) {
        self.state.lock().unwanted.extend(entries);
    }

    /// How `runs` are settled: as the first time, where that was not answered.
    pub fn batch(&self, runs: &Arc<[Run]>) -> Batch {
        let mut state = self.state.lock();
        let before = state.batches.unanswered.values().find(|(other, _)| Arc::ptr_eq(other, runs));
        if let Some((_, batch)) = before {
            return batch.clone();
        }
        let live = |(at, run): (usize, &Run)| state.held.answer(run).is_none().then_some(at);
        let batch = Batch { number: state.batches.next, sent: runs.iter().enumerate().filter_map(live).collect() };
        let batches = &mut state.batches;
        batches.next += 1;
        self.highest.fetch_max(batch.number, Ordering::AcqRel);
        if batches.unanswered.len() >= UNANSWERED_MAX
            && let Some(oldest) = batches.unanswered.keys().min().copied()
        {
            batches.unanswered.remove(&oldest);
        }
        batches.unanswered.insert(batch.number, (runs.clone(), batch.clone()));
        batch
    }

    /// A settle was answered: the answers to all of `runs`. A run without an answer is as it was.
    pub fn settled(&self, batch: &Batch, runs: &[Run], answers: Vec<Option<Answer>>) -> Vec<Answer> {
        let mut state = self.state.lock();
        state.batches.unanswered.remove(&batch.number);
        let reset = answers.contains(&Some(Answer::StoreReset));
        let mut all: Vec<Option<Answer>> = runs.iter().map(|run| state.held.answer(run)).collect();
        for (at, answer) in batch.sent.iter().zip(answers) {
            if let Some(standing) = answer.as_ref().and_then(standing_after) {
                runs[*at].deliveries.iter().for_each(|settling| state.held.end(&settling.delivery, standing));
            }
            all[*at] = answer;
        }
        drop(state);
        if reset {
            self.ring_reopen();
        }
        all.into_iter().map(|answer| answer.unwrap_or(Answer::Fenced)).collect()
    }

    /// The inbox is gone; what it had is handed over to be given back.
    pub fn close(&self) -> Vec<(Arc<str>, EntryId, u32)> {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        state.held.drain()
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

/// How the deliveries of a run stand after its answer; `None`: as before.
fn standing_after(answer: &Answer) -> Option<Standing> {
    match answer {
        Answer::Done { .. } | Answer::AlreadyMine | Answer::Duplicate { .. } => Some(Standing::Settled),
        Answer::Fenced | Answer::StoreReset => Some(Standing::Void),
        Answer::Conflict { .. } | Answer::Invalid { .. } => None,
    }
}
