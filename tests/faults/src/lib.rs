//! The fault rig: processes of the real binary, real stores, lines that break, and a checker that knows the truth.
//!
//! A *part* is one kind of trouble ([`parts`]). It plays rounds: each has a store of its own, processes of the real binary
//! over it, numbered events, faults from one seed, and in the end the checker ([`truth`]) compares what the store holds with
//! what it must hold. What was found is kept as a record ([`record`]); the report is written from records ([`report`]).

pub mod apart;
pub mod bugs;
pub mod client;
pub mod findings;
pub mod fuzz;
pub mod holdings;
pub mod parts;
pub mod place;
pub mod pulse;
pub mod record;
pub mod report;
pub mod seen;
pub mod stage;
pub mod task;
pub mod trials;
pub mod truth;
