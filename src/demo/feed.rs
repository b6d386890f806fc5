//! What the demo feeds: deliveries of goods and checkouts, the same for the same seed.
//!
//! Owns the plan and its events. Makes nothing happen: publishing is the command's, and time is handed in.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::Units;
use super::kind::{Basket, Expected, Kind, PLENTIFUL, POPULAR, SCARCE, SCARCE_RECEIVED};
use crate::clock::{Millis, rfc3339};
use crate::event::{Event, Json};

/// The type of an event about goods that arrived.
pub const STOCK_RECEIVED: &str = "StockReceived";
/// The type of an event that begins a checkout.
pub const CHECKOUT_INITIATED: &str = "CheckoutInitiated";
/// Fewest checkouts in which every kind occurs.
pub const CHECKOUTS_MIN: usize = 20;

/// Of this many checkouts, one is sent twice.
const REPEATED_EVERY: usize = 15;
/// Share of the contested product's demand that arrives, in percent.
const POPULAR_PERCENT: i64 = 60;
const CLIENTS: usize = 40;

/// Everything that is fed, and what must come of it.
pub struct Plan {
    /// Goods that arrive; to be handled before the first checkout.
    pub deliveries: Vec<Event>,
    /// The events of the checkouts, repeats among them, shuffled.
    pub checkouts: Vec<Event>,
    pub cases: Vec<Case>,
    /// Units that arrive, per product.
    pub received: Units,
    /// Checkouts that are sent a second time.
    pub repeats: usize,
}

/// One checkout.
pub struct Case {
    pub kind: Kind,
    pub checkout_id: String,
    /// Id of the event that first tells of it.
    pub event_id: String,
    /// Units that a reservation sets aside; empty where it cannot get so far.
    pub wanted: Units,
    pub expected: Expected,
}

impl Plan {
    /// The plan of `seed` for `checkouts` checkouts (at least [`CHECKOUTS_MIN`]), dated `now`.
    pub fn new(seed: u64, checkouts: usize, now: Millis) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut kinds = Kind::shared_out(checkouts.max(CHECKOUTS_MIN));
        kinds.shuffle(&mut rng);
        let mut seen = [0; Kind::ALL.len()];
        let (mut cases, mut events) = (Vec::with_capacity(kinds.len()), Vec::with_capacity(kinds.len()));
        for (number, kind) in kinds.into_iter().enumerate() {
            let basket = kind.basket(seen[kind as usize], &mut rng);
            seen[kind as usize] += 1;
            let (case, event) = checkout(number + 1, kind, basket, &mut rng, now);
            cases.push(case);
            events.push(event);
        }
        let repeated = repeats(&cases, &events);
        let repeats = repeated.len();
        events.extend(repeated);
        events.shuffle(&mut rng);
        let received = goods(&cases, &mut rng);
        Self { deliveries: deliveries(&received, now), checkouts: events, cases, received, repeats }
    }

    /// How many different events of type `kind` are fed.
    pub fn distinct(&self, kind: &str) -> usize {
        let events = self.deliveries.iter().chain(&self.checkouts).filter(|event| event.kind == kind);
        events.map(|event| &event.id).collect::<HashSet<_>>().len()
    }
}

fn checkout(number: usize, kind: Kind, basket: Basket, rng: &mut impl Rng, now: Millis) -> (Case, Event) {
    let checkout_id = format!("checkout-{number:04}");
    let mut data = json!({
        "checkout_id": checkout_id,
        "client_id": format!("client-{:02}", rng.random_range(1..=CLIENTS)),
        "lines": basket.lines,
        "emitted_at": now as f64 / 1000.0,
    });
    if let Some(mark) = kind.simulate() {
        data["simulate"] = json!(mark);
    }
    if let (Kind::Malformed, Some(fields)) = (kind, data.as_object_mut()) {
        fields.remove("checkout_id");
    }
    let event_id = format!("shop-{number:04}");
    let event = event(CHECKOUT_INITIATED, event_id.clone(), &data, now);
    (Case { kind, checkout_id, event_id, wanted: basket.wanted, expected: basket.expected }, event)
}

/// Every so many checkouts one is sent again: by turns the very same event, and the same checkout under a new id.
fn repeats(cases: &[Case], events: &[Event]) -> Vec<Event> {
    let whole = cases.iter().zip(events).filter(|(case, _)| case.kind != Kind::Malformed);
    let again = whole.step_by(REPEATED_EVERY).enumerate().map(|(nth, (_, event))| {
        let id = if nth % 2 == 0 { event.id.clone() } else { format!("{}-again", event.id) };
        Event { id, ..event.clone() }
    });
    again.collect()
}

