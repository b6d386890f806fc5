//! The integration tests, in one binary.

mod conformance;
mod kills;
mod sqlite;
