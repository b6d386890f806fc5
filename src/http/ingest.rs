//! Events in: `POST /events` (CloudEvents) and `POST /events/{type}` (plain JSON).
//!
//! Decides when an event counts as taken: when it is stored, and not before. A key makes sending again harmless.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as JsonBody;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, HeaderName};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use uuid::{Builder, Variant, Version};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::binding::{self, Mode};
use super::guard::one;
use super::problem::Problem;
use super::{BODIES_BYTES_MAX, Site};
use crate::bus::{Claim, TakenIn};
use crate::draft::{Defaults, Draft};
use crate::failpoint;
use crate::outcome::{Emit, RecordKey};

/// Time for a request's body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Time for the store to answer.
const STORE_TIME: Duration = Duration::from_secs(10);
/// How long an idempotency key is remembered.
const KEY_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Longest idempotency key in bytes.
const KEY_BYTES_MAX: usize = 255;
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /events`
pub async fn events(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mode = Mode::of(&parts.headers)?;
    let key = key(&parts.headers)?;
    let (body, held) = receive(&site, &parts.headers, body).await?;
    let drafts = binding::events(mode, &parts.headers, &body)?;
    let stored = store(&site, drafts, key, fingerprint(&parts.headers, &body)).await;
    drop(held);
    stored
}

/// `POST /events/{type}`
pub async fn plain(
    State(site): State<Arc<Site>>,
    kind: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(kind) = kind.map_err(|_| Problem::bad("the type in the path is no UTF-8"))?;
    let (parts, body) = request.into_parts();
    let key = key(&parts.headers)?;
    let (body, held) = receive(&site, &parts.headers, body).await?;
    let mut draft = binding::plain(&kind, &parts.headers, &body)?;
    if let (None, Some(key)) = (&draft.id, &key) {
        draft.id = Some(id_from(draft.source.as_deref().unwrap_or(&site.source), &kind, key));
    }
    let stored = store(&site, vec![draft], key, fingerprint(&parts.headers, &body)).await;
    drop(held);
    stored
}

/// The same for the same key, so that consumers too see one event where it was sent twice.
fn id_from(source: &str, kind: &str, key: &str) -> String {
    let bytes = RecordKey::new(source, kind, key).0;
    Builder::from_bytes(bytes).with_variant(Variant::RFC4122).with_version(Version::Custom).into_uuid().to_string()
}

/// The body, and what it takes up of the bytes that may be held.
async fn receive<'s>(site: &'s Site, headers: &HeaderMap, body: Body) -> Result<(Bytes, SemaphorePermit<'s>), Problem> {
    let bytes_max = site.payload_bytes_max;
    let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let bytes = said.unwrap_or(bytes_max);
    if bytes > bytes_max {
        return Err(Problem::large(bytes_max));
    }
    let share = u32::try_from(bytes.min(BODIES_BYTES_MAX)).unwrap_or(u32::MAX);
    let held = site.bodies.try_acquire_many(share).map_err(|_| Problem::busy())?;
    let body = read(body, bytes_max).await?;
    Ok((body, held))
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let read = timeout(BODY_TIME, to_bytes(body, bytes_max)).await.map_err(|_| Problem::slow())?;
    read.map_err(|error| match is_over_limit(&error) {
        true => Problem::large(bytes_max),
        false => Problem::bad("the body broke off"),
    })
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The key under which a client sends, if it does.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(text) = one(headers, &KEY)? else { return Ok(None) };
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let printable = bare.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if bare.trim().is_empty() || bare.len() > KEY_BYTES_MAX || !printable {
        return Err(Problem::bad(format!(
            "the Idempotency-Key must be 1 to {KEY_BYTES_MAX} printable ASCII characters"
        )));
    }
    Ok(Some(bare.to_owned()))
}

/// Everything that a client said about its events.
fn fingerprint(headers: &HeaderMap, body: &[u8]) -> u128 {
    let mut said: Vec<_> = headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-")).collect();
    said.sort_by_key(|(name, _)| name.as_str());
    let mut hash = Xxh3::new();
    for (name, value) in said {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            hash.update(&part.len().to_le_bytes());
            hash.update(part);
        }
    }
    hash.update(&xxh3_128(body).to_le_bytes());
    hash.digest128()
}

async fn store(site: &Site, drafts: Vec<Draft>, key: Option<String>, body: u128) -> Result<Response, Problem> {
    let emits = finish(site, drafts)?;
    let ids: Vec<String> = emits.iter().map(|emit| emit.event.id.clone()).collect();
    let count = site.metrics.counted(&emits);
    let claim = key.as_ref().zip(emits.first()).map(|(key, first)| Claim {
        key: RecordKey::new(&first.event.source, &first.event.kind, key),
        body,
        window: KEY_WINDOW,
    });
    let taken = async {
        match claim {
            _ if emits.is_empty() => Ok(TakenIn::Before),
            Some(claim) => site.intake.take_in(emits, claim).await,
            None => site.bus.publish(emits).await.map(|_| TakenIn::Stored),
        }
    };
    failpoint::reached("ingest.before");
    let taken = failpoint::after("ingest.after", timeout(STORE_TIME, taken).await);
    match taken.map_err(|_| Problem::unanswered())?? {
        TakenIn::Stored => count.now(),
        TakenIn::Before => {}
        TakenIn::OtherBody => return Err(Problem::other_body(key.as_deref().unwrap_or_default())),
    }
    Ok((StatusCode::ACCEPTED, JsonBody(serde_json::json!({ "ids": ids }))).into_response())
}

fn finish(site: &Site, drafts: Vec<Draft>) -> Result<Vec<Emit>, Problem> {
    let defaults = Defaults {
        source: site.source.clone(),
        subject: None,
        correlation_id: None,
        delay: None,
        payload_bytes_max: site.payload_bytes_max,
        streams: site.streams.clone(),
    };
    let (now, several) = (site.clock.now(), drafts.len() > 1);
    let one = |(at, draft): (usize, Draft)| {
        let which = if several { format!("event {}", at + 1) } else { "the event".to_owned() };
        draft.finish(&defaults, now).map_err(|problem| Problem::bad(format!("{which} {problem}")))
    };
    drafts.into_iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let problem = read(Body::from_stream(never), 10).await.expect_err("it never ends");
        assert_eq!(problem.status, StatusCode::REQUEST_TIMEOUT);
        let long = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from("x")));
        let problem = read(Body::from_stream(long), 10).await.expect_err("it is too long");
        assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn keys_are_plain_text_of_some_length() {
        for (sent, expected) in [
            ("k-1", Ok(Some("k-1"))),
            ("\"k 1\"", Ok(Some("k 1"))),
            ("", Err(400)),
            ("\"\"", Err(400)),
            ("   ", Err(400)),
            (&*"k".repeat(255), Ok(Some(&*"k".repeat(255)))),
            (&*"k".repeat(256), Err(400)),
        ] {
            let headers = HeaderMap::from_iter([(KEY, sent.parse().expect("a header's value"))]);
            let read = key(&headers).map_err(|problem| problem.status.as_u16());
            assert_eq!(read, expected.map(|key: Option<&str>| key.map(str::to_owned)), "{sent:?}");
        }
        assert_eq!(key(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn ids_and_fingerprints_tell_apart_what_differs() {
        assert_eq!(id_from("s", "a", "k"), id_from("s", "a", "k"));
        assert_ne!(id_from("s", "a", "k"), id_from("s", "b", "k"));
        assert_ne!(id_from("s", "a", "k"), id_from("t", "a", "k"));
        let headers = |list: &[(&'static str, &'static str)]| -> HeaderMap {
            let parse = |&(name, value)| (HeaderName::from_static(name), axum::http::HeaderValue::from_static(value));
            list.iter().map(parse).collect()
        };
        let said = |list: &[_], body: &[u8]| fingerprint(&headers(list), body);
        let one = said(&[("ce-id", "1"), ("ce-type", "a"), ("date", "now")], b"{}");
        assert_eq!(one, said(&[("ce-type", "a"), ("ce-id", "1"), ("date", "later")], b"{}"));
        assert_ne!(one, said(&[("ce-type", "a"), ("ce-id", "2")], b"{}"));
        assert_ne!(one, said(&[("ce-type", "a"), ("ce-id", "1")], b"[]"));
    }
}
