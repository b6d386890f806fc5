//! What operators do with groups and with the server as a whole.
//!
//! Owns who counts as living for an operator: whoever serves the group here, or did within the recovery time while another
//! process is there. Handing over is done in `hand_over`.

use std::path::Path;
use std::sync::LazyLock;

use async_trait::async_trait;

use super::fault::Fault;
use super::hand_over::{self, HandOver};
use super::procedure::Procedure;
use super::standing::{self, Standing};
use super::store::Store;
use super::{RedisBus, reply, roll};
use crate::bus::{BusError, GroupDetail, Groups, Housekeeping, Moved, Process};

static FORGET: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/letters.lua"),
        include_str!("scripts/moving.lua"),
        include_str!("scripts/leave.lua"),
        include_str!("scripts/forget.lua")
    ))
});

#[async_trait]
impl Groups for RedisBus {
    async fn all(&self) -> Result<Vec<GroupDetail>, BusError> {
        let living = Living::ask(&self.store).await?;
        let all = standing::all(&self.store).await?;
        Ok(all.into_iter().map(|found| detail(found, &self.store, &living)).collect())
    }

    async fn hand_over(&self, from: &str, to: &str) -> Result<Moved, BusError> {
        if from == to {
            return Err(BusError::Refused(format!("{from} and {to} are the same group")));
        }
        if !hand_over::is_underway(&self.store, from, to).await? {
            self.refuse_living(&[from, to]).await?;
        }
        HandOver::new(&self.store, from, to).run().await
    }

    async fn forget(&self, group: &str) -> Result<bool, BusError> {
        self.refuse_living(&[group]).await?;
        let mut call = FORGET.call();
        call.arg(self.store.keys.prefix()).arg(self.store.keys.dead()).arg(group);
        let answer = self.store.run(&FORGET, &call).await?;
        Ok(reply::int(&answer).map_err(|fault| self.store.told(fault))? == 1)
    }
}

impl RedisBus {
    async fn refuse_living(&self, groups: &[&str]) -> Result<(), BusError> {
        let living = Living::ask(&self.store).await?;
        let all = standing::all(&self.store).await?;
        let served = |found: &&Standing| groups.contains(&found.group.as_str()) && living.serves(&self.store, found);
        let Some(served) = all.iter().find(served) else { return Ok(()) };
        let seconds = self.store.options.recovery_time.as_secs_f64();
        Err(BusError::Refused(format!(
            "group {} is being served, or was until a moment ago; stop its host (or take its file away and wait {seconds} s) \
             and try again",
            served.group
        )))
    }
}

struct Living {
    others: Vec<Process>,
    now: i64,
}

impl Living {
    async fn ask(store: &Store) -> Result<Self, BusError> {
        let (mut alive, now) = roll::alive(store).await?;
        alive.remove(&store.process);
        let mut others: Vec<Process> = alive.into_values().collect();
        others.sort_by(|a, b| (a.started_at, &a.instance).cmp(&(b.started_at, &b.instance)));
        Ok(Self { others, now })
    }

    fn serves(&self, store: &Store, found: &Standing) -> bool {
        let recovery = i64::try_from(store.options.recovery_time.as_millis()).unwrap_or(i64::MAX);
        let recently = self.now.saturating_sub(found.seen_at) < recovery;
        let here = store.doors().iter().any(|door| !door.is_closed() && *door.subscription.group == *found.group);
        here || (recently && !self.others.is_empty())
    }
}

fn detail(found: Standing, store: &Store, living: &Living) -> GroupDetail {
    GroupDetail {
        live: living.serves(store, &found),
        lag: found.lag(),
        in_flight: found.in_flight,
        delayed: found.later(),
        dead: found.dead,
        lost: found.lost,
        foreign_consumers: found.foreign.len() as u64,
        foreign_pending: found.foreign.values().sum(),
        seen_at: found.seen_at,
        positions: found.positions.into_iter().map(|position| position.at).collect(),
        group: found.group,
        handler: found.handler,
    }
}

#[async_trait]
impl Housekeeping for RedisBus {
    async fn processes(&self) -> Result<Vec<Process>, BusError> {
        Ok(Living::ask(&self.store).await?.others)
    }

    /// What the whole server uses, other people's keys included.
    async fn size_bytes(&self) -> Result<u64, BusError> {
        let answer = self.store.call(redis::cmd("INFO").arg("memory")).await?;
        let text = reply::text(answer).map_err(|fault| self.store.told(fault))?;
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        used.ok_or_else(|| self.store.told(Fault::Away("it does not say how much memory it uses".into())))
    }

    async fn backup(&self, _: &Path) -> Result<(), BusError> {
        Err(BusError::Refused(
            "a Redis server keeps its own copies: BGSAVE writes an RDB file, `redis-cli --rdb FILE` fetches one; \
             each is of one moment, with every event's effects or none"
                .into(),
        ))
    }
}
