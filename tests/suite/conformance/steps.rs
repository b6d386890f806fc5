//! Cases about durable steps: recorded once by whoever holds the delivery, kept from attempt to attempt, and gone with the event.

use moontide::bus::{BusError, DeadId, Replayed, Step, StepAnswer};

use super::*;

/// Every case has an event of its own: they share a store.
fn event_of(case: &str) -> RecordKey {
    RecordKey::new("group", "order.created", case)
}

fn step(case: &str, name: &str, result: &str) -> Step {
    let kept = Duration::from_secs(3600);
    Step { event: event_of(case), name: name.into(), result: result.to_owned().into(), kept }
}

async fn recorded(inbox: &Arc<dyn Inbox>, case: &str) -> Vec<(String, String)> {
    let mut found = inbox.recall(event_of(case)).await.expect("it is readable");
    found.sort();
    found.into_iter().map(|(name, result)| (name, String::from_utf8_lossy(&result).into_owned())).collect()
}

async fn keep(inbox: &Arc<dyn Inbox>, delivery: &Delivery, step: &Step) -> StepAnswer {
    inbox.record(delivery, step).await.expect("the store can be written")
}

fn with_steps(case: &str, run: Run) -> Run {
    Run { steps: Some(event_of(case)), ..run }
}

fn pair(name: &str, result: &str) -> (String, String) {
    (name.to_owned(), result.to_owned())
}

