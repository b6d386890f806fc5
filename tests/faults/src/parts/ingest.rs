//! Events come over HTTP through connections that are cut at any byte, in either direction, while the processes that take
//! them are killed. Clients repeat a request under its key until they are told 202.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use moontide::outcome::Emit;
use moontide_stage::process::Process;
use moontide_stage::proxy::{Proxy, Storm};
use moontide_stage::server::{Server, free_port};
use rand::Rng as _;

use crate::client;
use crate::findings::Findings;
use crate::place::{FILE, Place};
use crate::stage::Stage;
use crate::task::{Task, rng};

/// Rounds of a full run, cuts of each at the least, and numbers that are sent between two looks at them.
const ROUNDS: u64 = 20;
const CUTS: u64 = 510;
const NUMBERS: u64 = 24;
/// Processes that listen, and clients that send at a time.
const PROCESSES: usize = 2;
const CLIENTS: usize = 16;
/// Cuts come after fewer bytes than this: more than a request has, so that some get through.
const BYTES_MAX: usize = 600;
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n[sqlite]\nsynchronous = \"normal\"\n";

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

/// A process that listens, and the line to it.
struct Door {
    port: u16,
    line: Proxy,
    process: Process,
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut stage = Stage::new(Place::new(task.bus), rng(seed), SETTINGS).await;
    let mut doors = Vec::new();
    for number in 0..PROCESSES {
        let port = free_port();
        let line = Proxy::before(port).await;
        line.storm(Storm { seed: seed ^ number as u64, words: "", bytes_max: BYTES_MAX });
        doors.push(Door { port, line, process: start(&mut stage, port) });
    }
    let mut found = Findings::default();
    let mut accepted = Vec::new();
    let cuts = |doors: &[Door]| doors.iter().map(|door| door.line.cuts()).sum::<u64>();
    while cuts(&doors) < CUTS {
        let events = stage.draw(NUMBERS);
        // Those who come without a line between are answered most often: what they were told must hold.
        let ports: Vec<u16> = doors.iter().flat_map(|door| [door.line.port(), door.port]).collect();
        let sending = send_all(&ports, &events);
        let (sent, ()) = tokio::join!(sending, kill_one(&mut stage, &mut doors, &mut found));
        note_refused(&events, &sent, &mut found);
        accepted.extend(events);
    }
    found.fault("cut", cuts(&doors));
    found.add(stage.check().await);
    compare(&accepted, &stored(&stage), &mut found);
    found
}

fn start(stage: &mut Stage, port: u16) -> Process {
    stage.start_with(&[("MOONTIDE_HTTP_LISTEN", &format!("127.0.0.1:{port}"))]).1
}

async fn send_all(ports: &[u16], events: &[Emit]) -> Vec<Result<(), String>> {
    let first = |at: usize| [&ports[at % ports.len()..], &ports[..at % ports.len()]].concat();
    let sending = events.iter().enumerate().map(|(at, event)| async move { client::send(&first(at), event).await });
    futures_util::stream::iter(sending).buffered(CLIENTS).collect().await
}

/// In the middle of it all.
async fn kill_one(stage: &mut Stage, doors: &mut [Door], found: &mut Findings) {
    let victim = &mut doors[stage.rng.random_range(0..PROCESSES)];
    stage.pause(0..40).await;
    victim.process.kill();
    victim.process = start(stage, victim.port);
    found.fault("kill", 1);
}

fn note_refused(events: &[Emit], sent: &[Result<(), String>], found: &mut Findings) {
    for (event, sent) in events.iter().map(|emit| &emit.event).zip(sent) {
        if let Err(why) = sent {
            found.wrong(format!("{} {} was {why}", event.kind, event.id));
        }
    }
}

/// How often each event lies in its stream, by type and id.
type Stored = BTreeMap<(String, String), u64>;

fn stored(stage: &Stage) -> Stored {
    let mut stored = Stored::new();
    for kind in ["tick", "doom", "order", "step"] {
        let ids = match &stage.place {
            Place::Server(server) => ids_on_server(server, kind),
            Place::File => ids_in_file(stage, kind),
        };
        ids.into_iter().for_each(|id| *stored.entry((kind.to_owned(), id)).or_default() += 1);
    }
    stored
}

fn ids_on_server(server: &Server, kind: &str) -> Vec<String> {
    let entries: Vec<(String, BTreeMap<String, String>)> = server.get(&["XRANGE", &format!("events:{kind}"), "-", "+"]);
    entries.into_iter().map(|(_, mut fields)| fields.remove("id").unwrap_or_default()).collect()
}

fn ids_in_file(stage: &Stage, kind: &str) -> Vec<String> {
    let file = rusqlite::Connection::open(stage.folder.path().join(FILE)).expect("the file opens");
    let sql = "SELECT event.id FROM event JOIN stream ON stream.id = event.pos >> 40 WHERE stream.name = ?1";
    let mut list = file.prepare(sql).expect("the tables are there");
    let ids = list.query_map([format!("events:{kind}")], |row| row.get(0)).expect("the tables can be read");
    ids.collect::<Result<_, _>>().expect("an id is text")
}

/// Everything that was accepted lies there once, however often it was sent.
fn compare(accepted: &[Emit], stored: &Stored, found: &mut Findings) {
    let mut left = stored.clone();
    for event in accepted.iter().map(|emit| &emit.event) {
        let key = (event.kind.clone(), event.id.clone());
        if !stored.contains_key(&key) {
            found.lost += 1;
            found.wrong(format!("{} {} was accepted and is not there", key.0, key.1));
        }
        left.remove(&key);
    }
    for (key, times) in stored.iter().filter(|(_, times)| **times > 1) {
        found.doubled += times - 1;
        found.wrong(format!("{} {} lies there {times} times", key.0, key.1));
    }
    for (kind, id) in left.into_keys() {
        found.doubled += 1;
        found.wrong(format!("{kind} {id} is there and was never sent"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth;

    fn compared(stored: &[(&str, u64)]) -> (u64, u64) {
        let sent = |id: &str| truth::event("tick", id.to_owned(), serde_json::Value::Null);
        let stored = stored.iter().map(|(id, times)| (("tick".to_owned(), (*id).to_owned()), *times)).collect();
        let mut found = Findings::default();
        // The second is sent twice, under one key.
        compare(&[sent("1"), sent("2"), sent("2")], &stored, &mut found);
        (found.lost, found.doubled)
    }

    #[test]
    fn what_was_accepted_must_be_there_once() {
        assert_eq!(compared(&[("1", 1), ("2", 1)]), (0, 0));
        assert_eq!(compared(&[("1", 1)]), (2, 0));
        assert_eq!(compared(&[("1", 1), ("2", 2)]), (0, 1));
        assert_eq!(compared(&[("1", 1), ("2", 1), ("3", 1)]), (0, 1));
    }
}
