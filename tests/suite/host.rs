//! A whole host in this process: from a file in a folder to a settled event.

use crate::support::{Desk, event};

const COUNT: &str = "return { on = 'tick', handle = function(event, ctx) ctx.kv:add('ticks', 1) end }";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_dropped_into_the_folder_handles_events_without_a_restart() {
    let desk = Desk::new(&[]).await;
    desk.write("tick", "return function(event, ctx) ctx.kv:set('last', event.data.n) end");
    desk.until("the file is loaded", |desk| !desk.version("tick").is_empty()).await;
    desk.emit(vec![event("tick", 1, r#"{"n":17}"#)]).await;
    desk.until_state("last", "17").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_save_keeps_the_last_good_version_and_a_good_one_takes_over() {
    let desk = Desk::new(&[("tick", "return function(event, ctx) ctx.kv:set('by', 'first') end")]).await;
    let first = desk.version("tick");
    desk.write("tick", "return function(event, ctx");
    desk.until("the problem is seen", |desk| desk.host().snapshot()[0].problem.is_some()).await;
    assert_eq!(desk.version("tick"), first);
    desk.emit(vec![event("tick", 1, "{}")]).await;
    desk.until_state("by", "\"first\"").await;

    desk.write("tick", "return function(event, ctx) ctx.kv:set('by', 'second') end");
    desk.until("it is reloaded", |desk| desk.version("tick") != first).await;
    desk.emit(vec![event("tick", 2, "{}")]).await;
    desk.until_state("by", "\"second\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emitted_event_says_which_version_of_which_handler_made_it() {
    let makes = |n: u8| format!("return function(event, ctx) ctx:emit('made', {n}) end");
    let notes = "return function(event, ctx) ctx.kv:set('by/' .. event.data, { event.ext.handler, event.ext.handlerversion }) end";
    let desk = Desk::new(&[("tick", &makes(1)), ("made", notes)]).await;
    let first = desk.version("tick");
    desk.emit(vec![event("tick", 1, "{}")]).await;
    desk.until_state("by/1", &format!(r#"["tick","{first}"]"#)).await;

    desk.write("tick", &makes(2));
    desk.until("it is reloaded", |desk| desk.version("tick") != first).await;
    desk.emit(vec![event("tick", 2, "{}")]).await;
    desk.until_state("by/2", &format!(r#"["tick","{}"]"#, desk.version("tick"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_deleted_handler_wait_for_its_return() {
    let desk = Desk::new(&[("tick", COUNT)]).await;
    desk.emit(vec![event("tick", 1, "{}")]).await;
    desk.until_state("ticks", "1").await;
    desk.remove("tick");
    desk.until("it is gone", |desk| desk.host().snapshot().is_empty()).await;
    desk.emit(vec![event("tick", 2, "{}"), event("tick", 3, "{}")]).await;
    desk.write("tick", COUNT);
    desk.until_state("ticks", "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_popular_key_costs_about_one_run_per_event() {
    let script =
        "return { on = 'tick', handle = function(event, ctx) ctx.kv:set('sum', (ctx.kv:get('sum') or 0) + 1) end }";
    let desk = Desk::new(&[("tick", script)]).await;
    desk.emit((0..500).map(|n| event("tick", n, "{}")).collect()).await;
    desk.until_state("sum", "500").await;
    let conflicts = desk.counts("tick").conflicts;
    assert!(conflicts <= 150, "{conflicts} conflicts for 500 events");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_always_fails_is_given_up_with_all_its_errors_and_can_be_replayed() {
    let failing = "return { on = 'tick', retry = { attempts = 3, delay = '5ms', jitter = 0 },
        handle = function(event, ctx) error('attempt ' .. ctx.attempt) end }";
    let desk = Desk::new(&[("tick", failing)]).await;
    let broken = desk.version("tick");
    desk.emit(vec![event("tick", "one", r#"{"a":[]}"#)]).await;
    desk.until("it is given up", |desk| desk.counts("tick").dead == 1).await;
    let letter = desk.dead().await.remove(0);
    let messages: Vec<_> = letter.failures.iter().map(|past| past.failure.message.clone()).collect();
    assert_eq!(messages, ["attempt 1", "attempt 2", "attempt 3"]);
    assert_eq!((letter.attempts, letter.reason.as_str(), &*letter.version), (3, "exhausted", &*broken));
    let kept = letter.event.expect("it is an event");
    assert_eq!(kept.data.expect("it has data").text(), r#"{"a":[]}"#);

    desk.write("tick", COUNT);
    desk.until("it is reloaded", |desk| desk.version("tick") != broken).await;
    desk.emit(vec![event("tick", "one", "{}")]).await;
    desk.until("the late duplicate is recognised", |desk| desk.counts("tick").duplicates == 1).await;
    desk.host().backend().dead.replay(letter.id).await.expect("the store answers");
    desk.until_state("ticks", "1").await;
    desk.quiet().await;
    assert!(desk.dead().await.is_empty(), "a replay that is committed ends its dead letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unfinished_at_the_end_of_the_grace_time_goes_back_uncharged() {
    let slow = "return { on = 'tick', concurrency = 2, handle = function(event, ctx)
        if ctx.kv:get('fast') then ctx.kv:add('attempts', ctx.attempt) else ctx:sleep('20s') end end }";
    let mut desk = Desk::new(&[("tick", slow)]).await;
    desk.emit((0..5).map(|n| event("tick", n, "{}")).collect()).await;
    desk.until("runs are under way", |desk| desk.counts("tick").running == 2).await;
    desk.stop().await;
    desk.start().await;
    desk.emit(vec![event("other", 1, "{}")]).await;
    let fast = moontide::outcome::Write {
        key: "fast".to_owned(),
        change: moontide::outcome::Change::Set { value: moontide::event::Json::trusted("true"), ttl: None },
    };
    desk.host().backend().state.write(vec![fast]).await.expect("the store answers");
    desk.stop().await;
    desk.start().await;
    desk.until_state("attempts", "5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_by_key_are_not_run_again() {
    let script = "return { on = 'tick', idempotency = { key = 'data.k', window = '1h' },
        handle = function(event, ctx) ctx.kv:add('n', 1) end }";
    let desk = Desk::new(&[("tick", script)]).await;
    desk.emit(vec![event("tick", 1, r#"{"k":1}"#)]).await;
    desk.until_state("n", "1").await;
    desk.emit(vec![event("tick", 2, r#"{"k":1}"#), event("tick", 3, "{}"), event("tick", 4, r#"{"k":2}"#)]).await;
    desk.until_state("n", "2").await;
    desk.quiet().await;
    desk.until("the duplicate is counted", |desk| desk.counts("tick").duplicates == 1).await;
    let dead = desk.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason.as_str(), "invalid");
    assert!(dead[0].failures[0].failure.message.contains("data.k"), "{:?}", dead[0].failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snooze_does_not_count_as_an_attempt() {
    let script = "return { on = 'tick', retry = { attempts = 1 }, handle = function(event, ctx)
        if (ctx.kv:get('open') or 0) < 3 then ctx:snooze('10ms', 'closed') end
        ctx.kv:set('attempt', ctx.attempt) end }";
    let opener = "return { on = 'open', handle = function(event, ctx) ctx.kv:add('open', 1) end }";
    let desk = Desk::new(&[("tick", script), ("opener", opener)]).await;
    desk.emit(vec![event("tick", 1, "{}")]).await;
    desk.until("it snoozed", |desk| desk.counts("tick").retried >= 2).await;
    desk.emit((0..3).map(|n| event("open", n, "{}")).collect()).await;
    desk.until_state("attempt", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_deleted_twice_while_it_drains_stays_deleted() {
    let version = |name: &str, before: &str| {
        format!("return {{ on = 'tick', handle = function(event, ctx) {before} ctx.kv:add('{name}', 1) end }}")
    };
    let desk = Desk::new(&[("tick", &version("first", "ctx:sleep('1500ms')"))]).await;
    desk.emit(vec![event("tick", 1, "{}")]).await;
    desk.until("it runs", |desk| desk.counts("tick").running == 1).await;
    let gone = |desk: &Desk| desk.host().snapshot().is_empty();
    desk.remove("tick");
    desk.until("it is gone", gone).await;
    desk.write("tick", &version("second", ""));
    desk.until("it is back", |desk| !gone(desk)).await;
    desk.remove("tick");
    desk.until("it is gone again", gone).await;
    desk.emit(vec![event("tick", 2, "{}")]).await;
    desk.until_state("first", "1").await;
    desk.write("tick", &version("third", ""));
    desk.until_state("third", "1").await;
    assert_eq!(desk.state("second").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_asks_for_more_misses_nothing_while_its_old_worker_drains() {
    let slow = "return { on = 'tick', handle = function(event, ctx) ctx:sleep('1s') ctx.kv:add('ticks', 1) end }";
    let desk = Desk::new(&[("tick", slow)]).await;
    let before = desk.version("tick");
    desk.emit(vec![event("tick", 1, "{}")]).await;
    desk.until("it runs", |desk| desk.counts("tick").running == 1).await;
    desk.write(
        "tick",
        "return { on = { 'tick', 'tock' }, handle = function(event, ctx) ctx.kv:add(event.type, 1) end }",
    );
    desk.until("it is seen", |desk| desk.version("tick") != before).await;
    assert_eq!(desk.state("ticks").await, None, "the old worker is still at it");
    desk.emit(vec![event("tock", 2, "{}")]).await;
    desk.until_state("tock", "1").await;
    desk.until_state("ticks", "1").await;
}
