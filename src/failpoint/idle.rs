//! The failpoints of a build that has none: nothing.

/// Does nothing.
#[inline(always)]
pub fn reached(_point: &'static str) {}

/// `value`.
#[inline(always)]
pub fn after<T>(_point: &'static str, value: T) -> T {
    value
}

/// `future`.
#[inline(always)]
pub fn during<F: Future>(_point: &'static str, future: F) -> F {
    future
}

/// There is nothing to arm.
///
/// # Errors
/// Never.
pub fn arm() -> Result<(), String> {
    Ok(())
}

/// No variable of the environment means anything.
pub fn is_switch(_variable: &str) -> bool {
    false
}
