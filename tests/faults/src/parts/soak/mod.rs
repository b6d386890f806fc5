//! Mixed load for an hour, with a fault each minute: what one process takes up meanwhile is sampled, and must not grow.
//!
//! Two processes share the work. One is killed, stopped and ended; the other lives through everything, and is the one that is
//! looked at. State, records, history and dead letters are kept for so short a time that the store, too, must come to a
//! standstill.

mod faults;
mod line;
mod sample;
mod truth;

use std::time::Duration;

use moontide_stage::process::Process;
use rand::Rng as _;
use rand::seq::IndexedRandom;
use tokio::time::Instant;

use crate::findings::Findings;
use crate::place::{Bus, Place};
use crate::stage::Stage;
use crate::task::{Task, rng};
use faults::{Fault, faults};
use sample::Sampler;
use truth::Pulses;

/// Of a full run; the first ten minutes fill caches and are left aside.
const LENGTH: Duration = Duration::from_secs(63 * 60);
const WARM_UP: Duration = Duration::from_secs(10 * 60);
const FAULT_EVERY: Duration = Duration::from_secs(60);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Numbers that come in together, and how often.
const NUMBERS: u64 = 25;
const FEED_EVERY: Duration = Duration::from_millis(250);
/// What the memory of a process may grow by in an hour.
const SLOPE_MAX_KIB: f64 = 1024.0;
/// What threads, descriptors and consumers may grow by in an hour.
const PIECES_MAX: f64 = 1.0;

const SETTINGS: &str = "
[groups]\nrecovery = \"2s\"
[retain]\nage = \"1m\"
[dead_letters]\nretain = \"5m\"
[sqlite]\nsynchronous = \"normal\"\n";
const HANDLERS: &[(&str, &str)] = &[("pulse", faults::PULSE), ("echo", include_str!("../../../handlers/echo.luau"))];

/// A soak under way.
struct Soak {
    stage: Stage,
    pulses: Pulses,
    watched: Process,
    other: Process,
    found: Findings,
}

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, 1, |seed| soak(&task, seed)).await
}

async fn soak(task: &Task, seed: u64) -> Findings {
    let length = LENGTH.mul_f64(task.share).max(Duration::from_secs(20));
    let mut stage = Stage::with(Place::with(task.bus, &["--appendonly", "yes"]), rng(seed), SETTINGS, HANDLERS).await;
    let (watched, other) = (stage.start().1, stage.start().1);
    let mut sampler = Sampler::new(&stage, &watched);
    let mut soak = Soak { stage, pulses: Pulses::default(), watched, other, found: Findings::default() };
    let began = Instant::now();
    let (mut fault_at, mut sample_at) = (began + FAULT_EVERY.min(length / 4), began);
    let mut feed = tokio::time::interval(FEED_EVERY);
    while began.elapsed() < length {
        feed.tick().await;
        soak.feed().await;
        if Instant::now() >= fault_at {
            fault_at += FAULT_EVERY.min(length / 4);
            soak.fault(task.bus).await;
        }
        if Instant::now() >= sample_at {
            sample_at += SAMPLE_EVERY;
            sampler.sample(began.elapsed());
        }
    }
    soak.end(&sampler, length).await
}

impl Soak {
    async fn feed(&mut self) {
        let emits = self.pulses.next(NUMBERS);
        self.stage.publish(emits).await;
    }

    async fn fault(&mut self, bus: Bus) {
        let all = faults(bus);
        let fault = *all.choose(&mut self.stage.rng).expect("there are some");
        println!("  {fault:?}");
        self.found.fault(fault.name(), 1);
        match fault {
            Fault::Kill => {
                self.other.kill();
                self.other = self.stage.start().1;
            }
            Fault::Stop => {
                // Not fed meanwhile: stopped in the middle of a write, it holds the file's lock, and the feed would wait for us.
                self.other.signal("STOP");
                tokio::time::sleep(Duration::from_secs(4)).await;
                self.other.signal("CONT");
            }
            Fault::Term => {
                self.other.signal("TERM");
                self.other.ended();
                self.other = self.stage.start().1;
            }
            fault => fault.make(self).await,
        }
    }

    /// Numbers go on coming in meanwhile, as far as the store takes them.
    async fn go_on(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.feed().await;
            let pause = self.stage.rng.random_range(200..300);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn end(mut self, sampler: &Sampler, length: Duration) -> Findings {
        let rest = self.stage.quiet().await;
        let held = self.stage.held().await.expect("the store answers");
        self.pulses.compare(&held, &mut self.found);
        if let Err(left) = rest {
            self.found.lost += 1;
            self.found.wrong(left);
        }
        self.found.panics += self.stage.said("panicked at");
        if self.watched.status().is_some() {
            self.found.wrong("the process that should live through everything has ended".into());
        }
        let warm_up = if length > 2 * WARM_UP { WARM_UP } else { length / 4 };
        let slopes = sampler.figures(warm_up, &mut self.found.figures);
        if length >= LENGTH {
            for (what, slope) in slopes {
                let most = if what == "memory KiB" { SLOPE_MAX_KIB } else { PIECES_MAX };
                if slope > most {
                    self.found.wrong(format!("{what} grew by {slope:.1} in an hour, more than {most}"));
                }
            }
        }
        self.found
    }
}
