//! How things stand, for operators: groups, handlers, history.
//!
//! Only reads (but for the reports that hosts leave), and is asked rarely.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use redis::Pipeline;
use serde::{Deserialize, Serialize};

use super::channels::Ears;
use super::store::Store;
use super::{RedisBus, entry, reply, roll, standing};
use crate::bus::{BusError, ChannelStatus, GroupStatus, HandlerReport, Overview, Undecodable};
use crate::clock::Millis;
use crate::event::{EntryId, Event};

/// Entries that are read at once.
const PAGE: usize = 500;

/// A report as it is stored.
#[derive(Serialize, Deserialize)]
struct Report {
    handler: String,
    group: String,
    version: String,
    since: Millis,
    state: String,
    last_error: Option<String>,
    instance: String,
    at: Millis,
}

#[async_trait]
impl Overview for RedisBus {
    async fn groups(&self) -> Result<Vec<GroupStatus>, BusError> {
        let status = |found: standing::Standing| GroupStatus {
            lag: found.lag(),
            in_flight: found.in_flight,
            delayed: found.later(),
            dead: found.dead,
            lost: found.lost,
            oldest: found.oldest,
            group: found.group,
            handler: found.handler,
        };
        Ok(standing::all(&self.store).await?.into_iter().map(status).collect())
    }

    fn channels(&self) -> Vec<ChannelStatus> {
        self.ears.lock().as_ref().map(Ears::status).unwrap_or_default()
    }

    async fn report(&self, reports: Vec<HandlerReport>) -> Result<(), BusError> {
        let store = &self.store;
        let alive = instances(store).await?;
        let mine: HashSet<&str> = reports.iter().map(|report| report.instance.as_str()).collect();
        let mut write = Pipeline::new();
        write.atomic();
        let key = store.keys.own("reports");
        for (field, before) in stored(store).await? {
            if mine.contains(before.instance.as_str()) || !alive.contains(&before.instance) {
                write.cmd("HDEL").arg(&key).arg(field);
            }
        }
        for report in &reports {
            let field = format!("{} {}", report.instance, report.handler);
            write.cmd("HSET").arg(&key).arg(field).arg(Report::text(report));
        }
        store.link.send(&write).await.map(drop).map_err(|fault| store.told(fault))
    }

    async fn reports(&self) -> Result<Vec<HandlerReport>, BusError> {
        let alive = instances(&self.store).await?;
        let reports = stored(&self.store).await?.into_values().map(|report| report.shown(&alive));
        let mut reports: Vec<HandlerReport> = reports.collect();
        reports.sort_by(|a, b| (&a.handler, &a.instance).cmp(&(&b.handler, &b.instance)));
        Ok(reports)
    }

    async fn history(
        &self,
        stream: &str,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Result<Event, Undecodable>)>, BusError> {
        let mut found: Vec<(EntryId, Result<Event, Undecodable>)> = Vec::new();
        while found.len() < limit {
            let count = PAGE.min(limit - found.len());
            let from = found.last().map(|(entry, _)| *entry).or(after);
            let from = from.map_or_else(|| "-".into(), |entry| format!("({entry}"));
            let answer =
                self.store.call(redis::cmd("XRANGE").arg(stream).arg(from).arg("+").arg("COUNT").arg(count)).await?;
            let page =
                reply::list(answer).and_then(|page| page.into_iter().map(reply::entry).collect::<Result<Vec<_>, _>>());
            let page = page.map_err(|fault| self.store.told(fault))?;
            let ended = page.len() < count;
            let own = self.store.keys.is_own(stream);
            found.extend(page.into_iter().map(|(id, fields)| {
                let fields = fields.unwrap_or_default();
                let streams = &self.store.options.streams;
                let read = match own {
                    true => entry::read_own(streams, stream, id, fields),
                    false => entry::read(streams, stream, id, fields),
                };
                (id, read.event)
            }));
            if ended {
                break;
            }
        }
        Ok(found)
    }
}

/// Names of the processes that are alive.
async fn instances(store: &Store) -> Result<HashSet<String>, BusError> {
    let (alive, _) = roll::alive(store).await?;
    let own = std::iter::once(store.options.instance.clone());
    Ok(alive.into_values().map(|process| process.instance).chain(own).collect())
}

async fn stored(store: &Store) -> Result<BTreeMap<Vec<u8>, Report>, BusError> {
    let answer = store.call(redis::cmd("HGETALL").arg(store.keys.own("reports"))).await?;
    let pairs = reply::pairs(answer).map_err(|fault| store.told(fault))?;
    // What another version wrote in another form is not shown.
    let read =
        pairs.into_iter().filter_map(|(field, text)| Some((field.to_vec(), serde_json::from_slice(&text).ok()?)));
    Ok(read.collect())
}

impl Report {
    fn text(report: &HandlerReport) -> String {
        let HandlerReport { handler, group, version, since, state, last_error, instance, at } = report.clone();
        let stored = Self { handler, group, version, since, state, last_error, instance, at };
        serde_json::to_string(&stored).expect("texts and numbers are always JSON")
    }

    fn shown(self, alive: &HashSet<String>) -> HandlerReport {
        let Self { handler, group, version, since, state, last_error, instance, at } = self;
        let state = if alive.contains(&instance) { state } else { HandlerReport::NOT_RUNNING.to_owned() };
        HandlerReport { handler, group, version, since, state, last_error, instance, at }
    }
}
