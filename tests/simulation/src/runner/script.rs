//! One run: record, turns on hot keys, reads, effects, in the order of a real one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moontide::bus::{Delivery, Ledger, Recorded};
use moontide::event::{Event, Json};
use moontide::hot::{HotGuard, HotKeys};
use moontide::outcome::{
    Change, Effects, Emit, Failure, FailureKind, Outcome, Read, Record, RecordKey, Release, Seen, Write,
};
use moontide::script::Program;

use crate::bus::ModelBus;
use crate::editions::CHILD;
use crate::events::{CHILDREN, child_of, number};
use crate::plan::Script;
use crate::process::Process;
use crate::truth::Fate;
use crate::world::TEXT;

/// A script that cannot be interrupted loses its thread after so long.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// A run in flight.
pub(super) struct Running {
    pub process: Arc<Process>,
    pub group: Arc<str>,
    pub id: u64,
    pub delivery: Arc<Delivery>,
    pub program: Arc<Program>,
    pub hot: Arc<HotKeys>,
    pub held: Vec<HotGuard>,
    pub reads: Vec<Read>,
    pub record: Option<Record>,
}

impl Running {
    /// What becomes of it if nothing ends it from outside.
    pub async fn go(&mut self) -> Outcome {
        self.process.world.shake().await;
        self.steps().await.unwrap_or_else(|early| early)
    }

    async fn steps(&mut self) -> Result<Outcome, Outcome> {
        let delivery = self.delivery.clone();
        let event = delivery.event.as_ref();
        let event = event.map_err(|garbage| Outcome::Undecodable { reason: garbage.reason.clone() })?;
        let script = self.script();
        if script == Script::NoKey {
            return Err(Outcome::Invalid { reason: "idempotency key: expected a value, got nothing".to_owned() });
        }
        self.check_record(event).await?;
        self.misbehave(script).await?;
        let sums = self.sums(script).await?;
        Ok(Outcome::Done(self.effects(script, sums)))
    }

    /// Children do no more than count.
    fn script(&self) -> Script {
        let planned = self.process.world.plan.events.get(number(&self.delivery));
        planned.map_or(Script::Count, |planned| planned.script)
    }

    fn ledger(&self) -> ModelBus {
        ModelBus { process: self.process.clone() }
    }

    async fn check_record(&mut self, event: &Event) -> Result<(), Outcome> {
        let manifest = &self.program.manifest;
        let Some(window) = manifest.idempotency.window else { return Ok(()) };
        let text = format!("{}/{}", event.source, event.id);
        let key = RecordKey::new(&manifest.group, &event.kind, &text);
        self.record = Some(Record { key, text, window });
        let Ok(recorded) = self.ledger().recorded(&[key]).await else { return Err(store_away()) };
        match recorded.into_iter().flatten().find(|recorded| self.is_foreign(recorded)) {
            Some(recorded) if recorded.contested => Err(Outcome::Contested { by: recorded.by }),
            Some(recorded) => Err(Outcome::Duplicate { by: recorded.by }),
            None => Ok(()),
        }
    }

    fn is_foreign(&self, recorded: &Recorded) -> bool {
        let origin = |token: &str| token.rsplit_once('#').map(|(origin, _)| origin.to_owned());
        origin(&self.delivery.token()) != origin(&recorded.by)
    }

    /// What scripts do instead of coming to their end.
    async fn misbehave(&self, script: Script) -> Result<(), Outcome> {
        let (attempt, fate) = (self.delivery.attempt(), self.fate());
        let snoozes = self.delivery.past.as_ref().map_or(0, |past| past.snoozes);
        let reason = || "as planned".to_owned();
        match script {
            Script::Slow { millis } => sleep(millis).await,
            Script::Fail { times } if attempt <= times => {
                return Err(Outcome::Failed(Failure::new(FailureKind::Error, reason())));
            }
            Script::Ask { times, millis } if attempt <= times => {
                return Err(Outcome::Retry { after: Duration::from_millis(millis), reason: reason() });
            }
            Script::Snooze { times, millis } if snoozes < times => {
                return Err(Outcome::Snooze { after: Duration::from_millis(millis), reason: reason() });
            }
            Script::Reject => return Err(Outcome::Reject { reason: reason() }),
            Script::Kill { times } if fate.killed < times => self.end_process().await,
            Script::Stuck { times } if fate.stuck < times => return Err(self.stick().await),
            Script::Bomb { times } if attempt <= times => return Err(self.explode().await),
            _ => {}
        }
        Ok(())
    }

    fn fate(&self) -> Fate {
        self.process.world.truth.lock().fate(&self.group, number(&self.delivery)).clone()
    }

    async fn end_process(&self) {
        self.some_time().await;
        let (world, number) = (&self.process.world, number(&self.delivery));
        // A zombie's run is nobody's any more, and what it ends is charged to nobody.
        let ours = world.store.lock().held_by(self.process.id).contains(&(self.group.clone(), number));
        if ours {
            world.truth.lock().fate(&self.group, number).killed += 1;
        }
        self.process.kill(Some(number));
        std::future::pending().await
    }

    async fn stick(&self) -> Outcome {
        tokio::time::sleep(STUCK_AFTER).await;
        self.process.world.truth.lock().fate(&self.group, number(&self.delivery)).stuck += 1;
        self.process.runs.lose_thread(self.id);
        Outcome::Released(Release::Stuck)
    }

    async fn explode(&self) -> Outcome {
        self.some_time().await;
        match self.process.runs.take_down(self.id) {
            true => Outcome::Released(Release::Neighbour),
            false => Outcome::Failed(Failure::new(FailureKind::Memory, "out of memory")),
        }
    }

    async fn some_time(&self) {
        sleep(self.process.world.below(300)).await;
    }

    /// Reads each sum, with a turn on its key if it is hot, and answers what it will be.
    async fn sums(&mut self, script: Script) -> Result<Vec<(String, u64)>, Outcome> {
        let mut sums = Vec::new();
        for key in script.sums() {
            let key = format!("sum/{key}");
            if let Some(turn) = self.hot.enter(&key, &self.held).await {
                self.held.push(turn);
            }
            let Ok(values) = self.ledger().read(std::slice::from_ref(&key)).await else { return Err(store_away()) };
            let value: Option<Bytes> = values.into_iter().next().flatten();
            let before = value.as_ref().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0u64);
            self.reads.push(Read { key: key.clone(), seen: Seen::of(value.as_ref()) });
            sums.push((key, before + 1));
        }
        Ok(sums)
    }

    fn effects(&self, script: Script, sums: Vec<(String, u64)>) -> Effects {
        let number = number(&self.delivery);
        let once = Write { key: format!("of/{}/{number}", self.group), change: Change::Add(1.0) };
        let set = |(key, value): (String, u64)| Write {
            key,
            change: Change::Set { value: Json::trusted(value.to_string()), ttl: None },
        };
        let mut writes: Vec<Write> = sums.into_iter().map(set).collect();
        writes.push(once);
        if script == Script::AddToText {
            writes.push(Write { key: TEXT.to_owned(), change: Change::Add(1.0) });
        }
        let delay = match script {
            Script::Emit { delay } if delay > 0 => Some(Duration::from_millis(delay)),
            _ => None,
        };
        let emits = number < CHILDREN && script.emits();
        let child = || Emit { stream: format!("events:{CHILD}"), event: child_of(number), delay };
        Effects { events: emits.then(child).into_iter().collect(), writes, ..Effects::default() }
    }
}

fn store_away() -> Outcome {
    Outcome::Released(Release::StoreAway)
}

async fn sleep(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
