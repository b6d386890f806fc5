//! Entries of streams and messages of channels: the first line of an input names layouts, each further line is `field=value`.

use moontide::envelope::{AUTO, CHANNEL, Fields, Layouts, MESSAGE, MESSAGE_PRESETS, STREAM_PRESETS};
use moontide::event::{ATTRIBUTE_BYTES_MAX, Event, Json, check_type};

use super::{LYING, assert_alike, lies_as_it_is, text};

pub fn run(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let names = lines.next().unwrap_or_default();
    let fields = |rest: &[u8]| {
        let at = rest.iter().position(|byte| *byte == b'=').unwrap_or(rest.len());
        (text(&rest[..at]), text(rest.get(at + 1..).unwrap_or_default()))
    };
    match names.strip_prefix(b"channel ") {
        Some(names) => {
            let message = lines.next().unwrap_or_default();
            let layouts = layouts(names, MESSAGE_PRESETS, Layouts::of_channel);
            let fields = |message| vec![(MESSAGE.into(), message), (CHANNEL.into(), "news".into())];
            is_kept(&layouts, &fields(text(message)), |event| fields(layouts.message(event)));
        }
        None => {
            let layouts = layouts(names, STREAM_PRESETS, Layouts::of_stream);
            is_kept(&layouts, &lines.map(fields).collect(), |event| layouts.write(event));
        }
    }
}

/// Layouts by the first letters of their names; unless there are some, all.
fn layouts(
    names: &[u8],
    presets: &[&'static str],
    of: for<'n> fn(&[&'n str], &[moontide::envelope::Layout]) -> Result<Layouts, &'n str>,
) -> Layouts {
    let named = |letter: &u8| presets.iter().find(|preset| preset.as_bytes()[0] == *letter).copied();
    let mut chosen: Vec<&str> = names.iter().filter_map(named).take(presets.len()).collect();
    if chosen.is_empty() {
        chosen.push(AUTO);
    }
    of(&chosen, &[]).expect("presets are layouts")
}

/// An event that was read is written, read again, and from then on nothing changes any more.
fn is_kept(layouts: &Layouts, fields: &Fields, write: impl Fn(&Event) -> Fields) {
    let Some(event) = read(layouts, fields).filter(|event| layouts.check(event).is_ok()) else { return };
    let again = |event: &Event| {
        let written = write(event);
        let read = layouts.read(LYING, &written);
        read.unwrap_or_else(|why| panic!("{event:?} was written as {written:?}: {why}"))
    };
    let first = again(&event);
    assert_eq!(first.kind, event.kind, "{event:?} became {first:?}");
    // In a flat document the whole of it is the data; elsewhere no data can be a null.
    if layouts.names().next() != Some("event_data") && event.data.is_some() {
        assert_eq!(first.data, event.data, "{event:?} became {first:?}");
    }
    // By then everything has found its place: the name of a channel, too.
    let second = again(&first);
    assert_alike(&second, &again(&second));
}

/// The event in an entry, if it is one: sound, and of the type that a first look said.
fn read(layouts: &Layouts, fields: &Fields) -> Option<Event> {
    let looked = layouts.kind(fields);
    let event = match layouts.read(LYING, fields) {
        Ok(event) => event,
        Err(reason) => {
            assert!(!reason.is_empty());
            return None;
        }
    };
    assert!(looked.is_none_or(|kind| kind == event.kind), "a look said {looked:?}: {event:?}");
    assert_eq!(check_type(&event.kind), Ok(()));
    assert!(event.id.len() <= ATTRIBUTE_BYTES_MAX && !event.id.is_empty(), "{event:?}");
    for json in event.data.iter().chain(&event.ext) {
        Json::parse(json.bytes().clone()).unwrap_or_else(|error| panic!("{json:?} is no JSON: {error}"));
    }
    lies_as_it_is(&event);
    Some(event)
}