pub async fn records_once_and_the_first_write_wins(h: &impl Harness) {
    let (case, (host, inbox, delivery)) = ("first", one(h).await);
    assert_eq!(recorded(&inbox, case).await, []);
    let charge = step(case, "charge", r#"{"id":"ü"}"#);
    assert_eq!(keep(&inbox, &delivery, &charge).await, StepAnswer::Recorded);
    let known = StepAnswer::Known(charge.result.clone());
    assert_eq!(keep(&inbox, &delivery, &charge).await, known, "our own reply was lost");
    assert_eq!(keep(&inbox, &delivery, &step(case, "charge", "2")).await, known, "somebody else recorded it");
    assert_eq!(keep(&inbox, &delivery, &step(case, "nothing", "")).await, StepAnswer::Recorded);
    assert_eq!(keep(&inbox, &delivery, &step("another", "charge", "3")).await, StepAnswer::Recorded);
    let expected = [pair("charge", r#"{"id":"ü"}"#), pair("nothing", "")];
    assert_eq!(recorded(&inbox, case).await, expected);
    assert_eq!(settle_one(&inbox, with_steps(case, commit(&delivery))).await, DONE);
    assert_eq!(recorded(&inbox, case).await, [], "they end with their event");
    assert_eq!(recorded(&inbox, "another").await, [pair("charge", "3")]);
    drop(host);
}

pub async fn records_nothing_of_what_is_not_ours(h: &impl Harness) {
    let (case, (host, inbox, delivery)) = ("settled", one(h).await);
    assert_eq!(settle_one(&inbox, commit(&delivery)).await, DONE);
    assert_eq!(keep(&inbox, &delivery, &step(case, "late", "1")).await, StepAnswer::Fenced);
    let void = Delivery { lease: moontide::bus::Lease { claim: 1 << 40, epoch: 1 }, ..(*delivery).clone() };
    assert_eq!(keep(&inbox, &void, &step(case, "late", "1")).await, StepAnswer::Fenced);
    assert_eq!(recorded(&inbox, case).await, []);
    drop(host);
}

pub async fn keeps_steps_from_attempt_to_attempt(h: &impl Harness) {
    let (case, (host, inbox, first)) = ("attempts", one(h).await);
    assert_eq!(keep(&inbox, &first, &step(case, "charge", "1")).await, StepAnswer::Recorded);
    assert_eq!(settle_one(&inbox, with_steps(case, run(&first, retry(1, "later")))).await, DONE);
    h.advance(1000);
    let second = receive_one(&inbox).await;
    assert_eq!((second.attempt(), second.past.as_ref().and_then(|past| past.steps)), (2, Some(event_of(case))));
    assert_eq!(recorded(&inbox, case).await, [pair("charge", "1")]);
    assert_eq!(keep(&inbox, &second, &step(case, "ship", "2")).await, StepAnswer::Recorded);
    assert_eq!(settle_one(&inbox, run(&second, Verdict::Release)).await, DONE);
    let third = receive_one(&inbox).await;
    assert_eq!(recorded(&inbox, case).await, [pair("charge", "1"), pair("ship", "2")]);
    assert_eq!(settle_one(&inbox, with_steps(case, commit(&third))).await, DONE);
    assert_eq!(recorded(&inbox, case).await, []);
    drop(host);
}

/// Commits `delivery` where the state it read has moved, and then as it is.
pub async fn keeps_steps_when_nothing_is_settled(h: &impl Harness) {
    let (case, (host, inbox, delivery)) = ("conflict", one(h).await);
    assert_eq!(keep(&inbox, &delivery, &step(case, "charge", "1")).await, StepAnswer::Recorded);
    let mut stale = with_steps(case, commit(&delivery));
    stale.reads = vec![saw("moved", Some("1"))];
    assert!(matches!(settle_one(&inbox, stale).await, Answer::Conflict { .. }));
    host.set("text", r#""no number""#).await;
    let mut refused = with_steps(case, commit(&delivery));
    refused.effects.writes = vec![add("text", 1.0)];
    assert!(matches!(settle_one(&inbox, refused).await, Answer::Invalid { .. }));
    assert_eq!(recorded(&inbox, case).await, [pair("charge", "1")]);
    assert_eq!(settle_one(&inbox, with_steps(case, commit(&delivery))).await, DONE);
    assert_eq!(recorded(&inbox, case).await, []);
}

pub async fn forgets_the_steps_of_a_duplicate(h: &impl Harness) {
    let (case, (host, inbox, first)) = ("duplicate", one(h).await);
    host.publish("orders", &["b"]).await;
    let second = receive_one(&inbox).await;
    let keyed = |delivery| Run { record: record(case), ..with_steps(case, commit(delivery)) };
    assert_eq!(settle_one(&inbox, keyed(&first)).await, DONE);
    assert_eq!(keep(&inbox, &second, &step(case, "late", "1")).await, StepAnswer::Recorded);
    assert!(matches!(settle_one(&inbox, keyed(&second)).await, Answer::Duplicate { .. }));
    assert_eq!(recorded(&inbox, case).await, []);
}

/// The dead letter of an event with one step.
async fn buried(host: &Host, inbox: &Arc<dyn Inbox>, delivery: &Arc<Delivery>, case: &str) -> DeadId {
    assert_eq!(keep(inbox, delivery, &step(case, "charge", "1")).await, StepAnswer::Recorded);
    let run = Run { record: record(case), ..with_steps(case, run(delivery, reject("no"))) };
    let Answer::Done { dead: Some(dead) } = settle_one(inbox, run).await else { panic!("it becomes a dead letter") };
    assert_eq!(recorded(inbox, case).await, [pair("charge", "1")]);
    assert!(host.dead.get(dead).await.expect("it is readable").is_some());
    dead
}

async fn replayed(host: &Host, inbox: &Arc<dyn Inbox>, dead: DeadId) -> Arc<Delivery> {
    assert_eq!(host.dead.replay(dead).await.expect("it is replayed"), Replayed::Queued);
    receive_one(inbox).await
}

pub async fn a_replay_resumes_with_the_steps_of_its_letter(h: &impl Harness) {
    let (case, (host, inbox, delivery)) = ("replay", one(h).await);
    let dead = buried(&host, &inbox, &delivery, case).await;
    h.advance(100 * 24 * 3600 * 1000);
    assert_eq!(recorded(&inbox, case).await, [pair("charge", "1")], "they stay as long as the letter");
    let again = replayed(&host, &inbox, dead).await;
    assert_eq!(again.past.as_ref().and_then(|past| past.steps), Some(event_of(case)));
    assert_eq!(keep(&inbox, &again, &step(case, "ship", "2")).await, StepAnswer::Recorded);
    let dies = Run { record: record(case), ..with_steps(case, run(&again, reject("no again"))) };
    let Answer::Done { dead: Some(second) } = settle_one(&inbox, dies).await else { panic!("it dies again") };
    assert_eq!(recorded(&inbox, case).await, [pair("charge", "1"), pair("ship", "2")], "the new letter has them");
    let last = replayed(&host, &inbox, second).await;
    let done = Run { record: record(case), ..with_steps(case, commit(&last)) };
    assert_eq!(settle_one(&inbox, done).await, DONE);
    assert_eq!(recorded(&inbox, case).await, []);
}

pub async fn a_duplicate_leaves_the_steps_of_a_dead_letter(h: &impl Harness) {
    let (case, (host, inbox, delivery)) = ("dead-duplicate", one(h).await);
    host.publish("orders", &["b"]).await;
    let late = receive_one(&inbox).await;
    buried(&host, &inbox, &delivery, case).await;
    let run = Run { record: record(case), ..with_steps(case, commit(&late)) };
    assert!(matches!(settle_one(&inbox, run).await, Answer::Duplicate { .. }));
    assert_eq!(recorded(&inbox, case).await, [pair("charge", "1")]);
}

pub async fn discarding_a_letter_forgets_its_steps(h: &impl Harness) {
    let (case, (host, inbox, delivery)) = ("discard", one(h).await);
    let dead = buried(&host, &inbox, &delivery, case).await;
    assert_eq!(host.dead.discard(&[dead]).await.expect("it is discarded"), 1);
    assert_eq!(recorded(&inbox, case).await, []);
}

pub async fn a_take_over_finds_the_steps_of_the_dead(h: &impl Harness) {
    if !h.features().shared {
        return;
    }
    let case = "take-over";
    let (host, other) = (h.open().await, h.open().await);
    host.publish("orders", &["a"]).await;
    let inbox = host.inbox("group").await;
    let delivery = receive_one(&inbox).await;
    assert_eq!(keep(&inbox, &delivery, &step(case, "charge", "1")).await, StepAnswer::Recorded);
    let heir = other.inbox("group").await;
    drop(host);
    let taken = receive_one(&heir).await;
    assert_eq!(recorded(&heir, case).await, [pair("charge", "1")]);
    assert!(matches!(inbox.record(&delivery, &step(case, "late", "2")).await, Err(BusError::Closed)));
    assert_eq!(settle_one(&heir, with_steps(case, commit(&taken))).await, DONE);
    assert_eq!(recorded(&heir, case).await, []);
}

pub async fn a_zombie_records_nothing(h: &impl Harness) {
    // Where the acknowledgement is elsewhere, nobody is a zombie before somebody has settled.
    if !h.features().shared || !h.features().one_store {
        return;
    }
    let case = "zombie";
    let (silent, other) = (h.open_silent().await, h.open().await);
    silent.publish("orders", &["a"]).await;
    let inbox = silent.inbox("group").await;
    let delivery = receive_one(&inbox).await;
    let heir = other.inbox("group").await;
    let taken = receive_one(&heir).await;
    assert_eq!(keep(&inbox, &delivery, &step(case, "charge", "zombie")).await, StepAnswer::Fenced);
    assert_eq!(keep(&heir, &taken, &step(case, "charge", "1")).await, StepAnswer::Recorded);
    assert_eq!(recorded(&heir, case).await, [pair("charge", "1")]);
}
