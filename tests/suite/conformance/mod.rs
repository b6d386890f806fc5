//! What every bus must do, whatever carries it.
//!
//! A bus joins by a [`Harness`] and the macro [`suite!`]; each case looks at the features and returns where it cannot apply.
//! Nothing here knows how a bus works inside. Waiting has an upper bound only so that a defect ends in a failure.

pub mod cancels;
pub mod carrier;
pub mod dead;
pub mod groups;
pub mod receive;
pub mod records;
pub mod retries;
pub mod settle;
pub mod sharing;
pub mod steps;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use moontide::bus::{
    Answer, Bus, DeadLetters, Delivery, Features, Inbox, Ledger, Overview, Run, Settling, Start, StateAdmin,
    Subscription,
};
use moontide::clock::Millis;
use moontide::event::{Event, Json, TypePattern};
use moontide::judge::{DeathReason, Verdict};
use moontide::outcome::{Change, Effects, Emit, Failure, FailureKind, Read, Record, RecordKey, Seen, Write};

/// A defect shows as a failure after this time, not as a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One kind of bus, and one store of it that the cases share.
#[async_trait]
pub trait Harness: Send + Sync {
    fn features(&self) -> Features;

    /// The store's time, which stands still until it is moved.
    fn now(&self) -> Millis;

    /// Moves the store's time.
    fn advance(&self, millis: Millis);

    /// Opens the store as a process of its own. Dropping the host before its inboxes is the death of that process.
    async fn open(&self) -> Host;

    /// As [`Harness::open`], but the others soon take this process for dead although it lives.
    async fn open_silent(&self) -> Host;

    /// Appends an entry that is no event.
    async fn put_garbage(&self, host: &Host, stream: &str);
}

/// One process.
#[derive(Clone)]
pub struct Host {
    pub bus: Arc<dyn Bus>,
    pub ledger: Arc<dyn Ledger>,
    pub dead: Arc<dyn DeadLetters>,
    pub state: Arc<dyn StateAdmin>,
    pub overview: Arc<dyn Overview>,
}

/// Makes a test of each case for one harness.
macro_rules! suite {
    ($name:ident, $harness:expr) => {
        mod $name {
            use crate::conformance::*;

            $crate::conformance::suite!(@cases $harness;
                receive::{hands_out_in_order_and_at_most_what_was_asked, waits_until_something_is_published,
                    loses_nothing_when_cancelled, takes_turns_between_streams, does_not_deliver_types_nobody_asked_for,
                    hands_out_what_is_no_event_beside_its_neighbours, stores_all_of_a_publish_or_none};
                groups::{begins_where_its_handler_says, reads_streams_that_appear_later_from_their_first_entry,
                    goes_on_where_it_was, misses_no_stream_that_appeared_while_it_was_away,
                    gets_back_what_a_closed_inbox_held, is_settled_anew_when_it_is_opened_anew, shows_how_it_stands, keeps_groups_apart};
                settle::{applies_everything_once, answers_already_mine_for_every_verdict, refuses_what_was_read_stale,
                    sees_what_its_batch_wrote, compares_large_values, adds_without_reading, refuses_to_add_to_a_text,
                    releases_without_a_trace, skips_without_effects, settles_many_deliveries_as_one,
                    keeps_the_hosts_streams, forgets_state_after_its_ttl, survives_a_lost_reply,
                    lets_operators_write_state};
                records::{drops_a_duplicate_and_says_by_whom, drops_a_duplicate_in_the_same_batch, forgets_after_the_window,
                    keeps_the_record_of_a_dead_event, leaves_no_record_of_a_retry};
                retries::{carry_what_happened_before, wait_until_they_are_due, do_not_count_a_snooze,
                    deliver_delayed_events_on_time, keep_the_earliest_and_the_latest_failures};
                cancels::{take_back_what_is_not_due, replace_what_they_take_back, do_nothing_in_a_run_that_does_not_commit,
                    leave_alone_what_others_emitted, see_what_their_batch_emitted};
                dead::{keeps_all_that_is_known, keeps_raw_what_is_no_event, replays_once, replaces_a_letter_that_dies_again,
                    keeps_a_letter_whose_replay_was_skipped, lists_by_page_and_discards,
                    holds_its_key_after_it_was_discarded, lets_a_replay_pass_that_was_discarded};
                steps::{records_once_and_the_first_write_wins, records_nothing_of_what_is_not_ours,
                    keeps_steps_from_attempt_to_attempt, keeps_steps_when_nothing_is_settled, forgets_the_steps_of_a_duplicate,
                    a_replay_resumes_with_the_steps_of_its_letter, a_duplicate_leaves_the_steps_of_a_dead_letter,
                    discarding_a_letter_forgets_its_steps, a_take_over_finds_the_steps_of_the_dead, a_zombie_records_nothing};
                sharing::{delivers_nothing_twice, wakes_the_other_process, takes_over_from_the_dead, shares_what_the_dead_left,
                    fences_a_zombie, counts_deaths_under_the_mark, releases_to_the_others, adds_up_over_many_deaths,
                    moves_due_work_of_the_dead};
            );
        }
    };
    (@cases $harness:expr; $($module:ident::{$($case:ident),* $(,)?};)*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $module::$case(&$harness).await;
            }
        )*)*
    };
}
pub(crate) use suite;

