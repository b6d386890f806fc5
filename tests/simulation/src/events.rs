//! The events of a history, each with a number that stays with it wherever it goes.

use moontide::bus::{Delivery, Undecodable};
use moontide::event::{Event, Json};

use crate::editions::CHILD;

/// Number of an event: its place in the plan, or its parent's and this.
pub type Number = usize;

/// Children are numbered from here on.
pub const CHILDREN: Number = 1000;

/// An event. `id` is what makes duplicates: two numbers can share one.
pub fn event(number: Number, id: &str, kind: &str) -> Event {
    Event { subject: Some(number.to_string()), data: Some(Json::trusted("{}")), ..Event::new(id, "simulation", kind) }
}

/// The child of event `parent`.
pub fn child_of(parent: Number) -> Event {
    let number = CHILDREN + parent;
    event(number, &format!("child-{number}"), CHILD)
}

/// An entry that is no event.
pub fn garbage(number: Number) -> Undecodable {
    Undecodable { reason: format!("{number} is no event"), fields: Vec::new() }
}

/// The number of an entry.
pub fn number_of(entry: &Result<Event, Undecodable>) -> Number {
    let text = match entry {
        Ok(event) => event.subject.as_deref(),
        Err(garbage) => garbage.reason.split(' ').next(),
    };
    text.and_then(|text| text.parse().ok()).expect("every entry was given a number")
}

/// The number of what was delivered.
pub fn number(delivery: &Delivery) -> Number {
    number_of(&delivery.event)
}
