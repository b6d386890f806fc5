//! What an operator grants: hosts, as they are written in the configuration.
//!
//! Owns the form of a grant, which target it fits, and whether one covers what a handler asks for. Knows no handlers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::target::{Host, Target, check_name};

/// A host that may be called.
#[derive(Clone, PartialEq, Eq)]
pub struct HostGrant {
    text: String,
    /// `None`: https and http.
    tls: Option<bool>,
    pattern: Pattern,
    /// `None`: the usual one.
    port: Option<u16>,
    /// Its name may lead into a private network.
    private: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    /// Every name below this one: `*.shop.example`.
    Below(String),
    Ip(IpAddr),
}

impl fmt::Debug for HostGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.text, if self.private { " (private)" } else { "" })
    }
}

impl HostGrant {
    /// Reads `shop.example`, `https://shop.example:8443`, `*.shop.example`, `10.0.0.7:9000`, `[fd00::7]:9000`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (tls, rest) = match lower.split_once("://") {
            Some(("https", rest)) => (Some(true), rest),
            Some(("http", rest)) => (Some(false), rest),
            Some(_) => return Err("expected https:// or http://, or neither".to_owned()),
            None => (None, lower.as_str()),
        };
        if rest.contains('@') {
            return Err("expected a host without user and password".to_owned());
        }
        if rest.contains(['/', '?', '#']) {
            return Err("expected a host without a path: all of a host is granted, or none".to_owned());
        }
        let (host, port) = split_port(rest)?;
        Ok(Self { text: text.to_owned(), tls, pattern: pattern(host)?, port, private: false })
    }

    /// The same, but its name may lead to private addresses too, and to this machine.
    #[must_use]
    pub fn into_private(self) -> Self {
        Self { private: true, ..self }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether its name may lead into a private network.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether `target` may be called.
    pub fn admits(&self, target: &Target) -> bool {
        let host = match (&self.pattern, &target.host) {
            (Pattern::Name(granted), Host::Name(name)) => granted == name,
            (Pattern::Below(granted), Host::Name(name)) => is_below(name, granted),
            (Pattern::Ip(granted), Host::Ip(ip)) => granted == ip,
            _ => false,
        };
        host && self.tls.is_none_or(|tls| tls == target.tls) && self.port.unwrap_or(usual(target.tls)) == target.port
    }

    /// Whether all that `asked` names is granted by this one.
    pub fn covers(&self, asked: &Self) -> bool {
        let host = match (&self.pattern, &asked.pattern) {
            (Pattern::Below(granted), Pattern::Name(name)) => is_below(name, granted),
            (Pattern::Below(granted), Pattern::Below(name)) => name == granted || is_below(name, granted),
            (granted, asked) => granted == asked,
        };
        let port = |grant: &Self, tls| grant.port.unwrap_or(usual(tls));
        let one = |tls| self.tls.is_none_or(|own| own == tls) && port(self, tls) == port(asked, tls);
        host && match asked.tls {
            Some(tls) => one(tls),
            // Who asks for a host without more gets along with https alone.
            None => one(true) || one(false),
        }
    }

    /// The one of `grants` that lets `target` be called; of several, the one that says most.
    pub fn pick<'a>(grants: &'a [Self], target: &Target) -> Option<&'a Self> {
        let specific = |grant: &&Self| (grant.private, !matches!(grant.pattern, Pattern::Below(_)));
        grants.iter().filter(|grant| grant.admits(target)).max_by_key(specific)
    }
}

fn usual(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn is_below(name: &str, above: &str) -> bool {
    name.strip_suffix(above).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn split_port(rest: &str) -> Result<(&str, Option<u16>), String> {
    if rest.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("expected an IPv6 address in brackets: \"[{rest}]\""));
    }
    let Some((host, port)) = rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
        return Ok((rest, None));
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    port.map(|port| (host, Some(port))).ok_or_else(|| "expected a port from 1 to 65535 after the colon".to_owned())
}

fn pattern(host: &str) -> Result<Pattern, String> {
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let ip = inside.parse::<Ipv6Addr>();
        return ip.map(|ip| Pattern::Ip(ip.into())).map_err(|_| "expected an IPv6 address in the brackets".to_owned());
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Pattern::Ip(ip.into()));
    }
    if !host.is_ascii() {
        return Err(match url::Host::parse(host) {
            Ok(plain) => format!("expected the name in ASCII: {:?}", plain.to_string()),
            Err(_) => "expected a name in ASCII".to_owned(),
        });
    }
    if host == "*" {
        return Err("would grant every host; name the hosts, or what they are below: \"*.shop.example\"".to_owned());
    }
    let below = host.strip_prefix("*.");
    let name = below.unwrap_or(host);
    check_name(name)?;
    // A parser of URLs takes such a name for an address.
    if name.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit())) {
        return Err(format!("expected a name, or an address of four numbers such as 10.0.0.7, got {name:?}"));
    }
    match below {
        Some(name) if !name.contains('.') => Err(format!("would grant every host below {name:?}; name more of it")),
        Some(name) => Ok(Pattern::Below(name.to_owned())),
        None => Ok(Pattern::Name(name.to_owned())),
    }
}
