//! What the server, or the way to it, can answer instead of a result.
//!
//! Sorts every error into one of a few fates: wait, make room, act, or a group that vanished; and says of each what to do
//! about it. No error of the server is ever an event's fault.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, Value};

use crate::bus::BusError;

/// Why a call has no result.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Not now.
    Away(String),
    /// Not now, and not here: it is no master any more. Another connection may find one that is.
    Elsewhere(String),
    /// No room.
    Full(String),
    /// It does not let us. At the start that is somebody's mistake; later it passes when the mistake is mended.
    Barred(String),
    /// It does not know us, or not any more. As [`Fault::Barred`], and only another connection can be known again.
    Stranger(String),
    /// An operator must act.
    Unusable(String),
    /// What was asked is wrong.
    Refused(String),
    /// The group or the stream is not there.
    NoGroup,
    /// The server does not know the script.
    NoScript,
    /// The bus was closed.
    Closed,
}

impl Fault {
    /// As others see it; `store` names the server.
    pub fn told(self, store: &str) -> BusError {
        let store = store.to_owned();
        match self {
            Self::Away(cause) | Self::Elsewhere(cause) | Self::Barred(cause) | Self::Stranger(cause) => {
                BusError::Away { store, cause }
            }
            Self::NoGroup => BusError::Away { store, cause: "a group vanished and is created again".into() },
            Self::NoScript => {
                BusError::Away { store, cause: "it has forgotten our scripts, and forgets them again".into() }
            }
            Self::Full(cause) => BusError::Full { store, cause },
            Self::Unusable(cause) => BusError::Unusable { store, cause },
            Self::Refused(reason) => BusError::Refused(reason),
            Self::Closed => BusError::Closed,
        }
    }

    /// As others see it while the bus is opened: who is not let in now has to change something first.
    pub fn told_at_start(self, store: &str) -> BusError {
        match self {
            Self::Barred(cause) | Self::Stranger(cause) => BusError::Unusable { store: store.to_owned(), cause },
            other => other.told(store),
        }
    }

    /// What it says of itself.
    pub fn cause(&self) -> String {
        match self.clone().told_at_start("") {
            BusError::Away { cause, .. } | BusError::Full { cause, .. } | BusError::Unusable { cause, .. } => cause,
            other => other.to_string(),
        }
    }

    /// Whether another connection is to be tried.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Elsewhere(_) | Self::Stranger(_))
    }
}

impl From<BusError> for Fault {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Away { cause, .. } => Self::Away(cause),
            BusError::Full { cause, .. } => Self::Full(cause),
            BusError::Unusable { cause, .. } => Self::Unusable(cause),
            BusError::Refused(reason) => Self::Refused(reason),
            BusError::Closed => Self::Closed,
        }
    }
}

/// An answer, unless it is an error.
pub(super) fn checked(value: Value) -> Result<Value, Fault> {
    match value {
        Value::ServerError(error) => Err(of_code(error.code(), error.details().unwrap_or_default())),
        value => Ok(value),
    }
}

/// What an error of the client library means.
pub(super) fn of(error: &RedisError) -> Fault {
    if let Some(code) = error.code() {
        return of_code(code, error.detail().unwrap_or_default());
    }
    match error.kind() {
        ErrorKind::Io => of_io(error),
        ErrorKind::Parse => Fault::Barred(format!(
            "what answers there does not speak Redis' protocol ({error:.120}); look which server has that port, and \
             whether it wants TLS (rediss://)"
        )),
        ErrorKind::InvalidClientConfig => Fault::Unusable(error.to_string()),
        _ => Fault::Away(error.to_string()),
    }
}

/// Nobody to talk to.
fn of_io(error: &RedisError) -> Fault {
    if error.is_timeout() {
        return Fault::Away("it does not answer in time".into());
    }
    // The client library shares its causes.
    let shared = error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let cause = shared.and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData) => Fault::Barred(format!(
            "no TLS with it ({error:.200}); look whether its certificate is for this name, whether ?ca_file= names who \
             signed it, and whether that port is for TLS"
        )),
        Some(io::ErrorKind::PermissionDenied) => Fault::Barred(format!("{error}; look who may use the socket")),
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) | None => {
            Fault::Away(format!("the connection broke ({error})"))
        }
        Some(_) => Fault::Away(error.to_string()),
    }
}

