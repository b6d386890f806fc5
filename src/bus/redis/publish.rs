//! Stores events: all of a call, or none.

use redis::Value;

use super::args::Args;
use super::due::Due;
use super::fault::Fault;
use super::reply;
use super::store::Store;
use crate::bus::BusError;
use crate::event::EntryId;
use crate::failpoint;
use crate::outcome::Emit;

/// Stores `emits` and says where each lies.
pub(super) async fn publish(store: &Store, due: &Due, emits: &[Emit]) -> Result<Vec<Option<EntryId>>, BusError> {
    let procedure = &store.procedures.publish;
    let mut args = Args::of(procedure);
    args.push(store.keys.prefix());
    args.events(emits, store);
    let ids = failpoint::during("publish.sent", store.run(procedure, &args.done())).await?;
    failpoint::reached("publish.after");
    if let Some(delay) = emits.iter().filter_map(|emit| emit.delay).min() {
        due.added(delay);
    }
    read(ids).map_err(|fault| store.told(fault))
}

fn read(ids: Value) -> Result<Vec<Option<EntryId>>, Fault> {
    let id = |value| match value {
        Value::Nil | Value::Boolean(false) => Ok(None),
        value => reply::entry_id(value).map(Some),
    };
    reply::list(ids)?.into_iter().map(id).collect()
}
