//! The one integration binary: each module tests one promise through the public interface.

mod cli;
mod config;
mod crash;
mod demo;
mod docs;
mod host;
mod judge;
mod layout;
mod scripts;
mod support;
mod worker;
