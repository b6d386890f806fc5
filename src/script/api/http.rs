//! `http.*`: calls to services outside, and the snooze that a busy one asks for.
//!
//! Owns how a script says a call and sees its answer. What goes out and where to is `outbound`'s; no message here shows a
//! header's value, a path or a body, which may be secret.

use std::rc::Rc;

use mlua::{Lua, Table, Value};
use reqwest::Method;
use reqwest::header::HeaderMap;

use super::args::{method, optional_text, options, text, wrong};
use super::call_parts::{Parts, with_query};
use super::ctx::running;
use super::{Home, Problem, function, over_limit, waiting};
use crate::outbound::{Answer, Call, CallError, Identity, Target, busy_for, traceparent};
use crate::outcome::Outcome;
use crate::script::calls::Calls;
use crate::script::convert::{DecodeError, Exact};
use crate::script::run::{Run, Task};

const OPTIONS: [&str; 6] = ["headers", "query", "json", "body", "timeout", "max_bytes"];
const REQUEST_OPTIONS: [&str; 8] = ["method", "url", "headers", "query", "json", "body", "timeout", "max_bytes"];
const VERBS: [(&str, &str, Method); 6] = [
    ("get", "http.get", Method::GET),
    ("post", "http.post", Method::POST),
    ("put", "http.put", Method::PUT),
    ("patch", "http.patch", Method::PATCH),
    ("delete", "http.delete", Method::DELETE),
    ("head", "http.head", Method::HEAD),
];

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let http = lua.create_table()?;
    http.raw_set("request", waiting(lua, home, request)?)?;
    for (key, name, verb) in VERBS {
        let called = move |lua: Lua, home: Rc<Home>, (url, opts): (Value, Value)| {
            let verb = verb.clone();
            async move { with_verb(&lua, &home, name, verb, (&url, &opts)).await }
        };
        http.raw_set(key, waiting(lua, home, called)?)?;
    }
    Ok(http)
}

/// What an answer can do.
pub(super) fn methods(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let answer = lua.create_table()?;
    answer.raw_set("json", function(lua, home, |lua, home, own| json(lua, home, &own))?)?;
    Ok(answer)
}

async fn request(lua: Lua, home: Rc<Home>, opts: Value) -> Result<Table, Problem> {
    const REQUEST: &str = "http.request";
    let Some(given) = options(REQUEST, &opts, &REQUEST_OPTIONS)? else {
        return Err(wrong(REQUEST, "opts", "a table with url", &opts));
    };
    let name = given.raw_get::<Value>("method")?;
    let verb = optional_text(REQUEST, "opts.method", &name)?.unwrap_or_else(|| "GET".to_owned());
    let verb = Method::from_bytes(verb.to_ascii_uppercase().as_bytes()).ok();
    let verb = verb.filter(|verb| !matches!(*verb, Method::CONNECT | Method::TRACE));
    let verb = verb.ok_or_else(|| wrong(REQUEST, "opts.method", "a method such as \"POST\"", &name))?;
    let url: Value = given.raw_get("url")?;
    call(&lua, &home, (REQUEST, "opts.url"), verb, &url, Some(&given)).await
}

async fn with_verb(
    lua: &Lua,
    home: &Home,
    function: &str,
    verb: Method,
    (url, opts): (&Value, &Value),
) -> Result<Table, Problem> {
    let given = options(function, opts, &OPTIONS)?;
    call(lua, home, (function, "url"), verb, url, given.as_ref()).await
}

