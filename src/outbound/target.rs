//! Where a call goes: an address of the web, taken apart.
//!
//! Owns that a host is written in one way only. A parser turns `0x7f.1`, `2130706433` and `①.example` into something else
//! than what people read; here such a text is refused and the plain form is shown.

use std::fmt;
use std::net::IpAddr;

use url::Url;

/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 8 * 1024;

/// A host as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Lower case, without a dot at its end.
    Name(String),
    Ip(IpAddr),
}

/// A checked URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub url: Url,
    pub host: Host,
    pub port: u16,
    pub tls: bool,
}

impl Target {
    /// Reads a URL; what is wrong with it is said without its path, which may hold secrets.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > URL_BYTES_MAX {
            return Err(format!("expected at most {URL_BYTES_MAX} bytes, got {}", text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("expected a URL without spaces, line breaks and backslashes".to_owned());
        }
        let (scheme, rest) = text.split_once("://").ok_or("expected a URL such as \"https://shop.example/orders\"")?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err("expected a URL that begins with https:// or http://".to_owned());
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err("expected no user or password in the URL; write headers = { authorization = … }".to_owned());
        }
        let url = Url::parse(text).map_err(|error| format!("expected a URL, but of this one: {error}"))?;
        let target = Self::of(url)?;
        let shown = target.host.to_string();
        let written = without_port(authority);
        match written.eq_ignore_ascii_case(&shown) {
            true => Ok(target),
            false => Err(format!("expected the host in its plain form, {shown:?}, got {written:?}")),
        }
    }

    fn of(url: Url) -> Result<Self, String> {
        let host = match url.host() {
            Some(url::Host::Ipv4(ip)) => Host::Ip(ip.into()),
            Some(url::Host::Ipv6(ip)) => Host::Ip(ip.into()),
            Some(url::Host::Domain(name)) => Host::Name(check_name(name).map(|()| name.to_owned())?),
            None => return Err("expected a URL with a host".to_owned()),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("expected a port from 1 to 65535")?;
        Ok(Self { tls: url.scheme() == "https", url, host, port })
    }

    /// Where `location`, an answer's header, leads from here.
    ///
    /// # Errors
    /// Why nobody goes there.
    pub fn follow(&self, location: &str) -> Result<Self, String> {
        let joined = self.url.join(location).map_err(|error| format!("to what is no URL: {error}"))?;
        let next = match joined.origin() == self.url.origin() && joined.username().is_empty() {
            true => Self::of(joined),
            false if location.starts_with("//") => Self::parse(&format!("{}:{location}", self.url.scheme())),
            false => Self::parse(location),
        };
        let next = next.map_err(|why| format!("to what is no place: {why}"))?;
        match self.tls && !next.tls {
            true => Err(format!("from https to http, at {}", next.place())),
            false => Ok(next),
        }
    }

    /// Whether both are the same service.
    pub fn is_same_service(&self, other: &Self) -> bool {
        self.tls == other.tls && self.host == other.host && self.port == other.port
    }

    /// Scheme, host and port: what may be shown of it.
    pub fn place(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let usual = if self.tls { 443 } else { 80 };
        match self.port == usual {
            true => format!("{scheme}://{}", self.host),
            false => format!("{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// What stands before the port, if there is one.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

/// Whether `name`, in lower case, can be the name of a host.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.ends_with('.') {
        return Err(format!("expected a name without a dot at its end, got {name:?}"));
    }
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(fits);
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(()),
        false => Err(format!("expected a host name of letters, digits, - and dots, got {name:?}")),
    }
}
