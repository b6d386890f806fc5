//! The client of this process: one, whose connections outlive the runs that open them.
//!
//! Owns that everything happens on the runtime that has I/O, whoever waits for it, and ends when nobody waits any more.
//! There are two pools of connections: to names that may lead into private networks, and to all others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use super::redirect::{Hop, REDIRECTS_MAX};
use super::resolve::{Checked, Names, SystemNames};
use super::{Answer, Call, CallError, Called, HostGrant, Observer, roots};

/// How long a connection that nobody uses is kept, and how many for one host.
const IDLE: Duration = Duration::from_secs(60);
const IDLE_PER_HOST: usize = 64;

/// Makes calls. One for the whole process.
pub struct Outbound {
    runtime: Handle,
    names: Arc<dyn Names>,
    observer: Arc<dyn Observer>,
    /// Made by the first call: reading the certificates of a system takes time.
    clients: OnceCell<Clients>,
}

struct Clients {
    public: Client,
    private: Client,
}

impl Outbound {
    /// A client whose connections live on the runtime that this is called on.
    pub fn new(observer: Arc<dyn Observer>) -> Arc<Self> {
        Self::with_names(Arc::new(SystemNames::default()), observer)
    }

    pub(super) fn with_names(names: Arc<dyn Names>, observer: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self { runtime: Handle::current(), names, observer, clients: OnceCell::new() })
    }

    /// Makes a call. It ends when the answer is not waited for any more.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn call(self: &Arc<Self>, call: Call) -> Result<Answer, CallError> {
        let this = self.clone();
        let task = self.runtime.spawn(async move { this.observed(call).await });
        let stopped = |_| Err(CallError::Transport("the process is stopping".to_owned()));
        AbortOnDropHandle::new(task).await.unwrap_or_else(stopped)
    }

    async fn observed(&self, call: Call) -> Result<Answer, CallError> {
        let (began, handler, grants) = (Instant::now(), call.handler.clone(), call.grants.clone());
        let grant = HostGrant::pick(&grants, &call.target);
        let timeout = call.timeout;
        let answer = tokio::time::timeout(timeout, self.follow(call)).await;
        let answer = answer.unwrap_or(Err(CallError::Timeout(timeout)));
        self.observer.called(Called {
            handler: &handler,
            host: grant.map(HostGrant::as_str),
            result: result_of(&answer),
            took: began.elapsed(),
        });
        answer
    }

    async fn follow(&self, call: Call) -> Result<Answer, CallError> {
        let Call { handler, grants, method, target, headers, body, timeout: _, max_bytes } = call;
        let mut hop = Hop { method, target, headers, body };
        for _ in 0..=REDIRECTS_MAX {
            let grant = HostGrant::pick(&grants, &hop.target);
            let grant = grant.ok_or_else(|| CallError::not_granted(&handler, &hop.target))?;
            let response = self.send(&hop, grant).await?;
            let next = hop.after(response.status(), response.headers()).map_err(CallError::Redirect)?;
            match next {
                Some(next) => hop = next,
                None => return read(response, &hop, max_bytes).await,
            }
        }
        Err(CallError::Redirect(format!("for the {}th time", REDIRECTS_MAX + 1)))
    }

    async fn send(&self, hop: &Hop, grant: &HostGrant) -> Result<Response, CallError> {
        let clients = self.clients.get_or_try_init(|| self.open()).await?;
        let client = if grant.is_private() { &clients.private } else { &clients.public };
        let request = client.request(hop.method.clone(), hop.target.url.clone()).headers(hop.headers.clone());
        let request = match &hop.body {
            Some(body) => request.body(body.clone()),
            None => request,
        };
        request.send().await.map_err(|error| CallError::of(&error, &hop.target))
    }

    async fn open(&self) -> Result<Clients, CallError> {
        let tls = tokio::task::spawn_blocking(roots::tls).await;
        let tls = tls.map_err(|_| CallError::Transport("the process is stopping".to_owned()))?;
        let tls = tls.map_err(|error| CallError::Transport(format!("there is no TLS: {error}")))?;
        let client = |private| {
            let names = Checked { names: self.names.clone(), private };
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(names)
                .redirect(Policy::none())
                .no_proxy()
                .referer(false)
                .http1_only()
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .build()
                .map_err(|error| CallError::Transport(format!("there is no client: {error}")))
        };
        Ok(Clients { public: client(false)?, private: client(true)? })
    }
}

/// The whole answer, unless it is longer than `max_bytes`.
async fn read(mut response: Response, hop: &Hop, max_bytes: usize) -> Result<Answer, CallError> {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = BytesMut::new();
    let chunk = |error: reqwest::Error| CallError::of(&error, &hop.target);
    while let Some(part) = response.chunk().await.map_err(chunk)? {
        if part.len() > max_bytes - body.len() {
            return Err(CallError::TooLong(max_bytes));
        }
        body.extend_from_slice(&part);
    }
    Ok(Answer { status, headers, body: Bytes::from(body) })
}

fn result_of(answer: &Result<Answer, CallError>) -> &'static str {
    match answer {
        Err(error) if error.is_refusal() => "refused",
        Err(_) => "error",
        Ok(answer) => match answer.status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
    }
}