async fn call(
    lua: &Lua,
    home: &Home,
    (function, argument): (&str, &str),
    method: Method,
    url: &Value,
    opts: Option<&Table>,
) -> Result<Table, Problem> {
    let run = running(home, function)?;
    let Some(task) = &run.task else { return Err(Problem::Ended) };
    let url = with_query(function, &text(function, argument, url)?, opts)?;
    let target = Target::parse(&url).map_err(|why| Problem::Wrong(format!("{function}: {argument}: {why}")))?;
    let Parts { mut headers, body, timeout, max_bytes: asked_max } = Parts::read(lua, home, &run, function, opts)?;
    let Some(outbound) = &task.services.outbound else {
        return Err(Problem::Wrong(format!("{function}: there is no network here")));
    };
    let sent = body.as_ref().map_or(0, |body| body.len());
    let number = run.calls.borrow_mut().begin(sent, &run.limits).map_err(|over| over_limit(&run, &over))?;
    sign(&mut headers, &run, task, number);
    let left = run.calls.borrow().bytes_left(&run.limits);
    let max_bytes = asked_max.unwrap_or(left).min(left);
    let what = format!("{method} {}", target.place());
    let (handler, grants) = (home.name.clone(), home.granted.hosts.clone());
    run.waits_for.replace(Some(what.clone()));
    let called = outbound.call(Call { handler, grants, method, target, headers, body, timeout, max_bytes }).await;
    run.waits_for.replace(None);
    let answer = called.map_err(|error| match error {
        CallError::TooLong(max) if max == left && asked_max.is_none_or(|asked| asked > left) => {
            over_limit(&run, &Calls::over_bytes(&run.limits))
        }
        error => Problem::Wrong(format!("{function}: {what}: {error}")),
    })?;
    run.calls.borrow_mut().end(answer.body.len());
    shown(lua, &answer)
}

/// Says which call it is, and to which trace it belongs. What a script says itself counts.
fn sign(headers: &mut HeaderMap, run: &Run, task: &Task, number: u32) {
    let (Some(event), Some(key)) = (task.event(), run.key.get()) else { return };
    let identity = Identity { group: &task.program.manifest.group, kind: &event.kind, key };
    let calls = run.calls.borrow();
    let step = calls.step();
    let ours = [
        ("idempotency-key", identity.call_key(step, number)),
        ("traceparent", traceparent(event.traceparent.as_deref(), identity)),
    ];
    for (name, value) in ours {
        if let (false, Ok(value)) = (headers.contains_key(name), value.parse()) {
            headers.insert(name, value);
        }
    }
}

/// The answer as a script sees it; the prelude adds its methods.
fn shown(lua: &Lua, answer: &Answer) -> Result<Table, Problem> {
    let headers = lua.create_table()?;
    for name in answer.headers.keys() {
        let values: Vec<&[u8]> = answer.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        headers.raw_set(name.as_str(), lua.create_string(values.join(&b", "[..]))?)?;
    }
    let table = lua.create_table()?;
    table.raw_set("status", answer.status)?;
    table.raw_set("headers", headers)?;
    table.raw_set("body", lua.create_string(&answer.body)?)?;
    Ok(table)
}

fn json(lua: &Lua, home: &Home, own: &Value) -> Result<Exact, Problem> {
    const METHOD: &str = "answer:json";
    method(METHOD, own)?;
    let body = own.as_table().map(|own| own.raw_get::<Value>("body")).transpose()?.unwrap_or(Value::Nil);
    let Value::String(text) = &body else { return Err(wrong(METHOD, "body", "text", &body)) };
    home.codec.decode_exact(lua, &text.as_bytes(), false).map_err(|error| match error {
        DecodeError::Vm(error) => Problem::Vm(error),
        error => Problem::Wrong(format!("{METHOD}: body: expected JSON, but {error}")),
    })
}

/// `ctx:snooze_if_busy(answer)`: false, where the answer does not say when to come again.
pub(super) fn snooze_if_busy(home: &Home, (own, answer): (Value, Value)) -> Result<bool, Problem> {
    const SNOOZE: &str = "ctx:snooze_if_busy";
    method(SNOOZE, &own)?;
    let run = running(home, SNOOZE)?;
    let expected = "the answer of a call";
    let Value::Table(table) = &answer else { return Err(wrong(SNOOZE, "answer", expected, &answer)) };
    let (status, headers) = (table.raw_get::<Value>("status")?, table.raw_get::<Value>("headers")?);
    let (Value::Integer(status), Value::Table(headers)) = (status, headers) else {
        return Err(wrong(SNOOZE, "answer", expected, &answer));
    };
    let retry_after: Value = headers.raw_get("retry-after")?;
    let retry_after = retry_after.as_string().map(|text| text.to_string_lossy());
    let status = u16::try_from(status).unwrap_or(0);
    let Some(after) = busy_for(status, retry_after.as_deref(), home.clock.now()) else { return Ok(false) };
    let reason = format!("the service is busy ({status}) and asks to come again in {} s", after.as_secs());
    run.end(Outcome::Snooze { after, reason });
    Err(Problem::Ended)
}
