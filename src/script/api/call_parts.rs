//! The parts of a call as scripts give them: query, headers, body, bounds.
//!
//! Owns which headers a script may set. Shows the value of none of them: it may be a secret.

use std::time::Duration;

use bytes::Bytes;
use mlua::{Lua, Table, Value};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use super::args::{describe, duration, wrong};
use super::{Home, Problem};
use crate::script::convert::{Bounds, EncodeError};
use crate::script::run::Run;
use crate::units;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("moontide/", env!("CARGO_PKG_VERSION")));

/// How long an answer may take, where a script says nothing.
const TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 100;
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// What the connection itself says.
const HOSTS_OWN: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a script says of a call besides method and URL.
pub(super) struct Parts {
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    pub timeout: Duration,
    /// Longest body of the answer; `None`: it does not say.
    pub max_bytes: Option<usize>,
}

impl Parts {
    /// Reads them out of the options.
    pub fn read(lua: &Lua, home: &Home, run: &Run, function: &str, opts: Option<&Table>) -> Result<Self, Problem> {
        let mut headers = headers_of(function, opts)?;
        let body = body_of(lua, home, run, function, opts)?;
        if let Some((_, true)) = &body {
            headers.entry(CONTENT_TYPE).or_insert(JSON);
        }
        let timeout = match field(opts, "timeout")? {
            Value::Nil => TIMEOUT,
            given => duration(function, "opts.timeout", &given)?,
        };
        Ok(Self { headers, body: body.map(|(body, _)| body), timeout, max_bytes: max_bytes_of(function, opts)? })
    }
}

fn field(opts: Option<&Table>, key: &str) -> Result<Value, Problem> {
    Ok(opts.map(|opts| opts.raw_get(key)).transpose()?.unwrap_or(Value::Nil))
}

/// A table with names for keys, sorted by them; `None`: there is none.
fn named(function: &str, argument: &str, value: &Value) -> Result<Vec<(String, Value)>, Problem> {
    let table = match value {
        Value::Nil => return Ok(Vec::new()),
        Value::Table(table) => table,
        other => return Err(wrong(function, argument, "a table with names", other)),
    };
    let mut found = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let name = key.as_string().and_then(|key| key.to_str().ok()).map(|key| key.to_owned());
        found.push((name.ok_or_else(|| wrong(function, argument, "names that are text", &key))?, value));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A scalar as it is sent.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.to_str().ok().map(|text| text.to_owned()),
        Value::Boolean(_) | Value::Integer(_) | Value::Number(_) => value.to_string().ok(),
        _ => None,
    }
}

/// `url` with what `opts.query` adds, sorted by name.
pub(super) fn with_query(function: &str, url: &str, opts: Option<&Table>) -> Result<String, Problem> {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    let mut any = false;
    for (name, value) in named(function, "opts.query", &field(opts, "query")?)? {
        let argument = format!("opts.query.{name}");
        let values = match &value {
            Value::Table(list) => list.sequence_values::<Value>().collect::<Result<Vec<_>, _>>()?,
            one => vec![one.clone()],
        };
        for value in values {
            let text = scalar(&value);
            let text = text.ok_or_else(|| {
                let expected = "a text, a number, a boolean, or a list of these";
                Problem::Wrong(format!("{function}: {argument}: expected {expected}, got a {}", value.type_name()))
            })?;
            pairs.append_pair(&name, &text);
            any = true;
        }
    }
    if !any {
        return Ok(url.to_owned());
    }
    let (before, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let sign = if before.contains('?') { '&' } else { '?' };
    let query = pairs.finish();
    Ok(match fragment {
        Some(fragment) => format!("{before}{sign}{query}#{fragment}"),
        None => format!("{before}{sign}{query}"),
    })
}

/// The headers of a call, with those that every call has.
fn headers_of(function: &str, opts: Option<&Table>) -> Result<HeaderMap, Problem> {
    let given = named(function, "opts.headers", &field(opts, "headers")?)?;
    if given.len() > HEADERS_MAX {
        let got = given.len();
        return Err(Problem::Wrong(format!("{function}: opts.headers: expected at most {HEADERS_MAX}, got {got}")));
    }
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, AGENT);
    for (name, value) in given {
        let refused = |expected: &str| Problem::Wrong(format!("{function}: opts.headers: {expected}, got {name:?}"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("expected names of headers"))?;
        if HOSTS_OWN.contains(&header.as_str()) || header.as_str().starts_with("proxy-") {
            return Err(refused("expected none that the connection sets itself"));
        }
        let text = scalar(&value).filter(|text| text.len() <= HEADER_BYTES_MAX);
        let value = text.and_then(|text| HeaderValue::from_str(&text).ok()).ok_or_else(|| {
            let expected = format!("text of one line and at most {HEADER_BYTES_MAX} bytes");
            let kind = value.type_name();
            Problem::Wrong(format!("{function}: opts.headers.{header}: expected {expected}, got another {kind}"))
        })?;
        headers.insert(header, value);
    }
    Ok(headers)
}

/// The body, and whether it is JSON; `None`: none.
fn body_of(
    lua: &Lua,
    home: &Home,
    run: &Run,
    function: &str,
    opts: Option<&Table>,
) -> Result<Option<(Bytes, bool)>, Problem> {
    let (json, body) = (field(opts, "json")?, field(opts, "body")?);
    match (&json, &body) {
        (Value::Nil, Value::Nil) => Ok(None),
        (Value::Nil, Value::String(text)) => Ok(Some((Bytes::copy_from_slice(&text.as_bytes()), false))),
        (Value::Nil, other) => Err(wrong(function, "opts.body", "text; json = … sends a table", other)),
        (_, Value::Nil) => {
            let bounds = Bounds { bytes_max: run.limits.call_bytes_max, ..Bounds::default() };
            let text = home.codec.encode(lua, &json, None, &bounds).map_err(|error| match error {
                EncodeError::Vm(error) => Problem::Vm(error),
                error => {
                    let why = error.rooted("opts.json");
                    Problem::Wrong(format!("{function}: opts.json: expected what JSON can keep, but {why}"))
                }
            })?;
            Ok(Some((text.into(), true)))
        }
        _ => Err(Problem::Wrong(format!("{function}: opts.body: expected nothing beside opts.json, got a body too"))),
    }
}

/// How long the answer's body may be.
fn max_bytes_of(function: &str, opts: Option<&Table>) -> Result<Option<usize>, Problem> {
    const EXPECTED: &str = "a size such as \"64 KiB\"";
    let given = field(opts, "max_bytes")?;
    let read = match &given {
        Value::Nil => return Ok(None),
        Value::String(text) => units::bytes(&text.to_string_lossy()),
        other => return Err(wrong(function, "opts.max_bytes", EXPECTED, other)),
    };
    let read = read.map_err(|error| {
        Problem::Wrong(format!("{function}: opts.max_bytes: expected {EXPECTED}, got {}: {error}", describe(&given)))
    })?;
    Ok(Some(usize::try_from(read).unwrap_or(usize::MAX)))
}
