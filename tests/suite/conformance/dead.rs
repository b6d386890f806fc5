//! Cases about dead letters and their replay.

use moontide::bus::{DeadFilter, DeadId, DeadLetter, Replayed};

use super::*;

async fn dead_one(h: &impl Harness) -> (Host, Arc<dyn Inbox>, Arc<Delivery>, DeadId) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a"]).await;
    let delivery = receive_one(&inbox).await;
    let dead = die(&inbox, &delivery, "hopeless").await;
    (host, inbox, delivery, dead)
}

async fn die(inbox: &Arc<dyn Inbox>, delivery: &Arc<Delivery>, why: &str) -> DeadId {
    let mut run = run(delivery, reject(why));
    run.record = record("key");
    match settle_one(inbox, run).await {
        Answer::Done { dead: Some(dead) } => dead,
        other => panic!("it becomes a dead letter, not {other:?}"),
    }
}

async fn letter(host: &Host, id: DeadId) -> Option<DeadLetter> {
    host.dead.get(id).await.expect("dead letters are readable")
}

async fn replay(host: &Host, id: DeadId) -> Replayed {
    host.dead.replay(id).await.expect("a replay is possible")
}

pub async fn keeps_all_that_is_known(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a"]).await;
    let first = receive_one(&inbox).await;
    assert_eq!(settle_one(&inbox, run(&first, retry(1, "first"))).await, DONE);
    h.advance(1000);
    let id = die(&inbox, &receive_one(&inbox).await, "second").await;
    let letter = letter(&host, id).await.expect("it is there");
    assert_eq!(
        (letter.handler.as_str(), letter.group.as_str(), letter.version.as_str()),
        ("group-handler", "group", "v1")
    );
    assert_eq!((letter.reason, letter.attempts), (DeathReason::Rejected.into(), 2));
    assert_eq!((letter.stream.as_str(), letter.origin()), first.origin());
    assert_eq!(letter.event, Ok(event("order.created", "a")));
    assert_eq!(letter.idempotency_key.as_deref(), Some("key"));
    assert_eq!((letter.failed_at - first.received, letter.replayed_at), (1000, None));
    let failures: Vec<_> = letter.failures.iter().map(|past| (past.attempt, past.failure.clone())).collect();
    assert_eq!(failures, [(1, failure("first")), (2, failure("second"))]);
}

pub async fn keeps_raw_what_is_no_event(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    h.put_garbage(&host, "orders").await;
    let raw = receive_one(&inbox).await;
    let id = die(&inbox, &raw, "undecodable").await;
    let kept = letter(&host, id).await.expect("it is there").event;
    assert_eq!(kept, raw.event, "reason and raw fields");
    assert_eq!(replay(&host, id).await, Replayed::Queued);
    let again = receive_one(&inbox).await;
    assert_eq!(
        again.event.as_ref().map_err(|raw| &raw.fields),
        raw.event.as_ref().map_err(|raw| &raw.fields),
        "a replay hands out the same fields"
    );
}

pub async fn replays_once(h: &impl Harness) {
    let (host, inbox, first, id) = dead_one(h).await;
    assert_eq!(replay(&host, DeadId(999)).await, Replayed::Missing);
    assert_eq!(replay(&host, id).await, Replayed::Queued);
    assert!(matches!(replay(&host, id).await, Replayed::Underway(_)));
    let again = receive_one(&inbox).await;
    assert_eq!((again.attempt(), again.origin(), &again.event), (1, first.origin(), &first.event));
    assert_eq!(again.past.as_ref().and_then(|past| past.replay_of), Some(id));
    let mut run = commit(&again);
    run.record = record("key");
    run.effects.writes = vec![add("n", 1.0)];
    assert_eq!(settle_one(&inbox, run.clone()).await, DONE, "a replay passes the record of its dead letter");
    assert_eq!(settle_one(&inbox, run).await, Answer::AlreadyMine);
    assert_eq!(host.value("n").await.as_deref(), Some("1"));
    assert!(letter(&host, id).await.is_none(), "and a commit ends it");
    assert_eq!(replay(&host, id).await, Replayed::Missing);
    nothing_but_a_marker(&host, &inbox).await;
    let recorded = host.ledger.recorded(&[record_key("key")]).await.expect("it is readable");
    assert_eq!(recorded[0].as_ref().map(|found| found.dead), Some(None), "the key is committed now");
}

