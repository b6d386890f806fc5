//! One handler's door to the model store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use moontide::bus::{
    Answer, BusError, Delivery, Inbox, ORPHANED_ALONE, Run, Step as Recorded, StepAnswer, Steps, backoff,
};
use moontide::outcome::RecordKey;
use tokio::sync::oneshot;

use super::call::{Luck, lost, to_store};
use super::{Door, ModelBus};
use crate::events::number;
use crate::process::{Process, Standing};
use crate::store::Settler;
use crate::trace::{self, Step};
use crate::truth::place;
use crate::world::World;

pub(super) struct ModelInbox {
    pub bus: ModelBus,
    pub door: Arc<Door>,
}

#[async_trait]
impl Inbox for ModelInbox {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let process = &self.bus.process;
        loop {
            if process.is_closed() {
                return Err(BusError::Closed);
            }
            if let Some(received) = self.take(max) {
                return received;
            }
            self.door.bell.notified().await;
        }
    }

    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
        let process = &self.bus.process;
        let luck = to_store(process, "settle").await?;
        let (reply, answer) = oneshot::channel();
        // On its way it is nobody's any more: it arrives even if the process dies.
        tokio::spawn(arrive(self.bus.clone(), self.door.clone(), runs, reply));
        let answers = answer.await.map_err(|_| BusError::Closed)?;
        self.bus.answer(luck, "settle", answers).await
    }

    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        let (process, group) = (&self.bus.process, place(&self.door.group));
        process.marks(group, true);
        let marked = self.write_mark(delivery).await;
        if marked.is_ok() {
            process.marks(group, false);
        } else {
            // The worker does nothing else for that long.
            let waiting = process.clone();
            process.spawn(async move {
                tokio::time::sleep(backoff(0)).await;
                waiting.marks(group, false);
            });
        }
        marked
    }
}

/// The model's handlers have no steps.
#[async_trait]
impl Steps for ModelInbox {
    async fn recall(&self, _: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        Ok(Vec::new())
    }

    async fn record(&self, _: &Delivery, _: &Recorded) -> Result<StepAnswer, BusError> {
        Err(BusError::Refused("the model keeps no steps".into()))
    }
}

impl ModelInbox {
    /// What is there for whoever asks; begins a claim where there is nothing.
    fn take(&self, max: usize) -> Option<Result<Vec<Delivery>, BusError>> {
        let (process, mut hand) = (&self.bus.process, self.door.hand.lock());
        if let Some(error) = hand.failed.take() {
            self.fails(true);
            return Some(Err(error));
        }
        self.fails(false);
        if !hand.waiting.is_empty() {
            let count = max.min(hand.waiting.len());
            let deliveries: Vec<_> = hand.waiting.drain(..count).collect();
            drop(hand);
            deliveries.iter().for_each(|delivery| self.handed_out(delivery));
            return Some(Ok(deliveries));
        }
        if hand.news && !hand.claiming {
            (hand.news, hand.claiming) = (false, true);
            process.spawn(claim(process.clone(), self.door.clone(), max));
        }
        None
    }

    fn fails(&self, failing: bool) {
        let (group, process) = (place(&self.door.group), &self.bus.process);
        let now = process.world.elapsed();
        process.world.capacity.lock().change(group, process.id, now, |load| load.failing = failing);
    }

    fn handed_out(&self, delivery: &Delivery) {
        let (process, number) = (&self.bus.process, number(delivery));
        let (attempt, orphaned, deaths) = (delivery.attempt(), delivery.orphaned, delivery.deaths);
        process.world.note(Step::Received { process: process.id, number, attempt, orphaned, deaths });
        process.runs.received(delivery, process.free_for(&self.door.group));
    }

