//! What docs/layouts.md shows is so: every entry and message is an event in its layout, and every setting is one.

use bytes::Bytes;
use moontide::config::{self, Config, Flags};
use moontide::envelope::{AUTO, CHANNEL, Fields, Layouts, Lying, MESSAGE, MESSAGE_PRESETS, STREAM_PRESETS};
use moontide::event::EntryId;

const PAGE: &str = include_str!("../../docs/layouts.md");

/// What stands in the blocks of a language, each with the heading above it.
fn blocks(language: &str) -> Vec<(String, String)> {
    let (mut heading, mut inside, mut found) = (String::new(), None::<String>, Vec::new());
    for line in PAGE.lines() {
        match (&mut inside, line) {
            (Some(text), "```") => {
                found.push((heading.clone(), std::mem::take(text)));
                inside = None;
            }
            (Some(text), line) => *text += &format!("{line}\n"),
            (None, line) if line.starts_with('#') => heading = line.trim_start_matches('#').trim().to_owned(),
            (None, line) if line == format!("```{language}") => inside = Some(String::new()),
            _ => {}
        }
    }
    found
}

/// Quotes are the only thing that a shell would do here.
fn words(line: &str) -> Vec<Bytes> {
    let quoted = |(at, part): (usize, &str)| match at % 2 {
        1 => vec![Bytes::from(part.to_owned())],
        _ => part.split_whitespace().map(|word| Bytes::from(word.to_owned())).collect(),
    };
    line.split('\'').enumerate().flat_map(quoted).collect()
}

#[test]
fn every_entry_and_message_is_an_event_in_its_layout() {
    let mut shown = Vec::new();
    for (heading, block) in blocks("text") {
        let names: Vec<_> = heading.split('`').skip(1).step_by(2).collect();
        for line in block.lines() {
            let words = words(line);
            let entry = words[0] == "XADD";
            let fields: Fields = match entry {
                true => words[3..].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
                false => vec![(MESSAGE.into(), words[2].clone()), (CHANNEL.into(), words[1].clone())],
            };
            let of = if entry { Layouts::of_stream } else { Layouts::of_channel };
            let lying = Lying { stream: "shop", entry: EntryId(1, 0) };
            let read =
                |name: &str| of(&[name], &[]).map_err(str::to_owned).and_then(|layouts| layouts.read(lying, &fields));
            let recognised = read(AUTO).unwrap_or_else(|why| panic!("{line}: {why}"));
            let own = names.iter().filter_map(|name| read(name).ok()).find(|event| *event == recognised);
            assert!(own.is_some(), "{line}: {names:?} read it otherwise than auto: {recognised:?}");
            shown.extend(names.iter().map(|name| (entry, (*name).to_owned())));
        }
    }
    let missing = |entry: bool, presets: &[&str]| -> Vec<String> {
        let shown = |name: &&&str| shown.contains(&(entry, (**name).to_owned()));
        presets.iter().filter(|name| !shown(name)).map(|name| (*name).to_owned()).collect()
    };
    assert_eq!((missing(true, STREAM_PRESETS), missing(false, MESSAGE_PRESETS)), (vec![], vec![]));
}

fn configured(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("moontide.toml");
    std::fs::write(&file, text).expect("a file");
    config::load(&Flags { config: Some(file), ..Flags::default() }).map_err(|problems| problems.to_string())
}

#[test]
fn every_setting_is_one() {
    let blocks = blocks("toml");
    assert!(blocks.len() >= 4);
    for (heading, block) in blocks {
        configured(&block).unwrap_or_else(|problems| panic!("{heading}: {problems}"));
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
    let stream = |layout: &str| format!("[[stream]]\ntypes = [\"a\"]\nname = \"s\"\nlayout = {layout}\n");
    let redis = "[bus]\nurl = \"redis://localhost\"\n";
    for (text, says) in [
        (stream("\"paylod\""), "stream #1.layout: \"paylod\" is no layout; did you mean \"payload\"?"),
        (stream("\"subject\""), "\"subject\" is a layout of channels; streams have"),
        (stream("[]"), "must be the name of a layout, or a list of names"),
        (stream("7"), "must be the name of a layout, or a list of names, not 7"),
        (
            format!("{}{}", stream("\"payload\""), stream("\"auto\"").replace("\"a\"", "\"b\"")),
            "stream #2.layout: differs from an earlier table",
        ),
        ("[layout.payload]\ntype = \"a\"\ndata = \"b\"".into(), "is the name of a layout that is there already"),
        ("[layout.x]\ndata = \"b\"".into(), "layout.x: says nowhere what the type is"),
        ("[layout.x]\ntype = \"a\"".into(), "layout.x: says nowhere where the data lies"),
        ("[layout.x]\ntype = \"a\"\ndata = \"=b\"".into(), "data lies somewhere, and is no constant"),
        ("[layout.x]\ntype = \"\"\ndata = \"b\"".into(), "names no field; write a field, field/path, or =constant"),
        ("[layout.x]\ntype = \"a\"\ndata = \"b\"\ntime = { field = \"t\", unit = \"min\" }".into(), "must be one of"),
        ("[layout.x]\ntype = \"a\"\ndata = \"b\"\ntime = { unit = \"s\" }".into(), "layout.x.time.field: is missing"),
        (
            "[layout.x]\ntype = \"b/t\"\ndata = { field = \"b\", encoding = \"base64\" }".into(),
            "nothing else can lie within it",
        ),
        ("[layout.x]\ntype = \"a\"\ndata = \"b\"\ntiem = \"c\"".into(), "layout.x.tiem: is no key; did you mean time?"),
        (format!("{redis}[[channel]]\nlayout = \"subject\""), "channel #1.name: is missing"),
        (format!("{redis}[[channel]]\nname = \"a b\""), "\"a b\" is no channel"),
        (
            format!("{redis}[[channel]]\nname = \"a\"\ndeliver = \"later\""),
            "must be \"stream\" or \"direct\", not \"later\"",
        ),
        (format!("{redis}[[channel]]\nname = \"a\"\nlayout = \"payload\""), "\"payload\" is a layout of streams"),
        (format!("{redis}[[channel]]\nname = \"a\"\n[[channel]]\nname = \"a\""), "is listened to already"),
        (format!("{redis}[[mirror]]\ntypes = [\"a\"]\nchannel = \"c.*\""), "it is one channel"),
        (format!("{redis}[[mirror]]\ntypes = []\nchannel = \"c\""), "must name at least one type"),
    ] {
        let problems = configured(&text).expect_err(&text);
        assert!(problems.contains(says), "{text}\nsays {problems}\ninstead of {says}");
    }
}

#[test]
fn channels_on_a_bus_that_has_none_are_said_to_do_nothing() {
    let text = "[bus]\nurl = \"memory:\"\n[[channel]]\nname = \"a\"\n[[mirror]]\ntypes = [\"t\"]\nchannel = \"c\"\n";
    let said = configured(text).expect("it is right").in_vain();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("[[channel]] \"a\" is not listened to") && said[1].contains("[[mirror]] \"c\""),
        "{said:?}"
    );
    let redis = configured(&text.replace("memory:", "redis://localhost")).expect("it is right");
    assert_eq!(redis.in_vain(), Vec::<String>::new());
}
