//! What tests of Moontide play on: real servers, lines that break, processes that are killed.
//!
//! Knows nothing of Moontide's library: whatever is tested here is met as other programs meet it.

pub mod process;
pub mod proxy;
pub mod rest;
pub mod server;