    async fn write_mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        let process = &self.bus.process;
        let luck = to_store(process, "mark").await?;
        let ours = process.world.store.lock().mark(&self.door.group, process.id, delivery.lease);
        let number = number(delivery);
        if ours {
            process.world.truth.lock().marked(&self.door.group, process.id, number);
        }
        process.world.note(Step::Marked { process: process.id, number, ours });
        self.bus.answer(luck, "mark", ours).await
    }
}

/// Claims for a door; what was claimed waits there, whether anybody still asks or not.
async fn claim(process: Arc<Process>, door: Arc<Door>, max: usize) {
    let claimed = match to_store(&process, "claim").await {
        Err(error) => Err(error),
        Ok(luck) => {
            let claimed = claim_now(&process, &door, max);
            process.world.way().await;
            match luck {
                Luck::Both => Ok(claimed),
                // A bus finds again what was claimed for it.
                Luck::ReplyLost => {
                    let error = lost(&process, "claim", "reply", true).await;
                    door.hand.lock().waiting.extend(claimed);
                    Err(error)
                }
            }
        }
    };
    let mut hand = door.hand.lock();
    hand.claiming = false;
    match claimed {
        Ok(claimed) => {
            hand.news |= claimed.len() == max;
            hand.waiting.extend(claimed);
        }
        Err(error) => {
            hand.news = true;
            hand.failed = Some(error);
        }
    }
    drop(hand);
    door.bell.notify_one();
}

fn claim_now(process: &Process, door: &Door, max: usize) -> Vec<Delivery> {
    let world = &process.world;
    if door.hand.lock().closed {
        return Vec::new();
    }
    let claimed = world.store.lock().claim(&door.group, process.id, max, world.elapsed());
    let mut truth = world.truth.lock();
    for delivery in &claimed {
        truth.received(&door.group, process.id, delivery, (world.elapsed(), world.plan.recovery));
    }
    claimed
}

/// A settle reaches the store.
async fn arrive(bus: ModelBus, door: Arc<Door>, runs: Arc<[Run]>, reply: oneshot::Sender<Vec<Answer>>) {
    let world = &bus.process.world;
    world.way().await;
    if world.chance(world.plan.late) {
        let millis = world.below(2 * world.plan.recovery as u64);
        world.truth.lock().tally("settle delayed");
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    let settler = Settler {
        process: bus.process.id,
        group: door.group.clone(),
        elapsed: world.elapsed(),
        refuses_letters: *world.refuses_letters.lock(),
    };
    let answers = runs.iter().map(|run| settle_one(world, &settler, run)).collect();
    world.spread_news();
    // Whoever asked may be dead.
    drop(reply.send(answers));
}

fn settle_one(world: &World, settler: &Settler, run: &Run) -> Answer {
    let answer = world.store.lock().settle(settler, run);
    let settling = &run.deliveries[0];
    let (delivery, group) = (&*settling.delivery, &settler.group);
    let (verdict, name) = (trace::verdict(&settling.verdict), trace::answer(&answer));
    world.note(Step::Settled { process: settler.process, number: number(delivery), verdict, answer: name });
    let mut truth = world.truth.lock();
    truth.settled(group, delivery, &settling.verdict, &answer);
    match answer {
        Answer::AlreadyMine => truth.tally("settle repeated"),
        Answer::Conflict { .. } => truth.tally("conflict"),
        Answer::Fenced => truth.tally("zombie fenced"),
        Answer::StoreReset => truth.tally("settle after reset"),
        _ => {}
    }
    if delivery.orphaned >= ORPHANED_ALONE {
        truth.tally("suspect settled");
    }
    answer
}

impl Drop for ModelInbox {
    /// What was received and never settled goes back, unless the process is dead: then nobody gives anything back.
    fn drop(&mut self) {
        self.door.hand.lock().closed = true;
        let process = &self.bus.process;
        if process.standing() == Standing::Alive && !process.is_closed() {
            process.world.store.lock().close_inbox(&self.door.group, process.id);
            process.world.truth.lock().gave_back(&self.door.group, process.id);
            process.world.spread_news();
        }
    }
}
