//! Layouts of streams and channels: `[layout.NAME]`, and the `layout` of whatever has one.

use figment::value::Value;

use super::raw::{Checker, Table};
use crate::envelope::{AUTO, Encoding, Layout, Layouts, MESSAGE_PRESETS, Place, STREAM_PRESETS, Spec, TraceSpec, Unit};
use crate::nearest::nearest;

/// Attributes whose place is a text.
const PLAIN: [&str; 7] = ["id", "source", "type", "subject", "dataschema", "correlation_id", "causation_id"];

/// Where a layout is used.
#[derive(Clone, Copy)]
pub(super) enum Carrier {
    Stream,
    Channel,
}

impl Carrier {
    fn is_channel(self) -> bool {
        matches!(self, Self::Channel)
    }
}

/// All tables of `[layout]`.
pub(super) fn read_layouts(table: &Table<'_>, checker: &Checker) -> Vec<Layout> {
    let mut layouts = Vec::new();
    for (name, path, value) in table.entries() {
        let mut table = Table::of(checker, path, value);
        if is_preset(name) {
            table.note("", "is the name of a layout that is there already; choose another");
        }
        match Layout::build(name, read_spec(&mut table)) {
            Ok(layout) => layouts.push(layout),
            Err(error) => table.note("", error.to_string()),
        }
        table.close();
    }
    layouts
}

fn is_preset(name: &str) -> bool {
    name == AUTO || STREAM_PRESETS.contains(&name) || MESSAGE_PRESETS.contains(&name)
}

fn read_spec(table: &mut Table<'_>) -> Spec {
    let attributes = PLAIN.into_iter().filter_map(|name| Some((name, place(table, name)?)));
    Spec::described(attributes.collect(), trace(table), time(table), data(table))
}

fn place(table: &mut Table<'_>, key: &'static str) -> Option<Place> {
    table.optional(key, "a field, field/path, or =constant", read_place)
}

fn read_place(value: &Value) -> Result<Option<Place>, String> {
    value.as_str().map(Place::parse).transpose()
}

/// A place, or a table with it and something about it.
enum Given<'a> {
    Place(Place),
    Table(Table<'a>),
    Nothing,
}

fn place_or_table<'a>(table: &mut Table<'a>, key: &'static str) -> Given<'a> {
    match table.get(key) {
        Some(Value::Dict(..)) => Given::Table(table.table(key)),
        Some(_) => place(table, key).map_or(Given::Nothing, Given::Place),
        None => Given::Nothing,
    }
}

fn time(table: &mut Table<'_>) -> Option<(Place, Unit)> {
    match place_or_table(table, "time") {
        Given::Nothing => None,
        Given::Place(place) => Some((place, Unit::default())),
        Given::Table(mut time) => {
            let field = field(&mut time);
            let unit = time.choice("unit", &Unit::NAMES);
            time.close();
            field.map(|field| (field, unit))
        }
    }
}

fn data(table: &mut Table<'_>) -> Option<(Place, Encoding)> {
    match place_or_table(table, "data") {
        Given::Nothing => None,
        Given::Place(place) => Some((place, Encoding::default())),
        Given::Table(mut data) => {
            let field = field(&mut data);
            let encodings = [("json", Encoding::Json), ("text", Encoding::Text), ("base64", Encoding::Base64)];
            let encoding = data.choice("encoding", &encodings);
            data.close();
            field.map(|field| (field, encoding))
        }
    }
}

fn trace(table: &mut Table<'_>) -> Option<TraceSpec> {
    match place_or_table(table, "traceparent") {
        Given::Nothing => None,
        Given::Place(place) => Some(TraceSpec::Whole(place)),
        Given::Table(mut trace) => {
            let (trace_id, parent_id) = (needed(&mut trace, "trace_id"), needed(&mut trace, "parent_id"));
            trace.close();
            trace_id.zip(parent_id).map(|(trace_id, parent_id)| TraceSpec::Parts { trace_id, parent_id })
        }
    }
}

fn field(table: &mut Table<'_>) -> Option<Place> {
    needed(table, "field")
}

fn needed(table: &mut Table<'_>, key: &'static str) -> Option<Place> {
    table.need(key, |table| place(table, key).map(Some))
}

/// The layouts that `layout` names: one, or a list that is tried in order. Nothing: Moontide's own.
pub(super) fn read_layout(table: &mut Table<'_>, all: &[Layout], carrier: Carrier) -> Layouts {
    let names = table.optional("layout", "the name of a layout, or a list of names", |value| {
        let element = |value: &Value| value.as_str().map(str::to_owned);
        Ok(match value.as_array() {
            Some(list) if !list.is_empty() => list.iter().map(element).collect::<Option<Vec<_>>>(),
            Some(_) => None,
            None => element(value).map(|name| vec![name]),
        })
    });
    let names = names.unwrap_or_else(|| vec!["cloudevents".to_owned()]);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let own: Vec<Layout> =
        all.iter().filter(|layout| layout.is_for_channels() == carrier.is_channel()).cloned().collect();
    let (found, presets) = match carrier {
        Carrier::Stream => (Layouts::of_stream(&names, &own), STREAM_PRESETS),
        Carrier::Channel => (Layouts::of_channel(&names, &own), MESSAGE_PRESETS),
    };
    found.unwrap_or_else(|unknown| {
        table.note("layout", unknown_layout(unknown, all, presets, carrier));
        Layouts::default()
    })
}

/// The layout in which `layout` says that something is written; `None`: it says nothing.
pub(super) fn read_writing_layout(table: &mut Table<'_>, all: &[Layout]) -> Option<Layouts> {
    let name = table.text("layout");
    if name.is_empty() {
        return None;
    }
    if name == AUTO {
        let presets = STREAM_PRESETS.join(", ");
        table.note("layout", format!("{AUTO:?} is for reading; name the layout that is written: {presets}"));
        return None;
    }
    let own: Vec<Layout> = all.iter().filter(|layout| !layout.is_for_channels()).cloned().collect();
    match Layouts::of_stream(&[&name], &own) {
        Ok(layout) => Some(layout),
        Err(unknown) => {
            table.note("layout", unknown_layout(unknown, all, STREAM_PRESETS, Carrier::Stream));
            None
        }
    }
}

fn unknown_layout(name: &str, own: &[Layout], presets: &[&str], carrier: Carrier) -> String {
    if is_preset(name) || own.iter().any(|layout| layout.name() == name) {
        let (here, there) = match carrier {
            Carrier::Stream => ("streams", "channels"),
            Carrier::Channel => ("channels", "streams"),
        };
        return format!("{name:?} is a layout of {there}; {here} have {}, or a [layout.NAME]", presets.join(", "));
    }
    let known = || own.iter().map(Layout::name).chain(presets.iter().copied()).chain([AUTO]);
    match nearest(name, known()) {
        Some(near) => format!("{name:?} is no layout; did you mean {near:?}?"),
        None => format!("{name:?} is no layout; there are {}", known().collect::<Vec<_>>().join(", ")),
    }
}
