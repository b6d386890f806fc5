//! The judge's table, row by row, and what must hold for every policy.

use std::time::Duration;

use moontide::judge::{Circumstances, DeathReason, RETRY_AFTER_MAX, RetryPolicy, Verdict, judge};
use moontide::outcome::{Effects, Failure, FailureKind, Outcome, Release};
use proptest::prelude::*;

fn at(attempt: u32, age: u64) -> Circumstances {
    Circumstances { attempt, age: Duration::from_secs(age), chance: 0.0 }
}

fn policy() -> RetryPolicy {
    RetryPolicy { attempts: 3, jitter: 0.0, max_age: Duration::from_secs(1000), ..RetryPolicy::default() }
}

/// One word for a verdict, with its delay in seconds.
fn word(outcome: Outcome, attempt: u32, age: u64) -> String {
    match judge(outcome, &policy(), at(attempt, age)).0 {
        Verdict::Commit => "commit".to_owned(),
        Verdict::Retry { delay, counted: true, .. } => format!("retry in {}", delay.as_secs()),
        Verdict::Retry { delay, counted: false, .. } => format!("snooze for {}", delay.as_secs()),
        Verdict::Dead { reason, .. } => format!("dead: {}", reason.as_str()),
        Verdict::Skip { by } => format!("skip: {by}"),
        Verdict::Release => "release".to_owned(),
    }
}

fn ask(after: u64) -> Outcome {
    Outcome::Retry { after: Duration::from_secs(after), reason: "later".to_owned() }
}

fn snooze(after: u64) -> Outcome {
    Outcome::Snooze { after: Duration::from_secs(after), reason: "not now".to_owned() }
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure::new(kind, "boom"))
}

#[test]
fn the_table() {
    let text = || "why".to_owned();
    let rows: Vec<(Outcome, &str, &str)> = vec![
        (Outcome::Done(Effects::default()), "commit", "commit"),
        (ask(0), "retry in 1", "dead: exhausted"),
        (ask(60), "retry in 60", "dead: exhausted"),
        (ask(86_400), "retry in 3600", "dead: exhausted"),
        (snooze(30), "snooze for 30", "snooze for 30"),
        (Outcome::Reject { reason: text() }, "dead: rejected", "dead: rejected"),
        (failed(FailureKind::Error), "retry in 1", "dead: exhausted"),
        (failed(FailureKind::Timeout), "retry in 1", "dead: exhausted"),
        (failed(FailureKind::Cpu), "retry in 1", "dead: exhausted"),
        (failed(FailureKind::Memory), "retry in 1", "dead: exhausted"),
        (failed(FailureKind::Return), "retry in 1", "dead: exhausted"),
        (failed(FailureKind::Effects), "retry in 1", "dead: exhausted"),
        (Outcome::Undecodable { reason: text() }, "dead: undecodable", "dead: undecodable"),
        (Outcome::Invalid { reason: text() }, "dead: invalid", "dead: invalid"),
        (Outcome::Cycle { reason: text() }, "dead: cycle", "dead: cycle"),
        (Outcome::Duplicate { by: text() }, "skip: why", "skip: why"),
        (Outcome::Contested { by: text() }, "snooze for 0", "snooze for 0"),
        (Outcome::Released(Release::Stopping), "release", "release"),
        (Outcome::Released(Release::Neighbour), "release", "release"),
        (Outcome::Released(Release::StoreAway), "release", "release"),
        (Outcome::Released(Release::Moved), "release", "release"),
        (Outcome::Released(Release::Stuck), "release", "release"),
    ];
    for (outcome, with_attempts_left, with_none) in rows {
        assert_eq!(word(outcome.clone(), 1, 0), with_attempts_left, "{outcome:?}, attempts left");
        assert_eq!(word(outcome.clone(), 3, 0), with_none, "{outcome:?}, none left");
    }
}

#[test]
fn delays_grow_by_the_factor_up_to_the_cap() {
    let delays: Vec<u64> = (1..=8).map(|n| policy().delay_after(n, 0.0).as_secs()).collect();
    assert_eq!(delays, [1, 3, 9, 27, 81, 243, 300, 300]);
}

#[test]
fn a_snooze_ends_with_the_age_of_the_event() {
    assert_eq!(word(snooze(600), 1, 900), "snooze for 100");
    assert_eq!(word(snooze(600), 1, 1000), "dead: exhausted");
}

#[test]
fn a_contested_key_is_asked_for_again_until_it_is_a_duplicate() {
    let (mut age, mut tries) = (Duration::ZERO, 0);
    loop {
        let contested = Outcome::Contested { by: "why".to_owned() };
        let policy = RetryPolicy { max_age: Duration::from_millis(1), ..policy() };
        match judge(contested, &policy, Circumstances { age, ..at(1, 0) }).0 {
            Verdict::Retry { delay, counted: false, .. } => age += delay,
            other => break assert_eq!(other, Verdict::Skip { by: "why".to_owned() }),
        }
        tries += 1;
    }
    assert!((30..60).contains(&age.as_secs()) && tries == 10, "{tries} tries in {age:?}");
}

#[test]
fn only_a_commit_carries_effects() {
    let done = judge(Outcome::Done(Effects::default()), &policy(), at(1, 0));
    assert_eq!(done, (Verdict::Commit, Some(Effects::default())));
    assert_eq!(judge(failed(FailureKind::Error), &policy(), at(1, 0)).1, None);
}

proptest! {
    #[test]
    fn delays_stay_within_their_bounds(
        attempts in 1u32..50, attempt in 1u32..1000, delay in 0u64..10_000, factor in 1.0f64..100.0,
        cap in 0u64..100_000, jitter in 0.0f64..=1.0, chance in 0.0f64..=1.0, after in 0u64..10_000_000,
    ) {
        let policy = RetryPolicy {
            attempts, delay: Duration::from_millis(delay), factor, max_delay: Duration::from_millis(cap), jitter,
            max_age: Duration::from_secs(1000),
        };
        let circumstances = Circumstances { attempt, age: Duration::ZERO, chance };
        let asked = Outcome::Retry { after: Duration::from_millis(after), reason: String::new() };
        match judge(asked, &policy, circumstances).0 {
            Verdict::Retry { delay, counted, .. } => {
                prop_assert!(counted && attempt < attempts);
                prop_assert!(delay <= policy.max_delay.max(RETRY_AFTER_MAX));
                prop_assert!(delay >= Duration::from_millis(after).min(RETRY_AFTER_MAX));
            }
            Verdict::Dead { reason, .. } => prop_assert!(reason == DeathReason::Exhausted && attempt >= attempts),
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn jitter_only_shortens_and_only_by_its_share(attempt in 1u32..20, jitter in 0.0f64..=1.0, chance in 0.0f64..=1.0) {
        let full = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() }.delay_after(attempt, chance);
        let cut = RetryPolicy { jitter, ..RetryPolicy::default() }.delay_after(attempt, chance);
        prop_assert!(cut <= full);
        prop_assert!(cut.as_secs_f64() >= full.as_secs_f64() * (1.0 - jitter) - 1e-6);
    }
}
