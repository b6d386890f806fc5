//! The one integration binary: each module tests one promise through the public interface.

mod cli;
mod config;
mod conformance;
mod crash;
mod demo;
mod docs;
mod host;
mod hostile;
mod judge;
mod kills;
mod layout;
mod malformed;
mod scripts;
mod sqlite;
mod stuck;
mod support;
mod worker;

/// The command's own: what it gives back to the system is looked at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
