//! One handler's door to the store.
//!
//! Owns what a claim brought and what was handed out of it. Asks the store only when something may be there: news ring the
//! bell, and a claim that was asked for arrives here even when whoever asked has stopped waiting.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::claim::{self, Claim, Claimed};
use super::fault::Fault;
use super::group::Group;
use super::process::Still;
use super::settle::{self, Settled, Settler};
use super::span;
use super::step;
use super::store::Store;
use super::tx::{News, Tx};
use crate::bus::{Answer, BusError, Delivery, Inbox, Run, Step, StepAnswer, Steps, Subscription};
use crate::failpoint;
use crate::outcome::RecordKey;

/// Deliveries in one claim.
const CLAIM_MAX: usize = 1024;
/// Settled spans that are kept so that a repeated settle finds them.
const REMEMBERED_MAX: usize = 64;

/// What the inbox shares with the writer.
pub(super) struct Door {
    subscription: Arc<Subscription>,
    bell: Notify,
    /// There may be new entries.
    new: AtomicBool,
    /// There may be entries that others left behind.
    left: AtomicBool,
    state: Mutex<State>,
}

struct State {
    group: Group,
    /// Claimed, not handed out.
    waiting: VecDeque<Delivery>,
    /// A claim is under way.
    claiming: bool,
    failed: Option<BusError>,
    /// The source that the next claim begins with.
    turn: usize,
    /// Our spans with entries that are not settled.
    open: HashSet<i64>,
    /// Our spans that are settled, oldest first.
    full: VecDeque<i64>,
    /// The inbox is gone: what a claim still brings goes back.
    closed: bool,
}

enum Next {
    Deliver(Vec<Delivery>),
    Claim(Claim),
    Wait,
}

impl Door {
    pub(super) fn new(subscription: Arc<Subscription>, group: Group) -> Self {
        let state = State {
            group,
            waiting: VecDeque::new(),
            claiming: false,
            failed: None,
            turn: 0,
            open: HashSet::new(),
            full: VecDeque::new(),
            closed: false,
        };
        Self {
            subscription,
            bell: Notify::new(),
            new: AtomicBool::new(true),
            left: AtomicBool::new(true),
            state: Mutex::new(state),
        }
    }

    /// The number of its group.
    pub(super) fn group(&self) -> i64 {
        self.state.lock().group.id
    }

    /// Wakes whoever waits, if news concern it.
    pub(super) fn ring(&self, news: &News) {
        let (new, left) = {
            let group = &self.state.lock().group;
            let grown = group.sources.iter().any(|source| news.grown.contains(&source.id));
            let created = news.created && !self.subscription.discover.is_empty();
            (grown || created, news.freed.contains(&group.id))
        };
        if new {
            self.new.store(true, Ordering::Release);
        }
        if left {
            self.left.store(true, Ordering::Release);
        }
        if new || left {
            self.wake();
        }
    }

    /// Somebody died.
    pub(super) fn ring_left(&self) {
        self.left.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.bell.notify_one();
    }

    fn next(&self, max: usize, dead: impl FnOnce() -> Vec<Still>) -> Result<Next, BusError> {
        let mut state = self.state.lock();
        if !state.waiting.is_empty() {
            let count = max.min(state.waiting.len());
            let deliveries = state.waiting.drain(..count).collect();
            // Whoever else waits can have the rest, or go for more.
            self.wake();
            return Ok(Next::Deliver(deliveries));
        }
        if let Some(error) = state.failed.take() {
            self.wake();
            return Err(error);
        }
        if state.claiming {
            return Ok(Next::Wait);
        }
        let (new, left) = (self.new.swap(false, Ordering::AcqRel), self.left.swap(false, Ordering::AcqRel));
        if !new && !left {
            return Ok(Next::Wait);
        }
        state.claiming = true;
        state.turn = state.turn.wrapping_add(1);
        let forgotten = state.full.len().saturating_sub(REMEMBERED_MAX);
        Ok(Next::Claim(Claim {
            subscription: self.subscription.clone(),
            group: state.group.clone(),
            max,
            turn: state.turn,
            take_over: left,
            dead: if left { dead() } else { Vec::new() },
            done: state.full.iter().take(forgotten).copied().collect(),
        }))
    }

