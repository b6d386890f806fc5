//! Dead letters: `GET /admin/dlq`, `GET /admin/dlq/{id}`, `POST /admin/dlq/reprocess/{id}`.
//!
//! Looking changes nothing. What does is a POST that no form and no script of another site can make: it comes without a body
//! or with JSON, and from no foreign origin (`guard`).

use std::sync::Arc;
use std::time::Duration;

use axum::Json as JsonBody;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::Site;
use super::attributes::is_json;
use super::guard::one;
use super::problem::Problem;
use crate::bus::{BusError, DeadFilter, DeadId, DeadReason, Replayed};
use crate::clock::rfc3339;
use crate::letter::{Detail, Summary};

/// Time for the store to answer.
const STORE_TIME: Duration = Duration::from_secs(10);
/// Time for a request's body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Longest body: `{}` with room around it.
const BODY_BYTES_MAX: usize = 256;
/// Letters in an answer, where nobody says how many.
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 200;
/// An answer ends with the letter that makes it larger.
const ANSWER_BYTES: usize = 1 << 20;
/// Letters that are asked for at once: each may be as large as an event.
const STEP: usize = 20;
/// Listings that are put together at a time; the others wait.
pub const LISTINGS_MAX: usize = 4;

/// `GET /admin/dlq`
pub async fn list(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Problem> {
    let filter = filter(request.uri().query().unwrap_or_default())?;
    let body = timeout(STORE_TIME, listing(&site, filter)).await.map_err(|_| unanswered())??;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response())
}

/// Letters as a JSON array, until there are `filter.limit` or it is large.
async fn listing(site: &Site, mut filter: DeadFilter) -> Result<Vec<u8>, BusError> {
    let _turn = site.listings.acquire().await;
    let mut body = b"[".to_vec();
    let mut left = filter.limit;
    while left > 0 && body.len() < ANSWER_BYTES {
        filter.limit = left.min(STEP);
        let letters = site.dead.list(filter.clone()).await?;
        let is_last = letters.len() < filter.limit;
        for letter in &letters {
            if body.len() >= ANSWER_BYTES {
                break;
            }
            let comma: &[u8] = if body.len() > 1 { b",\n" } else { b"" };
            body.extend_from_slice(comma);
            serde_json::to_writer(&mut body, &Summary::of(letter)).expect("memory can be written to");
        }
        left = if is_last { 0 } else { left - letters.len() };
        filter.after = letters.last().map(|letter| letter.id);
    }
    body.push(b']');
    Ok(body)
}

/// Reads `handler=…&reason=…&after=…&limit=…`.
fn filter(query: &str) -> Result<DeadFilter, Problem> {
    let mut filter = DeadFilter { limit: LIMIT, ..DeadFilter::default() };
    let mut said = Vec::new();
    for (name, value) in
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        if said.contains(&name) {
            return Err(Problem::bad(format!("asks for {name} twice")));
        }
        said.push(name);
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8();
        let value = value.map_err(|_| Problem::bad(format!("asks for a {name} that is no UTF-8")))?;
        let wrong = |right: &str| Problem::bad(format!("asks for {name}={value}; {right}"));
        match name {
            "handler" => filter.handler = Some(value.into_owned()),
            "reason" => {
                let names = || DeadReason::names().collect::<Vec<_>>().join(", ");
                filter.reason =
                    Some(DeadReason::parse(&value).ok_or_else(|| wrong(&format!("reasons are {}", names())))?);
            }
            "after" => filter.after = Some(value.parse().map_err(|_| wrong("say the id of a dead letter"))?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                filter.limit =
                    limit.ok_or_else(|| wrong(&format!("a number from 1 to {LIMIT_MAX} can be asked for")))?;
            }
            _ => return Err(Problem::bad(format!("asks for {name}; there are handler, reason, after, limit"))),
        }
    }
    Ok(filter)
}

/// `GET /admin/dlq/{id}`
pub async fn get(State(site): State<Arc<Site>>, id: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let id = number(id)?;
    let found = timeout(STORE_TIME, site.dead.get(id)).await.map_err(|_| unanswered())??;
    let letter = found.ok_or_else(|| missing(&id.to_string()))?;
    Ok(([(CACHE_CONTROL, "no-store")], JsonBody(Detail::of(&letter))).into_response())
}

