//! HTTP, from outside: a real listener on a loopback port of its own.

pub mod client;
mod dead;
mod health;
mod ingest;
mod metrics;
mod process;
mod refusals;
mod tools;

use std::net::SocketAddr;

use moontide::event::Event;

use crate::support::Desk;

const ON: &str = "[http]\nlisten = \"127.0.0.1:0\"";
const COUNT: &str =
    "return { on = 'order.**', start = 'earliest', handle = function(event, ctx) ctx.kv:add('n', 1) end }";

async fn desk() -> (Desk, SocketAddr) {
    let desk = Desk::with(ON, &[("count", COUNT)]).await;
    let address = desk.host().http_address().expect("HTTP is on");
    (desk, address)
}

/// What lies in the stream of type `kind`.
async fn stored(desk: &Desk, kind: &str) -> Vec<Event> {
    let overview = &desk.host().backend().overview;
    let entries = overview.history(&format!("events:{kind}"), None, 100_000).await.expect("the store answers");
    entries.into_iter().map(|(_, event)| event.expect("it is an event")).collect()
}
