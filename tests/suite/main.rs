//! The one integration binary: each module tests one promise through the public interface.

mod cli;
mod config;
mod judge;
mod layout;
mod support;
mod worker;
