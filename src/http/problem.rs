//! Refusals: problem documents (RFC 9457), one for each way in which a request can fail.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::bus::BusError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// Seconds after which the same request may work.
    pub retry_after: Option<u32>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    fn later(status: StatusCode, detail: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(status, detail) }
    }

    /// The request itself is wrong.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The token is missing or wrong.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "send the token: Authorization: Bearer …")
    }

    /// It comes from a page of another site.
    pub fn foreign_origin(origin: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, format!("comes from a page of {origin:?}; only pages of this host may ask"))
    }

    /// It calls us by a name that is not ours.
    pub fn foreign_host(host: &str) -> Self {
        let detail = format!("calls for {host:?}; call localhost or the address, send a token, or set http.hosts");
        Self::new(StatusCode::MISDIRECTED_REQUEST, detail)
    }

    pub fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn wrong_method(detail: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// The body did not come in time.
    pub fn slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time; send it at once")
    }

    /// The body is larger than `bytes_max`.
    pub fn large(bytes_max: usize) -> Self {
        let detail = format!("the body is larger than limits.payload = {bytes_max} bytes; send less, or references");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// The content is nothing that is taken here.
    pub fn media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// The idempotency key stands for another body.
    pub fn other_body(key: &str) -> Self {
        let detail = format!("the Idempotency-Key {key:?} was used for other content; use a new key for a new event");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// Too much at a time.
    pub fn busy() -> Self {
        Self::later(StatusCode::TOO_MANY_REQUESTS, "too much is being sent at once; nothing was stored", 1)
    }

    /// The store did not answer in time; nobody knows whether it will still do what it was asked.
    pub fn unanswered() -> Self {
        let detail = "the store did not answer in time, and may store it later; with an Idempotency-Key, or an id of \
                      your own, sending again is safe";
        Self::silent(detail)
    }

    /// The store did not answer in time.
    pub fn silent(detail: &str) -> Self {
        Self::later(StatusCode::SERVICE_UNAVAILABLE, detail, 5)
    }

    /// It cannot be done as things stand.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// A defect of ours.
    pub fn defect(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl From<BusError> for Problem {
    fn from(error: BusError) -> Self {
        let seconds = match &error {
            BusError::Refused(reason) => return Self::bad(reason.clone()),
            BusError::Full { .. } => 10,
            BusError::Away { .. } | BusError::Closed => 1,
            BusError::Unusable { .. } => 30,
        };
        Self::later(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), seconds)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("refused"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = (self.status, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_in_trouble_is_no_fault_of_the_client() {
        let (store, cause) = (|| "sqlite:x".to_owned(), || "why".to_owned());
        for (error, status, retry_after) in [
            (BusError::Full { store: store(), cause: cause() }, 503, Some(10)),
            (BusError::Away { store: store(), cause: cause() }, 503, Some(1)),
            (BusError::Closed, 503, Some(1)),
            (BusError::Unusable { store: store(), cause: cause() }, 503, Some(30)),
            (BusError::Refused(cause()), 400, None),
        ] {
            let problem = Problem::from(error);
            assert_eq!((problem.status.as_u16(), problem.retry_after), (status, retry_after), "{problem:?}");
        }
    }
}
