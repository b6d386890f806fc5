//! Cases about idempotency records.

use super::*;

fn keyed(delivery: &Arc<Delivery>, verdict: Verdict) -> Run {
    let mut run = run(delivery, verdict.clone());
    run.record = record("key");
    if verdict == Verdict::Commit {
        run.effects.writes = vec![add("n", 1.0)];
        run.effects.events = vec![emit("out", &id(&**delivery))];
    }
    run
}

async fn received(h: &impl Harness, ids: &[&str]) -> (Host, Arc<dyn Inbox>, Vec<Arc<Delivery>>) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", ids).await;
    let got = receive(&inbox, ids.len()).await;
    (host, inbox, got)
}

pub async fn drops_a_duplicate_and_says_by_whom(h: &impl Harness) {
    let (host, inbox, got) = received(h, &["a", "b"]).await;
    assert_eq!(settle_one(&inbox, keyed(&got[0], Verdict::Commit)).await, DONE);
    let duplicate = Answer::Duplicate { by: got[0].token() };
    assert_eq!(settle_one(&inbox, keyed(&got[1], Verdict::Commit)).await, duplicate);
    assert_eq!(settle_one(&inbox, keyed(&got[1], Verdict::Commit)).await, Answer::AlreadyMine, "it is acknowledged");
    assert_eq!((host.value("n").await.as_deref(), host.ids("out").await.len()), (Some("1"), 1));
    assert_eq!(host.status("group").await.in_flight, 0);
}

pub async fn drops_a_duplicate_in_the_same_batch(h: &impl Harness) {
    let (host, inbox, got) = received(h, &["a", "b"]).await;
    let runs = got.iter().map(|delivery| keyed(delivery, Verdict::Commit)).collect();
    assert_eq!(settle(&inbox, runs).await, [DONE, Answer::Duplicate { by: got[0].token() }]);
    assert_eq!(host.value("n").await.as_deref(), Some("1"));
}

pub async fn forgets_after_the_window(h: &impl Harness) {
    let (host, inbox, got) = received(h, &["a", "b", "c"]).await;
    assert_eq!(settle_one(&inbox, keyed(&got[0], Verdict::Commit)).await, DONE);
    h.advance(3600 * 1000 - 1);
    assert!(matches!(settle_one(&inbox, keyed(&got[1], Verdict::Commit)).await, Answer::Duplicate { .. }));
    h.advance(1);
    assert_eq!(host.ledger.recorded(&[record_key("key")]).await.expect("it is readable"), [None]);
    assert_eq!(settle_one(&inbox, keyed(&got[2], Verdict::Commit)).await, DONE);
    assert_eq!(host.value("n").await.as_deref(), Some("2"));
}

pub async fn keeps_the_record_of_a_dead_event(h: &impl Harness) {
    let (host, inbox, got) = received(h, &["a", "b", "c"]).await;
    let Answer::Done { dead: Some(dead) } = settle_one(&inbox, keyed(&got[0], reject("no"))).await else {
        panic!("it becomes a dead letter");
    };
    let recorded = host.ledger.recorded(&[record_key("key")]).await.expect("it is readable");
    assert_eq!(recorded[0].as_ref().and_then(|found| found.dead), Some(dead));
    for (late, verdict) in [(&got[1], Verdict::Commit), (&got[2], reject("no"))] {
        assert_eq!(settle_one(&inbox, keyed(late, verdict)).await, Answer::Duplicate { by: got[0].token() });
    }
    assert_eq!((host.value("n").await, host.status("group").await.dead), (None, 1));
}

pub async fn leaves_no_record_of_a_retry(h: &impl Harness) {
    let (host, inbox, got) = received(h, &["a", "b"]).await;
    assert_eq!(settle_one(&inbox, keyed(&got[0], retry(1, "later"))).await, DONE);
    assert_eq!(host.ledger.recorded(&[record_key("key")]).await.expect("it is readable"), [None]);
    assert_eq!(settle_one(&inbox, keyed(&got[1], Verdict::Commit)).await, DONE);
    h.advance(1000);
    let second = receive_one(&inbox).await;
    assert_eq!(second.attempt(), 2);
    let duplicate = Answer::Duplicate { by: got[1].token() };
    assert_eq!(settle_one(&inbox, keyed(&second, Verdict::Commit)).await, duplicate);
}