pub async fn replaces_a_letter_that_dies_again(h: &impl Harness) {
    let (host, inbox, _, id) = dead_one(h).await;
    assert_eq!(replay(&host, id).await, Replayed::Queued);
    let again = receive_one(&inbox).await;
    assert_eq!(settle_one(&inbox, run(&again, retry(1, "once more"))).await, DONE);
    assert!(matches!(replay(&host, id).await, Replayed::Underway(_)), "a retry of a replay is the replay");
    h.advance(1000);
    let second = die(&inbox, &receive_one(&inbox).await, "again").await;
    assert_ne!(second, id);
    assert!(letter(&host, id).await.is_none());
    let kept = letter(&host, second).await.expect("it is there");
    let messages: Vec<_> = kept.failures.iter().map(|past| past.failure.message.as_str()).collect();
    assert_eq!(messages, ["hopeless", "once more", "again"]);
    assert_eq!(replay(&host, second).await, Replayed::Queued);
    let mut run = commit(&receive_one(&inbox).await);
    run.record = record("key");
    assert_eq!(settle_one(&inbox, run).await, DONE, "the record names the newer letter");
    assert_eq!(host.status("group").await.dead, 0);
}

pub async fn keeps_a_letter_whose_replay_was_skipped(h: &impl Harness) {
    let (host, inbox, first, id) = dead_one(h).await;
    h.advance(2 * 3600 * 1000);
    host.publish("orders", &["b"]).await;
    let other = receive_one(&inbox).await;
    let mut run = commit(&other);
    run.record = record("key");
    assert_eq!(settle_one(&inbox, run).await, DONE, "the window of the dead letter's record is over");
    assert_eq!(replay(&host, id).await, Replayed::Queued);
    let mut run = commit(&receive_one(&inbox).await);
    run.record = record("key");
    assert_eq!(settle_one(&inbox, run).await, Answer::Duplicate { by: other.token() });
    assert_ne!(first.token(), other.token());
    assert_eq!(letter(&host, id).await.expect("it stays").replayed_at, None);
}

pub async fn lists_by_page_and_discards(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    let ids: Vec<String> = (0..5).map(|n| format!("e{n}")).collect();
    host.publish("orders", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut got = receive(&inbox, 5).await;
    let last = got.pop().expect("five came");
    let runs = got.iter().map(|delivery| run(delivery, reject("no"))).collect();
    settle(&inbox, runs).await;
    let invalid = Verdict::Dead { reason: DeathReason::Invalid, failure: failure("bad") };
    settle_one(&inbox, run(&last, invalid)).await;
    let list = |filter: DeadFilter| {
        let dead = host.dead.clone();
        async move { dead.list(filter).await.expect("readable").into_iter().map(|letter| letter.id).collect::<Vec<_>>() }
    };
    let all = list(DeadFilter { limit: 10, ..DeadFilter::default() }).await;
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted());
    assert_eq!(list(DeadFilter { limit: 2, after: Some(all[1]), ..DeadFilter::default() }).await, all[2..4]);
    let rejected = DeadFilter { limit: 10, reason: Some(DeathReason::Rejected.into()), ..DeadFilter::default() };
    assert_eq!(list(rejected).await, all[..4]);
    let nobody = DeadFilter { limit: 10, handler: Some("nobody".into()), ..DeadFilter::default() };
    assert_eq!(list(nobody).await, []);
    assert_eq!(host.dead.discard(&[all[0], all[1], DeadId(999)]).await.expect("it is writable"), 2);
    assert_eq!(list(DeadFilter { limit: 10, ..DeadFilter::default() }).await, all[2..]);
}

pub async fn holds_its_key_after_it_was_discarded(h: &impl Harness) {
    let (host, inbox, first, id) = dead_one(h).await;
    assert_eq!(host.dead.discard(&[id]).await.expect("it is writable"), 1);
    assert_eq!(host.status("group").await.dead, 0);
    let recorded = host.ledger.recorded(&[record_key("key")]).await.expect("it is readable");
    assert_eq!(recorded[0].as_ref().map(|found| &found.by), Some(&first.token()));
    host.publish("orders", &["late"]).await;
    let mut late = commit(&receive_one(&inbox).await);
    late.record = record("key");
    late.effects.writes = vec![add("n", 1.0)];
    assert_eq!(settle_one(&inbox, late.clone()).await, Answer::Duplicate { by: first.token() });
    assert_eq!(host.value("n").await, None);
    h.advance(2 * 3600 * 1000);
    host.publish("orders", &["later"]).await;
    let mut later = commit(&receive_one(&inbox).await);
    later.record = record("key");
    assert_eq!(settle_one(&inbox, later).await, DONE, "no longer than its window");
}

pub async fn lets_a_replay_pass_that_was_discarded(h: &impl Harness) {
    let (host, inbox, _, id) = dead_one(h).await;
    assert_eq!(replay(&host, id).await, Replayed::Queued);
    assert_eq!(host.dead.discard(&[id]).await.expect("it is writable"), 1);
    let mut run = commit(&receive_one(&inbox).await);
    run.record = record("key");
    assert_eq!(settle_one(&inbox, run).await, DONE, "it is on its way");
    assert_eq!(host.status("group").await.dead, 0, "it is counted out once");
}
