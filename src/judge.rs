//! What becomes of a delivery: a pure function from outcome, attempt and policy to a verdict.
//!
//! The only place that decides retry or death. It has no clock, no I/O and no random source: jitter is handed in as a
//! share from 0 to 1, a retry is a delay, and the store adds its own time. The table in `design.md` is its specification and,
//! in `tests`, its test.

use std::time::Duration;

use crate::outcome::{Failure, FailureKind, Outcome};

/// Longest delay that `ctx:retry(after)` can ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Most attempts that a policy can ask for.
pub const ATTEMPTS_MAX: usize = 1000;

/// How soon, and how long, a key is asked for again that a dead letter holds which others may take away.
const CONTESTED_MIN: Duration = Duration::from_millis(100);
const CONTESTED_MAX: Duration = Duration::from_secs(30);

/// How often and how soon a failed delivery is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; at least 1.
    pub attempts: u32,
    /// Delay before the second attempt.
    pub delay: Duration,
    /// Each further delay is this many times the one before; at least 1.
    pub factor: f64,
    /// No delay is longer.
    pub max_delay: Duration,
    /// The random share of a delay, 0 to 1.
    pub jitter: f64,
    /// Snoozes end when the event is this old.
    pub max_age: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            delay: Duration::from_secs(1),
            factor: 3.0,
            max_delay: Duration::from_secs(300),
            jitter: 0.5,
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

impl RetryPolicy {
    /// Delay after the failed attempt number `attempt` (from 1); `chance` from 0 to 1 picks within the jitter.
    pub fn delay_after(&self, attempt: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.delay.as_secs_f64() * self.factor.powi(exponent);
        let capped = grown.min(self.max_delay.as_secs_f64());
        let share = 1.0 - self.jitter * chance.clamp(0.0, 1.0);
        Duration::from_secs_f64((capped * share).max(0.0))
    }
}

/// Why an event was given up; the names appear in dead letters and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeathReason {
    Exhausted,
    Rejected,
    Undecodable,
    Invalid,
    /// The process died under it, twice alone.
    Killer,
    /// The chain of emits that led to it is too deep.
    Cycle,
}

impl DeathReason {
    /// All of them, for listings and metrics.
    pub const ALL: [Self; 6] =
        [Self::Exhausted, Self::Rejected, Self::Undecodable, Self::Invalid, Self::Killer, Self::Cycle];

    /// The name in dead letters and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::Invalid => "invalid",
            Self::Killer => "killer",
            Self::Cycle => "cycle",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Apply the effects and acknowledge.
    Commit,
    /// Try again after `delay`; `counted` attempts use up the policy.
    Retry { delay: Duration, counted: bool, failure: Failure },
    /// Give up and keep what is known.
    Dead { reason: DeathReason, failure: Failure },
    /// Somebody else settled this key: acknowledge, drop the effects.
    Skip { by: String },
    /// Give back at once, leaving no trace in any counter.
    Release,
}

/// What judging needs to know besides the outcome.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Number of this attempt, from 1; only failures that were counted raise it.
    pub attempt: u32,
    /// Time since the event was first received, by the store's clock.
    pub age: Duration,
    /// A random number from 0 to 1.
    pub chance: f64,
}

/// Decides. The second value are the effects, if they are to be committed.
pub fn judge(outcome: Outcome, policy: &RetryPolicy, at: Circumstances) -> (Verdict, Option<crate::outcome::Effects>) {
    let verdict = match outcome {
        Outcome::Done(effects) => return (Verdict::Commit, Some(effects)),
        Outcome::Retry { after, reason } => {
            retry(policy, at, after.min(RETRY_AFTER_MAX), Failure::new(FailureKind::Asked, reason))
        }
        Outcome::Snooze { after, reason } => snooze(policy, at, after, reason),
        Outcome::Failed(failure) => retry(policy, at, Duration::ZERO, failure),
        Outcome::Reject { reason } => dead(DeathReason::Rejected, FailureKind::Asked, reason),
        Outcome::Undecodable { reason } => dead(DeathReason::Undecodable, FailureKind::Event, reason),
        Outcome::Invalid { reason } => dead(DeathReason::Invalid, FailureKind::Event, reason),
        Outcome::Cycle { reason } => dead(DeathReason::Cycle, FailureKind::Event, reason),
        Outcome::Duplicate { by } => Verdict::Skip { by },
        Outcome::Contested { by } => contested(at, by),
        Outcome::Released(_) => Verdict::Release,
    };
    (verdict, None)
}

fn dead(reason: DeathReason, kind: FailureKind, message: String) -> Verdict {
    Verdict::Dead { reason, failure: Failure::new(kind, message) }
}

fn retry(policy: &RetryPolicy, at: Circumstances, at_least: Duration, failure: Failure) -> Verdict {
    if at.attempt >= policy.attempts {
        return Verdict::Dead { reason: DeathReason::Exhausted, failure };
    }
    let delay = policy.delay_after(at.attempt, at.chance).max(at_least);
    Verdict::Retry { delay, counted: true, failure }
}

/// Whoever has an event handled anew adds it before they take its dead letter away, so it may come while that is still there.
/// It waits for as long again as it has waited, and when that is half a minute it is the duplicate that it looks like.
fn contested(at: Circumstances, by: String) -> Verdict {
    if at.age >= CONTESTED_MAX {
        return Verdict::Skip { by };
    }
    let message = format!("its idempotency key is held by the dead letter of {by}, which others may be taking away");
    let failure = Failure::new(FailureKind::Refused, message);
    Verdict::Retry { delay: at.age.max(CONTESTED_MIN), counted: false, failure }
}

fn snooze(policy: &RetryPolicy, at: Circumstances, after: Duration, reason: String) -> Verdict {
    let failure = Failure::new(FailureKind::Asked, reason);
    if at.age >= policy.max_age {
        let message = format!(
            "snoozed until it was {} s old; retry.max_age is {} s; last: {}",
            at.age.as_secs(),
            policy.max_age.as_secs(),
            failure.message
        );
        return Verdict::Dead { reason: DeathReason::Exhausted, failure: Failure::new(FailureKind::Asked, message) };
    }
    let left = policy.max_age.saturating_sub(at.age);
    Verdict::Retry { delay: after.min(left), counted: false, failure }
}
