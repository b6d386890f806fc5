//! HTTP: events come in, and everybody who looks is told how things stand.
//!
//! Owns what is answered to whom, and every cap on what a client can make us hold or wait for. An event is answered with
//! 202 only after it is stored; nothing else is changed but by giving dead letters to their handlers once more, and no GET
//! changes anything. Knows neither the host nor a store: it asks through [`Status`], [`Bus`], [`Intake`] and
//! [`DeadLetters`].

mod attributes;
mod binding;
mod dead;
mod document;
mod door;
mod guard;
mod ingest;
mod problem;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::bus::{Bus, BusError, DeadLetters, Intake};
use crate::clock::Clock;
use crate::config::Secret;
use crate::metrics::Metrics;
use crate::registry::Row;
use crate::streams::Streams;

pub use dead::LISTINGS_MAX;
pub use door::{Door, ListenError, bind};
use problem::Problem;

/// What the routes work with.
pub struct Site {
    pub bus: Arc<dyn Bus>,
    pub intake: Arc<dyn Intake>,
    pub dead: Arc<dyn DeadLetters>,
    pub status: Arc<dyn Status>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub streams: Arc<Streams>,
    /// CloudEvents source of events that name none.
    pub source: String,
    /// Largest request body.
    pub payload_bytes_max: usize,
    pub rules: Rules,
    /// Bytes of bodies that are read or stored just now; see [`BODIES_BYTES_MAX`].
    pub bodies: Semaphore,
    /// Listings of dead letters that are put together just now; see [`LISTINGS_MAX`].
    pub listings: Semaphore,
}

/// Bytes of request bodies held at a time; who comes when they are taken is told to come again.
pub const BODIES_BYTES_MAX: usize = 64 << 20;

/// Who may come in.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Asked of everybody, but for health and metrics.
    pub token: Option<Secret>,
    /// Names by which who has no token may call us, besides localhost and addresses; in lower case.
    pub hosts: Vec<String>,
    /// Only this machine can reach us.
    pub loopback: bool,
}

/// How things stand, as the host knows it.
#[async_trait]
pub trait Status: Send + Sync {
    /// All metrics in Prometheus' text format.
    async fn metrics(&self) -> Result<String, String>;
    /// Whether the process does what a process must; one that does not should be replaced.
    fn alive(&self) -> Health;
    /// Whether it makes progress, or provably has nothing to do.
    async fn ready(&self) -> Health;
    /// The handlers, by name.
    async fn handlers(&self) -> Result<Vec<Row>, BusError>;
}

/// The body of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// `healthy` or `unhealthy`.
    pub status: &'static str,
    /// What is wrong; empty when healthy.
    pub problems: Vec<String>,
    /// Asked only by who wants to know whether it is ready.
    #[serde(flatten)]
    pub work: Option<Work>,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Work {
    /// The store answers.
    pub connected: bool,
    /// Types that handlers here ask for.
    pub subscribed_events: Vec<String>,
    /// By handler: waiting, delayed or under way.
    pub pending_messages: BTreeMap<String, u64>,
}

impl Health {
    /// Healthy unless there are problems.
    pub fn of(problems: Vec<String>) -> Self {
        let status = if problems.is_empty() { "healthy" } else { "unhealthy" };
        Self { status, problems, work: None }
    }
}

/// Everything there is.
pub fn routes(site: Arc<Site>) -> Router {
    let requests = site.metrics.clone();
    Router::new()
        .route("/events", post(ingest::events))
        .route("/events/{*type}", post(ingest::plain))
        .route("/handlers", get(status::handlers))
        .route("/admin/dlq", get(dead::list))
        .route("/admin/dlq/{id}", get(dead::get))
        .route("/admin/dlq/reprocess/{id}", post(dead::reprocess))
        .route("/metrics", get(status::metrics))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(site.clone(), guard::admit))
        .layer(from_fn(move |request, next| status::count(requests.clone(), request, next)))
        .with_state(site)
}

/// Metrics, and nothing else.
pub fn metrics_routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/metrics", get(status::metrics))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .with_state(site)
}

async fn nowhere() -> Problem {
    Problem::not_found(
        "there is nothing here; there are /events, /events/TYPE, /handlers, /admin/dlq, /metrics, /healthz, /readyz",
    )
}

async fn wrong_method() -> Problem {
    Problem::wrong_method("events and /admin/dlq/reprocess/ID are sent by POST, everything else is asked for by GET")
}
