//! Messages into streams: what was heard is stored, in the order in which it was heard.
//!
//! A batch is one script. Where its answer is lost, what has an id is sent again, since its id claims it; what has none is not:
//! it is taken at most once.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Value;
use tokio::sync::mpsc;

use super::super::args::{Args, millis};
use super::super::dead;
use super::super::procedure::Procedure;
use super::super::reply;
use super::super::store::Store;
use super::lead::Leads;
use super::{Decoded, Heard, Message, Said, direct, lead_of, place};
use crate::bus::{Delivery, Lease, PastFailure, Undecodable, backoff};
use crate::channels::Deliver;
use crate::envelope::Fields;
use crate::event::{ATTRIBUTE_BYTES_MAX, Event};
use crate::judge::DeathReason;
use crate::outcome::{Emit, Failure, FailureKind, RecordKey};

static BRIDGE: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("../scripts/effects.lua"),
        include_str!("../scripts/letters.lua"),
        include_str!("../scripts/iso8601.lua"),
        include_str!("../scripts/bridge.lua")
    ))
});

/// Messages that one script stores.
const BATCH_MAX: usize = 128;
/// How long the id of a message is remembered: overlapping listeners hear it at once, and publishers repeat within seconds.
const CLAIM_WINDOW: Duration = Duration::from_secs(600);
/// What stands before the key of a claim, so that it is nobody else's.
const CLAIM: &str = "channel";

/// Takes what was heard.
pub(super) struct Taker {
    pub store: Arc<Store>,
    pub heard: Arc<[Heard]>,
    pub leads: Arc<Leads>,
}

/// A message on its way into the store.
struct Item {
    heard: usize,
    /// Claims it; `None`: only who leads stores it.
    claim: Option<String>,
    what: What,
}

enum What {
    Event(Box<Emit>),
    Letter(Fields),
}

impl Taker {
    pub async fn take(self, mut said: mpsc::Receiver<Said>) {
        let mut some = Vec::with_capacity(BATCH_MAX);
        while said.recv_many(&mut some, BATCH_MAX).await > 0 {
            let items: Vec<Item> = some.drain(..).filter_map(|said| self.take_one(said)).collect();
            self.store_all(items).await;
        }
    }

    /// What is to be stored of it, if anything is.
    fn take_one(&self, said: Said) -> Option<Item> {
        let message = match said {
            Said::Message(message) => message,
            Said::Marker(name) => {
                self.leads.marked(&name);
                return None;
            }
            Said::Gap => {
                self.leads.unmark();
                return None;
            }
        };
        let heard = &self.heard[message.heard];
        let decoded = message.decode(heard, self.store.now());
        match heard.channel.deliver {
            Deliver::Stream => self.item(&message, decoded),
            Deliver::Direct => {
                direct::hand_out(&self.store, &self.leads, heard, &message.channel, decoded);
                None
            }
        }
    }

    fn item(&self, message: &Message, decoded: Decoded) -> Option<Item> {
        let heard = &self.heard[message.heard];
        let leads = self.leads.has(&lead_of(&heard.channel, ""));
        let item = match decoded.event {
            Ok(event) if decoded.named => {
                let claim = self.claim(&event);
                Item { heard: message.heard, claim: Some(claim), what: self.event(event) }
            }
            _ if !leads => {
                heard.counts.duplicate();
                return None;
            }
            Ok(event) => {
                let event = Event { id: uuid::Uuid::now_v7().to_string(), ..event };
                Item { heard: message.heard, claim: None, what: self.event(event) }
            }
            Err(reason) => {
                heard.counts.undecodable();
                let letter = self.letter(&message.channel, Undecodable { reason, fields: decoded.fields });
                Item { heard: message.heard, claim: None, what: What::Letter(letter) }
            }
        };
        Some(item)
    }

