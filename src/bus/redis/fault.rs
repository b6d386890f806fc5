//! What the server, or the way to it, can answer instead of a result.
//!
//! Sorts every error into one of a few fates: wait, make room, act, or a group that vanished. No error of the server is
//! ever an event's fault.

use redis::{ErrorKind, RedisError};

use crate::bus::BusError;

/// Why a call has no result.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Not now.
    Away(String),
    /// No room.
    Full(String),
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
            Self::Away(cause) => BusError::Away { store, cause },
            Self::NoGroup => BusError::Away { store, cause: "a group vanished".into() },
            Self::NoScript => BusError::Away { store, cause: "it has forgotten our scripts".into() },
            Self::Full(cause) => BusError::Full { store, cause },
            Self::Unusable(cause) => BusError::Unusable { store, cause },
            Self::Refused(reason) => BusError::Refused(reason),
            Self::Closed => BusError::Closed,
        }
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

/// What an error of the client library means.
pub(super) fn of(error: &RedisError) -> Fault {
    let text = error.to_string();
    match (error.kind(), error.code()) {
        (ErrorKind::Server(_) | ErrorKind::Extension, Some(code)) => of_code(code, error.detail().unwrap_or(&text)),
        (ErrorKind::AuthenticationFailed, _) => Fault::Unusable(format!("{text}; check user and password")),
        (ErrorKind::InvalidClientConfig, _) => Fault::Unusable(text),
        _ => Fault::Away(text),
    }
}

/// What the server's error `code` means; `detail` is what it said besides.
pub(super) fn of_code(code: &str, detail: &str) -> Fault {
    let text = format!("{code} {detail}");
    match code {
        "NOGROUP" | "UNBLOCKED" => Fault::NoGroup,
        "NOSCRIPT" => Fault::NoScript,
        "REFUSED" => Fault::Refused(detail.to_owned()),
        "OOM" => Fault::Full(text),
        "MISCONF" => Fault::Full(text),
        "WRONGPASS" | "NOAUTH" | "NOPERM" => Fault::Unusable(text),
        _ => Fault::Away(text),
    }
}
