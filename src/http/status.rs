//! How things stand, for machines that ask: metrics, health, handlers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{Health, Site};
use crate::metrics::Metrics;

/// Media type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`
pub async fn metrics(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    let text = site.status.metrics().await.map_err(Problem::defect)?;
    Ok(([(CONTENT_TYPE, PROMETHEUS)], text).into_response())
}

/// `GET /healthz`
pub async fn healthz(State(site): State<Arc<Site>>) -> Response {
    answer(site.status.alive())
}

/// `GET /readyz`
pub async fn readyz(State(site): State<Arc<Site>>) -> Response {
    answer(site.status.ready().await)
}

fn answer(health: Health) -> Response {
    let code = if health.problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(CACHE_CONTROL, "no-store")], axum::Json(health)).into_response()
}

/// `GET /handlers`
pub async fn handlers(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    Ok(axum::Json(site.status.handlers().await?).into_response())
}

/// Counts a request by what it asked for and what came of it.
pub async fn count(metrics: Metrics, request: Request, next: Next) -> Response {
    let route = route(request.uri().path());
    let response = next.run(request).await;
    metrics.request(route, response.status().as_u16());
    response
}

/// A bounded name for a path.
fn route(path: &str) -> &'static str {
    match path {
        "/events" => "/events",
        "/handlers" => "/handlers",
        "/metrics" => "/metrics",
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/admin/dlq" => "/admin/dlq",
        path if path.starts_with("/events/") => "/events/{type}",
        path if path.starts_with("/admin/dlq/reprocess/") => "/admin/dlq/reprocess/{id}",
        path if path.starts_with("/admin/dlq/") => "/admin/dlq/{id}",
        _ => "other",
    }
}
