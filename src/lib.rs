//! Moontide runs event handlers written in Luau.
//!
//! This is the map: for each module what it owns, and what it must never know. `tests/suite/layout.rs` reads the sources
//! and holds it. Dependencies point one way: `main → cli → host → everything`.
//!
//! # The way of one event
//!
//! `bus` receives → `worker` hands over → `script` runs → `judge` decides → `bus` settles → `metrics` report
//!
//! | module | owns | never knows |
//! |---|---|---|
//! | [`event`] | what an event is, where it lies, how types match | anybody |
//! | [`clock`] | the only look at the wall clock | anybody |
//! | [`outbound`] | calls to services outside: which hosts and addresses, redirects, keys of calls | scripts, stores |
//! | [`outcome`] | the closed set of what a run can produce | who ran it, who applies it |
//! | [`judge`] | retry or death, as a pure function | clocks, stores, randomness |
//! | [`envelope`] | how an event lies on the wire: layouts of other services | stores |
//! | [`streams`] | which stream a type lives in, and the layout of its entries | stores |
//! | [`channels`] | which channels are listened to, and what is published to one besides | who listens |
//! | [`bus`] | the seams to what carries events and keeps state, and their implementations | scripts, workers, metrics |
//! | [`hot`] | turns on state keys on which runs collided | what the keys hold |
//! | [`script`] | Luau: loading, the sandbox, limits, what scripts see | stores but for reading, verdicts |
//! | [`worker`] | one handler's slots, and the order receive, run, judge, settle, report | how verdicts come about, how they are stored |
//! | [`metrics`] | every metric family; what scripts count | where they are read |
//! | [`registry`] | which handlers are loaded; a broken file leaves its last good version | workers, stores |
//! | [`watch`] | when the handlers folder has changed | what is in it |
//! | [`draft`] | an event as somebody outside writes it, and what is filled in | stores, who sent it |
//! | [`letter`] | a dead letter as JSON, for whoever asks | where it lay, who asks |
//! | [`config`] | every key, its default, its unit, and what contradicts what | what is running |
//! | [`http`] | events in over HTTP, dead letters on their way again; what is answered to whom, and caps on what clients can make us hold | stores, the host |
//! | [`host`] | which parts there are, and the order in which they start and stop | the command line |
//! | [`demo`] | a seeded day of checkouts, and the proof that it adds up | how it is run |
//! | [`cli`] | flags, exit codes, what is printed | decisions of any kind |
//! | [`failpoint`] | the names of the places at which the fault rig lets the process die | what happens there |
//! | [`units`], [`nearest`] | durations and sizes as people write them; the right word for a wrong one | anybody |

pub mod bus;
pub mod channels;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod draft;
pub mod envelope;
pub mod event;
pub mod failpoint;
pub mod host;
pub mod hot;
pub mod http;
pub mod judge;
pub mod letter;
pub mod metrics;
pub mod nearest;
pub mod outbound;
pub mod outcome;
pub mod registry;
pub mod script;
pub mod streams;
pub mod units;
pub mod watch;
pub mod worker;
