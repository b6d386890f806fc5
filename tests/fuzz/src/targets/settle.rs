//! Runs that ask for anything, against a store in memory and a model of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use moontide::bus::{Answer, DeadFilter, Delivery, Run, Settling, Start, Subscription};
use moontide::config::{Flags, Surroundings, load_in};
use moontide::event::{Event, Json, TypePattern};
use moontide::host::{self, Backend};
use moontide::judge::{DeathReason, Verdict};
use moontide::outcome::{Change, Effects, Emit, Failure, FailureKind, Write};
use tokio::runtime::{Builder, Runtime};

/// Runs of one input, and writes and emits of one run.
const RUNS_MAX: usize = 4;
const ASKED_MAX: usize = 6;
const KEYS: &[&str] = &["a", "b", "c", "ключ", "a/b", "\u{1}"];
const VALUES: &[&str] =
    &["1", "-0.0", "\"text\"", "{\"a\":[1,null]}", "9007199254740993", "null", "\"\\u0000\"", "1e300"];

pub fn run(input: &[u8]) {
    STORE.with(|store| {
        let mut bytes = Unstructured::new(input);
        let model = Model { prefix: format!("{}/", TURN.fetch_add(1, Ordering::Relaxed)), ..Model::default() };
        store.runtime.block_on(async { play(&store.backend, model, &mut bytes).await });
    });
}

static TURN: AtomicU64 = AtomicU64::new(0);

struct Store {
    runtime: Runtime,
    backend: Backend,
}

thread_local! {
    static STORE: Store = Store::new();
}

impl Store {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("threads can be had");
        let flags = Flags { bus: Some("memory:".into()), ..Flags::default() };
        let around = Surroundings { environment: BTreeMap::new(), file: "/none/moontide.toml".into() };
        let config = load_in(&flags, &around).expect("the defaults are valid");
        let backend = runtime.block_on(host::open(&config, None)).expect("memory can be had");
        Self { runtime, backend }
    }
}

/// What the store must hold below `prefix`.
#[derive(Default)]
struct Model {
    prefix: String,
    state: BTreeMap<String, String>,
    /// Data of what was emitted, in order.
    emitted: Vec<String>,
    dead: usize,
}

async fn play(backend: &Backend, mut model: Model, bytes: &mut Unstructured<'_>) {
    let group = model.prefix.trim_end_matches('/').to_owned();
    let stream = format!("in:{group}");
    let count = bytes.int_in_range(1..=RUNS_MAX).unwrap_or(1);
    let events =
        (0..count).map(|n| Emit { stream: stream.clone(), delay: None, event: Event::new(format!("{n}"), "rig", "t") });
    backend.bus.publish(events.collect()).await.expect("memory takes them");
    let types = vec![TypePattern::parse("t").expect("it is a type")];
    let name: Arc<str> = group.as_str().into();
    let wanted = Subscription {
        handler: name.clone(),
        group: name,
        types,
        streams: vec![stream],
        discover: Vec::new(),
        start: Start::Earliest,
    };
    let inbox = backend.bus.subscribe(wanted).await.expect("memory opens groups").inbox;
    let mut runs = Vec::new();
    while runs.len() < count {
        for delivery in inbox.receive(count - runs.len()).await.expect("they were published") {
            runs.push(
                any_run(bytes, Arc::new(delivery), &model.prefix)
                    .unwrap_or_else(|_| unreachable!("bytes that end are zeros")),
            );
        }
    }
    let expected: Vec<bool> = runs.iter().map(|run| model.apply(run)).collect();
    let answers = inbox.settle(runs.into()).await.expect("memory answers");
    for (answer, fits) in answers.iter().zip(expected) {
        assert_eq!(matches!(answer, Answer::Done { .. }), fits, "{answer:?}");
        assert!(fits || matches!(answer, Answer::Invalid { .. }), "{answer:?}");
    }
    model.compare(backend, &group).await;
}

