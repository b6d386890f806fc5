//! Placeholder until the branch is merged.
use super::entry::Fields;
use super::fault::Fault;
use super::store::Store;
use crate::event::EntryId;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) struct Left {
    pub entry: EntryId,
    pub fields: Fields,
    pub times: u32,
    pub deaths: u32,
}
#[derive(Default)]
pub(super) struct Taken {
    pub entries: Vec<Left>,
    pub more: bool,
}
pub(super) async fn own_pending(_: &Store, _: &str, _: &str, _: &HashSet<EntryId>, _: usize) -> Result<Taken, Fault> {
    Ok(Taken::default())
}
pub(super) async fn take_over(_: &Store, _: &str, _: &str, _: usize) -> Result<Taken, Fault> {
    Ok(Taken::default())
}
pub(super) async fn mark(_: &Store, _: &str, _: &str, _: EntryId, _: u32) -> Result<bool, Fault> {
    Ok(false)
}
pub(super) async fn give_back(_: &Store, _: &str, _: &[(Arc<str>, EntryId, u32)]) -> Result<(), Fault> {
    Ok(())
}
