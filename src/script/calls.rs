//! What a run has called outside, and how much of that it may.
//!
//! Owns the number that a call has within its run, or within the step that it is made in: the same in every attempt,
//! whichever steps are skipped there. Calls nobody.

use std::sync::Arc;

use super::Limits;
use super::buffer::OverLimit;

#[derive(Default)]
pub(super) struct Calls {
    /// The step that runs, and how many calls it has made; `None`: the run is outside of all steps.
    step: Option<(Arc<str>, u32)>,
    /// Calls outside of all steps.
    outside: u32,
    made: usize,
    bytes: usize,
}

impl Calls {
    /// One more call, with a body of so many bytes; answers its number, from 1.
    pub fn begin(&mut self, body: usize, limits: &Limits) -> Result<u32, OverLimit> {
        OverLimit::check(self.made, "limits.calls", limits.calls_max)?;
        if body > self.bytes_left(limits) {
            return Err(Self::over_bytes(limits));
        }
        self.made += 1;
        self.bytes += body;
        let number = self.step.as_mut().map_or(&mut self.outside, |(_, calls)| calls);
        *number += 1;
        Ok(*number)
    }

    /// From now on calls belong to the step `name`.
    pub fn begin_step(&mut self, name: Arc<str>) {
        self.step = Some((name, 0));
    }

    /// The step that runs.
    pub fn step(&self) -> Option<&str> {
        self.step.as_ref().map(|(name, _)| &**name)
    }

    /// From now on calls belong to no step; answers which one it was.
    pub fn end_step(&mut self) -> Option<Arc<str>> {
        self.step.take().map(|(name, _)| name)
    }

    /// The answer's body had so many bytes.
    pub fn end(&mut self, body: usize) {
        self.bytes += body;
    }

    /// What the next body may have.
    pub fn bytes_left(&self, limits: &Limits) -> usize {
        limits.call_bytes_max.saturating_sub(self.bytes)
    }

    /// The bodies of a run's calls are too much together.
    pub fn over_bytes(limits: &Limits) -> OverLimit {
        OverLimit { name: "limits.call_bytes", max: limits.call_bytes_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_same_number_whichever_steps_ran_before() {
        let (mut calls, limits) = (Calls::default(), Limits::default());
        let mut begin = |step: Option<&str>| {
            if step != calls.step() {
                calls.end_step();
                step.into_iter().for_each(|name| calls.begin_step(name.into()));
            }
            calls.begin(0, &limits).expect("within limits")
        };
        assert_eq!([None, None].map(&mut begin), [1, 2]);
        assert_eq!([Some("charge"), Some("charge"), Some("mail")].map(&mut begin), [1, 2, 1]);
        assert_eq!(begin(None), 3, "as if no step had run");
    }

    #[test]
    fn calls_and_their_bytes_are_bounded() {
        let limits = Limits { calls_max: 2, call_bytes_max: 10, ..Limits::default() };
        let mut calls = Calls::default();
        calls.begin(4, &limits).expect("within limits");
        calls.end(5);
        assert_eq!(calls.bytes_left(&limits), 1);
        let error = calls.begin(2, &limits).expect_err("too many bytes");
        assert!(error.to_string().starts_with("more than limits.call_bytes = 10;"), "{error}");
        calls.begin(1, &limits).expect("within limits");
        let error = calls.begin(0, &limits).expect_err("too many calls");
        assert!(error.to_string().starts_with("more than limits.calls = 2;"), "{error}");
    }
}
