//! What can go wrong in the store, and what it means to a caller.
//!
//! Decides which of SQLite's results are passing, which mean "no room" and which need an operator. Inside the store work
//! fails with a [`Fault`]; only here it becomes a [`BusError`] that names the file.

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::bus::BusError;

/// Why a piece of work did not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unusable(String),
}

impl Fault {
    /// Whether the store as a whole is in trouble, and not only the statement at hand.
    pub(super) fn is_environment(&self) -> bool {
        match self {
            Self::Sql(error) => !matches!(
                error.sqlite_error_code(),
                None | Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch)
            ),
            Self::Io(_) | Self::Unusable(_) => true,
            Self::Refused(_) => false,
        }
    }

    /// Whether only writing shows it: no room, or a disk that fails.
    pub(super) fn shows_in_writing(&self) -> bool {
        match self {
            Self::Sql(error) => {
                matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
            }
            _ => false,
        }
    }

    /// What a caller is told; `store` names the file.
    pub(super) fn told(&self, store: &str) -> BusError {
        let store = store.to_owned();
        match self {
            Self::Refused(reason) => BusError::Refused(reason.clone()),
            Self::Unusable(cause) => BusError::Unusable { store, cause: cause.clone() },
            Self::Io(error) => from_io(store, error),
            Self::Sql(error) => from_sql(store, error),
        }
    }
}

fn from_io(store: String, error: &std::io::Error) -> BusError {
    use std::io::ErrorKind as Kind;
    let cause = error.to_string();
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => BusError::Full { store, cause },
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::NotADirectory | Kind::NotFound => {
            BusError::Unusable { store, cause: format!("{cause}; check the path and its permissions") }
        }
        _ => BusError::Away { store, cause },
    }
}

fn from_sql(store: String, error: &rusqlite::Error) -> BusError {
    let text = error.to_string();
    let unusable = |cause: String| BusError::Unusable { store: store.clone(), cause };
    if error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE) {
        return BusError::Full { store, cause: "no room beside it for what its connections share".into() };
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
            BusError::Refused(format!("{store} does not take it: {text}"))
        }
        Some(ErrorCode::DiskFull) => BusError::Full { store, cause: text },
        Some(ErrorCode::NotADatabase) => {
            unusable("it is not a SQLite database; name another file, or move this one away".into())
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            unusable(format!("{text}; restore a backup, or save what is readable with `sqlite3 FILE .recover`"))
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            unusable(format!("{text}; make the file and its folder writable"))
        }
        Some(ErrorCode::CannotOpen) => unusable(format!("{text}; check the path and its permissions")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            BusError::Away { store, cause: format!("{text}; another program holds a write lock on it") }
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted) => {
            BusError::Away { store, cause: text }
        }
        _ => unusable(text),
    }
}
