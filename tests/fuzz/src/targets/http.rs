//! Requests: a first line with method and path, headers, an empty line, a body.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use moontide::bus::{Bus, BusError, Claim, Features, Intake, Subscribed, Subscription, TakenIn};
use moontide::clock::ManualClock;
use moontide::config::{Flags, Surroundings, load_in};
use moontide::event::EntryId;
use moontide::host;
use moontide::http::{BODIES_BYTES_MAX, Health, LISTINGS_MAX, Rules, Site, Status, routes};
use moontide::metrics::Metrics;
use moontide::outcome::Emit;
use moontide::registry::Row;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::{lies_as_it_is, reaches_scripts};

pub fn run(input: &[u8]) {
    let Some(request) = request(input) else { return };
    DOOR.with(|door| {
        door.taken.0.lock().clear();
        let (status, body) = door.runtime.block_on(async {
            let answer = door.routes.clone().oneshot(request).await.expect("routes answer everything");
            let (head, body) = answer.into_parts();
            (head.status, body.collect().await.expect("an answer is whole").to_bytes())
        });
        let taken = door.taken.0.lock();
        match status {
            StatusCode::ACCEPTED => is_taken(&body, &taken),
            status if status.is_success() => assert!(taken.is_empty(), "{status} to {taken:?}"),
            status => is_refused(status, &body, &taken),
        }
    });
}

fn request(input: &[u8]) -> Option<Request<Body>> {
    let end = input.windows(2).position(|two| two == b"\n\n")?;
    let mut lines = input[..end].split(|byte| *byte == b'\n');
    let (method, path) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..at], line[at + 1..].trim_ascii());
    }
    request.body(Body::from(input[end + 2..].to_vec())).ok()
}

fn is_taken(body: &[u8], taken: &[Emit]) {
    let body: Value = serde_json::from_slice(body).expect("an answer is JSON");
    let ids: Vec<&str> = body["ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let stored: Vec<&str> = taken.iter().map(|emit| emit.event.id.as_str()).collect();
    assert_eq!(ids, stored, "what is answered is stored");
    for emit in taken {
        lies_as_it_is(&emit.event);
        emit.event.data.iter().chain(&emit.event.ext).for_each(reaches_scripts);
    }
}

fn is_refused(status: StatusCode, body: &[u8], taken: &[Emit]) {
    assert!(status.is_client_error() && taken.is_empty(), "{status} to {taken:?}");
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    assert_eq!(problem["status"], status.as_u16(), "{status}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{status}: {problem}");
}

struct Door {
    runtime: Runtime,
    routes: Router,
    taken: Arc<Taken>,
}

thread_local! {
    static DOOR: Door = Door::new();
}

impl Door {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("threads can be had");
        let flags = Flags { bus: Some("memory:".into()), ..Flags::default() };
        let around = Surroundings { environment: Default::default(), file: "/none/moontide.toml".into() };
        let config = load_in(&flags, &around).expect("the defaults are valid");
        let backend = runtime.block_on(host::open(&config, None)).expect("memory can be had");
        let taken = Arc::<Taken>::default();
        let site = Site {
            bus: taken.clone(),
            intake: taken.clone(),
            dead: backend.dead.clone(),
            status: Arc::new(Fine),
            clock: Arc::new(ManualClock::default()),
            metrics: Metrics::new(),
            streams: Arc::default(),
            source: "rig".into(),
            payload_bytes_max: 1 << 20,
            rules: Rules { token: None, hosts: Vec::new(), loopback: true },
            bodies: Semaphore::new(BODIES_BYTES_MAX),
            listings: Semaphore::new(LISTINGS_MAX),
        };
        Self { runtime, routes: routes(Arc::new(site)), taken }
    }
}

/// Remembers what it is given.
#[derive(Default)]
struct Taken(Mutex<Vec<Emit>>);

#[async_trait]
impl Bus for Taken {
    fn features(&self) -> Features {
        Features { one_store: true, marks: false, durable: false, shared: false, history: false }
    }

    async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        let places = vec![None; emits.len()];
        self.0.lock().extend(emits);
        Ok(places)
    }

    async fn subscribe(&self, _subscription: Subscription) -> Result<Subscribed, BusError> {
        Err(BusError::Closed)
    }
}

#[async_trait]
impl Intake for Taken {
    async fn take_in(&self, emits: Vec<Emit>, _claim: Claim) -> Result<TakenIn, BusError> {
        self.0.lock().extend(emits);
        Ok(TakenIn::Stored)
    }
}

struct Fine;

#[async_trait]
impl Status for Fine {
    async fn metrics(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn alive(&self) -> Health {
        Health::of(Vec::new())
    }

    async fn ready(&self) -> Health {
        self.alive()
    }

    async fn handlers(&self) -> Result<Vec<Row>, BusError> {
        Ok(Vec::new())
    }
}
