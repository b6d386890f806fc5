//! Logs: to standard error, as text or as one JSON object per line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::output;
use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging. `flag`: the level was said on the command line, and wins over `RUST_LOG`. Unless the process `serves`,
/// only warnings are logged as long as nobody asked for more: the command's own output says what happened.
pub fn start(log: &Log, flag: bool, serves: bool) {
    let quiet = !serves && !flag && log.level == LogLevel::Info;
    let level = if quiet { LogLevel::Warn } else { log.level };
    let said = std::env::var("RUST_LOG").ok().filter(|said| !flag && !said.is_empty());
    let filter = EnvFilter::try_new(said.as_deref().unwrap_or(level.as_str())).unwrap_or_else(|error| {
        output::complain(&format!("RUST_LOG is ignored: {error}"));
        EnvFilter::new(level.as_str())
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second subscriber in one process (tests) is no reason to fail; the first one goes on.
    let _ = match log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(output::colours(std::io::stderr().is_terminal())).try_init(),
    };
}
