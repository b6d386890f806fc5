//! Cases about delayed work.

use moontide::bus::FAILURES_MAX;

use super::*;

pub async fn carry_what_happened_before(h: &impl Harness) {
    let (host, inbox, first) = one(h).await;
    assert_eq!(settle_one(&inbox, run(&first, retry(1, "one"))).await, DONE);
    h.advance(1000);
    let second = receive_one(&inbox).await;
    assert_eq!(settle_one(&inbox, run(&second, retry(2, "two"))).await, DONE);
    h.advance(2000);
    let third = receive_one(&inbox).await;
    assert_eq!((second.attempt(), third.attempt()), (2, 3));
    assert_eq!((third.origin(), &third.event), (first.origin(), &first.event));
    let past = third.past.as_ref().expect("it has a past");
    assert_eq!(past.first_received, first.received);
    let failures: Vec<_> = past.failures.iter().map(|f| (f.attempt, f.failure.clone(), &*f.version)).collect();
    assert_eq!(failures, [(1, failure("one"), "v1"), (2, failure("two"), "v1")]);
    assert_eq!(past.failures[1].at - past.failures[0].at, 1000);
    assert_eq!(settle_one(&inbox, commit(&third)).await, DONE);
    nothing_but_a_marker(&host, &inbox).await;
    assert_eq!(host.status("group").await.lag, 0);
}

pub async fn wait_until_they_are_due(h: &impl Harness) {
    let (host, inbox, first) = one(h).await;
    assert_eq!(settle_one(&inbox, run(&first, retry(10, "later"))).await, DONE);
    h.advance(9999);
    nothing_but_a_marker(&host, &inbox).await;
    assert_eq!(host.status("group").await.delayed, 1);
    h.advance(1);
    assert_eq!(receive_one(&inbox).await.attempt(), 2);
    assert_eq!(host.status("group").await.delayed, 0);
}

pub async fn do_not_count_a_snooze(h: &impl Harness) {
    let (_host, inbox, first) = one(h).await;
    let snooze = Verdict::Retry { delay: Duration::from_secs(1), counted: false, failure: failure("not yet") };
    let mut delivery = first;
    for snoozes in 1..=3 {
        assert_eq!(settle_one(&inbox, run(&delivery, snooze.clone())).await, DONE);
        h.advance(1000);
        delivery = receive_one(&inbox).await;
        assert_eq!(delivery.attempt(), 1);
        assert_eq!(delivery.past.as_ref().map(|past| past.snoozes), Some(snoozes));
    }
    assert_eq!(settle_one(&inbox, run(&delivery, retry(1, "counted"))).await, DONE);
    h.advance(1000);
    assert_eq!(receive_one(&inbox).await.attempt(), 2);
}

pub async fn deliver_delayed_events_on_time(h: &impl Harness) {
    let (host, inbox, first) = one(h).await;
    let later = |id: &str, seconds| Emit { delay: Some(Duration::from_secs(seconds)), ..emit("orders", id) };
    let mut run = commit(&first);
    run.effects.events = vec![later("second", 2), later("first", 1)];
    assert_eq!(settle_one(&inbox, run).await, DONE);
    nothing_but_a_marker(&host, &inbox).await;
    h.advance(1000);
    let first = receive_one(&inbox).await;
    assert_eq!((id(&*first), first.attempt(), &first.past), ("first".into(), 1, &None));
    assert_eq!(first.event, Ok(event("order.created", "first")));
    h.advance(1000);
    assert_eq!(id(&*receive_one(&inbox).await), "second");
}

pub async fn keep_the_earliest_and_the_latest_failures(h: &impl Harness) {
    let (_host, inbox, mut delivery) = one(h).await;
    let attempts = FAILURES_MAX + 3;
    for attempt in 1..=attempts {
        assert_eq!(settle_one(&inbox, run(&delivery, retry(1, &format!("failure {attempt}")))).await, DONE);
        h.advance(1000);
        delivery = receive_one(&inbox).await;
    }
    let past = delivery.past.as_ref().expect("it has a past");
    let kept: Vec<&str> = past.failures.iter().map(|past| past.failure.message.as_str()).collect();
    assert_eq!((kept.len(), kept[0]), (FAILURES_MAX, "failure 1"));
    assert_eq!(kept.last().copied(), Some(format!("failure {attempts}").as_str()));
}
