//! `docs/reliability.md`, written from the records of the last runs.
