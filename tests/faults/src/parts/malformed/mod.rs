//! What is no event, at every door: entries and rows that others write, requests, lines of a file; among good events.
//!
//! Each ends as one dead letter, or is refused with a reason; whether an entry that is merely strange is taken is left open,
//! but not that it comes to one end. Nothing good is lost or held up.

mod documents;
mod entries;
mod lines;
mod requests;
mod rows;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use moontide::bus::{DeadLetter, DeadReason};
use moontide::judge::DeathReason;
use serde_json::{Value, json};

use crate::findings::Findings;
use crate::place::Place;
use crate::stage::Stage;
use crate::task::{Task, rng};
use crate::truth::{Held, event};

/// Rounds of a full run, and what comes through each door in one of them.
const ROUNDS: u64 = 20;
const WRITTEN: usize = 500;
const REQUESTS: usize = 500;
const LINES: usize = 400;
/// Of so many, one is good.
const GOOD_EACH: usize = 5;
const TAKER: (&str, &str) = ("taker", include_str!("../../../handlers/taker.luau"));
const SETTINGS: &str = "[sqlite]\nsynchronous = \"normal\"\n\
    [[stream]]\ntypes = [\"legacy\"]\nname = \"legacy\"\nlayout = \"payload\"\n\
    [[stream]]\ntypes = [\"ledger\"]\nname = \"ledger\"\nlayout = \"event_data\"\n\
    [handlers.taker]\nlimits = { cpu = \"30s\" }\n";

/// What must become of something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Handled once.
    Good,
    /// One dead letter.
    Dead,
    /// One of both.
    Either,
    /// At most one of both: its type may have been changed to one that nobody asks for.
    AtMost,
}

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut stage = Stage::with(Place::new(task.bus), rng(seed), SETTINGS, &[TAKER]).await;
    let mut played = Played::default();
    let _processes = [stage.start(), stage.start()];
    played.good(&mut stage, 1).await;
    let door = stage.start_as("door", &[("MOONTIDE_HTTP_LISTEN", "127.0.0.1:0")]);
    let address = address(&stage).await;
    played.write(&mut stage).await;
    played.request(&mut stage, address).await;
    let ids = lines::emit(&mut stage, LINES, &mut played.found);
    played.named.extend(ids.into_iter().map(|id| (id, Fate::Good)));
    played.good(&mut stage, GOOD_EACH).await;
    let compared = stage.check_with(|held| compare(&played.placed, &played.named, &held)).await;
    drop(door);
    let mut found = played.found;
    found.add(compared);
    found
}

/// Where the process listens that was told to.
async fn address(stage: &Stage) -> SocketAddr {
    let found = |log: String| log.split_once(" on http://")?.1.split_whitespace().next()?.parse().ok();
    let mut address = None;
    stage
        .until("a process listens", async || {
            address = found(stage.log_text());
            address.is_some()
        })
        .await;
    address.expect("it was waited for")
}

/// What went in.
#[derive(Default)]
struct Played {
    /// By `stream/entry`.
    placed: BTreeMap<String, Fate>,
    /// By id.
    named: BTreeMap<String, Fate>,
    found: Findings,
}

impl Played {
    /// Publishes `count` good events.
    async fn good(&mut self, stage: &mut Stage, count: usize) {
        let ids: Vec<String> = (0..count).map(|_| entries::id(&mut stage.rng)).collect();
        let events = ids.iter().map(|id| event("odd", id.clone(), json!({ "n": 1 })));
        stage.publish(events.collect()).await;
        self.named.extend(ids.into_iter().map(|id| (id, Fate::Good)));
    }

    /// Writes past every door of ours.
    async fn write(&mut self, stage: &mut Stage) {
        let file = stage.folder.path().join(crate::place::FILE);
        let mut server = matches!(stage.place, Place::Server(_)).then(|| stage.server().connect());
        let file = server.is_none().then(|| {
            let file = rusqlite::Connection::open(file).expect("the file opens");
            file.busy_timeout(Duration::from_secs(60)).expect("a time is set");
            file
        });
        for number in 0..WRITTEN {
            if number % GOOD_EACH == 0 {
                self.good(stage, 1).await;
            }
            let (kind, written) = match (&mut server, &file) {
                (Some(server), _) => ("entry", entries::write(server, &mut stage.rng)),
                (None, Some(file)) => ("row", rows::write(file, &mut stage.rng)),
                (None, None) => return,
            };
            self.placed.insert(written.0, written.1);
            self.found.fault(kind, 1);
        }
    }

