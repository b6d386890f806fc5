//! The parts of the rig: each is one kind of trouble.

pub mod kills;

use std::future::Future;
use std::pin::Pin;

use crate::findings::Findings;
use crate::place::Bus;
use crate::task::Task;

type Running = Pin<Box<dyn Future<Output = Findings>>>;

/// A kind of trouble.
pub struct Part {
    pub name: &'static str,
    /// One line on what it does.
    pub what: &'static str,
    /// Where it can be made.
    pub buses: &'static [Bus],
    pub run: fn(Task) -> Running,
}

/// All of them, in the order in which a full run plays them.
pub const ALL: &[Part] = &[Part {
    name: "kills",
    what: "processes killed with SIGKILL at any moment, and started again",
    buses: &Bus::ALL,
    run: |task| Box::pin(kills::run(task)),
}];

/// The part of that name.
pub fn named(name: &str) -> Option<&'static Part> {
    ALL.iter().find(|part| part.name == name)
}
