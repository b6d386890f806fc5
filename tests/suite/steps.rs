//! Durable steps as a whole: a host in this process, real scripts, and what lies in the store when they are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moontide::bus::sqlite::{Options, Place, SqliteStore};
use moontide::bus::{Bus, Groups, Replayed, STEPS_KEPT, Step, StepAnswer, Subscription};
use moontide::clock::ManualClock;
use moontide::event::Json;
use moontide::outcome::{Change, RecordKey, Write};
use rusqlite::Connection;

use crate::conformance::subscription;
use crate::support::{Desk, PATIENCE, event};

const MOMENT: Duration = Duration::from_millis(5);

/// Fails until the third attempt, and says each time what its step came to.
const FLAKY: &str = r#"
return {
    on = "charge",
    start = "earliest",
    retry = { attempts = 5, delay = "5ms", factor = 1, jitter = 0 },
    handle = function(event, ctx)
        local id = ctx:step("charge", function() return uuid.v4() end)
        local first = ctx:step("first", function() return id end)
        assert(id == first, "the step was run twice")
        if ctx.attempt < 3 then
            error("flaky")
        end
        ctx.kv:add("charged", ctx.attempt)
    end,
}
"#;

/// Refuses its event as long as the state does not say that it may pass.
const REFUSED: &str = r#"
return {
    on = "charge",
    start = "earliest",
    handle = function(event, ctx)
        ctx.kv:set("by", ctx:step("charge", function() return uuid.v4() end))
        ctx.kv:add("ends", 1)
        if not ctx.kv:get("pass") then
            ctx:reject("not yet")
        end
    end,
}
"#;

fn file(desk: &Desk) -> Connection {
    Connection::open(desk.dir.path().join("moontide.db")).expect("the file opens")
}

/// Names and results of all steps that are recorded.
fn recorded(desk: &Desk) -> BTreeMap<String, String> {
    let file = file(desk);
    let mut list = file.prepare("SELECT name, result FROM step").expect("the table is there");
    let rows = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it is readable");
    rows.collect::<Result<_, _>>().expect("it is readable")
}

