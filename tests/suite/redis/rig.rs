//! One process with one handler, and the proof that each of its events was handled exactly once.
//!
//! The handler's run emits one event, adds one to a number and leaves a record. Whatever the server or the way to it does
//! meanwhile, calls are repeated as a worker repeats them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use moontide::bus::redis::{Address, Options, RedisBus};
use moontide::bus::{Answer, Bus, BusError, Delivery, Inbox, Run};
use tokio::time::{Instant, timeout};

use crate::conformance::{PATIENCE, add, commit, emit, id, record, subscription};
use moontide_stage::server::Server;

pub struct Rig {
    pub bus: Arc<RedisBus>,
    pub inbox: Arc<dyn Inbox>,
    next: usize,
}

pub fn options(url: &str) -> Options {
    let address = Address::parse(url).expect("it is an address");
    Options { recovery_time: Duration::from_secs(5), instance: "a process".into(), ..Options::at(address) }
}

pub async fn open(url: &str) -> Result<Arc<RedisBus>, BusError> {
    RedisBus::open(options(url)).await
}

/// An error that passes, and its text.
pub fn passing<T>(result: Result<T, BusError>) -> Result<T, String> {
    result.map_err(|error| {
        assert!(error.is_passing(), "it is an error that passes: {error}");
        error.to_string()
    })
}

impl Rig {
    pub async fn new(url: &str) -> Self {
        Self::with(options(url)).await
    }

    pub async fn with(options: Options) -> Self {
        let bus = RedisBus::open(options).await.expect("the server can be used");
        let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
        Self { bus, inbox, next: 0 }
    }

    /// Tries until there is an answer; how long that took.
    pub async fn publish(&mut self, count: usize) -> Duration {
        let began = Instant::now();
        for _ in 0..count {
            self.next += 1;
            let name = format!("{:04}", self.next);
            while passing(self.bus.publish(vec![emit("orders", &name)]).await).is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert!(began.elapsed() < PATIENCE, "nothing can be published");
            }
        }
        began.elapsed()
    }

    /// Tries until that many came.
    pub async fn receive(&self, count: usize) -> Vec<Arc<Delivery>> {
        let mut all = Vec::new();
        let receiving = async {
            while all.len() < count {
                match passing(self.inbox.receive(count - all.len()).await) {
                    Ok(some) => all.extend(some.into_iter().map(Arc::new)),
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let end = timeout(PATIENCE, receiving).await;
        end.unwrap_or_else(|_| panic!("only {} of {count} deliveries came: {:?}", all.len(), ids(&all)));
        all
    }

    /// Tries until there are answers.
    pub async fn settle(&self, deliveries: &[Arc<Delivery>]) -> Vec<Answer> {
        let runs: Arc<[Run]> = deliveries.iter().map(handled).collect();
        let settling = async {
            loop {
                match passing(self.inbox.settle(runs.clone()).await) {
                    Ok(answers) => return answers,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(PATIENCE, settling).await.expect("the settle is answered")
    }

    /// Publishes one event and handles it.
    pub async fn one(&mut self) {
        self.publish(1).await;
        let answers = self.settle(&self.receive(1).await).await;
        assert!(answers.iter().all(is_settled), "{answers:?}");
    }

    /// Each of `expected` was handled once, and nothing is left.
    pub fn check(&self, server: &Server, expected: &[String]) {
        let mut out: Vec<_> = entries(server, "out");
        out.sort();
        assert_eq!(out, expected, "each event had its effect once");
        let count: Option<f64> = server.get(&["GET", "state:count"]);
        assert_eq!(count.unwrap_or_default() as usize, expected.len(), "the number adds up");
        assert_eq!(pending(server), 0, "nothing is left pending");
    }

    /// As [`Rig::check`], for everything that was published.
    pub fn check_all(&self, server: &Server) {
        self.check(server, &(1..=self.next).map(|number| format!("{number:04}")).collect::<Vec<_>>());
    }
}

pub fn is_settled(answer: &Answer) -> bool {
    matches!(answer, Answer::Done { .. } | Answer::AlreadyMine)
}

/// What the handler does with an event.
pub fn handled(delivery: &Arc<Delivery>) -> Run {
    let name = id(&**delivery);
    let mut run = commit(delivery);
    run.effects.events = vec![emit("out", &name)];
    run.effects.writes = vec![add("count", 1.0)];
    run.record = record(&name);
    run
}

pub fn ids(deliveries: &[Arc<Delivery>]) -> BTreeSet<String> {
    deliveries.iter().map(|delivery| id(&**delivery)).collect()
}

/// The ids of the events in `stream`.
pub fn entries(server: &Server, stream: &str) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = server.get(&["XRANGE", stream, "-", "+"]);
    let id = |fields: Vec<String>| fields.chunks(2).find(|field| field[0] == "id").map(|field| field[1].clone());
    entries.into_iter().filter_map(|(_, fields)| id(fields)).collect()
}

pub fn pending(server: &Server) -> usize {
    let (count, ..): (usize, redis::Value, redis::Value, redis::Value) = server.get(&["XPENDING", "orders", "group"]);
    count
}
