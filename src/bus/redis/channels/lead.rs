//! Who takes what only one process may take.
//!
//! A lead has a name and an owner, and no time at which it ends: another process gets it when the owner is dead, by the
//! heartbeats as everywhere, or gone. Whoever gets it has a marker published to itself in the same step: what its connection
//! brought before the marker was the last owner's to take, and what comes after is taken by nobody else, since the server
//! asks for the owner whenever something is stored. So each message is taken at most once.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::super::beat::Beat;
use super::super::fault::Fault;
use super::super::procedure::Procedure;
use super::super::reply;
use super::super::store::Store;
use super::{Heard, lead_of};
use crate::channels::Deliver;

static CLAIM: LazyLock<Procedure> = LazyLock::new(|| Procedure::new(include_str!("../scripts/lead.lua")));

/// The leads of this process.
pub(super) struct Leads {
    store: Arc<Store>,
    beat: Arc<Beat>,
    /// Those that we have; true: the marker has come.
    ours: Mutex<HashMap<String, bool>>,
}

impl Leads {
    pub fn new(store: Arc<Store>, beat: Arc<Beat>) -> Self {
        Self { store, beat, ours: Mutex::default() }
    }

    /// The channel in which markers come.
    pub fn marker(&self) -> String {
        self.store.keys.own(&format!("lead:{}", self.store.process))
    }

    /// How often leads are asked for.
    pub fn period(&self) -> Duration {
        self.store.options.beat_period()
    }

    /// Whether what was just heard is ours to take.
    pub fn has(&self, name: &str) -> bool {
        self.ours.lock().get(name).copied().unwrap_or(false)
    }

    /// Everything that was heard from here on is ours to take.
    pub fn marked(&self, name: &str) {
        if let Some(marked) = self.ours.lock().get_mut(name) {
            *marked = true;
        }
    }

    /// Something may have been missed: what is heard from now on needs a new marker.
    pub fn unmark(&self) {
        self.ours.lock().values_mut().for_each(|marked| *marked = false);
    }

    /// Asks for every lead that there is. While the server is away nothing is heard, so nothing is led.
    pub async fn claim(&self, heard: &[Heard]) {
        let names = self.names(heard);
        if names.is_empty() {
            return;
        }
        match self.ask(&names).await {
            Ok(owned) => self.take_up(names, &owned),
            Err(fault) => tracing::debug!(?fault, "no lead"),
        }
    }

    fn names(&self, heard: &[Heard]) -> Vec<String> {
        let doors = self.store.doors();
        let mut names = Vec::new();
        for Heard { channel, .. } in heard {
            match channel.deliver {
                Deliver::Stream => names.push(lead_of(channel, "")),
                Deliver::Direct => names.extend(doors.iter().map(|door| lead_of(channel, &door.subscription.group))),
            }
        }
        names
    }

    /// For each name: whether it is ours.
    async fn ask(&self, names: &[String]) -> Result<Vec<bool>, Fault> {
        let owners = redis::cmd("HMGET").arg(self.store.keys.own("lead")).arg(names).to_owned();
        let owners = reply::list(self.store.link.call(&owners).await?)?;
        let mut call = CLAIM.call();
        call.arg(self.store.keys.prefix()).arg(&self.store.process).arg(self.marker());
        for (name, owner) in names.iter().zip(owners) {
            let owner = reply::bytes(owner)?.map(|owner| String::from_utf8_lossy(&owner).into_owned());
            let dead_at = owner.as_deref().and_then(|owner| self.beat.dead_at(owner));
            let marked = self.has(name);
            call.arg(name).arg(owner.unwrap_or_default());
            call.arg(dead_at.map_or_else(String::new, |beat| beat.to_string())).arg(u8::from(!marked));
        }
        let answer = reply::list(CLAIM.run(&self.store.link, &call).await?)?;
        answer.iter().map(|one| Ok(reply::int(one)? == 1)).collect()
    }

    fn take_up(&self, names: Vec<String>, owned: &[bool]) {
        let mut ours = self.ours.lock();
        ours.retain(|name, _| names.contains(name));
        for (name, owned) in names.into_iter().zip(owned) {
            match owned {
                true => drop(ours.entry(name).or_insert(false)),
                false => drop(ours.remove(&name)),
            }
        }
    }
}