/// What the server's error `code` means; `detail` is what it said besides.
pub(super) fn of_code(code: &str, detail: &str) -> Fault {
    let said = format!("{code} {detail:.200}");
    let away = |what: &str| Fault::Away(format!("{what} ({said})"));
    match code {
        "NOGROUP" | "UNBLOCKED" => Fault::NoGroup,
        "NOSCRIPT" => Fault::NoScript,
        "REFUSED" => Fault::Refused(detail.to_owned()),
        "WRONGTYPE" => Fault::Refused(format!("a key holds something else than it should: {said}")),
        "LOADING" => away("it is still loading its data"),
        "BUSY" => away("somebody's script blocks it; SCRIPT KILL ends one that has not written"),
        "NOREPLICAS" => away("it takes no writes while too few replicas follow; see min-replicas-to-write"),
        "CLUSTERDOWN" | "TRYAGAIN" => away("its cluster is not whole"),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            Fault::Unusable(format!("it is part of a cluster ({said}); use a single server or sentinels"))
        }
        "READONLY" => Fault::Elsewhere(format!("it is a replica and takes no writes; looking for the master ({said})")),
        "MASTERDOWN" => {
            Fault::Elsewhere(format!("it is a replica without its master; looking for the master ({said})"))
        }
        "OOM" => Fault::Full(format!("its memory is used up; raise maxmemory, or remove keys ({said})")),
        "MISCONF" => Fault::Full(format!("it cannot write to its disk; make room there, or see its log ({said})")),
        "NOAUTH" => Fault::Stranger(format!("it wants a password; look at user and password in the address ({said})")),
        "WRONGPASS" => Fault::Stranger(format!("it knows no such user and password; look at the address ({said})")),
        "NOPERM" => Fault::Barred(format!("its ACL does not let us; grant it with ACL SETUSER ({said})")),
        "DENIED" => Fault::Barred(format!("it takes no connections from other machines ({said})")),
        "ERR" => of_plain(detail, &said),
        _ => Fault::Away(said),
    }
}

/// Errors without a code of their own are told apart by their texts.
fn of_plain(detail: &str, said: &str) -> Fault {
    if detail.starts_with("max number of clients") {
        return Fault::Away(format!("it takes no more connections; raise maxclients, or end some ({said})"));
    }
    if detail.starts_with("DB index") || detail.starts_with("invalid DB index") {
        return Fault::Unusable(format!("it has no such database; change the number in the address ({said})"));
    }
    if detail.starts_with("unknown command") {
        return Fault::Barred(format!("it has no such command; it is too old, or the command was renamed ({said})"));
    }
    if detail.starts_with("AUTH <password> called without") {
        return Fault::Stranger(format!("it wants no password; take it out of the address ({said})"));
    }
    if ["can't run this command", "can't access at least one", "ACL failure"].iter().any(|text| detail.contains(text)) {
        return Fault::Barred(format!("its ACL does not let us; grant it with ACL SETUSER ({said})"));
    }
    Fault::Away(said.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a fault: at the start, and later.
    fn fate(code: &str, detail: &str) -> (&'static str, &'static str) {
        let name = |error: BusError| match error {
            BusError::Away { .. } => "wait",
            BusError::Full { .. } => "make room",
            BusError::Unusable { .. } => "act",
            BusError::Refused(_) | BusError::Closed => "refuse",
        };
        let fault = of_code(code, detail);
        (name(fault.clone().told_at_start("it")), name(fault.told("it")))
    }

    #[test]
    fn each_error_has_its_fate_at_the_start_and_later() {
        for (code, detail, at_start, later) in [
            ("LOADING", "", "wait", "wait"),
            ("BUSY", "", "wait", "wait"),
            ("NOREPLICAS", "", "wait", "wait"),
            ("MASTERDOWN", "", "wait", "wait"),
            ("READONLY", "", "wait", "wait"),
            ("CLUSTERDOWN", "", "wait", "wait"),
            ("NOGROUP", "", "wait", "wait"),
            ("UNBLOCKED", "", "wait", "wait"),
            ("NOSCRIPT", "", "wait", "wait"),
            ("ERR", "max number of clients reached", "wait", "wait"),
            ("ERR", "something new", "wait", "wait"),
            ("SOMETHING", "new", "wait", "wait"),
            ("OOM", "", "make room", "make room"),
            ("MISCONF", "", "make room", "make room"),
            ("NOAUTH", "", "act", "wait"),
            ("WRONGPASS", "", "act", "wait"),
            ("NOPERM", "", "act", "wait"),
            ("DENIED", "", "act", "wait"),
            ("ERR", "unknown command 'FUNCTION'", "act", "wait"),
            ("ERR", "AUTH <password> called without any password configured", "act", "wait"),
            ("ERR", "The user executing the script can't run this command or subcommand", "act", "wait"),
            ("ERR", "ACL failure in script: User u has no permissions", "act", "wait"),
            ("MOVED", "1 127.0.0.1:1", "act", "act"),
            ("ERR", "DB index is out of range", "act", "act"),
            ("REFUSED", "stream \"x\" belongs to the host", "refuse", "refuse"),
        ] {
            assert_eq!(fate(code, detail), (at_start, later), "{code} {detail}");
        }
    }

    #[test]
    fn only_another_connection_helps_where_this_one_is_at_the_wrong_place_or_unknown() {
        for code in ["READONLY", "MASTERDOWN", "NOAUTH", "WRONGPASS"] {
            assert!(of_code(code, "").ends_connection(), "{code}");
        }
        for code in ["LOADING", "BUSY", "OOM", "MISCONF", "NOPERM", "NOGROUP", "NOSCRIPT", "NOREPLICAS"] {
            assert!(!of_code(code, "").ends_connection(), "{code}");
        }
    }
}
