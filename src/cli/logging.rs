//! Logs: to standard error, as text or as one JSON object per line.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::output;
use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging. `flag`: the level was said on the command line, and wins over `RUST_LOG`. Unless the process `serves`,
/// only warnings are logged as long as nobody asked for more: the command's own output says what happened.
pub fn start(log: &Log, flag: bool, serves: bool) {
    let quiet = !serves && !flag && log.level == LogLevel::Info;
    let level = if quiet { LogLevel::Warn } else { log.level };
    let said = std::env::var("RUST_LOG").ok().filter(|said| !flag && !said.is_empty());
    let filter = EnvFilter::try_new(said.as_deref().unwrap_or(level.as_str())).unwrap_or_else(|error| {
        output::remark(&format!("warning: RUST_LOG is ignored: {error}"));
        EnvFilter::new(level.as_str())
    });
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match log.format {
        LogFormat::Json => layer.json().boxed(),
        LogFormat::Text => layer.with_ansi(output::colours(std::io::stderr().is_terminal())).boxed(),
    };
    ASKED.store(flag || said.is_some(), Ordering::Relaxed);
    let layer = layer.with_filter(filter).with_filter(filter_fn(|_| !HUSHED.load(Ordering::Relaxed)));
    // A second subscriber in one process (tests) is no reason to fail; the first one goes on.
    let _ = Registry::default().with(layer).try_init();
}

/// Nothing is logged while it is set.
static HUSHED: AtomicBool = AtomicBool::new(false);
/// A level was asked for.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether somebody asked for a level.
pub fn is_asked_for() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Keeps the log quiet for as long as it lives.
pub struct Hush(());

/// Keeps the log from breaking up what is drawn on the terminal, unless somebody asked for it.
pub fn hush() -> Hush {
    HUSHED.store(!ASKED.load(Ordering::Relaxed), Ordering::Relaxed);
    Hush(())
}

impl Drop for Hush {
    fn drop(&mut self) {
        HUSHED.store(false, Ordering::Relaxed);
    }
}
