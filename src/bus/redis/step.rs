//! What durable steps came to: a hash per event, written only by whoever holds the delivery.
//!
//! Owns the arguments of `scripts/step.lua`. When records end is settled elsewhere: with their event (`settle.lua`), or with its
//! dead letter (`letters.lua`).

use std::sync::LazyLock;

use bytes::Bytes;
use redis::Value;

use super::args::lifetime;
use super::door::Door;
use super::fault::Fault;
use super::procedure::Procedure;
use super::store::Store;
use super::{held, reply, takeover};
use crate::bus::{Delivery, Step, StepAnswer};
use crate::outcome::RecordKey;

static STEP: LazyLock<Procedure> = LazyLock::new(|| Procedure::new(include_str!("scripts/step.lua")));

/// The steps recorded for `event`.
pub(super) async fn recall(store: &Store, event: RecordKey) -> Result<Vec<(String, Bytes)>, Fault> {
    let answer = store.link.call(redis::cmd("HGETALL").arg(store.keys.steps(&event))).await?;
    let text = |(name, result): (Bytes, Bytes)| (String::from_utf8_lossy(&name).into_owned(), result);
    Ok(reply::pairs(answer)?.into_iter().map(text).collect())
}

/// Records a step of a run over `delivery`.
pub(super) async fn record(store: &Store, door: &Door, delivery: &Delivery, step: &Step) -> Result<StepAnswer, Fault> {
    if door.with_held(|held| held.standing(delivery)) != held::Standing::InHand {
        return Ok(StepAnswer::Fenced);
    }
    let mut call = takeover::begin(&STEP, store, &delivery.stream, &door.subscription.group);
    call.arg(delivery.entry.to_string()).arg(held::times(delivery.lease));
    call.arg(u8::from(store.keys.is_channel(&delivery.stream)));
    call.arg(store.keys.steps(&step.event)).arg(&*step.name).arg(&step.result[..]).arg(lifetime(step.kept));
    match STEP.run(&store.link, &call).await? {
        Value::Int(1) => Ok(StepAnswer::Recorded),
        Value::Int(0) => Ok(StepAnswer::Fenced),
        Value::Int(_) => Ok(StepAnswer::StoreReset),
        known => Ok(StepAnswer::Known(reply::bytes(known)?.unwrap_or_default())),
    }
}