    /// A claim ended; `forgotten` settled spans are gone with it.
    fn claimed(&self, store: &Store, end: Result<Claimed, BusError>, forgotten: usize, took_over: bool) {
        let mut state = self.state.lock();
        state.claiming = false;
        if state.closed {
            let spans = end.iter().flat_map(|claimed| &claimed.deliveries).map(|delivery| delivery.lease.claim as i64);
            return give_back(store, state.group.id, spans.collect(), VecDeque::new());
        }
        match end {
            Ok(claimed) => {
                failpoint::reached("claim.after");
                state.open.extend(claimed.deliveries.iter().map(|delivery| delivery.lease.claim as i64));
                state.waiting.extend(claimed.deliveries);
                state.full.drain(..forgotten);
                state.group = claimed.group;
                self.new.fetch_or(claimed.more_new, Ordering::AcqRel);
                self.left.fetch_or(claimed.more_left, Ordering::AcqRel);
            }
            Err(error) => {
                state.failed = Some(error);
                self.new.store(true, Ordering::Release);
                self.left.fetch_or(took_over, Ordering::AcqRel);
            }
        }
        drop(state);
        self.wake();
    }

    fn settled(&self, settled: &Settled) {
        {
            let mut state = self.state.lock();
            for span in &settled.full {
                state.open.remove(span);
                state.full.push_back(*span);
            }
        }
        if settled.answers.contains(&Answer::StoreReset) {
            self.new.store(true, Ordering::Release);
            self.wake();
        }
    }
}

/// The inbox itself.
pub(super) struct SqliteInbox {
    pub(super) store: Arc<Store>,
    pub(super) door: Arc<Door>,
}

impl SqliteInbox {
    fn start(&self, claim: Claim) -> Result<(), BusError> {
        let (store, door) = (self.store.clone(), self.door.clone());
        let (forgotten, took_over) = (claim.done.len(), claim.take_over);
        let claimed = move |end| door.claimed(&store, end, forgotten, took_over);
        failpoint::reached("claim.before");
        self.store.submit(move |tx| failpoint::after("claim.sent", claim::claim(tx, &claim)), claimed)
    }
}

#[async_trait]
impl Inbox for SqliteInbox {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let max = max.min(CLAIM_MAX);
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            if self.store.is_stopped() {
                self.door.wake();
                return Err(BusError::Closed);
            }
            match self.door.next(max, || self.store.peers.dead())? {
                Next::Deliver(deliveries) => return Ok(deliveries),
                Next::Claim(claim) => self.start(claim)?,
                Next::Wait => {}
            }
            self.door.bell.notified().await;
        }
    }

    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
        let (reply, result) = oneshot::channel();
        let (subscription, group) = (self.door.subscription.clone(), self.door.state.lock().group.clone());
        let door = self.door.clone();
        // So that a thousand events are freed here, and not by the writer.
        let kept = runs.clone();
        let work = move |tx: &mut Tx<'_>| -> Result<Settled, Fault> {
            let settler = Settler { subscription: &subscription, group: &group };
            failpoint::after("settle.sent", settle::settle(tx, &settler, &runs))
        };
        self.store.submit(work, move |end| {
            failpoint::reached("settle.answered");
            if let Ok(settled) = &end {
                door.settled(settled);
            }
            // A caller that no longer waits has dropped its end.
            drop(reply.send(end.map(|settled| settled.answers)));
        })?;
        let answers = result.await.unwrap_or(Err(BusError::Closed));
        drop(kept);
        answers
    }

    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        let delivery = delivery.clone();
        self.store.call(move |tx| failpoint::after("mark.sent", settle::mark(tx, &delivery))).await
    }
}

#[async_trait]
impl Steps for SqliteInbox {
    async fn recall(&self, event: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        self.store.read(move |conn, now| step::recall(conn, event, now)).await
    }

    async fn record(&self, delivery: &Delivery, step: &Step) -> Result<StepAnswer, BusError> {
        let (group, delivery, step) = (self.door.group(), delivery.clone(), step.clone());
        let work = move |tx: &mut Tx<'_>| failpoint::after("step.sent", step::record(tx, group, &delivery, &step));
        self.store.call(work).await
    }
}

impl Drop for SqliteInbox {
    /// What was claimed and never settled goes back, for whoever opens the group next.
    fn drop(&mut self) {
        let (group, open, full) = {
            let mut state = self.door.state.lock();
            state.closed = true;
            (state.group.id, std::mem::take(&mut state.open), std::mem::take(&mut state.full))
        };
        give_back(&self.store, group, open, full);
    }
}

/// Frees the spans in `open`, and forgets those in `full`, which are settled.
fn give_back(store: &Store, group: i64, open: HashSet<i64>, full: VecDeque<i64>) {
    if open.is_empty() && full.is_empty() {
        return;
    }
    failpoint::reached("give_back.before");
    let work = move |tx: &mut Tx<'_>| -> Result<(), Fault> {
        full.iter().try_for_each(|id| span::delete(tx.conn, *id))?;
        for id in &open {
            span::free(tx.conn, *id, tx.me)?;
        }
        tx.news.freed.push(group);
        failpoint::reached("give_back.sent");
        Ok(())
    };
    // A store that is closed gives everything back by itself.
    drop(store.submit(work, |_| failpoint::reached("give_back.after")));
}
