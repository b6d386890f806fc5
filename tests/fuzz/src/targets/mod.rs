//! What must hold, target by target.

pub mod config;
pub mod envelope;
pub mod http;
pub mod json;
pub mod lines;
pub mod manifest;
pub mod require;
pub mod settle;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mlua::Lua;
use moontide::draft::Defaults;
use moontide::envelope::{Layouts, Lying};
use moontide::event::{EntryId, Event, Json};
use moontide::script::convert::Codec;
use serde_json::Value;

const LYING: Lying<'_> = Lying { stream: "rig", entry: EntryId(1, 0) };

/// A VM as scripts have it, as far as conversion goes.
struct Vm {
    lua: Lua,
    codec: Codec,
}

impl Vm {
    fn new() -> Self {
        let lua = Lua::new();
        let codec = Codec::install(&lua).expect("a new VM has room");
        Self { lua, codec }
    }
}

thread_local! {
    static VM: Vm = Vm::new();
}

/// Panics unless a script can be given these data.
fn reaches_scripts(data: &Json) {
    VM.with(|vm| {
        let decoded = vm.codec.decode(&vm.lua, data.bytes(), true);
        decoded.map(drop).unwrap_or_else(|error| panic!("{data:?} was taken, and no script can have it: {error}"));
    });
}

/// Panics unless `event` lies in a store as Moontide writes it, and is read as the same.
fn lies_as_it_is(event: &Event) {
    let fields = Layouts::own().write(event);
    let read = Layouts::own().read(LYING, &fields).unwrap_or_else(|why| panic!("{event:?} lies as {fields:?}: {why}"));
    assert_same(event, &read);
}

/// Panics unless both are one event. What has no place of its own may be written in other characters.
fn assert_same(one: &Event, other: &Event) {
    assert_eq!(one.data, other.data);
    assert_alike(one, other);
}

/// Panics unless both mean one event.
fn assert_alike(one: &Event, other: &Event) {
    let meaning = |json: &Option<Json>| json.as_ref().map(|json| serde_json::from_slice::<Value>(json.bytes()).ok());
    let bare = |event: &Event| Event { ext: None, data: None, ..event.clone() };
    assert_eq!((bare(one), meaning(&one.data)), (bare(other), meaning(&other.data)));
    assert_eq!(meaning(&one.ext), meaning(&other.ext));
}

/// What is filled in where an event is silent.
fn defaults() -> Defaults {
    Defaults {
        source: "rig".into(),
        subject: None,
        correlation_id: None,
        delay: Some(Duration::ZERO),
        payload_bytes_max: 1 << 20,
        streams: Arc::default(),
    }
}

fn text(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
