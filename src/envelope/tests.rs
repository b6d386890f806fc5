//! Every layout, in and out.

use bytes::Bytes;

use super::*;
use crate::event::{Json, TRAIL};

const LYING: Lying<'_> = Lying { stream: "shop", entry: EntryId(17, 3) };

fn raw(fields: &[(&'static str, &'static str)]) -> Fields {
    fields
        .iter()
        .map(|(name, value)| (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes())))
        .collect()
}

fn message(text: &'static str) -> Fields {
    raw(&[(MESSAGE, text), (CHANNEL, "identity.created")])
}

fn stream(name: &str) -> Layouts {
    Layouts::of_stream(&[name], &[]).expect("it is a preset")
}

fn channel(name: &str) -> Layouts {
    Layouts::of_channel(&[name], &[]).expect("it is a preset")
}

fn own(spec: Spec) -> Layouts {
    Layouts::of(vec![Layout::build("own", spec).expect("it is a layout")])
}

fn shown(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn full() -> Event {
    Event {
        subject: Some("42".into()),
        time: Some("2025-01-15T10:30:00.25Z".into()),
        correlation_id: Some("c".into()),
        causation_id: Some("k".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        ext: Some(Json::trusted(r#"{"tenant":"север","n":5,"handler":"h","handlerchain":"1 h(a) bf10c0a5"}"#)),
        data: Some(Json::trusted(r#"{"price":1.50,"n":9007199254740993,"tags":[],"emoji":"🌙"}"#)),
        ..Event::new("id-1", "shop/audit", "order.created")
    }
}

fn json(json: &Json) -> serde_json::Value {
    serde_json::from_slice(json.bytes()).expect("it is JSON")
}

#[test]
fn every_layout_brings_back_what_it_has_room_for() {
    let event = full();
    for name in STREAM_PRESETS {
        let layouts = stream(name);
        let fields = layouts.write(&event);
        let back = layouts.read(LYING, &fields).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        check(name, &event, &back);
    }
    for name in MESSAGE_PRESETS {
        let layouts = channel(name);
        let fields = vec![(Bytes::new(), layouts.message(&event)), (CHANNEL.into(), "c".into())];
        let back = layouts.read(LYING, &fields).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        check(name, &event, &back);
    }
}

fn check(name: &str, event: &Event, back: &Event) {
    assert_eq!((&back.id, &back.kind, &back.causation_id), (&event.id, &event.kind, &event.causation_id), "{name}");
    assert_eq!((&back.correlation_id, &back.traceparent), (&event.correlation_id, &event.traceparent), "{name}");
    let at = |event: &Event| event.time.as_ref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    assert_eq!(at(back), at(event), "{name}");
    let (back_ext, back_data) = (json(back.ext.as_ref().expect(name)), back.data.as_ref().expect(name));
    let room = if name == "event_data" || name == "domain" { &back_ext["metadata"] } else { &back_ext };
    assert_eq!((&room["tenant"], &room["n"], &room["handler"]), (&"север".into(), &5.into(), &"h".into()), "{name}");
    assert_eq!(back_ext[TRAIL], "1 h(a) bf10c0a5", "{name}");
    if name == "event_data" {
        assert_eq!(json(back_data)["n"], 9_007_199_254_740_993_i64);
        assert_eq!(json(back_data)["emoji"], "🌙");
    } else {
        assert_eq!(Some(back_data), event.data.as_ref(), "{name}: byte for byte");
    }
    assert!(name == "subject" || back.source == event.source, "{name}: {}", back.source);
}

#[test]
fn entries_of_others_are_read_as_their_documents_say() {
    let payload = raw(&[("type", "CheckoutInitiated"), ("payload", r#"{"checkout_id":"1"}"#), ("ts", "1735689600.5")]);
    let event = stream("payload").read(LYING, &payload).expect("it is an event");
    assert_eq!(
        (event.id.as_str(), event.source.as_str(), event.kind.as_str()),
        ("shop/17-3", "shop", "CheckoutInitiated")
    );
    assert_eq!((event.time.as_deref(), event.ext), (Some("2025-01-01T00:00:00.5Z"), None));

    let aggregate = raw(&[
        ("type", "task.created"),
        ("aggregate_id", "123"),
        ("aggregate_type", "task"),
        ("data", r#"{"task_id": 123}"#),
        ("timestamp", "2025-01-15T10:30:00"),
        ("retries", "2"),
    ]);
    let event = stream("aggregate").read(LYING, &aggregate).expect("it is an event");
    assert_eq!(event.time.as_deref(), Some("2025-01-15T10:30:00Z"));
    let ext = serde_json::json!({"aggregate_id": "123", "aggregate_type": "task", "retries": "2"});
    assert_eq!(
        (json(&event.ext.expect("there is some")), event.data),
        (ext, Some(Json::trusted(r#"{"task_id": 123}"#)))
    );

    let flat = r#"{"event_id":"e-1","event_type":"user.created","version":"v1","timestamp":"2025-09-26T10:30:00Z","source_service":"users","correlation_id":"req-789","user_id":12345,"metadata":{"from":"telegram"},"first_name":"Иван","role":"executor"}"#;
    let fields = raw(&[("event_id", "e-1"), ("event_data", flat), ("timestamp", "2025-09-26T10:30:00Z")]);
    for (layouts, fields) in [(stream("event_data"), fields), (channel("event_data"), message(flat))] {
        let event = layouts.read(LYING, &fields).expect("it is an event");
        assert_eq!((event.id.as_str(), event.source.as_str(), event.kind.as_str()), ("e-1", "users", "user.created"));
        assert_eq!(
            (event.correlation_id.as_deref(), event.data.as_ref()),
            (Some("req-789"), Some(&Json::trusted(flat)))
        );
        let ext = json(event.ext.as_ref().expect("there is some"));
        assert_eq!((&ext["user_id"], &ext["metadata"]["from"]), (&12345.into(), &"telegram".into()));
    }

    let subject = message(
        r#"{"id":"abc","subject":"identity.patient.created","timestamp":"2025-01-15T10:30:00+00:00","data":{"n":1}}"#,
    );
    let event = channel("subject").read(LYING, &subject).expect("it is an event");
    assert_eq!((event.id.as_str(), event.kind.as_str()), ("abc", "identity.patient.created"));
    let bare = channel("subject").read(LYING, &message(r#"{"data":{"n":1}}"#)).expect("its channel says the type");
    assert_eq!(bare.kind, "identity.created");

    let domain = message(
        r#"{"event_id":"e","event_name":"user.registered","aggregate_id":"7","occurred_at":"2025-01-15T10:30:00","version":1,"metadata":{"correlation_id":"c"},"payload":{"user_id":7},"more":true}"#,
    );
    let event = channel("domain").read(LYING, &domain).expect("it is an event");
    assert_eq!((event.kind.as_str(), event.correlation_id.as_deref()), ("user.registered", Some("c")));
    let ext = json(event.ext.as_ref().expect("there is some"));
    assert_eq!((&ext["aggregate_id"], &ext["version"], &ext["more"]), (&"7".into(), &1.into(), &true.into()));
    assert_eq!(event.data, Some(Json::trusted(r#"{"user_id":7}"#)));
}

#[test]
fn what_is_emitted_has_the_form_that_others_read() {
    let event = Event { ext: None, traceparent: None, causation_id: None, ..full() };
    let data = r#"{"price":1.50,"n":9007199254740993,"tags":[],"emoji":"🌙"}"#;
    let common = [("id", "id-1"), ("source", "shop/audit"), ("subject", "42"), ("correlation_id", "c")];
    let payload = [&[("type", "order.created"), ("payload", data), ("ts", "1736937000.25")][..], &common].concat();
    let aggregate = [
        &[("type", "order.created"), ("data", data), ("timestamp", "2025-01-15T10:30:00.25")][..],
        &[("aggregate_id", "42"), ("aggregate_type", ""), ("retries", "0")],
        &common,
    ];
    for (name, expected) in [("payload", payload), ("aggregate", aggregate.concat())] {
        let (mut written, mut expected) = (shown(&stream(name).write(&event)), pairs(&expected));
        written.sort();
        expected.sort();
        assert_eq!(written, expected, "{name}");
    }
    let written = shown(&stream("event_data").write(&event));
    let names: Vec<_> = written.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["event_data", "event_id", "timestamp"]);
    let flat: serde_json::Value = serde_json::from_str(&written[0].1).expect("it is JSON");
    assert_eq!(
        (&flat["version"], &flat["emoji"], &flat["source_service"]),
        (&"v1".into(), &"🌙".into(), &"shop/audit".into())
    );
    let domain: serde_json::Value = serde_json::from_slice(&channel("domain").message(&event)).expect("it is JSON");
    assert_eq!(
        (&domain["aggregate_id"], &domain["version"], &domain["payload"]["tags"]),
        (&"42".into(), &1.into(), &serde_json::json!([]))
    );
}

#[test]
fn an_event_that_is_passed_on_in_a_flat_document_has_its_own_attributes() {
    let data = r#"{"event_id":"old","event_type":"old.type","timestamp":"old","version":"v2","user_id":7,"name":"x"}"#;
    let event = Event { data: Some(Json::trusted(data)), ..Event::new("new", "us", "new.type") };
    let written = stream("event_data").write(&event);
    let flat: serde_json::Value = serde_json::from_slice(&written[0].1).expect("it is JSON");
    assert_eq!(
        (&flat["event_id"], &flat["event_type"], &flat["source_service"]),
        (&"new".into(), &"new.type".into(), &"us".into())
    );
    assert_eq!((&flat["version"], &flat["user_id"], &flat["name"]), (&"v2".into(), &7.into(), &"x".into()));
}

#[test]
fn a_chain_goes_on_where_extensions_are_passed_on_as_they_came() {
    let ext = r#"{"metadata":{"handlerchain":"old","a":1},"handlerchain":"new"}"#;
    let event = Event { ext: Some(Json::trusted(ext)), ..full() };
    let stream_fields = stream("event_data").write(&event);
    let message_fields = |name| vec![(Bytes::new(), channel(name).message(&event)), (CHANNEL.into(), "c".into())];
    for (layouts, fields) in [
        (stream("event_data"), stream_fields),
        (channel("event_data"), message_fields("event_data")),
        (channel("domain"), message_fields("domain")),
    ] {
        let back = json(&layouts.read(LYING, &fields).expect("it is an event").ext.expect("it has extensions"));
        assert_eq!((&back[TRAIL], &back["metadata"]["a"]), (&"new".into(), &1.into()), "{back}");
    }
}

#[test]
fn the_layout_of_each_entry_is_recognised() {
    let auto = stream(AUTO);
    let cases = [
        (raw(&[("type", "a"), ("payload", "{}")]), "a"),
        (raw(&[("type", "b"), ("aggregate_id", "1"), ("data", "{}")]), "b"),
        (raw(&[("event_data", r#"{"event_type":"c"}"#)]), "c"),
        (raw(&[("type", "d"), ("data", "[]")]), "d"),
    ];
    for (fields, kind) in &cases {
        assert_eq!(auto.read(LYING, fields).expect(kind).kind, *kind);
    }
    assert_eq!(auto.kind(&cases[3].0), Some("d"), "unwanted types are seen without reading");
    let none = auto.read(LYING, &raw(&[("x", "1")])).expect_err("it has none");
    assert!(none.contains("none of the layouts") && none.ends_with("its fields are x"), "{none}");
    let broken = auto.read(LYING, &raw(&[("type", "a"), ("payload", "{")])).expect("type alone is an event");
    assert_eq!(broken.data, None, "a body that is no JSON is kept as an extension: {:?}", broken.ext);
    let message_of = |text| channel(AUTO).read(LYING, &message(text));
    for (text, kind) in [
        (r#"{"event_type":"a"}"#, "a"),
        (r#"{"event_name":"b","payload":1}"#, "b"),
        (r#"{"subject":"c","data":1}"#, "c"),
        (r#"{"specversion":"1.0","type":"d","data":1}"#, "d"),
    ] {
        assert_eq!(message_of(text).expect(kind).kind, kind);
    }
    assert!(message_of("\u{1}").is_err());
}

#[test]
fn a_list_is_tried_in_order_and_says_what_the_first_that_fits_misses() {
    let flat = Spec::described(
        vec![("type", Place::Field("event_type".into())), ("id", Place::Field("event_id".into()))],
        None,
        None,
        Some((Place::Field("data".into()), Encoding::Json)),
    );
    let own = [Layout::build("flat", flat).expect("it is a layout")];
    let layouts = Layouts::of_stream(&["payload", "flat"], &own).expect("they exist");
    assert_eq!(layouts.names().collect::<Vec<_>>(), ["payload", "flat"]);
    let event = layouts.read(LYING, &raw(&[("event_type", "x"), ("event_id", "1"), ("data", "2"), ("service", "s")]));
    let event = event.expect("the second fits");
    assert_eq!((event.id.as_str(), event.ext), ("1", Some(Json::trusted(r#"{"service":"s"}"#))));
    let wrong = layouts.read(LYING, &raw(&[("event_type", "x"), ("data", "{")])).expect_err("it is no JSON");
    assert!(wrong.starts_with("as flat: field \"data\" is not JSON"), "{wrong}");
    assert_eq!(Layouts::of_stream(&["payload", "flot"], &own), Err("flot"));
}

#[test]
fn a_layout_of_ones_own_says_where_things_lie() {
    let place = |text| Place::parse(text).expect("it is a place");
    let webhook = own(Spec::described(
        vec![("type", place("event_type")), ("source", place("=hooks")), ("subject", place("payload/items/0/id"))],
        Some(TraceSpec::Parts { trace_id: place("trace_id"), parent_id: place("parent_span_id") }),
        Some((place("event_time"), Unit::Millis)),
        Some((place("payload"), Encoding::Json)),
    ));
    let fields = raw(&[
        ("event_type", "hook.called"),
        ("payload", r#"{"items":[{"id":"first"}]}"#),
        ("event_time", "1735689600250"),
        ("delivery_attempts", "3"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("parent_span_id", "00f067aa0ba902b7"),
    ]);
    let event = webhook.read(LYING, &fields).expect("it is an event");
    assert_eq!((event.source.as_str(), event.subject.as_deref()), ("hooks", Some("first")));
    assert_eq!(event.time.as_deref(), Some("2025-01-01T00:00:00.25Z"));
    assert_eq!(event.traceparent, full().traceparent);
    assert_eq!(event.ext, Some(Json::trusted(r#"{"delivery_attempts":"3"}"#)));
    let back = webhook.read(LYING, &webhook.write(&event)).expect("it is an event");
    assert_eq!(back, event);

    let binary =
        own(Spec::described(vec![("type", place("=blob"))], None, None, Some((place("body"), Encoding::Base64))));
    let fields = vec![(Bytes::from_static(b"body"), Bytes::from_static(b"\xff\x00\x80"))];
    let event = binary.read(LYING, &fields).expect("it is an event");
    assert_eq!(event.data, Some(Json::trusted("\"/wCA\"")));
    assert!(binary.write(&event).contains(&fields[0]), "bytes stay bytes");
    assert!(binary.check(&Event { data: Some(Json::trusted("\"!\"")), ..event }).is_err());
}

#[test]
fn what_is_no_event_says_why() {
    for (layout, fields, why) in [
        ("payload", raw(&[("payload", "1")]), "field \"type\" is missing"),
        ("payload", raw(&[("type", "a b")]), "field \"type\": ' ' cannot stand"),
        ("payload", raw(&[("type", "T"), ("type", "T")]), "field \"type\" is there twice"),
        ("payload", raw(&[("type", "T"), ("x", "1"), ("x", "2")]), "field \"x\" is there twice"),
        ("payload", raw(&[("type", "T"), ("payload", "{")]), "field \"payload\" is not JSON"),
        ("payload", raw(&[("type", "T"), ("ts", "soon")]), "field \"ts\" is no number of seconds"),
        ("cloudevents", raw(&[("type", "T"), ("ext", "[1]"), ("x", "1")]), "field \"ext\" is no JSON object"),
        ("event_data", raw(&[("event_data", "{\"event_id\":1}")]), "\"event_type\" in field \"event_data\" is missing"),
        (
            "event_data",
            raw(&[("event_data", "{\"event_type\":[]}")]),
            "\"event_type\" in field \"event_data\" is no text",
        ),
        (
            "event_data",
            raw(&[("event_data", "{\"event_type\":1,\"a\":1,\"a\":1}")]),
            "field \"event_data\" is not JSON",
        ),
        ("event_data", raw(&[("event_id", "1")]), "\"event_type\" in field \"event_data\" is missing"),
    ] {
        let found = stream(layout).read(LYING, &fields).expect_err(why);
        assert!(found.contains(why), "{found} instead of {why}");
    }
    let name = vec![(Bytes::from_static(b"\xff"), Bytes::new())];
    assert!(stream("payload").read(LYING, &name).is_err_and(|why| why == "the name of a field is not UTF-8"));
    let value = vec![(Bytes::from_static(b"type"), Bytes::from_static(b"\xff"))];
    assert!(stream("payload").read(LYING, &value).is_err_and(|why| why == "field \"type\" is not UTF-8"));
}

#[test]
fn a_flat_document_needs_names() {
    let event = |data| Event { data: Some(Json::trusted(data)), ..Event::new("1", "s", "t") };
    let flat = stream("event_data");
    assert_eq!(flat.check(&event("{}")), Ok(()));
    assert_eq!(flat.check(&event("[1]")), Err("the layout event_data needs a table with names as data".into()));
    assert_eq!(stream("payload").check(&event("[1]")), Ok(()));
}

#[test]
fn what_can_be_no_layout_is_refused() {
    let field = |name: &str| Place::Field(name.into());
    let with = |attributes, data| Layout::build("x", Spec::described(attributes, None, None, data)).map(|_| ());
    let data = |place| Some((place, Encoding::Text));
    assert_eq!(with(vec![], data(field("d"))), Err(SpecError::NoType));
    assert_eq!(with(vec![("type", field("t"))], None), Err(SpecError::NoData));
    assert_eq!(with(vec![("type", field("t"))], data(Place::Constant("d".into()))), Err(SpecError::ConstantData));
    let within = vec![("type", Place::Path("d".into(), vec!["t".into()]))];
    assert_eq!(with(within, data(field("d"))), Err(SpecError::WithinBytes("d".into(), "text")));
    assert_eq!(Place::parse(""), Err("names no field; write a field, field/path, or =constant".into()));
}

#[test]
fn nobody_forges_the_hosts_own_notes() {
    let ext = r#"{"moontide-past":"{}","id":"taken","data":"taken","plain":"x"}"#;
    let event = Event { ext: Some(Json::trusted(ext)), ..Event::new("1", "s", "t") };
    let written = Layouts::own().write(&event);
    assert!(!written.iter().any(|(name, _)| name == "moontide-past"));
    assert_eq!(
        Layouts::own().read(LYING, &written),
        Ok(event.clone()).map(|event: Event| {
            let members = serde_json::json!({"data": "taken", "id": "taken", "moontide-past": "{}", "plain": "x"});
            Event { ext: Some(Json::trusted(members.to_string())), ..event }
        })
    );
}
