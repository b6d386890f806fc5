//! What becomes of runs whose thread is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::super::watchdog::Patience;
use super::super::{Finished, Job, Limits, LoadOptions, Mode, Program, Services, Sources, load};
use super::{Pool, Post};
use crate::bus::{BusError, Delivery, Lease, Ledger, Recorded, Step, StepAnswer, Steps};
use crate::clock::SystemClock;
use crate::event::{EntryId, Event, Json};
use crate::outcome::{Outcome, RecordKey, Release};
use crate::streams::Streams;

struct NoState;

#[async_trait]
impl Ledger for NoState {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, BusError> {
        Ok(vec![None; keys.len()])
    }

    async fn recorded(&self, keys: &[RecordKey]) -> Result<Vec<Option<Recorded>>, BusError> {
        Ok(vec![None; keys.len()])
    }
}

#[async_trait]
impl Steps for NoState {
    async fn recall(&self, _: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        Ok(Vec::new())
    }

    async fn record(&self, _: &Delivery, _: &Step) -> Result<StepAnswer, BusError> {
        Ok(StepAnswer::Recorded)
    }
}

fn delivery(number: u64, data: &str) -> Arc<Delivery> {
    let event = Event { data: Some(Json::trusted(data.to_owned())), ..Event::new(number.to_string(), "test", "work") };
    Arc::new(Delivery {
        lease: Lease { claim: number, epoch: 1 },
        stream: "events:work".into(),
        entry: EntryId(number, 0),
        event: Ok(event),
        lay: None,
        past: None,
        orphaned: 0,
        deaths: 0,
        received: 0,
    })
}

/// Blocks for as long as the data says, and otherwise waits or computes on and on, or ends.
fn program() -> Arc<Program> {
    program_within(Duration::from_millis(20))
}

fn program_within(cpu: Duration) -> Arc<Program> {
    let text = "return function(event, ctx)
        if event.data == 'wait' then ctx:sleep('1h') end
        while event.data == 'spin' do end
        if event.data ~= 'end' then debug.block(event.data) end
    end";
    let sources = Arc::new(Sources::new([("work.luau".to_owned(), Arc::from(text))]));
    let limits = Limits { cpu, ..Limits::default() };
    Arc::new(load("work.luau", &sources, &LoadOptions { limits, ..LoadOptions::default() }).expect("it loads"))
}

struct Rig {
    pool: Pool,
    given_up: Arc<AtomicUsize>,
    program: Arc<Program>,
    reply: UnboundedSender<Vec<Finished>>,
    answers: UnboundedReceiver<Vec<Finished>>,
}

impl Rig {
    fn new(threads: usize, lost_max: usize) -> Self {
        let given_up = Arc::<AtomicUsize>::default();
        let count = given_up.clone();
        let give_up = move |_: &str| {
            count.fetch_add(1, Ordering::SeqCst);
        };
        let patience = Patience { grace: Duration::from_millis(50), lost_max, give_up: Box::new(give_up) };
        let services = Services {
            ledger: Arc::new(NoState),
            streams: Arc::new(Streams::default()),
            clock: Arc::new(SystemClock),
            instance: "test".into(),
            source: "test".into(),
            outbound: None,
        };
        let pool = Pool::start_with(threads, services, patience).expect("threads can be started");
        let (reply, answers) = unbounded_channel();
        Self { pool, given_up, program: program(), reply, answers }
    }

    fn submit(&self, deliveries: Vec<Arc<Delivery>>) {
        let (program, reply) = (self.program.clone(), self.reply.clone());
        self.pool.submit(Job {
            program,
            deliveries,
            mode: Mode::Live,
            alone: false,
            hot: Arc::default(),
            steps: Arc::new(NoState),
            reply,
        });
    }

    /// The outcomes of the next `count` runs, by number.
    fn outcomes(&mut self, count: usize) -> Vec<Outcome> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.answers.blocking_recv().expect("the rig holds a sender"));
        }
        assert_eq!(all.len(), count, "each is answered once");
        all.sort_by_key(|finished: &Finished| finished.delivery.lease.claim);
        all.into_iter().map(|finished| finished.outcome).collect()
    }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}

