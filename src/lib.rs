//! Moontide runs event handlers written in Luau.
pub mod bus;
pub mod clock;
pub mod event;
pub mod hot;
pub mod judge;
pub mod metrics;
pub mod outcome;
pub mod registry;
pub mod script;
pub mod streams;
pub mod watch;
pub mod worker;
