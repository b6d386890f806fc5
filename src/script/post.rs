//! What a script thread, its pool and the watchdog share: what the thread was given, and what it polls just now.
//!
//! Owns that each delivery is answered once: by its thread or, if that does not come back, by the watchdog. Never waits for
//! a thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::meter::Signal;
use super::{Finished, Job, Program, Usage};
use crate::bus::{Delivery, Steps};
use crate::hot::HotKeys;
use crate::outcome::{Outcome, Release};

/// Names a run of a post: its piece, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId {
    pub piece: u32,
    pub at: u32,
}

/// Deliveries of one job that go to one thread.
pub(super) struct Piece {
    pub number: u32,
    pub program: Arc<Program>,
    pub alone: bool,
    pub hot: Arc<HotKeys>,
    pub steps: Arc<dyn Steps>,
    reply: UnboundedSender<Vec<Finished>>,
    open: Mutex<Open>,
}

/// What was not answered yet.
struct Open {
    deliveries: Vec<Option<Arc<Delivery>>>,
    left: usize,
}

impl Piece {
    /// Every delivery with its place.
    pub fn deliveries(&self) -> Vec<(u32, Arc<Delivery>)> {
        let open = self.open.lock();
        (0..).zip(&open.deliveries).filter_map(|(at, delivery)| Some((at, delivery.clone()?))).collect()
    }

    /// Hands back what finished, but for what was answered by somebody else. True: nothing is open any more.
    pub fn answer(&self, finished: Vec<(u32, Finished)>) -> bool {
        let mut open = self.open.lock();
        let ours = |at: &u32| open.deliveries.get_mut(*at as usize).and_then(Option::take).is_some();
        let mut ours = ours;
        let answers: Vec<_> = finished.into_iter().filter(|(at, _)| ours(at)).map(|(_, finished)| finished).collect();
        open.left -= answers.len();
        if !answers.is_empty() {
            // Nobody may be there to take it any more.
            drop(self.reply.send(answers));
        }
        open.left == 0
    }

    /// Answers everything that is open: the thread does not come back from `stuck`, if that is one of these.
    fn give_up(&self, stuck: Option<RunId>) {
        let finished = self.deliveries().into_iter().map(|(at, delivery)| {
            let is_it = stuck == Some(RunId { piece: self.number, at });
            let release = if is_it { Release::Stuck } else { Release::Moved };
            (at, unrun(&self.program.version, delivery, Outcome::Released(release)))
        });
        self.answer(finished.collect());
    }
}

/// A delivery that ends without having been run.
pub(super) fn unrun(version: &Arc<str>, delivery: Arc<Delivery>, outcome: Outcome) -> Finished {
    let steps = delivery.past.as_ref().and_then(|past| past.steps);
    Finished {
        delivery,
        outcome,
        reads: Vec::new(),
        record: None,
        steps,
        version: version.clone(),
        held: Vec::new(),
        usage: Usage::default(),
    }
}

#[derive(Default)]
pub(super) struct Post {
    pub signal: Arc<Signal>,
    /// Deliveries given to the thread and not finished yet.
    pub load: AtomicUsize,
    /// Runs that used up a turn and wait for another.
    pub busy: AtomicUsize,
    pieces: Mutex<HashMap<u32, Arc<Piece>>>,
    last_piece: AtomicU32,
    /// Raised when a poll of a run begins and when it ends: odd while one is under way.
    polls: AtomicU64,
    /// The run of the latest poll: piece and place, in halves.
    polled: AtomicU64,
    abandoned: AtomicBool,
}

impl Post {
    /// Takes in what the thread is about to be given.
    pub fn take_in(&self, job: Job) -> Arc<Piece> {
        let Job { program, deliveries, mode: _, alone, hot, steps, reply } = job;
        self.load.fetch_add(deliveries.len(), Ordering::SeqCst);
        let left = deliveries.len();
        let open = Mutex::new(Open { deliveries: deliveries.into_iter().map(Some).collect(), left });
        let number = self.last_piece.fetch_add(1, Ordering::Relaxed);
        let piece = Arc::new(Piece { number, program, alone, hot, steps, reply, open });
        self.pieces.lock().insert(number, piece.clone());
        piece
    }

    /// Everything of the piece was answered.
    pub fn forget(&self, piece: &Piece) {
        self.pieces.lock().remove(&piece.number);
    }

    /// The thread begins to poll a run.
    pub fn begin_poll(&self, run: RunId) {
        self.polled.store(u64::from(run.piece) << 32 | u64::from(run.at), Ordering::Relaxed);
        self.polls.fetch_add(1, Ordering::Release);
    }

    /// The thread came back.
    pub fn end_poll(&self) {
        self.polls.fetch_add(1, Ordering::Release);
    }

    /// A number that stays the same and odd as long as the thread is in one poll.
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Acquire)
    }

    /// The run of the latest poll, and its delivery and program, unless it was answered.
    pub fn polled(&self) -> Option<(RunId, Arc<Delivery>, Arc<Program>)> {
        let polled = self.polled.load(Ordering::Relaxed);
        let run = RunId { piece: (polled >> 32) as u32, at: polled as u32 };
        let piece = self.pieces.lock().get(&run.piece).cloned()?;
        let delivery = piece.open.lock().deliveries.get(run.at as usize)?.clone()?;
        Some((run, delivery, piece.program.clone()))
    }

    /// The thread is lost: whatever it still finishes counts for nothing, and what it was given is answered now.
    pub fn abandon(&self, stuck: Option<RunId>) {
        self.abandoned.store(true, Ordering::Release);
        let pieces = std::mem::take(&mut *self.pieces.lock());
        pieces.values().for_each(|piece| piece.give_up(stuck));
    }

    /// Whether the thread is to leave everything as it is.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}