/// What arrives: too little of the popular and the scarce product, of the others a little more than is wanted.
fn goods(cases: &[Case], rng: &mut impl Rng) -> Units {
    let mut received: Units = PLENTIFUL.iter().map(|sku| ((*sku).to_owned(), rng.random_range(10..=30))).collect();
    for (sku, quantity) in cases.iter().flat_map(|case| &case.wanted) {
        *received.entry(sku.clone()).or_default() += quantity;
    }
    received.insert(SCARCE.to_owned(), SCARCE_RECEIVED);
    if let Some(popular) = received.get_mut(POPULAR) {
        *popular = (*popular * POPULAR_PERCENT / 100).max(1);
    }
    received
}

/// Each product arrives in two parts; the first delivery's event is sent twice.
fn deliveries(received: &Units, now: Millis) -> Vec<Event> {
    let mut events = Vec::with_capacity(received.len() * 2 + 1);
    for (sku, units) in received {
        for (part, quantity) in [(1, units / 2), (2, units - units / 2)] {
            if quantity > 0 {
                let data = json!({ "sku": sku, "quantity": quantity });
                events.push(event(STOCK_RECEIVED, format!("goods-{sku}-{part}"), &data, now));
            }
        }
    }
    events.extend(events.first().cloned());
    events
}

fn event(kind: &str, id: String, data: &Value, now: Millis) -> Event {
    Event {
        id,
        source: "demo/shop".to_owned(),
        kind: kind.to_owned(),
        subject: None,
        time: Some(rfc3339(now)),
        dataschema: None,
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        ext: None,
        data: Some(Json::trusted(data.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, checkouts: usize) -> Plan {
        Plan::new(seed, checkouts, 1_795_000_000_000)
    }

    #[test]
    fn a_seed_is_a_feed() {
        assert_eq!(plan(7, 300).checkouts, plan(7, 300).checkouts);
        assert_ne!(plan(7, 300).checkouts, plan(8, 300).checkouts);
    }

    #[test]
    fn every_kind_occurs_and_most_want_one_product() {
        for checkouts in [CHECKOUTS_MIN, 300] {
            let plan = plan(1, checkouts);
            assert_eq!(plan.cases.len(), checkouts);
            for kind in Kind::ALL {
                assert!(plan.cases.iter().any(|case| case.kind == kind), "{kind:?} of {checkouts}");
            }
        }
        let wanting = plan(1, 300).cases.iter().filter(|case| case.wanted.contains_key(POPULAR)).count();
        assert!(wanting > 150, "{wanting} of 300");
    }

    #[test]
    fn stock_decides_only_where_the_plan_says_so() {
        let plan = plan(3, 300);
        let mut demand = Units::new();
        for (sku, quantity) in plan.cases.iter().flat_map(|case| &case.wanted) {
            *demand.entry(sku.clone()).or_default() += quantity;
        }
        for sku in PLENTIFUL {
            assert!(plan.received[sku] >= demand[sku], "{sku}");
        }
        assert!(plan.received[POPULAR] < demand[POPULAR]);
        for case in plan.cases.iter().filter(|case| case.wanted.contains_key(SCARCE)) {
            assert!(case.wanted[SCARCE] > plan.received[SCARCE], "{}", case.checkout_id);
        }
    }

    #[test]
    fn repeats_are_the_same_event_or_the_same_checkout() {
        let plan = plan(5, 300);
        assert_eq!(plan.checkouts.len(), 300 + plan.repeats);
        let renamed = plan.checkouts.iter().filter(|event| event.id.ends_with("-again")).count();
        assert!(renamed > 0 && renamed < plan.repeats, "{renamed} of {}", plan.repeats);
        assert_eq!(plan.distinct(CHECKOUT_INITIATED), 300 + renamed);
        assert_eq!(plan.distinct(STOCK_RECEIVED), plan.deliveries.len() - 1);
    }

    #[test]
    fn what_arrives_is_what_the_deliveries_say() {
        let plan = plan(9, 50);
        let mut arrived = Units::new();
        for event in &plan.deliveries[..plan.deliveries.len() - 1] {
            let data = event.data.as_ref().expect("a delivery has data");
            let data: Value = serde_json::from_slice(data.bytes()).expect("it is JSON");
            let sku = data["sku"].as_str().expect("sku is a text").to_owned();
            *arrived.entry(sku).or_default() += data["quantity"].as_i64().expect("quantity is a number");
        }
        assert_eq!(arrived, plan.received);
    }
}
