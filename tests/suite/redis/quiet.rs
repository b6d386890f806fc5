//! Twenty handlers whose server goes away: few words about it, and all of them work again by themselves.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moontide::bus::{Bus, Subscription};
use moontide::clock::SystemClock;
use moontide::metrics::{HandlerMetrics, Metrics};
use moontide::outcome::{Effects, Outcome};
use moontide::script::{Finished, Job, Mode, Usage};
use moontide::worker::{Runner, Spec, work};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::rig::open;
use super::until;
use crate::conformance::{emit, subscription};
use crate::worker::program;
use moontide_stage::server::{Kind, Server};

const HANDLERS: usize = 20;

/// Every line about something that is not as it should be.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::WARN {
            self.0.lock().push(format!("{event:?}"));
        }
    }
}

/// Every run is done at once.
struct Done;

impl Runner for Done {
    fn submit(&self, job: Job) {
        let done = job.deliveries.iter().map(|delivery| Finished {
            delivery: delivery.clone(),
            outcome: Outcome::Done(Effects::default()),
            reads: Vec::new(),
            record: None,
            steps: None,
            version: job.program.version.clone(),
            held: Vec::new(),
            usage: Usage::default(),
        });
        drop(job.reply.send(done.collect()));
    }
}

struct Workers {
    handlers: Vec<Arc<HandlerMetrics>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Workers {
    async fn new(bus: &dyn Bus) -> Self {
        let (metrics, stop, mut tasks) = (Metrics::new(), CancellationToken::new(), JoinSet::new());
        let mut handlers = Vec::new();
        for number in 0..HANDLERS {
            let name = format!("handler-{number}");
            let wanted = Subscription { streams: vec![format!("events:{number}")], ..subscription(&name) };
            let inbox = bus.subscribe(wanted).await.expect("the group is opened").inbox;
            let handler = Arc::new(metrics.handler(&name));
            let spec = Spec {
                program: Arc::new(ArcSwap::from_pointee(program(8))),
                runner: Arc::new(Done),
                metrics: handler.clone(),
                clock: Arc::new(SystemClock),
                alone: Arc::default(),
                mode: Mode::Live,
                seed: number as u64,
                stop: stop.clone(),
            };
            tasks.spawn(work(inbox, spec));
            handlers.push(handler);
        }
        Self { handlers, stop, tasks }
    }

    /// Each handler gets one more event, as soon as the server takes it, and has done `total` then.
    async fn work(&self, bus: &dyn Bus, total: u64) {
        for number in 0..HANDLERS {
            while bus.publish(vec![emit(&format!("events:{number}"), &format!("{total}"))]).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        until(|| self.handlers.iter().all(|handler| handler.counts().done == total)).await;
    }
}

struct Trouble<'a> {
    /// Events of each handler when it is over.
    total: u64,
    says: &'a str,
    make: &'a dyn Fn(),
    end: &'a dyn Fn(),
}

// One thread: what is logged is caught by thread.
#[tokio::test]
async fn twenty_handlers_without_a_server_say_little_and_come_back() {
    let lines = Lines::default();
    let _caught = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let said = || std::mem::take(&mut *lines.0.lock());
    let server = Server::with(Kind::Redis, &["--appendonly", "yes"]);
    let bus = open(&server.url()).await.expect("the server can be used");
    let mut workers = Workers::new(&*bus).await;
    workers.work(&*bus, 1).await;
    said();
    let free = || drop(server.call(&["CONFIG", "SET", "maxmemory", "0"]));
    let flush = || drop(server.call(&["FLUSHALL"]));
    for Trouble { total, says, make, end } in [
        Trouble { total: 2, says: "refused", make: &|| server.kill(), end: &|| server.start() },
        Trouble { total: 4, says: "raise maxmemory", make: &|| give_and_fill(&server), end: &free },
        Trouble { total: 5, says: "vanished", make: &flush, end: &|| {} },
    ] {
        make();
        // The time over which lines are counted.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let during = said();
        assert!(during.len() < 20, "{says}: {} lines in two seconds: {during:#?}", during.len());
        assert!(says.contains("vanished") || during.iter().any(|line| line.contains(says)), "{says}: {during:#?}");
        assert_eq!(bus.publish(Vec::new()).await.is_err(), !says.contains("vanished"), "whoever asks is told");
        end();
        let back = tokio::time::timeout(Duration::from_secs(10), workers.work(&*bus, total)).await;
        back.unwrap_or_else(|_| panic!("{says}: all handlers work again within ten seconds"));
        let after = said();
        assert!(after.len() < 20, "{says}: {} lines afterwards: {after:#?}", after.len());
    }
    workers.stop.cancel();
    while let Some(ended) = workers.tasks.join_next().await {
        ended.expect("it did not panic");
    }
}

/// Each handler gets an event of which it cannot settle any more what came of it.
fn give_and_fill(server: &Server) {
    let mut both = redis::pipe();
    both.atomic();
    for number in 0..HANDLERS {
        both.cmd("XADD").arg(format!("events:{number}")).arg("*").arg(&["id", "3", "type", "order.created"]);
    }
    both.cmd("CONFIG").arg(&["SET", "maxmemory", "1"]);
    both.exec(&mut server.connect()).expect("both at once");
}
