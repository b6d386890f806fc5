//! Logs: to standard error, as text or as one JSON object per line.
//!
//! Each entry is one line, whatever scripts, events and file names hold.

use std::fmt::{Debug, Write};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::output;
use super::plain::Plain;
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
    let layer = match log.format {
        LogFormat::Json => fmt::layer().with_writer(std::io::stderr).with_target(false).json().boxed(),
        LogFormat::Text => text(std::io::stderr, output::colours(std::io::stderr().is_terminal())),
    };
    ASKED.store(flag || said.is_some(), Ordering::Relaxed);
    let layer = filtered(layer, filter);
    // A second subscriber in one process (tests) is no reason to fail; the first one goes on.
    let _ = Registry::default().with(layer).try_init();
}

/// `layer` with what `filter` lets pass, while nothing is hushed. One filter of both: of two that are stacked, a question
/// whether a level is enabled makes the second swallow the entry that comes next.
fn filtered<S>(layer: Box<dyn Layer<S> + Send + Sync>, filter: EnvFilter) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    layer.with_filter(filter.and(filter_fn(|_| !HUSHED.load(Ordering::Relaxed))))
}

/// Entries for people.
fn text<S, W>(writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let fields = debug_fn(write_field).delimited(" ");
    fmt::layer().with_writer(writer).with_target(false).with_ansi(colours).fmt_fields(fields).boxed()
}

/// Writes `name=value`, or the message alone.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let name = field.name().trim_start_matches("r#");
    match (name, writer.has_ansi_escapes()) {
        ("message", _) => {}
        (name, true) => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        (name, false) => write!(writer, "{name}=")?,
    }
    write!(Plain(writer), "{value:?}")
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged for people while `entries` runs.
    fn logged(colours: bool, entries: impl FnOnce()) -> String {
        logged_from("trace", colours, entries)
    }

    /// What is enabled for one subscriber depends on who else there is while it is asked: one at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn logged_from(level: &str, colours: bool, entries: impl FnOnce()) -> String {
        let _alone = ALONE.lock();
        let log = Log::default();
        let writer = log.clone();
        let layer = filtered(text(move || writer.clone(), colours), EnvFilter::new(level));
        let subscriber = Registry::default().with(layer);
        tracing::subscriber::with_default(subscriber, entries);
        String::from_utf8(log.0.lock().clone()).expect("logs are text")
    }

    #[test]
    fn whatever_is_logged_is_one_line_and_steers_no_terminal() {
        let forged = "x\n2026-01-01T00:00:00Z ERROR forged\r\x1b[2J\u{85}\u{2028}";
        for colours in [false, true] {
            let log = logged(colours, || {
                tracing::info!(event = forged, fields = %forged, r#type = ?forged, "said: {forged}");
            });
            assert_eq!(log.matches(['\n', '\r', '\u{85}', '\u{2028}']).count(), 1, "{log:?}");
            assert!(!log.contains("\x1b[2J"), "{log:?}");
            assert_eq!(log.matches("\\n2026-01-01T00:00:00Z ERROR forged\\r\\u{1b}[2J").count(), 4, "{log:?}");
        }
    }

    #[test]
    fn an_entry_reads_as_before() {
        let log = logged(false, || {
            let (attempt, correlation) = (2, None::<&str>);
            tracing::warn!(handler = "a/b", attempt, r#type = "t", correlation, "failed, again in {:?}: no", 5);
        });
        assert!(log.ends_with(" WARN failed, again in 5: no handler=\"a/b\" attempt=2 type=\"t\"\n"), "{log}");
        let log = logged(true, || tracing::info!(handler = "a", "live"));
        assert!(log.ends_with("live \x1b[3mhandler\x1b[0m\x1b[2m=\x1b[0m\"a\"\n"), "{log:?}");
    }

    #[test]
    fn a_question_for_a_level_swallows_nothing() {
        let log = logged_from("warn", false, || {
            assert!(!tracing::enabled!(tracing::Level::INFO));
            tracing::error!("the first after it");
        });
        assert!(log.contains("the first after it"), "{log:?}");
    }
}
