//! The one integration binary: each module tests one promise through the public interface.

mod config;
mod judge;
mod support;
mod worker;
