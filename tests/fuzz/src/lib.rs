//! Any bytes where bytes come in: envelopes, JSON, configuration, handler files, settles, requests, lines.
//!
//! A target is a function of bytes that panics where something does not hold of them: not only that nothing breaks, but
//! that what was read is written the same, that two readers agree, that a refusal names its place. Each is run in two ways:
//! `cargo test -p moontide-fuzz` gives it what is kept in `corpus/` and some thousand changes of that, on any compiler;
//! `scripts/fuzz` lets libFuzzer look for inputs that reach new code.

pub mod mutate;
mod targets;

use targets::{config, envelope, http, json, lines, manifest, require, settle};

/// Where bytes come in.
pub struct Target {
    pub name: &'static str,
    /// One line on what must hold.
    pub what: &'static str,
    /// Panics where it does not hold.
    pub run: fn(&[u8]),
    /// Inputs of a short run.
    pub runs: usize,
}

pub const ALL: &[Target] = &[
    Target {
        name: "envelope",
        what: "an entry that is an event is written and read again as the same event",
        run: envelope::run,
        runs: 5_000,
    },
    Target {
        name: "json",
        what: "a document that scripts are given comes back as it was",
        run: json::run,
        runs: 8_000,
    },
    Target {
        name: "config",
        what: "a configuration is within its ranges, or each problem says where it is",
        run: config::run,
        runs: 400,
    },
    Target {
        name: "manifest",
        what: "a handler file is a handler within its ranges, or each problem names a file",
        run: manifest::run,
        runs: 500,
    },
    Target {
        name: "require",
        what: "a name leads to the file that it names, and nowhere else",
        run: require::run,
        runs: 1_000,
    },
    Target { name: "settle", what: "what a run asks for is what the store then holds", run: settle::run, runs: 100 },
    Target {
        name: "http",
        what: "a request is refused with a reason, or every event of it can be given to scripts",
        run: http::run,
        runs: 2_000,
    },
    Target {
        name: "lines",
        what: "a line is an event that lies in a store as it was, or is refused",
        run: lines::run,
        runs: 8_000,
    },
];

/// The target of that name.
pub fn named(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}
