//! Who may come in: the token, and no web page that somebody has open.
//!
//! A page can make a browser call this machine, by its address or by a name that it points here (DNS rebinding). It cannot
//! send a token that it does not know, and it cannot hide by which name it called or that it is a page. Hence: a token
//! where one is set; without one only names that cannot be pointed elsewhere; and never an origin but our own.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::problem::Problem;
use super::{Rules, Site};

/// Open to everybody who can reach us.
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// Lets a request pass, or refuses it.
pub async fn admit(State(site): State<Arc<Site>>, request: Request, next: Next) -> Result<Response, Problem> {
    check(&site.rules, &request)?;
    Ok(next.run(request).await)
}

fn check<B>(rules: &Rules, request: &axum::http::Request<B>) -> Result<(), Problem> {
    let headers = request.headers();
    let called = called(request)?;
    if let Some(origin) = one(headers, &ORIGIN)? {
        let host = origin.split_once("://").map(|(_, host)| host);
        if host.is_none() || host != called.as_ref().map(Authority::as_str) {
            return Err(Problem::foreign_origin(origin));
        }
    }
    let authentic = rules.token.as_ref().is_some_and(|token| carries(headers, token.reveal()));
    let open = OPEN.contains(&request.uri().path());
    if let Some(called) = called
        && !authentic
        && (!open || rules.loopback)
        && !is_ours(rules, called.host())
    {
        return Err(Problem::foreign_host(called.host()));
    }
    if rules.token.is_some() && !authentic && !open {
        return Err(Problem::unauthorized());
    }
    Ok(())
}

/// By which name we were called. A client of HTTP/1.0 need not say; it is no browser.
fn called<B>(request: &axum::http::Request<B>) -> Result<Option<Authority>, Problem> {
    let host = one(request.headers(), &HOST)?;
    let named = match (request.uri().authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => {
            host.parse().map_err(|_| Problem::bad(format!("has the Host {host:?}, which is none")))?
        }
        (None, None) if request.version() == Version::HTTP_10 => return Ok(None),
        (None, None) => return Err(Problem::bad("has no Host")),
    };
    Ok(Some(named))
}

fn is_ours(rules: &Rules, host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    bare == "localhost" || bare.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok() || rules.hosts.contains(&bare)
}

fn carries(headers: &HeaderMap, token: &str) -> bool {
    let Some((scheme, sent)) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && bool::from(sent.trim().as_bytes().ct_eq(token.as_bytes()))
}

/// The value of a header that may come once.
pub fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad(format!("has the header {name} twice")));
    }
    let text = std::str::from_utf8(value.as_bytes());
    text.map(Some).map_err(|_| Problem::bad(format!("has the header {name} with bytes that are no text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &[&str]) -> Rules {
        Rules { token: None, hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), loopback: true }
    }

    fn status(rules: &Rules, headers: &[(&str, &str)]) -> u16 {
        let request = axum::http::Request::builder().uri("/handlers");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).expect("the request is well-formed");
        check(rules, &request).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_names_that_nobody_can_point_here_are_ours() {
        let rules = rules(&["moon.example"]);
        for (host, expected) in [
            ("localhost:7100", 200),
            ("LOCALHOST", 200),
            ("localhost.:7100", 200),
            ("app.localhost", 200),
            ("127.0.0.1:7100", 200),
            ("[::1]:7100", 200),
            ("10.1.2.3", 200),
            ("Moon.Example:80", 200),
            ("evil.example:7100", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost@evil.example", 421),
            ("a b", 400),
            ("", 400),
        ] {
            assert_eq!(status(&rules, &[("host", host)]), expected, "{host:?}");
        }
        assert_eq!(status(&rules, &[]), 400);
        assert_eq!(status(&rules, &[("host", "localhost"), ("host", "localhost")]), 400);
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for (origin, expected) in [
            ("http://localhost:7100", 200),
            ("http://localhost:8080", 403),
            ("https://evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            assert_eq!(status(&rules(&[]), &[("host", "localhost:7100"), ("origin", origin)]), expected, "{origin:?}");
        }
    }
}
