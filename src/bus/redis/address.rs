//! Where the server is, as it is written: one server, a socket of this machine, or sentinels that know the server.
//!
//! Decides which addresses mean something. Holds what it takes to get in and shows it to nobody; who connects is `link`.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The address of a server: `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS, `unix://PATH`, or
/// `redis+sentinel://[user:password@]host[:port],…/service[/database]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) place: Place,
    pub(super) tls: bool,
    /// Certificates of those who may vouch for a server, PEM; `None`: what the system trusts.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) login: Login,
    /// What sentinels want to know; the servers' own login is another.
    pub(super) sentinel_login: Login,
    pub(super) database: i64,
}

/// Who we say we are.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Server(Node),
    Socket(PathBuf),
    Sentinels { nodes: Vec<Node>, service: String },
}

/// Host, without brackets, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads an address. In user and password, `%40` stands for `@`, and so on.
    ///
    /// # Errors
    /// A text that says what is wrong with it, and never shows a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(HELP)?;
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Login::parse(login)?, rest),
            None => (Login::default(), rest),
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = match scheme {
            "redis" | "rediss" => server(rest)?,
            "unix" => (Place::Socket(decoded(rest)?.into()), None),
            "redis+sentinel" | "rediss+sentinel" => sentinels(rest)?,
            _ => return Err(HELP.to_owned()),
        };
        if matches!(&place, Place::Socket(path) if !path.is_absolute()) {
            return Err("names no socket; write \"unix:///run/redis.sock\"".into());
        }
        let tls = scheme.starts_with("rediss");
        let mut address =
            Self { place, tls, ca_file: None, login, sentinel_login: Login::default(), database: number(database)? };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            address.set(parameter)?;
        }
        Ok(address)
    }

    fn set(&mut self, parameter: &str) -> Result<(), String> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decoded(value)?;
        let (sentinels, socket) = match self.place {
            Place::Sentinels { .. } => (true, false),
            Place::Socket(_) => (false, true),
            Place::Server(_) => (false, false),
        };
        match name {
            "ca_file" if self.tls => self.ca_file = Some(value.into()),
            "ca_file" => return Err("ca_file is for TLS; write \"rediss://\"".into()),
            "sentinel_user" if sentinels => self.sentinel_login.user = Some(value),
            "sentinel_password" if sentinels => self.sentinel_login.password = Some(value),
            "database" if socket => self.database = number(Some(&value))?,
            _ => {
                return Err(format!(
                    "knows no parameter {name:?}; there are ca_file for TLS, sentinel_user and sentinel_password for \
                     sentinels, and database for sockets"
                ));
            }
        }
        Ok(())
    }
}

const HELP: &str = "is no address of a server; write \"redis://localhost:6379\", \"rediss://\" for TLS, \
                    \"redis+sentinel://host,host/service\" or \"unix:///run/redis.sock\"";

/// `host[:port][/database]`
fn server(rest: &str) -> Result<(Place, Option<&str>), String> {
    let (host, database) = rest.split_once('/').map_or((rest, None), |(host, database)| (host, Some(database)));
    if host.contains(',') {
        return Err("names several servers; write \"redis+sentinel://host,host/service\" for sentinels".into());
    }
    Ok((Place::Server(Node::parse(host, PORT)?), database))
}

/// `host[:port],…/service[/database]`
fn sentinels(rest: &str) -> Result<(Place, Option<&str>), String> {
    let mut parts = rest.splitn(3, '/');
    let hosts = parts.next().unwrap_or_default();
    let nodes = hosts.split(',').map(|host| Node::parse(host, SENTINEL_PORT)).collect::<Result<_, _>>()?;
    let service = decoded(parts.next().unwrap_or_default())?;
    if service.is_empty() {
        return Err(
            "does not say which service the sentinels watch; write \"redis+sentinel://host,host/service\"".into()
        );
    }
    Ok((Place::Sentinels { nodes, service }, parts.next()))
}

fn number(database: Option<&str>) -> Result<i64, String> {
    match database {
        None | Some("") => Ok(0),
        Some(text) => {
            let number = text.parse().ok().filter(|number| *number >= 0);
            number.ok_or_else(|| format!("{text:?} is no database; they are numbers: \"redis://localhost:6379/0\""))
        }
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    // Not what it is: it may be a password.
    decoded.map(Into::into).map_err(|_| "has something percent-encoded that is not UTF-8".to_owned())
}

impl Login {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let some = |text: &str| decoded(text).map(|text| (!text.is_empty()).then_some(text));
        let login = Self { user: some(user)?, password: some(password)? };
        if login.user.is_some() && login.password.is_none() {
            return Err(
                "has a user without a password; write \"redis://user:password@host\", or only \":password@\"".into()
            );
        }
        Ok(login)
    }
}

