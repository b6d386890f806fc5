//! Lines to the server that carry nothing for a while: held up, or dead without a word, in one direction or in both.
//!
//! Each process has a line of its own. What the one at a dead line holds must be with the others when the recovery time is
//! over; and whoever was cut off must be heard again when its line is healed.

use std::time::Duration;

use moontide_stage::process::Process;
use moontide_stage::proxy::{Mode, Proxy, Way};
use rand::Rng as _;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep};

use crate::findings::Findings;
use crate::holdings::until_released;
use crate::place::Place;
use crate::pulse::{Pulse, note_ended};
use crate::stage::{Stage, UNRECORDED};
use crate::task::{Task, rng};

/// Rounds of a full run, and troubles of each.
const ROUNDS: u64 = 24;
const TROUBLES: usize = 4;
const PROCESSES: usize = 3;
const SETTINGS: &str = "[groups]\nrecovery = \"1s\"\n";
/// After the recovery time and a second the others have what the one at a dead line held.
const RELEASED_MAX: Duration = Duration::from_secs(2);
/// What was held up arrives at once.
const HELD_MAX: Duration = Duration::from_secs(1);
/// A connection that stays dead though its line is healed is given up when an answer did not come for so long, whatever it
/// was that died.
const DEAD_MAX: Duration = Duration::from_secs(6);
/// Sooner, where the line was dead for longer than the server holds a read (`redis.block`): then every connection is dead, and
/// that of the reads is given up first.
const ALL_DEAD_MAX: Duration = Duration::from_secs(4);
const ALL_DEAD_AFTER: Duration = Duration::from_millis(1200);

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

/// What happens to the lines of some processes.
struct Trouble {
    mode: Mode,
    ways: Vec<Way>,
    lasts: Duration,
    /// The processes at those lines; not all of them, or nobody could take over.
    victims: Vec<usize>,
}

impl Trouble {
    fn draw(rng: &mut SmallRng) -> Self {
        let mode = if rng.random() { Mode::Hold } else { Mode::Lose };
        let ways = [vec![Way::ToServer], vec![Way::ToClient], vec![Way::ToServer, Way::ToClient]];
        let first = rng.random_range(0..PROCESSES);
        let count = [1, 1, PROCESSES - 1, PROCESSES][rng.random_range(0..4)];
        // A half of them outlast the recovery time.
        let lasts = if rng.random() { 20..1100 } else { 2200..3500 };
        Self {
            mode,
            ways: ways[rng.random_range(0..ways.len())].clone(),
            lasts: Duration::from_millis(rng.random_range(lasts)),
            victims: (first..first + count).map(|victim| victim % PROCESSES).collect(),
        }
    }

    fn kind(&self) -> &'static str {
        match self.mode {
            Mode::Hold => "stalled line",
            _ if self.lasts > ALL_DEAD_AFTER => "dead line",
            _ => "dead moment",
        }
    }

    /// Whether others must have taken over before it ends.
    fn is_taken_over(&self) -> bool {
        self.lasts > RELEASED_MAX && self.victims.len() < PROCESSES
    }
}

/// A process, and its line.
struct Member {
    name: String,
    process: Process,
    line: Proxy,
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut stage = Stage::with(Place::new(task.bus), rng(seed), SETTINGS, UNRECORDED).await;
    let mut members = Vec::new();
    for _ in 0..PROCESSES {
        let line = Proxy::before(stage.server().port()).await;
        let (name, process) = stage.start_at(&line.url());
        members.push(Member { name, process, line });
    }
    stage.until_started(PROCESSES).await;
    let mut found = Findings::default();
    for _ in 0..TROUBLES {
        stage.feed(120).await;
        stage.pause(0..60).await;
        let trouble = Trouble::draw(&mut stage.rng);
        play(&mut stage, &members, &trouble, &mut found).await;
    }
    found.add(stage.check().await);
    let mut processes: Vec<_> = members.into_iter().map(|member| (member.name, member.process)).collect();
    note_ended(&mut found, &mut processes);
    found.bound("line", RELEASED_MAX);
    found.bound("stalled line", HELD_MAX);
    found.bound("dead moment", DEAD_MAX);
    found.bound("dead line", ALL_DEAD_MAX);
    found
}

async fn play(stage: &mut Stage, members: &[Member], trouble: &Trouble, found: &mut Findings) {
    let victims: Vec<_> = trouble.victims.iter().map(|victim| &members[*victim]).collect();
    for (victim, way) in victims.iter().flat_map(|victim| trouble.ways.iter().map(move |way| (victim, *way))) {
        victim.line.set(way, trouble.mode);
    }
    let until = Instant::now() + trouble.lasts;
    let releases: Vec<_> = victims.iter().map(|victim| until_released(stage, &victim.name)).collect();
    while Instant::now() < until {
        stage.feed(10).await;
        sleep(Duration::from_millis(40).min(until - Instant::now())).await;
    }
    for release in releases {
        if trouble.is_taken_over() && release.is_finished() {
            found.recovered("line", release.await.expect("it only looks"));
        } else {
            release.abort();
            if trouble.is_taken_over() {
                found.recovered("line", trouble.lasts);
            }
        }
    }
    let pulse = Pulse::of(stage);
    let before = pulse.beats();
    victims.iter().for_each(|victim| victim.line.heal());
    let names: Vec<&str> = victims.iter().map(|victim| &*victim.name).collect();
    found.recovered(trouble.kind(), pulse.until_heard(&names, &before).await);
    found.fault(trouble.kind(), victims.len() as u64);
}