    fn claim(&self, event: &Event) -> String {
        self.store.keys.intake(&RecordKey::new(CLAIM, &event.kind, &format!("{} {}", event.source, event.id)))
    }

    /// Not published again: it came by channel.
    fn event(&self, event: Event) -> What {
        let stream = self.store.options.streams.of(&event.kind);
        What::Event(Box::new(Emit { stream, event, delay: None }))
    }

    /// The dead letter of a message that is no event.
    fn letter(&self, channel: &str, raw: Undecodable) -> Fields {
        let now = self.store.now();
        let mut fields = raw.fields.clone();
        // A field needs a name to lie in a stream.
        fields.iter_mut().filter(|(name, _)| name.is_empty()).for_each(|(name, _)| *name = "message".into());
        let failure = Failure::new(FailureKind::Event, raw.reason.clone());
        let failure = PastFailure { attempt: 1, at: now, version: Arc::from(""), failure };
        let delivery = Delivery {
            lease: Lease { claim: 0, epoch: 0 },
            stream: self.store.keys.channel(channel).into(),
            entry: place(now),
            event: Err(Undecodable { fields, ..raw }),
            lay: None,
            past: None,
            orphaned: 0,
            deaths: 0,
            received: now,
        };
        let letter = dead::Letter {
            handler: &format!("channel {}", &channel[..channel.floor_char_boundary(ATTRIBUTE_BYTES_MAX)]),
            group: "",
            version: "",
            delivery: &delivery,
            reason: DeathReason::Undecodable,
            failures: &[failure],
            idempotency_key: None,
        };
        self.store.shelf().lay(&letter).fields
    }

    async fn store_all(&self, mut items: Vec<Item>) {
        let mut failures = 0;
        while !items.is_empty() {
            let answer = BRIDGE.run(&self.store.link, &self.args(&items).done()).await;
            match answer.and_then(reply::list) {
                Ok(answers) => return self.stored(&items, answers),
                Err(fault) => {
                    let told = self.store.told(fault).to_string();
                    // Nobody knows what became of them.
                    let (named, others): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.claim.is_some());
                    others.iter().for_each(|item| self.lost(item, &told));
                    if failures == 0 && !named.is_empty() {
                        tracing::warn!("messages of channels wait to be stored: {told}");
                    }
                    items = named;
                    failures += 1;
                    tokio::time::sleep(backoff(failures)).await;
                }
            }
        }
    }

    fn args(&self, items: &[Item]) -> Args {
        let mut args = Args::of(&BRIDGE);
        args.push(self.store.keys.prefix());
        args.push(self.store.keys.dead());
        args.push(&self.store.process);
        args.int(items.len() as u64);
        for item in items {
            match &item.claim {
                Some(_) => args.push(""),
                None => args.push(lead_of(&self.heard[item.heard].channel, "")),
            }
            args.push(item.claim.as_deref().unwrap_or_default());
            args.int(millis(CLAIM_WINDOW));
            match &item.what {
                What::Event(emit) => {
                    args.push("E");
                    args.stored(emit, &self.store);
                }
                What::Letter(fields) => {
                    args.push("L");
                    args.fields(fields);
                }
            }
        }
        args
    }

    fn stored(&self, items: &[Item], answers: Vec<Value>) {
        for (item, answer) in items.iter().zip(answers) {
            let counts = &self.heard[item.heard].counts;
            let answer = reply::text(answer).unwrap_or_default();
            match (answer.as_str(), &item.what) {
                ("S", What::Event(_)) => counts.taken(),
                ("S", What::Letter(_)) => {}
                ("B" | "N", _) => counts.duplicate(),
                (why, _) => self.lost(item, why.trim_start_matches('I')),
            }
        }
    }

    fn lost(&self, item: &Item, why: &str) {
        let Heard { channel, counts } = &self.heard[item.heard];
        if counts.dropped() {
            tracing::error!(channel = channel.name, "a message could not be stored and is lost: {why}");
        }
    }
}
