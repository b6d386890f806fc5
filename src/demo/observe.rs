//! Reads from a store what became of the demo: state, endings and dead letters.
//!
//! Owns how the example handlers' keys and events are understood. Judges nothing: that is the audit's part.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Units;
use super::audit::{Dead, Ending, Observed};
use crate::bus::{BusError, DeadFilter, DeadLetters, Overview, StateAdmin, StateEntry};
use crate::event::Event;
use crate::streams::Streams;

/// Entries asked for at a time.
const PAGE: usize = 1000;

/// The doors to the store that observing needs.
#[derive(Clone)]
pub struct Doors {
    pub state: Arc<dyn StateAdmin>,
    pub dead: Arc<dyn DeadLetters>,
    pub overview: Arc<dyn Overview>,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: f64,
}

/// The payload of an event of the choreography, as far as the audit looks at it.
#[derive(Default, Deserialize)]
struct Payload {
    checkout_id: Option<String>,
    reason: Option<String>,
}

impl Doors {
    /// Everything the audit asks for. `streams` says where the ending events lie.
    pub async fn observe(&self, streams: &Streams) -> Result<Observed, BusError> {
        let mut observed = Observed {
            stock: self.units("stock/").await?,
            sold: self.units("sold/").await?,
            audited: self.units("audit/count/").await?,
            dead: self.dead().await?,
            ..Observed::default()
        };
        for (checkout_id, entry) in self.state("reserved/").await? {
            observed.reserved.insert(checkout_id, reserved(&entry)?);
        }
        for kind in ["CheckoutSucceeded", "CheckoutFailed"] {
            for event in self.history(&streams.of(kind), kind).await? {
                let payload: Payload = payload(&event).unwrap_or_default();
                let ending = match kind {
                    "CheckoutFailed" => Ending::Failed { reason: payload.reason.unwrap_or_default() },
                    _ => Ending::Succeeded,
                };
                observed.endings.entry(payload.checkout_id.unwrap_or_default()).or_default().push(ending);
            }
        }
        Ok(observed)
    }

    /// The entries below `prefix`, named by the rest of their key.
    async fn state(&self, prefix: &str) -> Result<Vec<(String, StateEntry)>, BusError> {
        let mut found: Vec<(String, StateEntry)> = Vec::new();
        loop {
            let after = found.last().map(|(_, entry)| entry.key.clone());
            let page = self.state.scan(prefix, after.as_deref(), PAGE).await?;
            let last = page.len() < PAGE;
            found
                .extend(page.into_iter().filter_map(|entry| Some((entry.key.strip_prefix(prefix)?.to_owned(), entry))));
            if last {
                return Ok(found);
            }
        }
    }

    async fn units(&self, prefix: &str) -> Result<Units, BusError> {
        let entries = self.state(prefix).await?;
        entries.into_iter().map(|(name, entry)| Ok((name, whole(parsed(&entry)?, &entry.key)?))).collect()
    }

    /// All events of type `kind` that `stream` still holds.
    async fn history(&self, stream: &str, kind: &str) -> Result<Vec<Event>, BusError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.overview.history(stream, after, PAGE).await?;
            let last = page.len() < PAGE;
            after = page.last().map(|(entry, _)| *entry).or(after);
            found.extend(page.into_iter().filter_map(|(_, event)| event.ok()).filter(|event| event.kind == kind));
            if last {
                return Ok(found);
            }
        }
    }

    async fn dead(&self) -> Result<Vec<Dead>, BusError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.dead.list(DeadFilter { after, limit: PAGE, ..DeadFilter::default() }).await?;
            let last = page.len() < PAGE;
            after = page.last().map(|letter| letter.id).or(after);
            found.extend(page.into_iter().map(|letter| Dead {
                handler: letter.handler,
                event_id: letter.event.as_ref().map(|event| event.id.clone()).unwrap_or_default(),
                checkout_id: letter.event.ok().and_then(|event| payload(&event)?.checkout_id),
            }));
            if last {
                return Ok(found);
            }
        }
    }
}

fn reserved(entry: &StateEntry) -> Result<Units, BusError> {
    let items: Vec<Item> = parsed(entry)?;
    items.into_iter().map(|item| Ok((item.sku, whole(item.quantity, &entry.key)?))).collect()
}

fn payload(event: &Event) -> Option<Payload> {
    serde_json::from_slice(event.data.as_ref()?.bytes()).ok()
}

fn parsed<T: DeserializeOwned>(entry: &StateEntry) -> Result<T, BusError> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        BusError::Refused(format!("state {} is not what the example handlers write: {error}", entry.key))
    })
}

/// Units are whole; a fraction is a defect that must not be rounded away.
fn whole(number: f64, key: &str) -> Result<i64, BusError> {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Ok(number as i64);
    }
    Err(BusError::Refused(format!("state {key} is {number}, which counts no units")))
}
