//! The one integration binary: each module tests one promise through the public interface.

mod judge;
mod worker;
mod support;