    async fn request(&mut self, stage: &mut Stage, address: SocketAddr) {
        for number in 0..REQUESTS {
            match number % GOOD_EACH {
                0 => {
                    let (id, request) = requests::good(&mut stage.rng);
                    let reply = requests::say(address, &request);
                    if reply.ids() != [id.as_str()] {
                        self.found.lost += 1;
                        self.found.wrong(format!("a good request was answered {} {}", reply.status, reply.body));
                    }
                    self.named.insert(id, Fate::Good);
                }
                1 => {
                    let request = requests::changed(&mut stage.rng);
                    self.answered(&request, &requests::say(address, &request));
                }
                _ => {
                    let request = requests::bad(&mut stage.rng);
                    let reply = requests::say(address, &request);
                    self.found.fault("request", 1);
                    if !(400..500).contains(&reply.status) || reply.reason().is_none() {
                        let text = String::from_utf8_lossy(&request[..request.len().min(500)]).into_owned();
                        self.found.wrong(format!("answered {} {}: {text:?}", reply.status, reply.body));
                    }
                }
            }
        }
    }

    /// A changed request may be taken, refused, or not be one at all.
    fn answered(&mut self, request: &[u8], reply: &requests::Reply) {
        self.found.fault("changed request", 1);
        if reply.status >= 500 {
            let text = String::from_utf8_lossy(request).into_owned();
            self.found.wrong(format!("answered {} {}: {text:?}", reply.status, reply.body));
        }
        self.named.extend(reply.ids().into_iter().map(|id| (id, Fate::AtMost)));
    }
}

/// Compares what is held with what must have become of things, by their places and by their names.
fn compare(placed: &BTreeMap<String, Fate>, named: &BTreeMap<String, Fate>, held: &Held) -> Findings {
    let mut found = Findings { events: (placed.len() + named.len()) as u64, ..Findings::default() };
    let mut by_place: BTreeMap<String, Vec<&DeadLetter>> = BTreeMap::new();
    let mut by_name: BTreeMap<&str, Vec<&DeadLetter>> = BTreeMap::new();
    for letter in &held.dead {
        by_place.entry(format!("{}/{}", letter.stream, letter.origin())).or_default().push(letter);
        if let Ok(event) = &letter.event {
            by_name.entry(&event.id).or_default().push(letter);
        }
        let reasons = [DeathReason::Undecodable, DeathReason::Invalid].map(DeadReason::from);
        if !reasons.contains(&letter.reason) || letter.attempts != 1 || letter.error().is_none_or(str::is_empty) {
            found.overcharged += 1;
            found.wrong(format!("dead ({}) after {}: {:?}", letter.reason.as_str(), letter.attempts, letter.error()));
        }
    }
    for (place, fate) in placed {
        let letters = by_place.get(place).map_or(0, Vec::len);
        came_to(&mut found, place, *fate, times(held, "at/", place), letters as u64);
    }
    for (name, fate) in named {
        let letters = by_name.get(name.as_str()).map_or(0, Vec::len);
        came_to(&mut found, name, *fate, times(held, "id/", name), letters as u64);
    }
    found
}

fn times(held: &Held, prefix: &str, key: &str) -> u64 {
    held.state.get(&format!("{prefix}{key}")).and_then(Value::as_u64).unwrap_or(0)
}

fn came_to(found: &mut Findings, what: &str, fate: Fate, handled: u64, letters: u64) {
    let is_right = match fate {
        Fate::Good => (handled, letters) == (1, 0),
        Fate::Dead => (handled, letters) == (0, 1),
        Fate::Either => handled + letters == 1,
        Fate::AtMost => handled + letters <= 1,
    };
    if is_right {
        return;
    }
    found.lost += u64::from(handled + letters == 0);
    found.doubled += (handled + letters).saturating_sub(1);
    found
        .wrong(format!("{what}, which should be {fate:?}, was handled {handled} times and has {letters} dead letters"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_has_no_end_or_two_is_wrong() {
        let wrong = |fate, handled, letters| {
            let mut found = Findings::default();
            came_to(&mut found, "it", fate, handled, letters);
            (found.is_clean(), found.lost, found.doubled)
        };
        assert_eq!(wrong(Fate::Good, 1, 0), (true, 0, 0));
        assert_eq!(wrong(Fate::Good, 1, 1), (false, 0, 1));
        assert_eq!(wrong(Fate::Good, 0, 0), (false, 1, 0));
        assert_eq!(wrong(Fate::Dead, 1, 0), (false, 0, 0), "it was taken for an event");
        assert_eq!(wrong(Fate::Either, 0, 0), (false, 1, 0));
        assert_eq!(wrong(Fate::AtMost, 0, 0), (true, 0, 0));
        assert_eq!(wrong(Fate::AtMost, 2, 0), (false, 0, 1));
    }
}
