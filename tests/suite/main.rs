//! The one integration binary: each module tests one promise through the public interface.

mod cli;
mod config;
mod conformance;
mod crash;
mod demo;
mod docs;
mod host;
mod http;
mod intake;
mod judge;
mod kills;
mod layout;
mod scripts;
mod sqlite;
mod support;
mod worker;
