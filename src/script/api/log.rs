//! `log.*`: written at once, whatever becomes of the run, and at most so many a second.

use std::rc::Rc;
use std::time::Instant;

use mlua::{Lua, Table, Value};
use tracing::Level;

use super::args::{cut, wrong};
use super::{Home, Problem, action};
use crate::script::convert::Bounds;
use crate::script::run::{Run, Task};

const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Messages per second of a handler on one thread that get through, and how many may come at once.
const RATE: f64 = 200.0;
const BURST: f64 = 1000.0;

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let log = lua.create_table()?;
    for (key, name, level) in [
        ("debug", "log.debug", Level::DEBUG),
        ("info", "log.info", Level::INFO),
        ("warn", "log.warn", Level::WARN),
        ("error", "log.error", Level::ERROR),
    ] {
        log.raw_set(key, action(lua, home, move |lua, home, args| write(lua, home, (name, level), args))?)?;
    }
    Ok(log)
}

fn write(lua: &Lua, home: &Home, (name, level): (&str, Level), args: (Value, Value)) -> Result<(), Problem> {
    let (message, fields) = args;
    let Some(suppressed) = home.bucket.borrow_mut().take(Instant::now()) else { return Ok(()) };
    let text = match &message {
        Value::String(text) => text.to_string_lossy(),
        Value::Boolean(_) | Value::Integer(_) | Value::Number(_) => message.to_string()?,
        _ => return Err(wrong(name, "message", "text", &message)),
    };
    let fields = fields_text(lua, home, name, &fields)?;
    let run = home.meter.current();
    let secrets = &home.granted.secrets;
    let text = cut(&secrets.redact(&text), MESSAGE_BYTES_MAX);
    say(home, run.as_deref(), level, &text, &secrets.redact(&fields));
    if suppressed > 0 {
        say(
            home,
            run.as_deref(),
            Level::WARN,
            &format!("{suppressed} messages before this one were dropped: more than {RATE} a second"),
            "",
        );
    }
    Ok(())
}

fn fields_text(lua: &Lua, home: &Home, name: &str, fields: &Value) -> Result<String, Problem> {
    if fields.is_nil() {
        return Ok(String::new());
    }
    if !fields.is_table() {
        return Err(wrong(name, "fields", "a table or nothing", fields));
    }
    let bounds = Bounds { bytes_max: MESSAGE_BYTES_MAX, ..Bounds::default() };
    let text = home.codec.encode(lua, fields, None, &bounds);
    let text = text.map_err(|error| {
        Problem::Wrong(format!("{name}: fields: expected what JSON can keep, but {}", error.rooted("fields")))
    })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn say(home: &Home, run: Option<&Run>, level: Level, message: &str, fields: &str) {
    let task = run.and_then(|run| run.task.as_ref());
    let event = task.and_then(Task::event);
    let id = event.map(|event| event.id.as_str());
    let correlation = event.and_then(|event| event.correlation_id.as_deref());
    let attempt = task.map(|task| task.delivery.attempt());
    let fields = (!fields.is_empty()).then(|| tracing::field::display(fields));
    let (handler, version) = (&*home.name, &*home.version);
    macro_rules! at {
        ($level:expr) => {
            tracing::event!(target: "handler", $level, handler, version, event = id, attempt, correlation, fields, "{message}")
        };
    }
    match level {
        Level::ERROR => at!(Level::ERROR),
        Level::WARN => at!(Level::WARN),
        Level::INFO => at!(Level::INFO),
        _ => at!(Level::DEBUG),
    }
}

/// Lets through [`RATE`] messages a second, and counts the others.
pub(in crate::script) struct Bucket {
    left: f64,
    at: Instant,
    suppressed: u64,
}

impl Bucket {
    pub fn full() -> Self {
        Self { left: BURST, at: Instant::now(), suppressed: 0 }
    }

    /// Whether one that is made anew would let more through.
    pub fn counts(&self) -> bool {
        self.at.elapsed().as_secs_f64() * RATE < BURST
    }

    /// Takes a place at `now`; answers how many found none since the last one that did.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * RATE).min(BURST);
        self.at = now;
        if self.left < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let (mut bucket, start) = (Bucket::full(), Instant::now());
        let through = (0..5000).filter(|_| bucket.take(start).is_some()).count();
        assert!((1000..1010).contains(&through), "the burst gets through, then nothing: {through}");
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(5000 - through as u64));
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(0));
        assert!(bucket.counts(), "it is still known what went through");
    }
}
