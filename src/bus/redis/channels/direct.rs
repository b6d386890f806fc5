//! Messages straight to handlers, at most once: nothing is stored before a handler has settled.
//!
//! A delivery of a message lies in no stream. It is ours to settle as long as we have the lead over it, which the settle asks
//! for. A retry makes it durable: from then on it lies in the group's own stream.

use std::sync::Arc;

use super::super::store::Store;
use super::lead::Leads;
use super::{Decoded, Heard, lead_of, place};
use crate::bus::{Delivery, Undecodable};
use crate::event::Event;

/// Deliveries that wait in one inbox; what comes beyond that is lost, and counted.
const WAITING_MAX: usize = 10_000;

/// Hands a message to every handler here that asks for it and whose lead is ours.
pub(super) fn hand_out(store: &Store, leads: &Leads, heard: &Heard, channel: &str, decoded: Decoded) {
    let event = match decoded.event {
        Ok(event) if decoded.named => Ok(event),
        Ok(event) => Ok(Event { id: uuid::Uuid::now_v7().to_string(), ..event }),
        Err(reason) => {
            heard.counts.undecodable();
            Err(Undecodable { reason, fields: decoded.fields })
        }
    };
    let stream: Arc<str> = store.keys.channel(&heard.channel.name).into();
    for door in store.doors() {
        let wanted = event.as_ref().map_or(true, |event| door.subscription.wants(&event.kind));
        if !wanted || door.is_closed() {
            continue;
        }
        if !leads.has(&lead_of(&heard.channel, &door.subscription.group)) {
            heard.counts.duplicate();
            continue;
        }
        let (now, entry) = (store.now(), place(store.now()));
        let lease = door.with_held(|held| held.take_in(&stream, &[(entry, 1)]));
        let Some(lease) = lease.into_iter().next() else { continue };
        let delivery = Delivery {
            lease,
            stream: stream.clone(),
            entry,
            event: event.clone(),
            lay: None,
            past: None,
            orphaned: 0,
            deaths: 0,
            received: now,
        };
        if door.hand(delivery, WAITING_MAX) {
            heard.counts.taken();
        } else if heard.counts.dropped() {
            let handler = &*door.subscription.handler;
            tracing::error!(channel, handler, "more messages than it can handle; some are lost");
        }
    }
}
