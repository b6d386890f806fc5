//! The listeners of this process: HTTP, and metrics alone.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Parts;
use super::health::Standing;
use crate::config::Config;
use crate::http::{self, BODIES_BYTES_MAX, Door, LISTINGS_MAX, ListenError, Rules, Site};

/// Addresses that are ours, with nobody at them yet: a port that is taken shows before anything is started.
pub(super) struct Listeners {
    http: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

pub(super) async fn bind(config: &Config) -> Result<Listeners, ListenError> {
    let http = match config.http.listen {
        Some(listen) => http::bind(listen, "http.listen").await?,
        None => None,
    };
    let metrics = match config.metrics_listen {
        Some(listen) => http::bind(listen, "metrics.listen").await?,
        None => None,
    };
    Ok(Listeners { http, metrics })
}

/// Open listeners.
pub(super) struct Doors {
    http: Option<Door>,
    metrics: Option<Door>,
}

impl Doors {
    pub fn open(listeners: Listeners, parts: &Parts, standing: Arc<Standing>) -> Self {
        let site = Arc::new(site(parts, standing));
        let http = listeners.http.and_then(|listener| open(listener, http::routes(site.clone()), "HTTP"));
        let metrics = listeners.metrics.and_then(|listener| open(listener, http::metrics_routes(site), "metrics"));
        Self { http, metrics }
    }

    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Door::address)
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Door::address)
    }

    /// Lets nobody in any more, and waits for the requests under way.
    pub async fn close(self) {
        for door in self.http.into_iter().chain(self.metrics) {
            door.close().await;
        }
    }
}

fn open(listener: TcpListener, routes: Router, what: &str) -> Option<Door> {
    match Door::open(listener, routes) {
        Ok(door) => {
            tracing::info!("{what} on http://{}", door.address());
            Some(door)
        }
        Err(error) => {
            tracing::error!("{what} is not served: {error}");
            None
        }
    }
}

fn site(parts: &Parts, standing: Arc<Standing>) -> Site {
    let config = &parts.config;
    Site {
        bus: parts.backend.bus.clone(),
        intake: parts.backend.intake.clone(),
        dead: parts.backend.dead.clone(),
        status: standing,
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
        streams: config.streams.clone(),
        source: config.bus.source.clone(),
        payload_bytes_max: config.limits.payload_bytes_max,
        rules: Rules {
            token: config.http.token.clone(),
            hosts: config.http.hosts.clone(),
            loopback: config.http.listen.is_some_and(|listen| listen.address.ip().is_loopback()),
        },
        bodies: Semaphore::new(BODIES_BYTES_MAX),
        listings: Semaphore::new(LISTINGS_MAX),
    }
}
