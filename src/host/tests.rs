//! What becomes of a worker that a defect ends, over a bus whose inboxes panic; and of versions that are no more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use std::time::Duration;

use super::*;
use crate::bus::{
    Answer, Bus, Delivery, Features, GroupStatus, HandlerReport, Inbox, Overview, Run, Step, StepAnswer, Steps,
    Subscribed, Subscription, Undecodable, backoff,
};
use crate::config::{self, Flags};
use crate::event::{EntryId, Event, Json};
use crate::http::Status;
use crate::outcome::{Emit, RecordKey};

const HANDLER: &str = "return { on = 'tick', handle = function(event, ctx) ctx.kv:add('ticks', 1) end }";

/// Panics at so many calls of receive, whoever calls.
struct Cursed {
    bus: Arc<dyn Bus>,
    left: Arc<AtomicU32>,
}

struct CursedInbox {
    inbox: Arc<dyn Inbox>,
    left: Arc<AtomicU32>,
}

#[async_trait]
impl Bus for Cursed {
    fn features(&self) -> Features {
        self.bus.features()
    }

    async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        self.bus.publish(emits).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError> {
        let Subscribed { inbox, began } = self.bus.subscribe(subscription).await?;
        Ok(Subscribed { inbox: Arc::new(CursedInbox { inbox, left: self.left.clone() }), began })
    }
}

#[async_trait]
impl Inbox for CursedInbox {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let cursed = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(cursed.is_err(), "on purpose");
        self.inbox.receive(max).await
    }

    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
        self.inbox.settle(runs).await
    }

    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        self.inbox.mark(delivery).await
    }
}

#[async_trait]
impl Steps for CursedInbox {
    async fn recall(&self, event: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        self.inbox.recall(event).await
    }

    async fn record(&self, delivery: &Delivery, step: &Step) -> Result<StepAnswer, BusError> {
        self.inbox.record(delivery, step).await
    }
}

fn configuration(folder: &Path) -> Config {
    let (handlers, file) = (folder.join("handlers"), folder.join("moontide.toml"));
    std::fs::create_dir(&handlers).expect("a folder");
    std::fs::write(handlers.join("tick.luau"), HANDLER).expect("a file");
    let db = folder.join("moontide.db");
    let text = format!("[bus]\nurl = \"sqlite:{}\"\n[run]\nhandlers = \"{}\"\n", db.display(), handlers.display());
    std::fs::write(&file, text).expect("a file");
    config::load(&Flags { config: Some(file), ..Flags::default() }).expect("the configuration is right")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_keeps_panicking_comes_back_after_growing_pauses_and_is_counted_and_red() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path());
    let registry = load_folder(&config.handlers_dir, &config).expect("the folder is there");
    let backend = open(&config, None).await.expect("the store opens");
    let bus = Arc::new(Cursed { bus: backend.bus.clone(), left: Arc::new(AtomicU32::new(3)) });
    let parts = Parts::new(config, Backend { bus, ..backend }, "test".into(), registry.clone());
    let parts = parts.expect("threads can be started");
    let mut supervisor = Supervisor::new(parts.clone(), Vec::new());
    let began = Instant::now();
    supervisor.apply(&Registry::default(), &registry).await;
    let (_changes, changed) = mpsc::channel(1);
    let supervisor = tokio::spawn(supervisor.run(registry, changed));

    let event = Event { data: Some(Json::trusted("{}")), ..Event::new("1", "test", "tick") };
    let emit = Emit { stream: "events:tick".to_owned(), event, delay: None };
    parts.backend.bus.publish(vec![emit]).await.expect("the store takes events");
    while parts.backend.ledger.read(&["ticks".to_owned()]).await.expect("the store answers")[0].is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never comes back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() >= backoff(1) + backoff(2) + backoff(3), "it came back at once");
    let standing = Standing::new(parts.clone(), supervisor.abort_handle());
    let metrics = standing.metrics().await.expect("they can be written");
    assert!(metrics.contains("moontide_worker_defects_total{handler=\"tick\"} 3\n"), "{metrics}");
    let ready = standing.ready().await;
    let keeps = "the worker of tick keeps ending by a defect of the host, 3 times in a row";
    assert!(ready.problems.iter().any(|problem| problem == keeps), "{ready:?}");
    parts.stop.cancel();
    supervisor.await.expect("it ends");
    parts.backend.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_serves_no_more_is_freed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut config = configuration(folder.path());
    // One thread: on others a VM of an older version may rest for a while.
    (config.threads, config.http.listen) = (1, None);
    let host = Host::start(config, Start::default()).await.expect("the host starts");
    let path = folder.path().join("handlers/tick.luau");
    let serving = || host.parts.registry.lock().handlers["tick"].clone();
    let mut versions = Vec::new();
    for n in 0..10_u64 {
        let emit =
            Emit { stream: "events:tick".to_owned(), event: Event::new(n.to_string(), "test", "tick"), delay: None };
        host.backend().bus.publish(vec![emit]).await.expect("the store takes events");
        until("it has run", || host.snapshot()[0].counts.done == n + 1).await;
        let before = serving().program.expect("it loads");
        versions.push((before.version.clone(), Arc::downgrade(&before.sources)));
        std::fs::write(&path, "return {").expect("a file");
        until("it is refused", || serving().problem.is_some()).await;
        std::fs::write(&path, format!("{HANDLER} -- {n}")).expect("a file");
        let newer = || serving().program.is_some_and(|program| program.version != before.version);
        until("the next version serves", newer).await;
    }
    // The last one of them may still have a warm VM.
    versions.pop();
    until("the others are freed", || versions.iter().all(|(_, sources)| sources.strong_count() == 0)).await;
    host.stop().await;
}

