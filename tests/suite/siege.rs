//! Everything bad at once, in one host, while good events never stop coming: hostile scripts, and events that are none.
//!
//! What each attack comes to is in `hostile`, what each malformed event comes to in `malformed`. Here it is shown that they
//! hurt nobody: each good event has its effects once, none of its runs fails, and memory comes back.

use std::time::{Duration, Instant};

use moontide::outcome::Emit;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::hostile::{Attack, KEPT_BYTES_MAX, SETTINGS, WAVE, attack_event, attacks, kind, resident};
use crate::malformed::{KEYED, PLAIN, bad, damaged, strange};
use crate::reload::load::{Load, script};
use crate::reload::saved;
use crate::support::{Desk, PATIENCE, run_alone};

/// Whoever does no harm has all the time there is: on a busy machine a run can lie waiting for long.
const PATIENT: &str = "[http]\nlisten = \"\"
[handlers.tick]\nlimits = { cpu = \"30s\", memory = \"64 MiB\" }
[handlers.plain]\nlimits = { cpu = \"30s\", memory = \"64 MiB\" }
[handlers.keyed]\nlimits = { cpu = \"30s\", memory = \"64 MiB\" }\n";
const SEED: u64 = 2027;

struct Siege {
    desk: Desk,
    /// Numbers of the attacks whose files load.
    loaded: Vec<usize>,
    documents: Vec<Vec<u8>>,
    /// Malformed events sent so far.
    sent: usize,
}

impl Siege {
    async fn lay(attacks: &[&Attack], damages: usize) -> Self {
        let files: Vec<(String, String)> =
            attacks.iter().enumerate().map(|(at, attack)| (kind(at), attack.file(&kind(at)))).collect();
        let mut handlers: Vec<(&str, &str)> = files.iter().map(|(name, file)| (name.as_str(), file.as_str())).collect();
        let good = script("good");
        handlers.extend([("tick", good.as_str()), ("plain", PLAIN), ("keyed", KEYED)]);
        let desk = Desk::with(&format!("{PATIENT}{SETTINGS}"), &handlers).await;
        let rows = desk.host().snapshot();
        let loads = |at: &usize| rows.iter().any(|row| row.name == kind(*at) && row.problem.is_none());
        let loaded = (0..attacks.len()).filter(loads).collect();
        let mut rng = SmallRng::seed_from_u64(SEED);
        let documents = strange().into_iter().chain((0..damages).map(|_| damaged(&mut rng))).collect();
        Self { desk, loaded, documents, sent: 0 }
    }

    /// Every attack once, and every malformed document, waves of both side by side.
    async fn round(&mut self, round: usize) {
        let waves: Vec<Vec<usize>> = self.loaded.chunks(WAVE).map(<[usize]>::to_vec).collect();
        let share = self.documents.len().div_ceil(waves.len());
        let documents = self.documents.clone();
        let mut malformed = documents.chunks(share);
        for wave in waves {
            let mut emits: Vec<Emit> = wave.iter().map(|at| attack_event(*at, format!("{round}-{at}"))).collect();
            for data in malformed.next().unwrap_or_default() {
                emits.push(bad(self.sent, data.clone()));
                self.sent += 1;
            }
            self.desk.emit(emits).await;
            let ended = |desk: &Desk, name: &str| {
                let counts = desk.counts(name);
                (counts.done + counts.dead + counts.duplicates) as usize
            };
            let over = |desk: &Desk| {
                let attacks = wave.iter().all(|at| ended(desk, &kind(*at)) == round);
                attacks && ["plain", "keyed"].iter().all(|name| ended(desk, name) == self.sent)
            };
            self.desk.until("everything bad has ended", over).await;
        }
    }
}

/// VMs keep their garbage for some seconds after their last run, and go when nothing ran in them for a minute.
async fn until_memory_is_back(before: u64) {
    let began = Instant::now();
    loop {
        let more = resident().saturating_sub(before);
        if more < KEPT_BYTES_MAX {
            return;
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{} MiB more are in use", more >> 20);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn withstand(attacks: &[&Attack], damages: usize, rounds: usize) {
    let mut siege = Siege::lay(attacks, damages).await;
    let (load, before) = (Load::start(&siege.desk), resident());
    for round in 1..=rounds {
        siege.round(round).await;
    }
    // Good events go on for a while when all is over.
    load.flow(500).await;
    until_memory_is_back(before).await;
    let good = siege.desk.counts("tick");
    assert_eq!((good.retried, good.dead, good.duplicates), (0, 0, 0), "{good:?}");
    load.check(&siege.desk, &saved(["good"])).await;
    siege.desk.stop().await;
}

#[test]
fn good_events_are_handled_once_whatever_goes_on_beside_them() {
    // What other tests need of memory is none of its concern.
    run_alone(None, "siege::some_attacks");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test before it, in a process of its own"]
async fn some_attacks() {
    let all = attacks();
    withstand(&all.iter().step_by(5).collect::<Vec<_>>(), 300, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test every_attack -- --ignored"]
async fn every_attack_and_two_thousand_documents_again_and_again() {
    let all = attacks();
    withstand(&all.iter().collect::<Vec<_>>(), 2000, 3).await;
}
