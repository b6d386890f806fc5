//! Cases about delayed events that are taken back.

use super::*;

fn later(id: &str, seconds: u64) -> Emit {
    Emit { delay: Some(Duration::from_secs(seconds)), ..emit("orders", id) }
}

/// A run that takes `cancels` back and emits `events`.
fn asks(delivery: &Arc<Delivery>, cancels: &[&str], events: Vec<Emit>) -> Run {
    let mut run = commit(delivery);
    run.effects.cancels = cancels.iter().map(|id| (*id).to_owned()).collect();
    run.effects.events = events;
    run
}

/// So much waits for its time. At a carrier nobody counts what waits in the outbox.
async fn waits(host: &Host, delayed: u64) {
    if host.bus.features().one_store {
        assert_eq!(host.status("group").await.delayed, delayed);
    }
}

/// The next delivery, of an event that somebody published.
async fn next(host: &Host, inbox: &Arc<dyn Inbox>, name: &str) -> Arc<Delivery> {
    host.publish("orders", &[name]).await;
    let delivery = receive_one(inbox).await;
    assert_eq!(id(&*delivery), name);
    delivery
}

pub async fn take_back_what_is_not_due(h: &impl Harness) {
    let (host, inbox, first) = one(h).await;
    // An id may look like another one with something behind it, or like anything else.
    let (long, odd) = ("x".repeat(1024), "2:b 1-0 orders \u{ff}");
    let ids = ["a", "ab", "a b", odd, &long, "stays"];
    let mut emits: Vec<Emit> = ids.iter().map(|id| later(id, 10)).collect();
    emits.push(later("a", 20));
    assert_eq!(settle_one(&inbox, asks(&first, &[], emits)).await, DONE);
    waits(&host, 7).await;
    let second = next(&host, &inbox, "second").await;
    let run = asks(&second, &["a", odd, &long, "never was"], Vec::new());
    for expected in [DONE, Answer::AlreadyMine] {
        assert_eq!(settle_one(&inbox, run.clone()).await, expected);
        waits(&host, 3).await;
    }
    h.advance(30_000);
    let came = receive(&inbox, 3).await;
    let mut ids: Vec<String> = came.iter().map(|delivery| id(&**delivery)).collect();
    ids.sort();
    assert_eq!(ids, ["a b", "ab", "stays"]);
    settle(&inbox, came.iter().map(commit).collect()).await;
    nothing_but_a_marker(&host, &inbox).await;
}

pub async fn replace_what_they_take_back(h: &impl Harness) {
    let (host, inbox, first) = one(h).await;
    assert_eq!(settle_one(&inbox, asks(&first, &[], vec![later("timeout", 10)])).await, DONE);
    let second = next(&host, &inbox, "second").await;
    let run = asks(&second, &["timeout", "timeout"], vec![later("timeout", 20), emit("orders", "now")]);
    for expected in [DONE, Answer::AlreadyMine] {
        assert_eq!(settle_one(&inbox, run.clone()).await, expected);
        // What the same run emits is not taken back.
        waits(&host, 1).await;
    }
    let now = receive_one(&inbox).await;
    assert_eq!(id(&*now), "now");
    assert_eq!(settle_one(&inbox, commit(&now)).await, DONE);
    h.advance(19_999);
    nothing_but_a_marker(&host, &inbox).await;
    h.advance(1);
    let timeout = receive_one(&inbox).await;
    assert_eq!(id(&*timeout), "timeout");
    // It is there already: too late, and no error.
    assert_eq!(settle_one(&inbox, asks(&timeout, &["timeout"], Vec::new())).await, DONE);
    nothing_but_a_marker(&host, &inbox).await;
}

pub async fn do_nothing_in_a_run_that_does_not_commit(h: &impl Harness) {
    let (host, inbox, first) = one(h).await;
    host.set("k", "1").await;
    host.set("text", "\"t\"").await;
    assert_eq!(settle_one(&inbox, asks(&first, &[], vec![later("timeout", 10)])).await, DONE);
    let second = next(&host, &inbox, "second").await;
    let mut stale = asks(&second, &["timeout"], Vec::new());
    stale.reads = vec![saw("k", Some("0"))];
    assert_eq!(settle_one(&inbox, stale).await, Answer::Conflict { key: "k".into() });
    let mut invalid = asks(&second, &["timeout"], Vec::new());
    invalid.effects.writes = vec![add("text", 1.0)];
    assert!(matches!(settle_one(&inbox, invalid).await, Answer::Invalid { .. }));
    let mut hosts = asks(&second, &["timeout"], Vec::new());
    hosts.effects.events = vec![emit("moontide:retry:group", "forged")];
    assert!(matches!(settle_one(&inbox, hosts).await, Answer::Invalid { .. }));
    waits(&host, 1).await;
    assert_eq!(settle_one(&inbox, commit(&second)).await, DONE);
    h.advance(10_000);
    assert_eq!(id(&*receive_one(&inbox).await), "timeout");
}

pub async fn leave_alone_what_others_emitted(h: &impl Harness) {
    let host = h.open().await;
    let (one, other) = (host.inbox("group").await, host.inbox("group:2").await);
    host.publish("orders", &["a"]).await;
    let (ours, theirs) = (receive_one(&one).await, receive_one(&other).await);
    assert_eq!(settle_one(&other, asks(&theirs, &[], vec![later("timeout", 10)])).await, DONE);
    host.bus.publish(vec![later("timeout", 10)]).await.expect("it is stored");
    assert_eq!(settle_one(&one, asks(&ours, &["timeout"], vec![later("timeout", 10)])).await, DONE);
    waits(&host, 3).await;
    let next = next(&host, &one, "next").await;
    assert_eq!(settle_one(&one, asks(&next, &["timeout"], Vec::new())).await, DONE);
    h.advance(10_000);
    let came = receive(&one, 2).await;
    assert!(came.iter().all(|delivery| id(&**delivery) == "timeout"));
    settle(&one, came.iter().map(commit).collect()).await;
    nothing_but_a_marker(&host, &one).await;
}

pub async fn see_what_their_batch_emitted(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a", "b", "c"]).await;
    let got = receive(&inbox, 3).await;
    let runs = vec![
        asks(&got[0], &[], vec![later("timeout", 10)]),
        asks(&got[1], &["timeout"], Vec::new()),
        asks(&got[2], &[], vec![later("other", 10)]),
    ];
    assert_eq!(settle(&inbox, runs).await, [DONE, DONE, DONE]);
    h.advance(10_000);
    let other = receive_one(&inbox).await;
    assert_eq!(id(&*other), "other");
    assert_eq!(settle_one(&inbox, commit(&other)).await, DONE);
    nothing_but_a_marker(&host, &inbox).await;
}
