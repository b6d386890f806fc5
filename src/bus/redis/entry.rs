//! How a delivery lies in an entry: in a stream of events as its layout says (`crate::envelope`), in the host's own streams
//! besides with what it went through.
//!
//! The host's own streams hold events as Moontide writes them, whatever the layout of the stream that they came from is by
//! now; as they lay there they go along in one field, for the dead letter. An entry that is no event keeps its fields.

use bytes::Bytes;
use rmp::{decode, encode};

use crate::bus::{Past, Undecodable, past};
use crate::envelope::{Layouts, Lying};
use crate::event::{EntryId, Event};
use crate::streams::Streams;

pub(super) use crate::envelope::Fields;

/// In the host's own streams: what a delivery went through.
const PAST: &str = "moontide-past";
/// In the host's own streams: the fields of the entry that it was first delivered from. Alone: it is to be read from them.
const LAY: &str = "moontide-lay";

/// What lies in an entry.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub event: Result<Event, Undecodable>,
    pub past: Option<Past>,
    /// The fields, where the layout is not Moontide's own.
    pub lay: Option<Box<Fields>>,
}

/// What an entry of a stream of events holds.
pub(super) fn read(streams: &Streams, stream: &str, entry: EntryId, fields: Fields) -> Read {
    read_as(streams.layouts(stream), Lying { stream, entry }, fields)
}

fn read_as(layouts: &Layouts, lying: Lying<'_>, fields: Fields) -> Read {
    match layouts.read(lying, &fields) {
        Ok(event) => Read { event: Ok(event), past: None, lay: (!layouts.is_own()).then(|| Box::new(fields)) },
        Err(reason) => Read { event: Err(Undecodable { reason, fields }), past: None, lay: None },
    }
}

/// What an entry of the host's own stream holds.
pub(super) fn read_own(streams: &Streams, stream: &str, entry: EntryId, mut fields: Fields) -> Read {
    let lay = take(&mut fields, LAY).and_then(|packed| unpack(&packed));
    let Some(text) = take(&mut fields, PAST) else {
        return read_as(Layouts::own(), Lying { stream, entry }, fields);
    };
    let past = match past::read(&text) {
        Ok(past) => past,
        Err(error) => {
            let reason = format!("what it went through is not readable: {error}");
            return Read { event: Err(Undecodable { reason, fields }), past: None, lay: None };
        }
    };
    let lying = Lying { stream: &past.stream, entry: past.entry };
    let read = match lay {
        Some(lay) if fields.is_empty() => read_as(streams.layouts(&past.stream), lying, lay),
        lay => Read { lay: lay.map(Box::new), ..read_as(Layouts::own(), lying, fields) },
    };
    Read { past: Some(past), ..read }
}

/// The fields of a delivery in the host's own stream; `lay`: as it lay where it came from.
pub(super) fn fields_with_past(event: &Result<Event, Undecodable>, lay: Option<&Fields>, past: &Past) -> Fields {
    let mut fields = match event {
        Ok(event) => Layouts::own().write(event),
        Err(_) => Fields::new(),
    };
    let lay = event.as_ref().err().map(|raw| &raw.fields).or(lay);
    if let Some(lay) = lay {
        fields.push((Bytes::from_static(LAY.as_bytes()), pack(lay)));
    }
    fields.push((Bytes::from_static(PAST.as_bytes()), past::write(past).into()));
    fields
}

/// The fields of a delivery as they lay in the stream that it came from.
pub(super) fn as_it_lay(event: &Result<Event, Undecodable>, lay: Option<&Fields>) -> Fields {
    match (event, lay) {
        (_, Some(lay)) => lay.clone(),
        (Ok(event), None) => Layouts::own().write(event),
        (Err(raw), None) => raw.fields.clone(),
    }
}

fn take(fields: &mut Fields, name: &str) -> Option<Bytes> {
    let at = fields.iter().position(|(found, _)| found == name.as_bytes())?;
    Some(fields.remove(at).1)
}

/// Fields as one value: MessagePack, a list of byte strings.
pub(super) fn pack(fields: &Fields) -> Bytes {
    let mut packed = Vec::new();
    let parts = || fields.iter().flat_map(|(name, value)| [name, value]);
    // The server takes no value of 4 GiB, so a length always fits.
    encode::write_array_len(&mut packed, parts().count() as u32).expect("memory can be written to");
    for part in parts() {
        encode::write_bin(&mut packed, part).expect("memory can be written to");
    }
    packed.into()
}

