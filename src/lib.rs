//! Moontide runs event handlers written in Luau.
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod event;
pub mod host;
pub mod hot;
pub mod judge;
pub mod metrics;
pub mod nearest;
pub mod outcome;
pub mod registry;
pub mod script;
pub mod streams;
pub mod units;
pub mod watch;
pub mod worker;
