//! The one integration binary.

mod scripts;
