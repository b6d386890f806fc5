//! Deaths, one after the other, on one store, and who goes on with what the dead leave.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use moontide::failpoint::Point;
use moontide_stage::process::Process;
use rand::Rng as _;

use super::ingest;
use super::plan::{self, Way};
use crate::findings::Findings;
use crate::holdings::until_released;
use crate::stage::{HANDLERS, Stage};

/// What the times from a death until nothing is in the hands of the dead are kept under.
pub const RECOVERED: &str = "failpoint";
/// What a process that aborts ends by.
const SIGABRT: i32 = 6;
/// How long a process has to come to its place.
const TRIAL: Duration = Duration::from_secs(8);
/// Numbers that are fed at a time while a process is on its way.
const NUMBERS: u64 = 4;
/// Numbers of which a process that is asked to stop has not handled all.
const BACKLOG: u64 = 150;
/// How long a watcher of the folder needs to believe what it sees, and a little more.
const SAVE_EVERY: Duration = Duration::from_millis(90);

/// The trials of a round.
pub struct Trials {
    stage: Stage,
    /// Works on beside the dying ones; none while what they leave is for the next one of them.
    survivor: Option<(String, Process)>,
    found: Findings,
    /// Goes into what must never be the same twice.
    count: u64,
}

/// A process on its way to its place.
struct Victim {
    name: String,
    process: Process,
    way: Way,
    address: Option<SocketAddr>,
    began: Instant,
    /// How long it may work before it is asked to stop.
    works: Duration,
    asked: bool,
}

/// How a process is to be brought to a place.
struct Aim {
    point: &'static str,
    pass: u64,
    way: Way,
    /// How often it was tried in vain: more time is given then.
    tries_before: u32,
}

impl Aim {
    /// At a place that is come to soon.
    fn at(point: &'static str, pass: u64, way: Way) -> Self {
        Self { point, pass, way, tries_before: 0 }
    }
}

impl Trials {
    pub fn begin(mut stage: Stage) -> Self {
        let survivor = Some(stage.start());
        Self { stage, survivor, found: Findings::default(), count: 0 }
    }

    /// Lets a process die at `point`; false: it did not come there. After vain tries less is asked of chance.
    ///
    /// When this returns, somebody who lives on has what the dead had in hand: an event that went from one dying process to
    /// the next would be given up in the end, and rightly.
    pub async fn dies_at(&mut self, point: Point, tries_before: u32) -> bool {
        let way = plan::way(point.name);
        match way {
            Way::Recovery => self.leave_orphans(1).await,
            Way::Suspicion => self.leave_orphans(2).await,
            Way::Upkeep => self.leave_alone().await,
            _ => {}
        }
        let pass = if tries_before == 0 { self.stage.rng.random_range(plan::passes(point.name)) } else { 1 };
        let (name, died) = self.one_dies(Aim { point: point.name, pass, way, tries_before }).await;
        let release = until_released(&self.stage, &name);
        if self.survivor.is_none() {
            self.survivor = Some(self.stage.start());
        }
        let after = release.await.expect("it only looks");
        if died {
            self.found.recovered(RECOVERED, after);
        }
        died
    }

    /// Waits for rest, and compares the store with the truth.
    pub async fn check(mut self) -> Findings {
        self.found.add(self.stage.check().await);
        self.found
    }

    /// Nobody works on beside the next process, and nobody left it anything.
    async fn leave_alone(&mut self) {
        if let Some((_, mut survivor)) = self.survivor.take() {
            // What is left when patience is over is found in the end.
            drop(self.stage.quiet().await);
            survivor.signal("TERM");
            survivor.wait();
        }
    }

    /// So many processes die in turn with the same events in hand, and nobody is there to take them over.
    async fn leave_orphans(&mut self, deaths: u32) {
        self.leave_alone().await;
        self.one_dies(Aim::at("run.after", 5, Way::Work)).await;
        for _ in 1..deaths {
            self.one_dies(Aim::at("recovery.after", 2, Way::Recovery)).await;
        }
    }

    /// Answers the process' name, and whether it died where it was to.
    async fn one_dies(&mut self, aim: Aim) -> (String, bool) {
        let mut victim = self.start(&aim);
        let ended = loop {
            match victim.process.status() {
                Some(status) => break Some(status),
                None if victim.began.elapsed() > TRIAL => break None,
                None => self.bring_on(&mut victim).await,
            }
        };
        let died = ended.is_some_and(|status| status.signal() == Some(SIGABRT));
        self.found.fault(aim.point, u64::from(died));
        (victim.name, died)
    }

    fn start(&mut self, aim: &Aim) -> Victim {
        self.count += 1;
        let &Aim { point, pass, way, tries_before } = aim;
        let failpoint = format!("{point}@{pass}");
        let name = format!("victim{}", self.count);
        let address = matches!(way, Way::Ingest { .. }).then(ingest::free_address);
        let listen = address.map_or_else(String::new, |address| address.to_string());
        let variables = [("MOONTIDE_FAILPOINT", failpoint.as_str()), ("MOONTIDE_HTTP_LISTEN", listen.as_str())];
        Victim {
            process: self.stage.start_as(&name, &variables),
            name,
            way,
            address,
            began: Instant::now(),
            works: Duration::from_millis(self.stage.rng.random_range(60..400)) * (1 + tries_before / 2),
            asked: false,
        }
    }

    /// A little of what brings `victim` to its place.
    async fn bring_on(&mut self, victim: &mut Victim) {
        match victim.way {
            Way::Work | Way::Recovery | Way::Suspicion | Way::Upkeep => self.feed().await,
            Way::Reload => self.save().await,
            Way::Stop if victim.asked => tokio::time::sleep(Duration::from_millis(2)).await,
            Way::Stop => {
                self.feed().await;
                if victim.began.elapsed() > victim.works {
                    self.stage.feed(BACKLOG).await;
                    victim.process.signal("TERM");
                    victim.asked = true;
                }
            }
            Way::Ingest { keyed } => self.send(victim.address, keyed).await,
        }
    }

    async fn feed(&mut self) {
        self.stage.feed(NUMBERS).await;
        self.stage.pause(2..12).await;
    }

    /// All scripts change, and mean what they meant.
    async fn save(&mut self) {
        self.count += 1;
        for (name, script) in HANDLERS {
            self.stage.write_handler(name, &format!("{script}-- {}\n", self.count));
        }
        self.stage.feed(NUMBERS).await;
        tokio::time::sleep(SAVE_EVERY).await;
    }

    /// What is not promised to be stored is published once more.
    async fn send(&mut self, address: Option<SocketAddr>, keyed: bool) {
        let Some(address) = address else { return };
        self.count += 1;
        let emits = self.stage.draw(1);
        let key = keyed.then(|| format!("key-{}", self.count));
        if !ingest::send(address, &emits, key.as_deref()).await {
            self.stage.publish(emits).await;
            self.stage.pause(5..10).await;
        }
    }
}
