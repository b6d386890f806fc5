//! Where an answer may lead, and what goes along.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode};

use super::super::redirect::Hop;
use super::target;

fn hop(method: Method, url: &str) -> Hop {
    let mut headers = HeaderMap::new();
    for name in [
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-api-key",
        "x-token",
        "accept",
        "content-type",
        "user-agent",
        "idempotency-key",
        "traceparent",
    ] {
        headers.insert(name, HeaderValue::from_static("given"));
    }
    Hop { method, target: target(url), headers, body: Some(Bytes::from_static(b"{}")) }
}

fn after(hop: &Hop, status: u16, location: &str) -> Result<Option<Hop>, String> {
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, HeaderValue::from_bytes(location.as_bytes()).expect("one line"));
    hop.after(StatusCode::from_u16(status).expect("a status"), &headers)
}

#[test]
fn a_redirect_leads_to_a_place_that_is_plain_to_see() {
    for (from, location, expected) in [
        ("https://shop.example/a/b", "c", Some("https://shop.example/a/c")),
        ("https://shop.example/a/b", "/c?x=1", Some("https://shop.example/c?x=1")),
        ("https://shop.example/a/b", "../c", Some("https://shop.example/c")),
        ("https://shop.example/a", "?x=1", Some("https://shop.example/a?x=1")),
        ("https://shop.example/a", "https://shop.example/b", Some("https://shop.example/b")),
        ("https://shop.example/a", "//other.example/b", Some("https://other.example/b")),
        ("https://shop.example/a", "https://other.example:8443/b", Some("https://other.example:8443/b")),
        ("http://shop.example/a", "https://shop.example/a", Some("https://shop.example/a")),
        ("http://shop.example/a", "http://127.0.0.1:80/a", Some("http://127.0.0.1/a")),
        ("https://shop.example/a", "http://shop.example/a", None),
        ("https://shop.example/a", "http://other.example/a", None),
        ("https://shop.example/a", "https://0x7f.1/", None),
        ("https://shop.example/a", "//0x7f.1/", None),
        ("https://shop.example/a", "//2130706433", None),
        ("https://shop.example/a", "https://me:pw@other.example/", None),
        ("https://shop.example/a", "https://me:pw@shop.example/", None),
        ("https://shop.example/a", "\\\\other.example\\b", None),
        ("https://shop.example/a", "/\\other.example/b", None),
        ("https://shop.example/a", "https:other.example", Some("https://shop.example/other.example")),
        ("https://shop.example/a", "file:///etc/passwd", None),
        ("https://shop.example/a", "gopher://127.0.0.1:6379/_x", None),
        ("https://shop.example/a", "data:text/plain,x", None),
        ("https://shop.example/a", "javascript:alert(1)", None),
        ("https://shop.example/a", "https://", None),
        ("https://shop.example/a", "https://other.example./", None),
        ("https://shop.example/a", "https://other.example:0/", None),
    ] {
        let next = after(&hop(Method::GET, from), 302, location);
        let to = next.ok().flatten().map(|next| next.target.url.to_string());
        assert_eq!(to.as_deref(), expected, "{location:?} from {from}");
    }
}

#[test]
fn credentials_stay_with_the_service_they_are_for() {
    let names = |hop: &Hop| hop.headers.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    let from = hop(Method::GET, "https://shop.example/a");
    let next = after(&from, 307, "/b").expect("it leads somewhere").expect("it redirects");
    assert_eq!(names(&next), names(&from), "the same service gets everything");
    for other in ["https://other.example/", "https://shop.example:8443/", "https://a.shop.example/"] {
        let next = after(&from, 307, other).expect("it leads somewhere").expect("it redirects");
        let mut left = names(&next);
        left.sort();
        assert_eq!(left, ["accept", "content-type", "idempotency-key", "traceparent", "user-agent"], "{other}");
    }
}

#[test]
fn what_is_sent_on_depends_on_the_status() {
    for (method, status, expected) in [
        (Method::POST, 301, Some((Method::GET, false))),
        (Method::POST, 302, Some((Method::GET, false))),
        (Method::POST, 303, Some((Method::GET, false))),
        (Method::PUT, 303, Some((Method::GET, false))),
        (Method::PUT, 302, Some((Method::PUT, true))),
        (Method::HEAD, 303, Some((Method::HEAD, true))),
        (Method::POST, 307, Some((Method::POST, true))),
        (Method::POST, 308, Some((Method::POST, true))),
        (Method::POST, 200, None),
        (Method::POST, 304, None),
        (Method::POST, 300, None),
        (Method::POST, 400, None),
    ] {
        let next = after(&hop(method.clone(), "https://shop.example/a"), status, "/b").expect("it leads somewhere");
        let next = next.map(|next| (next.method, next.body.is_some()));
        assert_eq!(next, expected, "{method} {status}");
    }
    let from = hop(Method::GET, "https://shop.example/a");
    let silent = from.after(StatusCode::FOUND, &HeaderMap::new()).expect("it leads nowhere");
    assert!(silent.is_none(), "without Location it is an answer like any other");
}
