//! What follows an answer that redirects.
//!
//! Owns that credentials do not leave the service they are for, and that nobody is led from https to http. Sends nothing.

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION,
    USER_AGENT,
};
use reqwest::{Method, StatusCode};

use super::target::Target;

/// Most redirects that one call follows.
pub(super) const REDIRECTS_MAX: usize = 5;

/// What another service gets to see: nothing that could be a credential, whatever its name.
const FOR_OTHERS: [HeaderName; 5] = [ACCEPT, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_TYPE, USER_AGENT];
/// What says that it is the same call, and belongs to which trace: no secret.
pub(super) const OURS: [&str; 2] = ["idempotency-key", "traceparent"];

/// One request of a call.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    pub method: Method,
    pub target: Target,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

impl Hop {
    /// The request that an answer leads to; `None`: it does not redirect.
    ///
    /// # Errors
    /// Why nobody goes there.
    pub fn after(&self, status: StatusCode, headers: &HeaderMap) -> Result<Option<Self>, String> {
        let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = headers.get(LOCATION).filter(|_| redirects) else { return Ok(None) };
        let location = location.to_str().map_err(|_| "to what is no URL".to_owned())?;
        let target = self.target.follow(location)?;
        let mut next = Self { target, ..self.clone() };
        let becomes_get = match status.as_u16() {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            (next.method, next.body) = (Method::GET, None);
            [CONTENT_TYPE, CONTENT_LANGUAGE, CONTENT_LENGTH].iter().for_each(|name| drop(next.headers.remove(name)));
        }
        if !self.target.is_same_service(&next.target) {
            next.headers = for_others(&next.headers);
        }
        Ok(Some(next))
    }
}

fn for_others(headers: &HeaderMap) -> HeaderMap {
    let may = |name: &HeaderName| FOR_OTHERS.contains(name) || OURS.contains(&name.as_str());
    headers.iter().filter(|(name, _)| may(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}