/// A run of `delivery` that asks for anything.
fn any_run(bytes: &mut Unstructured<'_>, delivery: Arc<Delivery>, prefix: &str) -> Result<Run> {
    let failure =
        Failure::new(FailureKind::Asked, String::from_utf8_lossy(bytes.bytes(bytes.len().min(3))?).into_owned());
    let verdict = match bytes.int_in_range(0..=5)? {
        0 => Verdict::Dead { reason: DeathReason::Rejected, failure },
        1 => Verdict::Retry { delay: Duration::from_secs(3600), counted: true, failure },
        2 => Verdict::Skip { by: "another".into() },
        _ => Verdict::Commit,
    };
    let mut effects = Effects::default();
    if verdict == Verdict::Commit {
        for _ in 0..bytes.int_in_range(0..=ASKED_MAX)? {
            effects.writes.push(any_write(bytes, prefix)?);
        }
        for _ in 0..bytes.int_in_range(0..=ASKED_MAX)? {
            effects.events.push(any_emit(bytes, prefix)?);
        }
    }
    let deliveries = vec![Settling { delivery, verdict }];
    Ok(Run { deliveries, reads: Vec::new(), effects, record: None, steps: None, version: "v".into() })
}

fn any_write(bytes: &mut Unstructured<'_>, prefix: &str) -> Result<Write> {
    let key = format!("{prefix}{}", bytes.choose(KEYS)?);
    let change = match bytes.int_in_range(0..=3)? {
        0 => Change::Delete,
        1 => Change::Add(f64::from(bytes.arbitrary::<i16>()?)),
        _ => Change::Set { value: Json::trusted(*bytes.choose(VALUES)?), ttl: None },
    };
    Ok(Write { key, change })
}

fn any_emit(bytes: &mut Unstructured<'_>, prefix: &str) -> Result<Emit> {
    let data = Some(Json::trusted(*bytes.choose(VALUES)?));
    let event = Event { data, ..Event::new(format!("{}", bytes.arbitrary::<u32>()?), "rig", "out") };
    Ok(Emit { stream: format!("out:{prefix}"), delay: None, event })
}

impl Model {
    /// False: the run cannot be applied, and nothing of it was.
    fn apply(&mut self, run: &Run) -> bool {
        let mut state = self.state.clone();
        for Write { key, change } in &run.effects.writes {
            match change {
                Change::Delete => drop(state.remove(key)),
                Change::Set { value, .. } => drop(state.insert(key.clone(), value.text().into_owned())),
                Change::Add(number) => {
                    let before = state.get(key).map_or(Ok(0.0), |value| value.parse::<f64>());
                    let Ok(before) = before else { return false };
                    state.insert(key.clone(), (before + number).to_string());
                }
            }
        }
        self.state = state;
        self.emitted
            .extend(run.effects.events.iter().filter_map(|emit| Some(emit.event.data.as_ref()?.text().into_owned())));
        self.dead += usize::from(matches!(run.deliveries[0].verdict, Verdict::Dead { .. }));
        true
    }

    async fn compare(&self, backend: &Backend, group: &str) {
        let entries = backend.state.scan(&self.prefix, None, 1000).await.expect("memory answers");
        let held = entries.into_iter().map(|entry| (entry.key, String::from_utf8_lossy(&entry.value).into_owned()));
        let held: BTreeMap<String, String> = held.collect();
        assert!(held.keys().eq(self.state.keys()), "{held:?} and {:?}", self.state);
        for (key, value) in &self.state {
            let number = |text: &str| text.parse::<f64>().ok();
            let same = held[key] == *value || (number(value).is_some() && number(value) == number(&held[key]));
            assert!(same, "{key} is {} and should be {value}", held[key]);
        }
        let out = format!("out:{}", self.prefix);
        let history = backend.overview.history(&out, None, 1000).await.unwrap_or_default();
        let stored = history.into_iter().map(|(_, event)| event.expect("it was emitted").data.expect("it has data"));
        assert_eq!(stored.map(|data| data.text().into_owned()).collect::<Vec<_>>(), self.emitted);
        let filter = DeadFilter { handler: Some(group.to_owned()), limit: 1000, ..DeadFilter::default() };
        assert_eq!(backend.dead.list(filter).await.expect("memory answers").len(), self.dead);
    }
}
