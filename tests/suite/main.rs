//! The one integration binary: each module tests one promise through the public interface.

mod cli;
mod cli_first_steps;
mod config;
mod conformance;
mod crash;
mod cycles;
mod demo;
mod docs;
mod environment;
mod failpoints;
mod foreign;
mod host;
mod hostile;
mod http;
mod intake;
mod judge;
mod kills;
mod layout;
mod layouts;
mod looking;
mod losses;
mod lost;
mod malformed;
mod mounts;
mod operations;
mod outbound;
mod redis;
mod relay;
mod reload;
mod rig;
mod scripts;
mod settings;
mod siege;
mod sqlite;
mod steps;
mod stuck;
mod support;
mod wakeups;
mod worker;

/// The command's own: what it gives back to the system is looked at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
