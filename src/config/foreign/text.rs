//! How the texts of other services' variables are read: into the value of one of our keys, or nothing, where they say what is
//! the case anyway. Errors say what would be right.

use figment::value::Value;

use crate::config::LogLevel;
use crate::judge::ATTEMPTS_MAX;

/// Reads a text.
pub type Read = fn(&str) -> Result<Option<Value>, String>;

/// `text`, unless part of it was replaced because it was none.
pub fn utf8(text: &str) -> Result<&str, String> {
    match text.contains(char::REPLACEMENT_CHARACTER) {
        true => Err("is not UTF-8; write it in plain text".into()),
        false => Ok(text),
    }
}

/// What the key itself takes.
pub fn name(text: &str) -> Result<Option<Value>, String> {
    Ok(Some(text.into()))
}

/// What stands before a colon in the names of channels.
pub fn channel_prefix(text: &str) -> Result<Option<Value>, String> {
    Ok(Some(format!("{text}:").into()))
}

/// A port, on all addresses.
pub fn port(text: &str) -> Result<Option<Value>, String> {
    let port: u16 = text.parse().map_err(|_| format!("{text:?} is no port; write a number like 9100"))?;
    Ok(Some(format!("0.0.0.0:{port}").into()))
}

/// A whole number.
pub fn count(text: &str) -> Result<Option<Value>, String> {
    number(text, "number", 100).map(|count| Some(count.into()))
}

/// A number of milliseconds.
pub fn milliseconds(text: &str) -> Result<Option<Value>, String> {
    number(text, "number of milliseconds", 1000).map(|millis| Some(format!("{millis}ms").into()))
}

/// A number of days, at least one.
pub fn days(text: &str) -> Result<Option<Value>, String> {
    match number(text, "number of days", 90)? {
        0 => Err("0 is too little; write a number of days like 90".into()),
        days => Ok(Some(format!("{days}d").into())),
    }
}

/// How often after the first attempt; ours counts that one too.
pub fn retries(text: &str) -> Result<Option<Value>, String> {
    match number(text, "number of retries", 3)? {
        retries if u64::from(retries) < ATTEMPTS_MAX as u64 => Ok(Some((retries + 1).into())),
        retries => Err(format!("{retries} is too much; write a number up to {}", ATTEMPTS_MAX - 1)),
    }
}

/// Whether the past is kept. True is the case anyway; false leaves what groups still need.
pub fn event_store(text: &str) -> Result<Option<Value>, String> {
    Ok((!truth(text)?).then(|| "1ms".into()))
}

/// Whether everything is logged; false is the case anyway.
pub fn debug(text: &str) -> Result<Option<Value>, String> {
    Ok(truth(text)?.then(|| LogLevel::Debug.as_str().into()))
}

/// A level by one of the names that OpenTelemetry's libraries have for it.
pub fn level(text: &str) -> Result<Option<Value>, String> {
    let level = match text.to_ascii_lowercase().as_str() {
        "none" | "off" => LogLevel::Off,
        "error" => LogLevel::Error,
        "warn" | "warning" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "verbose" | "all" | "trace" => LogLevel::Trace,
        _ => return Err(format!("{text:?} is no level; write none, error, warn, info, debug or verbose")),
    };
    Ok(Some(level.as_str().into()))
}

fn number(text: &str, what: &str, example: u32) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no {what}; write one like {example}"))
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false; write one of them")),
    }
}