async fn charge(desk: &Desk, id: &str) {
    desk.emit(vec![event("charge", id, "{}")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_run_once_however_often_its_run_fails_and_its_record_ends_with_the_event() {
    for window in ["\"1h\"", "\"off\""] {
        let script = FLAKY.replace("    retry", &format!("    idempotency = {{ window = {window} }},\n    retry"));
        let desk = Desk::new(&[("charge", &script)]).await;
        charge(&desk, "a").await;
        desk.until_state("charged", "3").await;
        desk.quiet().await;
        assert_eq!(desk.counts("charge").retried, 2, "{window}");
        assert_eq!(recorded(&desk), BTreeMap::new(), "{window}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_with_the_steps_of_its_dead_letter() {
    let desk = Desk::new(&[("charge", REFUSED)]).await;
    charge(&desk, "a").await;
    desk.quiet().await;
    let letter = desk.dead().await.pop().expect("it was refused");
    let before = recorded(&desk);
    let token = before.get("charge").cloned().expect("it stays as long as the letter");
    desk.host().backend().state.write(vec![set("pass", "true")]).await.expect("the store can be written");
    let replayed = desk.host().backend().dead.replay(letter.id).await.expect("the store answers");
    assert_eq!(replayed, Replayed::Queued);
    desk.until_state("ends", "1").await;
    assert_eq!(desk.state("by").await, Some(token), "the step was not run again");
    desk.quiet().await;
    assert_eq!((desk.dead().await.len(), recorded(&desk)), (0, BTreeMap::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_retry_keeps_its_steps_when_its_group_is_moved() {
    let script = |group: &str, pass: bool| {
        let refuse = if pass { "" } else { "ctx:snooze('1h')" };
        format!(
            "return {{ on = 'charge', group = '{group}', start = 'earliest', handle = function(event, ctx)
                ctx.kv:set('by', ctx:step('charge', function() return uuid.v4() end))
                {refuse}
            end }}"
        )
    };
    let mut desk = Desk::new(&[("charge", &script("old", false))]).await;
    charge(&desk, "a").await;
    desk.until("it waits", |desk| desk.counts("charge").retried == 1).await;
    let token = recorded(&desk).remove("charge").expect("it is recorded");
    desk.stop().await;
    let store = SqliteStore::open(options(&desk)).expect("the store opens");
    let moved = Groups::hand_over(&*store, "old", "new").await.expect("nobody serves it");
    assert_eq!(moved.delayed, 1);
    store.close().await;
    file(&desk).execute("UPDATE delayed SET due = 0", []).expect("it is due now");
    desk.write("charge", &script("new", true));
    desk.start().await;
    desk.until_state("by", &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_not_run_on_state_that_moved_and_the_run_is_repeated_uncharged() {
    const WAITS: &str = r#"
        local go = false
        return {
            on = { "charge", "go" },
            start = "earliest",
            handle = function(event, ctx)
                if event.type == "go" then
                    go = true
                    return
                end
                local seen = ctx.kv:get("stock")
                ctx:step("read", function() end)
                while not go do
                    ctx:sleep("5ms")
                end
                ctx.kv:set("charged", ctx:step("charge", function() return { seen, ctx.attempt } end))
            end,
        }"#;
    let desk = Desk::new(&[("charge", WAITS)]).await;
    let backend = desk.host().backend();
    backend.state.write(vec![set("stock", "1")]).await.expect("the store can be written");
    charge(&desk, "a").await;
    desk.until("it has read", |desk| recorded(desk).contains_key("read")).await;
    backend.state.write(vec![set("stock", "2")]).await.expect("the store can be written");
    let mut sent = 0;
    // Each script thread has a VM of its own: so many that one of them comes to the one that waits.
    while desk.state("charged").await.is_none() {
        desk.emit((sent..sent + 64).map(|n| event("go", n, "{}")).collect()).await;
        sent += 64;
        assert!(sent < 64 * 1000, "it waits for ever");
        tokio::time::sleep(MOMENT).await;
    }
    desk.until_state("charged", "[2,1]").await;
    assert_eq!((desk.counts("charge").conflicts, desk.counts("charge").retried), (1, 0));
}

fn options(desk: &Desk) -> Options {
    Options::at(Place::File(desk.dir.path().join("moontide.db")))
}

fn set(key: &str, value: &str) -> Write {
    Write { key: key.into(), change: Change::Set { value: Json::trusted(value.to_owned()), ttl: None } }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_for_an_event_that_is_never_settled_goes_in_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("moontide.db");
    let clock = Arc::new(ManualClock::at(1_000_000));
    let place = Place::File(path.clone());
    let store = SqliteStore::open(Options { clock: clock.clone(), upkeep_every: MOMENT, ..Options::at(place) });
    let store = store.expect("the store opens");
    store.publish(vec![event("charge", "a", "{}")]).await.expect("it is stored");
    let subscription = Subscription { streams: vec!["events:charge".into()], ..subscription("group") };
    let inbox = store.subscribe(subscription).await.expect("the group is opened").inbox;
    let delivery = inbox.receive(1).await.expect("it is there").remove(0);
    let of = RecordKey([1; 16]);
    let step = |name: &str| Step { event: of, name: name.into(), result: "1".into(), kept: STEPS_KEPT };
    let day = 24 * 3600 * 1000;
    assert_eq!(inbox.record(&delivery, &step("first")).await.expect("it is ours"), StepAnswer::Recorded);
    clock.advance(29 * day);
    assert_eq!(inbox.record(&delivery, &step("second")).await.expect("it is ours"), StepAnswer::Recorded);
    clock.advance(29 * day);
    assert_eq!(inbox.recall(of).await.expect("it is readable").len(), 2, "each keeps the others alive");
    clock.advance(day);
    assert_eq!(inbox.recall(of).await.expect("it is readable"), []);
    let rows = || {
        let file = Connection::open(&path).expect("the file opens");
        file.query_row("SELECT count(*) FROM step", [], |row| row.get::<_, i64>(0)).expect("it is readable")
    };
    let began = Instant::now();
    while rows() > 0 {
        assert!(began.elapsed() < PATIENCE, "they are still there");
        tokio::time::sleep(MOMENT).await;
    }
}