impl Node {
    /// `host`, `host:port` or `[address]:port`
    fn parse(text: &str, port: u16) -> Result<Self, String> {
        let (host, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, rest),
            Some(_) => return Err(format!("{text:?} is no IPv6 address; write \"[::1]:6379\"")),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        if host.is_empty() {
            return Err("names no host; write \"redis://localhost:6379\"".into());
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control() || "[]@?#%\"".contains(c)) {
            return Err(format!("{host:?} is no host"));
        }
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => Some(port),
            None => None,
            Some(number) => number.parse().ok().filter(|port| *port > 0),
        };
        let port = port.ok_or_else(|| {
            format!("{rest:?} is no port; write \"{host}:6379\", and an IPv6 address in brackets: \"[::1]:6379\"")
        })?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Without whatever is nobody's business.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.place {
            Place::Server(node) => write!(f, "{scheme}://{node}/{}", self.database),
            Place::Socket(path) if self.database == 0 => write!(f, "unix://{}", path.display()),
            Place::Socket(path) => write!(f, "unix://{}?database={}", path.display(), self.database),
            Place::Sentinels { nodes, service } => {
                let nodes: Vec<_> = nodes.iter().map(Node::to_string).collect();
                write!(f, "{scheme}+sentinel://{}/{service}/{}", nodes.join(","), self.database)
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(address: &Login) -> (Option<&str>, Option<&str>) {
        (address.user.as_deref(), address.password.as_deref())
    }

    #[test]
    fn what_is_an_address() {
        for (url, shown, user, password) in [
            ("redis://localhost", "redis://localhost:6379/0", None, None),
            ("redis://localhost/", "redis://localhost:6379/0", None, None),
            ("redis://10.0.0.1:6380/2", "redis://10.0.0.1:6380/2", None, None),
            ("redis://[::1]:6380", "redis://[::1]:6380/0", None, None),
            ("redis://[fe80::1]", "redis://[fe80::1]:6379/0", None, None),
            ("redis://my_host", "redis://my_host:6379/0", None, None),
            ("rediss://u:geheim@host/3", "rediss://host:6379/3", Some("u"), Some("geheim")),
            ("rediss://:ge%40h%2feim%25@host", "rediss://host:6379/0", None, Some("ge@h/eim%")),
            ("redis://:ge@h/e?im@host", "redis://host:6379/0", None, Some("ge@h/e?im")),
            ("redis://u%3a:geheim:x@h", "redis://h:6379/0", Some("u:"), Some("geheim:x")),
            ("rediss://h?ca_file=/a%20b.pem", "rediss://h:6379/0", None, None),
            ("unix:///run/redis.sock", "unix:///run/redis.sock", None, None),
            ("unix://:geheim@/r/%40s?database=4", "unix:///r/@s?database=4", None, Some("geheim")),
            ("redis+sentinel://a/main", "redis+sentinel://a:26379/main/0", None, None),
            (
                "redis+sentinel://u:geheim@a:1,[::2]:2,c/my%20main/7?sentinel_password=geheim",
                "redis+sentinel://a:1,[::2]:2,c:26379/my main/7",
                Some("u"),
                Some("geheim"),
            ),
            ("rediss+sentinel://a:1/main?ca_file=x", "rediss+sentinel://a:1/main/0", None, None),
        ] {
            let address = Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(address.to_string(), shown, "{url}");
            assert_eq!(format!("{address:?}"), shown, "{url}");
            assert_eq!(login(&address.login), (user, password), "{url}");
        }
    }

    #[test]
    fn parameters_reach_their_place() {
        let tls = Address::parse("rediss://h?ca_file=/a%20b.pem").expect("it is an address");
        assert_eq!((tls.tls, tls.ca_file), (true, Some("/a b.pem".into())));
        let url = "redis+sentinel://u:p@a/main?sentinel_user=s&sentinel_password=%26";
        let sentinel = Address::parse(url).expect("it is an address");
        assert_eq!(login(&sentinel.sentinel_login), (Some("s"), Some("&")));
        assert_eq!(login(&sentinel.login), (Some("u"), Some("p")));
    }

    #[test]
    fn what_is_none_and_why() {
        for (url, reason) in [
            ("", "write \"redis://localhost:6379\""),
            ("localhost:6379", "write \"redis://localhost:6379\""),
            ("http://localhost", "write \"redis://localhost:6379\""),
            ("redis://", "names no host"),
            ("redis://:geheim@", "names no host"),
            ("redis://:geheim@:6379", "names no host"),
            ("redis://u@h", "a user without a password"),
            ("redis://h:geheim", "is no port"),
            ("redis://h:0", "is no port"),
            ("redis://h:70000", "is no port"),
            ("redis://::1", "names no host"),
            ("redis://fe80::1", "an IPv6 address in brackets"),
            ("redis://[h]:1", "is no IPv6 address"),
            ("redis://[::1]1", "is no port"),
            ("redis://a b", "is no host"),
            ("redis://a,b", "redis+sentinel://"),
            ("redis://h/x", "\"x\" is no database"),
            ("redis://h/-1", "is no database"),
            ("redis://h/0/1", "is no database"),
            ("redis://:%ff@h", "not UTF-8"),
            ("redis://h?insecure", "knows no parameter \"insecure\""),
            ("redis://h?ca_file=x", "write \"rediss://\""),
            ("redis://h?sentinel_password=geheim", "knows no parameter \"sentinel_password\""),
            ("rediss://h#insecure", "is no host"),
            ("unix://run/redis.sock", "names no socket"),
            ("redis+sentinel://a,b", "which service"),
            ("redis+sentinel://a,b/", "which service"),
            ("redis+sentinel://a,,b/main", "names no host"),
            ("redis+sentinel://:geheim@a/main/x", "is no database"),
        ] {
            let error = Address::parse(url).expect_err(url);
            assert!(error.contains(reason), "{url}: {error}");
            assert!(url.contains("h:geheim") || !error.contains("geheim"), "{error}");
        }
    }
}