/// Takes a report when it is told to.
struct Slow {
    overview: Arc<dyn Overview>,
    asked: Notify,
    go_on: Notify,
}

#[async_trait]
impl Overview for Slow {
    async fn groups(&self) -> Result<Vec<GroupStatus>, BusError> {
        self.overview.groups().await
    }

    async fn report(&self, reports: Vec<HandlerReport>) -> Result<(), BusError> {
        self.asked.notify_one();
        self.go_on.notified().await;
        self.overview.report(reports).await
    }

    async fn reports(&self) -> Result<Vec<HandlerReport>, BusError> {
        self.overview.reports().await
    }

    async fn history(
        &self,
        stream: &str,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Result<Event, Undecodable>)>, BusError> {
        self.overview.history(stream, after, limit).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_heard_though_it_comes_while_the_store_is_waited_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path());
    let registry = load_folder(&config.handlers_dir, &config).expect("the folder is there");
    let backend = open(&config, None).await.expect("the store opens");
    let (asked, go_on) = Default::default();
    let slow = Arc::new(Slow { overview: backend.overview.clone(), asked, go_on });
    let parts = Parts::new(config, Backend { overview: slow.clone(), ..backend }, "test".into(), registry.clone());
    let parts = parts.expect("threads can be started");
    let mut supervisor = Supervisor::new(parts.clone(), Vec::new());
    supervisor.apply(&Registry::default(), &registry).await;
    let (_changes, changed) = mpsc::channel(1);
    let supervisor = tokio::spawn(supervisor.run(registry, changed));
    slow.asked.notified().await;
    parts.stop.cancel();
    slow.go_on.notify_one();
    let ended = tokio::time::timeout(Duration::from_secs(60), supervisor).await;
    ended.expect("the worker was told").expect("and the supervisor ends with it");
    parts.backend.close().await;
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// On one thread the supervisor has not looked even once when it is told to stop.
#[tokio::test]
async fn who_is_stopped_before_the_supervisor_looks_does_not_wait_for_the_grace_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path());
    let grace = config.grace;
    let host = Host::start(config, Start::default()).await.expect("the host starts");
    tokio::time::timeout(grace, host.stop()).await.expect("its workers are told");
}
