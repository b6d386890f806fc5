//! The demo: a shop's checkouts, made up by a seed, and the proof that what became of them adds up.
//!
//! Owns what is fed, what must come of it, and how both are shown. The parts that decide are pure; only `observe` asks a
//! store, through the seams every operator's command uses. Knows nothing of the host and of concrete buses.

pub mod audit;
pub mod examples;
pub mod feed;
pub mod kind;
pub mod live;
pub mod observe;
pub mod report;
mod table;

use std::collections::BTreeMap;

/// Units per product, by sku.
pub type Units = BTreeMap<String, i64>;
