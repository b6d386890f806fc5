//! Lines for `moontide emit --file`, good ones and others.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use rand::Rng as _;
use rand::rngs::SmallRng;

use super::documents;
use super::entries::id;
use crate::findings::Findings;
use crate::stage::{Stage, binary};

/// Emits `count` lines; counts the bad ones, and answers the ids of the good ones. Each bad one must be named once.
pub fn emit(stage: &mut Stage, count: usize, found: &mut Findings) -> Vec<String> {
    let (mut text, mut ids, mut bad) = (Vec::new(), Vec::new(), BTreeSet::new());
    for number in 1..=count {
        if stage.rng.random_bool(0.3) {
            let id = id(&mut stage.rng);
            text.extend(format!(r#"{{"type":"odd","id":"{id}","data":{{"n":{number}}}}}"#).bytes());
            ids.push(id);
        } else {
            text.extend(line(&mut stage.rng));
            bad.insert(number);
        }
        text.push(b'\n');
    }
    let file = stage.folder.path().join("lines.ndjson");
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(binary());
    command.args(["emit", "--config", "moontide.toml", "--skip-bad", "--file", "lines.ndjson"]);
    let run = command.current_dir(stage.folder.path()).stdin(Stdio::null()).output().expect("it starts");
    let said = String::from_utf8_lossy(&run.stderr);
    let named = said.lines().filter_map(|line| line.split_once("line ")?.1.split(' ').next()?.parse().ok());
    let named: Vec<usize> = named.collect();
    if !named.iter().eq(&bad) {
        let missing: Vec<_> = bad.iter().filter(|number| !named.contains(number)).collect();
        let excess: Vec<_> = named.iter().filter(|number| !bad.contains(number)).collect();
        found.lost += missing.len() as u64;
        found.wrong(format!("lines that were not refused: {missing:?}; that were, or twice: {excess:?}\n{said}"));
    }
    found.fault("line", bad.len() as u64);
    ids
}

/// A line that is no event.
fn line(rng: &mut SmallRng) -> Vec<u8> {
    let text: String = match rng.random_range(0..16) {
        0 => "[1]".into(),
        1 => "7".into(),
        2 => r#"{"data":1}"#.into(),
        3 => r#"{"type":7}"#.into(),
        4 => r#"{"type":"a b"}"#.into(),
        5 => r#"{"type":"odd","type":"odd"}"#.into(),
        6 => format!(r#"{{"type":"odd","data":"{}"}}"#, "x".repeat(1 << 20)),
        7 => r#"{"type":"odd","time":"yesterday"}"#.into(),
        8 => r#"{"type":"odd","id":""}"#.into(),
        9 => r#"{"type":"odd","specversion":"0.3"}"#.into(),
        10 => r#"{"type":"odd","datacontenttype":"text/xml"}"#.into(),
        11 => r#"{"type":"odd","data_base64":"AA=="}"#.into(),
        12 => format!(r#"{{"type":"odd","subject":"{}"}}"#, "s".repeat(1025)),
        _ => return documents::bad_line(rng),
    };
    text.into_bytes()
}