#[test]
fn a_thread_that_hangs_is_replaced_and_its_runs_are_answered() {
    let mut rig = Rig::new(1, 9);
    rig.submit(vec![delivery(1, "\"wait\""), delivery(2, "\"1h\""), delivery(3, "\"wait\"")]);
    let moved = Outcome::Released(Release::Moved);
    assert_eq!(rig.outcomes(3), [moved.clone(), Outcome::Released(Release::Stuck), moved]);
    rig.submit(vec![delivery(4, "\"end\"")]);
    assert!(is_done(&rig.outcomes(1)[0]), "another thread serves");
}

#[test]
fn a_thread_that_comes_back_late_answers_nothing_twice() {
    let mut rig = Rig::new(1, 9);
    rig.submit(vec![delivery(1, "\"400ms\""), delivery(2, "\"end\"")]);
    let first = rig.outcomes(2);
    assert_eq!(first[0], Outcome::Released(Release::Stuck));
    rig.submit(vec![delivery(3, "\"1h\"")]);
    rig.outcomes(1);
    // By now the first thread has long been back: both of its runs were over.
    rig.submit(vec![delivery(4, "\"end\"")]);
    assert!(is_done(&rig.outcomes(1)[0]));
    assert!(rig.answers.try_recv().is_err());
}

#[test]
fn runs_on_other_threads_are_not_touched() {
    let mut rig = Rig::new(2, 9);
    rig.submit(vec![delivery(1, "\"1h\"")]);
    rig.submit(vec![delivery(2, "\"end\"")]);
    let outcomes = rig.outcomes(2);
    assert_eq!(outcomes[0], Outcome::Released(Release::Stuck));
    assert!(is_done(&outcomes[1]), "{:?}", outcomes[1]);
}

#[test]
fn too_many_lost_threads_are_a_reason_to_end() {
    let mut rig = Rig::new(1, 2);
    rig.submit(vec![delivery(1, "\"1h\"")]);
    rig.outcomes(1);
    assert_eq!(rig.given_up.load(Ordering::SeqCst), 0);
    rig.submit(vec![delivery(2, "\"1h\"")]);
    rig.outcomes(1);
    while rig.given_up.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_pool_ends_although_a_thread_hangs() {
    let mut rig = Rig::new(1, 9);
    rig.submit(vec![delivery(1, "\"1h\"")]);
    let Rig { pool, answers, .. } = &mut rig;
    let services = Services {
        ledger: Arc::new(NoState),
        streams: Arc::new(Streams::default()),
        clock: Arc::new(SystemClock),
        instance: "test".into(),
        source: "test".into(),
        outbound: None,
    };
    drop(std::mem::replace(pool, Pool::start(1, services).expect("threads can be started")));
    let finished = answers.blocking_recv().expect("the rig holds a sender");
    assert!(matches!(finished[0].outcome, Outcome::Released(_)));
}

#[test]
fn a_thread_that_computes_gets_less_than_one_whose_runs_wait() {
    let mut rig = Rig::new(2, 9);
    rig.program = program_within(Duration::from_secs(3600));
    let each = |rig: &Rig, read: fn(&Post) -> usize| -> Vec<usize> {
        rig.pool.shared.seats.read().iter().map(|seat| read(&seat.post)).collect()
    };
    let busy = |rig: &Rig| each(rig, |post| post.busy.load(Ordering::Relaxed));
    rig.submit(vec![delivery(1, "\"spin\"")]);
    while busy(&rig) == [0, 0] {
        std::thread::yield_now();
    }
    (2..8).for_each(|number| rig.submit(vec![delivery(number, "\"wait\"")]));
    let (busy, mut loads) = (busy(&rig), each(&rig, |post| post.load.load(Ordering::Relaxed)));
    if busy == [0, 1] {
        loads.reverse();
    }
    assert_eq!(loads, [1, 6]);
    rig.pool.release_all();
    rig.outcomes(7);
}
