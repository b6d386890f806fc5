//! The handlers folder where file events do not tell all.