pub(super) fn unpack(packed: &Bytes) -> Option<Fields> {
    let mut rest = &packed[..];
    let part = |rest: &mut &[u8]| {
        let length = decode::read_bin_len(rest).ok()? as usize;
        let (found, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(packed.slice_ref(found))
    };
    let count = decode::read_array_len(&mut rest).ok()?;
    (0..count / 2).map(|_| Some((part(&mut rest)?, part(&mut rest)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Json, TypePattern};
    use crate::streams::StreamRule;

    const ENTRY: EntryId = EntryId(17, 3);

    fn raw(fields: &[(&'static str, &'static str)]) -> Fields {
        fields.iter().map(|(name, value)| (Bytes::from(*name), Bytes::from(*value))).collect()
    }

    fn past() -> Past {
        Past {
            attempts: 1,
            snoozes: 0,
            stream: "shop".into(),
            entry: EntryId(1, 0),
            first_received: 5,
            failures: Vec::new(),
            replay_of: None,
            steps: None,
        }
    }

    /// Where the stream `shop` has this layout.
    fn shop(layout: &str) -> Streams {
        let types = vec![TypePattern::parse("*").expect("a pattern")];
        let layouts = Layouts::of_stream(&[layout], &[]).expect("a preset");
        let rule = StreamRule { types, name: "shop".into(), retain: None, layouts };
        Streams { rules: vec![rule], ..Streams::default() }
    }

    #[test]
    fn a_delivery_comes_back_from_our_own_streams_whatever_the_layout_is_by_now() {
        let entry = raw(&[("type", "T"), ("payload", "[1]"), ("ts", "5"), ("x", "\u{e9}")]);
        let read = read(&shop("payload"), "shop", ENTRY, entry.clone());
        assert_eq!(read.lay.as_deref(), Some(&entry));
        let kept = fields_with_past(&read.event, read.lay.as_deref(), &past());
        for layout in ["payload", "cloudevents", "event_data"] {
            let back = read_own(&shop(layout), "moontide:retry:g", EntryId(99, 0), kept.clone());
            assert_eq!(
                back,
                Read { past: Some(past()), ..super::read(&shop("payload"), "shop", ENTRY, entry.clone()) }
            );
        }
        assert_eq!(as_it_lay(&read.event, read.lay.as_deref()), entry);
    }

    #[test]
    fn the_past_is_no_part_of_an_event() {
        let event = Ok(Event { data: Some(Json::trusted("1")), ..Event::new("1", "shop", "order.created") });
        let back = read_own(&Streams::default(), "retry", ENTRY, fields_with_past(&event, None, &past()));
        assert_eq!(back, Read { event, past: Some(past()), lay: None });
    }

    #[test]
    fn what_was_no_event_is_one_when_the_layout_is_mended() {
        let fields =
            vec![("type".into(), "T".into()), ("payload".into(), Bytes::from_static(b"1")), ("ts".into(), "".into())];
        let garbage = read(&shop("event_data"), "shop", ENTRY, fields.clone()).event;
        assert_eq!(as_it_lay(&garbage, None), fields);
        let kept = fields_with_past(&garbage, None, &past());
        let still = read_own(&shop("event_data"), "retry", ENTRY, kept.clone());
        assert_eq!((still.event, still.past), (garbage, Some(past())));
        let mended = read_own(&shop("aggregate"), "retry", ENTRY, kept);
        assert_eq!(mended.event.map(|event| event.id), Ok("shop/1-0".to_owned()), "named after where it first lay");
    }

    #[test]
    fn fields_that_are_no_text_are_packed_too() {
        let fields = vec![(Bytes::from_static(b"\xff"), Bytes::from_static(b"\x00")), (Bytes::new(), Bytes::new())];
        assert_eq!(unpack(&pack(&fields)), Some(fields));
        for broken in [&b""[..], b"\x92", b"\x92\xc4\x05a", b"\xc0"] {
            assert_eq!(unpack(&Bytes::copy_from_slice(broken)), None);
        }
    }
}