/// `POST /admin/dlq/reprocess/{id}`
pub async fn reprocess(
    State(site): State<Arc<Site>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let id = number(id)?;
    let (parts, body) = request.into_parts();
    refuse_options(&parts.headers, body).await?;
    let replayed = timeout(STORE_TIME, site.dead.replay(id)).await.map_err(|_| unanswered())?;
    let stream = match replayed {
        Ok(Replayed::Queued) => None,
        Ok(Replayed::PutBack { stream }) => Some(stream),
        Ok(Replayed::Missing) => return Err(missing(&id.to_string())),
        Ok(Replayed::Underway(since)) => {
            return Err(Problem::conflict(format!("dead letter {id} is on its way already, since {}", rfc3339(since))));
        }
        Err(BusError::Refused(reason)) => return Err(Problem::conflict(reason)),
        Err(error) => return Err(error.into()),
    };
    let answer = serde_json::json!({ "id": id.to_string(), "stream": stream });
    Ok((StatusCode::ACCEPTED, JsonBody(answer)).into_response())
}

fn number(id: Result<Path<String>, PathRejection>) -> Result<DeadId, Problem> {
    let Path(id) = id.map_err(|_| Problem::bad("the id in the path is no UTF-8"))?;
    id.parse().map_err(|_| missing(&id))
}

fn missing(id: &str) -> Problem {
    Problem::not_found(&format!("there is no dead letter {id}; GET /admin/dlq lists those that there are"))
}

fn unanswered() -> Problem {
    Problem::silent("the store did not answer in time; GET /admin/dlq/ID says what became of it")
}

/// Nothing can be said besides which one. A form says a type of content that is not JSON, even where it says nothing else.
async fn refuse_options(headers: &HeaderMap, body: Body) -> Result<(), Problem> {
    const RIGHT: &str = "send no body, or {} as application/json";
    let kind = one(headers, &CONTENT_TYPE)?;
    if let Some(kind) = kind.filter(|kind| !is_json(kind)) {
        return Err(Problem::media_type(format!("{kind} is not taken; {RIGHT}")));
    }
    let body = timeout(BODY_TIME, to_bytes(body, BODY_BYTES_MAX)).await.map_err(|_| Problem::slow())?;
    let body = body.map_err(|_| Problem::bad(format!("the body is too long, or broke off; {RIGHT}")))?;
    if body.is_empty() {
        return Ok(());
    }
    if kind.is_none() {
        return Err(Problem::media_type(format!("has a body without Content-Type; {RIGHT}")));
    }
    match serde_json::from_slice(&body) {
        Ok(serde_json::Value::Object(options)) if options.is_empty() => Ok(()),
        _ => Err(Problem::bad(format!("there are no options; {RIGHT}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::DeathReason;

    #[test]
    fn a_query_is_read_strictly() {
        let read = filter("handler=billing%2Fcharge&reason=rejected&after=17&limit=200").expect("it is right");
        assert_eq!(read.handler.as_deref(), Some("billing/charge"));
        assert_eq!((read.reason, read.after), (Some(DeathReason::Rejected.into()), Some(DeadId(17))));
        assert_eq!(read.limit, 200);
        let read = filter("after=1705319400000-0&reason=foreign").expect("it is right");
        assert_eq!(
            (read.after.map(|id| id.entry().0), read.reason),
            (Some(1_705_319_400_000), Some(DeadReason::Foreign))
        );
        assert_eq!((read.handler, read.limit), (None, LIMIT));
        assert_eq!(filter("handler=a+b").expect("it is right").handler.as_deref(), Some("a b"));
        for wrong in
            ["limit=0", "limit=201", "limit=", "limit=1&limit=2", "reason=no", "after=x", "handler=%ff", "page=2"]
        {
            assert_eq!(filter(wrong).expect_err("it is wrong").status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[tokio::test]
    async fn only_what_no_page_can_send_is_taken() {
        let json = Some("application/json");
        for (kind, body, expected) in [
            (None, "", 200),
            (json, "", 200),
            (json, " {} ", 200),
            (json, "null", 400),
            (json, "{\"force\":true}", 400),
            (json, "{", 400),
            (None, "{}", 415),
            (Some("text/plain"), "{}", 415),
            (Some("application/x-www-form-urlencoded"), "", 415),
            (Some("multipart/form-data"), "", 415),
        ] {
            let headers = kind.map(|kind| (CONTENT_TYPE, kind.parse().expect("it is a header's value")));
            let taken = refuse_options(&headers.into_iter().collect(), Body::from(body)).await;
            assert_eq!(taken.map_or_else(|problem| problem.status.as_u16(), |()| 200), expected, "{kind:?} {body:?}");
        }
        let long = refuse_options(&HeaderMap::new(), Body::from(" ".repeat(BODY_BYTES_MAX + 1))).await;
        assert_eq!(long.expect_err("it is too long").status, StatusCode::BAD_REQUEST);
    }
}
