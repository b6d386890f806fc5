//! `[http]` and `[metrics]`: where to listen, and who may come in.
//!
//! Decides that nobody is let in from outside without a token.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::raw::Table;
use super::secrets::{self, Secret};

/// Shortest token that is accepted, in bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// `None`: off.
    pub listen: Option<Listen>,
    /// Asked of everybody, but for health and metrics; there is one unless `listen` is loopback.
    pub token: Option<Secret>,
    /// Names by which requests without a token may call us, besides localhost and addresses. In lower case.
    pub hosts: Vec<String>,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Port 0: any that is free.
    pub address: SocketAddr,
    /// Somebody chose it; otherwise it is the default, and another will do.
    pub explicit: bool,
}

/// Reads `[http]`.
pub fn read_http(mut table: Table<'_>, environment: &BTreeMap<String, String>) -> Http {
    let listen = read_listen(&mut table);
    let token = read_token(&mut table, environment);
    let hosts = table.optional_texts("hosts").unwrap_or_default();
    for host in hosts.iter().filter(|host| !is_name(host)) {
        table.note("hosts", format!("{host:?} is no name of a host; write it without port: \"shop.example\""));
    }
    let open = listen.is_some_and(|listen| !listen.address.ip().is_loopback());
    if open && token.is_none() {
        let message = "is open to others without a token; set http.token (MOONTIDE_HTTP_TOKEN, or { file = \"PATH\" }), \
                       or listen on \"127.0.0.1:7100\"";
        table.note("listen", message);
    }
    table.close();
    Http { listen, token, hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect() }
}

/// Reads `[metrics]`: a listener of its own, if there is to be one.
pub fn read_metrics(mut table: Table<'_>) -> Option<Listen> {
    let listen = read_listen(&mut table);
    table.close();
    listen
}

fn read_listen(table: &mut Table<'_>) -> Option<Listen> {
    let explicit = table.is_set("listen");
    let text = table.text("listen");
    if text.is_empty() {
        return None;
    }
    let address = parse_address(&text);
    if address.is_none() {
        let message =
            format!("{text:?} is no address; write an IP address and a port, \"127.0.0.1:7100\", or \"\" for off");
        table.note("listen", message);
    }
    Some(Listen { address: address?, explicit })
}

fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

fn read_token(table: &mut Table<'_>, environment: &BTreeMap<String, String>) -> Option<Secret> {
    let token = secrets::read_optional(table, "token", environment)?;
    let text = token.reveal();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        table.note("token", "must be printable ASCII without spaces, because it travels in a header");
    } else if text.len() < TOKEN_BYTES_MIN {
        table.note(
            "token",
            format!("is too short to be safe; at least {TOKEN_BYTES_MIN} characters: openssl rand -hex 24"),
        );
    }
    Some(token)
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}
