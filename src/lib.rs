//! Moontide runs event handlers written in Luau.
pub mod bus;
pub mod clock;
pub mod event;
pub mod hot;
pub mod judge;
pub mod nearest;
pub mod outcome;
pub mod script;
pub mod streams;
pub mod units;
