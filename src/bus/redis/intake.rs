//! Events from outside: a key claims its body, in the script that stores them.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::args::{Args, millis};
use super::fault::Fault;
use super::procedure::Procedure;
use super::{RedisBus, reply};
use crate::bus::{BusError, Claim, Intake, TakenIn};
use crate::failpoint;
use crate::outcome::Emit;

static TAKE_IN: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/effects.lua"), include_str!("scripts/intake.lua"))));

#[async_trait]
impl Intake for RedisBus {
    async fn take_in(&self, emits: Vec<Emit>, claim: Claim) -> Result<TakenIn, BusError> {
        let store = &self.store;
        let mut args = Args::of(&TAKE_IN);
        args.push(store.keys.prefix());
        args.push(store.keys.intake(&claim.key));
        args.push(format!("{:032x}", claim.body));
        args.int(millis(claim.window).max(1));
        args.events(&emits, store);
        let answer = failpoint::during("intake.sent", store.run(&TAKE_IN, &args.done())).await?;
        failpoint::reached("intake.after");
        match reply::text(answer).map_err(|fault| store.told(fault))?.as_str() {
            "stored" => Ok(TakenIn::Stored),
            "before" => Ok(TakenIn::Before),
            "other" => Ok(TakenIn::OtherBody),
            answer => Err(store.told(Fault::Away(format!("it answered {answer:.80}")))),
        }
    }
}