/// An event of type `kind`.
pub fn event(kind: &str, id: &str) -> Event {
    Event {
        time: Some("2026-11-21T00:00:00Z".into()),
        correlation_id: Some(format!("correlation of {id}")),
        ext: Some(json(r#"{"tenant":"north"}"#)),
        data: Some(json(&format!(r#"{{"id":"{id}","price":1.50}}"#))),
        ..Event::new(id, "test", kind)
    }
}

pub fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).expect("the text is JSON")
}

pub fn emit(stream: &str, id: &str) -> Emit {
    Emit { stream: stream.into(), event: event("order.created", id), delay: None }
}

/// A handler of everything in the stream `orders`, from its first entry.
pub fn subscription(group: &str) -> Subscription {
    Subscription {
        handler: format!("{group}-handler").into(),
        group: group.into(),
        types: vec![pattern("*")],
        streams: vec!["orders".into()],
        discover: Vec::new(),
        start: Start::Earliest,
    }
}

pub fn pattern(text: &str) -> TypePattern {
    TypePattern::parse(text).expect("the pattern is valid")
}

impl Host {
    pub async fn publish(&self, stream: &str, ids: &[&str]) {
        let emits = ids.iter().map(|id| emit(stream, id)).collect();
        self.bus.publish(emits).await.expect("the events are stored");
    }

    pub async fn inbox(&self, group: &str) -> Arc<dyn Inbox> {
        self.bus.subscribe(subscription(group)).await.expect("the group is opened").inbox
    }

    pub async fn value(&self, key: &str) -> Option<String> {
        let values = self.ledger.read(&[key.to_owned()]).await.expect("state is readable");
        values.into_iter().next().flatten().map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// What `key` holds, as a run that read it remembers it.
    pub async fn seen(&self, key: &str) -> Read {
        let values = self.ledger.read(&[key.to_owned()]).await.expect("state is readable");
        Read { key: key.into(), seen: Seen::of(values[0].as_ref()) }
    }

    pub async fn set(&self, key: &str, value: &str) {
        self.state.write(vec![set(key, value)]).await.expect("state is writable");
    }

    /// Ids of the events in `stream`.
    pub async fn ids(&self, stream: &str) -> Vec<String> {
        let entries = self.overview.history(stream, None, 10_000).await.expect("history is readable");
        entries.into_iter().filter_map(|(_, event)| event.ok()).map(|event| event.id).collect()
    }

    pub async fn status(&self, group: &str) -> moontide::bus::GroupStatus {
        let groups = self.overview.groups().await.expect("groups are readable");
        groups.into_iter().find(|status| status.group == group).expect("the group exists")
    }
}

/// Asks again until it is so.
pub async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes true");
}

/// Receives exactly `count` deliveries.
pub async fn receive(inbox: &Arc<dyn Inbox>, count: usize) -> Vec<Arc<Delivery>> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = tokio::time::timeout(PATIENCE, inbox.receive(count - all.len())).await;
        let some = some.unwrap_or_else(|_| panic!("only {} of {count} deliveries came", all.len()));
        all.extend(some.expect("the bus can be read").into_iter().map(Arc::new));
    }
    assert_eq!(all.len(), count, "no more than was asked for");
    all
}

/// A host, an inbox, and the one event that it holds.
async fn one(h: &impl Harness) -> (Host, Arc<dyn Inbox>, Arc<Delivery>) {
    let host = h.open().await;
    host.publish("orders", &["a"]).await;
    let inbox = host.inbox("group").await;
    let delivery = receive_one(&inbox).await;
    (host, inbox, delivery)
}

pub async fn receive_one(inbox: &Arc<dyn Inbox>) -> Arc<Delivery> {
    receive(inbox, 1).await.remove(0)
}

/// Proves that nothing else is waiting: a marker, published now, is all that comes.
pub async fn nothing_but_a_marker(host: &Host, inbox: &Arc<dyn Inbox>) {
    host.publish("orders", &["marker"]).await;
    let marker = tokio::time::timeout(PATIENCE, inbox.receive(100)).await.expect("the marker comes");
    let marker = marker.expect("the bus can be read");
    assert_eq!(marker.iter().map(id).collect::<Vec<_>>(), ["marker"]);
    let runs = marker.into_iter().map(|marker| commit(&Arc::new(marker))).collect();
    assert!(settle(inbox, runs).await.iter().all(|answer| matches!(answer, Answer::Done { .. })));
}

pub fn id(delivery: impl std::borrow::Borrow<Delivery>) -> String {
    delivery.borrow().event.as_ref().map_or_else(|raw| raw.reason.clone(), |event| event.id.clone())
}

pub fn run(delivery: &Arc<Delivery>, verdict: Verdict) -> Run {
    Run {
        deliveries: vec![Settling { delivery: delivery.clone(), verdict }],
        reads: Vec::new(),
        effects: Effects::default(),
        record: None,
        steps: None,
        version: "v1".into(),
    }
}

pub fn commit(delivery: &Arc<Delivery>) -> Run {
    run(delivery, Verdict::Commit)
}

pub fn failure(message: &str) -> Failure {
    Failure { line: Some(3), ..Failure::new(FailureKind::Error, message) }
}

pub fn retry(delay_seconds: u64, message: &str) -> Verdict {
    Verdict::Retry { delay: Duration::from_secs(delay_seconds), counted: true, failure: failure(message) }
}

pub fn reject(message: &str) -> Verdict {
    Verdict::Dead { reason: DeathReason::Rejected, failure: failure(message) }
}

pub fn record(key: &str) -> Option<Record> {
    Some(Record { key: record_key(key), text: key.into(), window: Duration::from_secs(3600) })
}

pub fn record_key(key: &str) -> RecordKey {
    RecordKey::new("group", "order.created", key)
}

pub fn set(key: &str, value: &str) -> Write {
    Write { key: key.into(), change: Change::Set { value: json(value), ttl: None } }
}

pub fn add(key: &str, n: f64) -> Write {
    Write { key: key.into(), change: Change::Add(n) }
}

pub fn saw(key: &str, value: Option<&str>) -> Read {
    Read { key: key.into(), seen: Seen::of(value.map(|value| Bytes::from(value.to_owned())).as_ref()) }
}

pub async fn settle(inbox: &Arc<dyn Inbox>, runs: Vec<Run>) -> Vec<Answer> {
    let end = tokio::time::timeout(PATIENCE, inbox.settle(runs.into())).await;
    end.expect("settle is answered").expect("the store can be written")
}

pub async fn settle_one(inbox: &Arc<dyn Inbox>, run: Run) -> Answer {
    settle(inbox, vec![run]).await.remove(0)
}

pub const DONE: Answer = Answer::Done { dead: None };
