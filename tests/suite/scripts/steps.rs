//! What is remembered of steps, in memory.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use bytes::Bytes;
use moontide::bus::{BusError, Delivery, Step, StepAnswer, Steps};
use moontide::outcome::RecordKey;
use parking_lot::Mutex;

/// The steps of one event.
#[derive(Default)]
pub struct MemorySteps {
    pub recorded: Mutex<BTreeMap<String, Bytes>>,
    /// Nobody knows what is recorded.
    pub away: bool,
    /// Answers to the next calls that record; then each is recorded.
    pub answers: Mutex<VecDeque<Result<StepAnswer, BusError>>>,
}

/// How a store says that it cannot be reached.
pub fn unplugged() -> BusError {
    BusError::Away { store: "memory".into(), cause: "the test says so".into() }
}

#[async_trait]
impl Steps for MemorySteps {
    async fn recall(&self, _: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        match self.away {
            true => Err(unplugged()),
            false => Ok(self.recorded.lock().clone().into_iter().collect()),
        }
    }

    async fn record(&self, _: &Delivery, step: &Step) -> Result<StepAnswer, BusError> {
        if let Some(answer) = self.answers.lock().pop_front() {
            return answer;
        }
        self.recorded.lock().insert(step.name.to_string(), step.result.clone());
        Ok(StepAnswer::Recorded)
    }
}
