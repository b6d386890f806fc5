//! Killers and others that are published together, and what must come of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use moontide::bus::{DeadFilter, DeadLetter, DeadReason};
use moontide::judge::DeathReason;
use moontide::outcome::Emit;
use moontide_stage::process::Process;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

use crate::findings::Findings;
use crate::stage::{PATIENCE, Stage};
use crate::truth::{Held, event};

/// Deaths of a killer: among others, and alone.
const DEATHS: u64 = 2 + 2;
const DEATHS_ALONE: u64 = 2;
/// Attempts that `trap.luau` has.
const ATTEMPTS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// An event that is no innocent one.
#[derive(Clone, Copy, PartialEq)]
enum Harm {
    /// It was given up after this many deaths at least.
    Kill {
        deaths_min: u64,
    },
    Spin,
    Hog,
}

pub struct Volleys {
    processes: Vec<(String, Process)>,
    /// Bytes of the log that were read.
    read: u64,
    harmful: BTreeMap<String, Harm>,
    innocents: Vec<String>,
    /// Runs of each killer that its process did not outlive.
    begun: BTreeMap<String, u64>,
    pub deaths: u64,
}

impl Volleys {
    pub fn new(processes: Vec<(String, Process)>) -> Self {
        let (harmful, begun) = (BTreeMap::new(), BTreeMap::new());
        Self { processes, read: 0, harmful, innocents: Vec::new(), begun, deaths: 0 }
    }

    /// Publishes `killers`, one that loops, one that takes up memory, and `innocents`, and kills whom the log names, until
    /// all killers are given up.
    pub async fn fire(&mut self, stage: &mut Stage, killers: usize, innocents: usize) {
        let deaths_min = if killers == 1 { DEATHS } else { DEATHS_ALONE };
        let mut emits = Vec::new();
        for harm in std::iter::repeat_n(Harm::Kill { deaths_min }, killers).chain([Harm::Spin, Harm::Hog]) {
            let id = format!("{}-{}", does(harm), self.harmful.len());
            emits.push(trap(&id, does(harm)));
            self.harmful.insert(id, harm);
        }
        for _ in 0..innocents {
            let id = format!("innocent-{}", self.innocents.len());
            emits.push(trap(&id, "nothing"));
            self.innocents.push(id);
        }
        emits.shuffle(&mut stage.rng);
        stage.publish(emits).await;
        let (began, wanted) = (Instant::now(), self.killers());
        while given_up(stage).await < wanted {
            self.kill_who_asks(stage);
            assert!(began.elapsed() < PATIENCE, "not all killers are given up: {:?}\n{}", self.begun, stage.tail());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn killers(&self) -> usize {
        self.harmful.values().filter(|harm| matches!(harm, Harm::Kill { .. })).count()
    }

    fn kill_who_asks(&mut self, stage: &mut Stage) {
        let lines = stage.log_after(&mut self.read);
        for (name, id) in lines.lines().filter_map(asking) {
            *self.begun.entry(id.to_owned()).or_default() += 1;
            // Two can ask in one process.
            let Some(at) = self.processes.iter().position(|(running, _)| running == name) else { continue };
            self.processes[at].1.kill();
            self.deaths += 1;
            self.processes[at] = stage.start();
        }
    }

    /// Takes what belongs to the volleys out of what a store holds, and says what is wrong with it.
    pub fn take(&self, held: &mut Held) -> Findings {
        let mut found = Findings { events: (self.harmful.len() + self.innocents.len()) as u64, ..Findings::default() };
        let mut letters: BTreeMap<String, Vec<DeadLetter>> = BTreeMap::new();
        for letter in held.dead.extract_if(.., |letter| letter.handler == "trap") {
            let id = letter.event.as_ref().map(|event| event.id.clone()).unwrap_or_default();
            letters.entry(id).or_default().push(letter);
        }
        for id in &self.innocents {
            let times = held.state.remove(&format!("innocent/{id}")).as_ref().and_then(Value::as_u64).unwrap_or(0);
            innocent(&mut found, id, times, &letters.remove(id).unwrap_or_default());
        }
        for (id, harm) in &self.harmful {
            let letters = letters.remove(id).unwrap_or_default();
            self.harmful(&mut found, id, *harm, &letters);
        }
        found
    }

    fn harmful(&self, found: &mut Findings, id: &str, harm: Harm, letters: &[DeadLetter]) {
        found.lost += u64::from(letters.is_empty());
        found.doubled += (letters.len() as u64).saturating_sub(1);
        let [letter] = letters else { return found.wrong(format!("{id} has {} dead letters", letters.len())) };
        let deaths = self.begun.get(id).copied().unwrap_or(0);
        let (reason, is_right) = match harm {
            Harm::Kill { deaths_min } => (DeathReason::Killer, (deaths_min..=DEATHS).contains(&deaths)),
            Harm::Spin | Harm::Hog => (DeathReason::Exhausted, letter.failures.len() == ATTEMPTS),
        };
        if letter.reason != DeadReason::Death(reason) || !is_right {
            found.overcharged += 1;
            let (reason, failures) = (letter.reason.as_str(), letter.failures.len());
            found.wrong(format!("{id} is dead ({reason}) after {deaths} deaths and {failures} failures"));
        }
    }
}

fn innocent(found: &mut Findings, id: &str, times: u64, letters: &[DeadLetter]) {
    found.lost += u64::from(times == 0);
    found.doubled += times.saturating_sub(1);
    found.overcharged += letters.len() as u64;
    if times != 1 || !letters.is_empty() {
        let errors: Vec<_> = letters.iter().map(|letter| (letter.reason.as_str(), letter.error())).collect();
        found.wrong(format!("{id} was handled {times} times; its dead letters: {errors:?}"));
    }
}

fn does(harm: Harm) -> &'static str {
    match harm {
        Harm::Kill { .. } => "kill",
        Harm::Spin => "spin",
        Harm::Hog => "hog",
    }
}

fn trap(id: &str, does: &str) -> Emit {
    event("trap", id.to_owned(), json!({ "does": does }))
}

/// Who wants to be killed, and for which event.
fn asking(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(" KILL ")?.1.split_once(' ')?;
    Some((name, rest.split_once("event=\"")?.1.split_once('"')?.0))
}

async fn given_up(stage: &Stage) -> usize {
    let reason = Some(DeathReason::Killer.into());
    let filter =
        DeadFilter { handler: Some("trap".to_owned()), reason, limit: usize::MAX >> 1, ..DeadFilter::default() };
    stage.backend.dead.list(filter).await.map_or(0, |letters| letters.len())
}
