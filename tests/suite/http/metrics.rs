//! Metrics: what is shown, how much of it, and that nobody who scrapes pays for a backlog.

use super::client::{get, post};
use super::{ON, desk};
use crate::support::{Desk, event};

pub fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is missing in {text}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted_under_the_names_that_dashboards_know() {
    let (desk, address) = desk().await;
    post(address, "/events/order.a", &[("Idempotency-Key", "1")], r#"{"emitted_at": 1.5}"#).await.ids();
    post(address, "/events/order.a", &[("Idempotency-Key", "1")], r#"{"emitted_at": 1.5}"#).await.ids();
    post(address, "/events/order.a", &[], r#"{"emitted_at": 99999999999}"#).await.ids();
    desk.until_state("n", "2").await;
    desk.until("it is counted", |desk| desk.counts("count").done == 2).await;
    let reply = get(address, "/metrics").await;
    assert!(reply.has("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", reply.head);
    let text = reply.body;
    for (series, expected) in [
        (r#"events_published_total{topic="events:order.a",type="order.a"}"#, 2.0),
        (r#"events_consumed_total{consumer="count",topic="events:order.a",type="order.a"}"#, 2.0),
        (r#"event_latency_seconds_count{topic="events:order.a",type="order.a"}"#, 2.0),
        // The one from the future took no time; the other one came from 1970.
        (r#"event_latency_seconds_bucket{topic="events:order.a",type="order.a",le="0.001"}"#, 1.0),
        (r#"event_handler_duration_seconds_count{handler="count"}"#, 2.0),
        (r#"moontide_attempts_total{handler="count"}"#, 2.0),
        (r#"moontide_outcomes_total{handler="count",outcome="done"}"#, 2.0),
        (r#"moontide_lag_events{group="count",handler="count"}"#, 0.0),
        (r#"moontide_http_requests_total{code="202",route="/events/{type}"}"#, 3.0),
        ("moontide_store_up", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(value(&text, r#"moontide_script_memory_bytes{handler="count"}"#) > 1000.0);
    assert!(value(&text, r#"moontide_script_cpu_seconds_total{handler="count"}"#) > 0.0);
    assert!(text.contains("moontide_info{version=\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_types_are_no_more_lines_than_five_thousand() {
    let settings = format!("{ON}\n[[stream]]\ntypes = [\"*\"]\nname = \"all\"");
    let desk = Desk::with(&settings, &[("all", "return { on = '*', handle = function() end }")]).await;
    let address = desk.host().http_address().expect("HTTP is on");
    let mut sizes = Vec::new();
    for half in 0..2 {
        for batch in 0..10 {
            let from = half * 5000 + batch * 500;
            let of = |n: usize| moontide::outcome::Emit { stream: "all".into(), ..event(&format!("t.{n}"), n, "{}") };
            desk.emit((from..from + 500).map(of).collect()).await;
        }
        let wanted = (half as u64 + 1) * 5000;
        desk.until("all are handled", |desk| desk.counts("all").done == wanted).await;
        let text = get(address, "/metrics").await.body;
        sizes.push(text.lines().filter(|line| line.starts_with("event")).count());
    }
    assert_eq!(sizes[0], sizes[1]);
    assert!(sizes[0] < 5000, "{sizes:?}");
    let text = get(address, "/metrics").await.body;
    let other = value(&text, r#"events_consumed_total{consumer="all",topic="other",type="other"}"#);
    assert_eq!(other, 10_000.0 - 256.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_with_its_age() {
    let failing = "return { on = 'order.*', start = 'earliest', retry = { attempts = 9, delay = '1h', jitter = 0 },
        handle = function(event, ctx) if event.data.dead then ctx:reject('no') end error('not yet') end }";
    let desk = Desk::with(ON, &[("later", failing)]).await;
    let address = desk.host().http_address().expect("HTTP is on");
    desk.emit(vec![event("order.a", 1, "{}"), event("order.a", 2, "{}"), event("order.a", 3, r#"{"dead":true}"#)])
        .await;
    desk.until("all have run", |desk| desk.counts("later").retried == 2 && desk.counts("later").dead == 1).await;
    let groups = desk.host().backend().overview.groups().await.expect("the store answers");
    let later = groups.iter().find(|group| group.handler == "later").expect("it has a group");
    assert_eq!((later.lag, later.delayed, later.dead, later.oldest), (2, 2, 1, None), "what is not due has no age");
    let text = get(address, "/metrics").await.body;
    assert_eq!(value(&text, r#"moontide_dead_letters_total{handler="later",reason="rejected"}"#), 1.0);
    desk.remove("later");
    desk.until("it is gone", |desk| desk.host().snapshot().is_empty()).await;
    desk.emit(vec![event("order.a", 4, "{}")]).await;
    let groups = desk.host().backend().overview.groups().await.expect("the store answers");
    let later = groups.iter().find(|group| group.handler == "later").expect("its group stays");
    assert_eq!((later.lag, later.oldest.is_some()), (3, true), "{later:?}");
}
