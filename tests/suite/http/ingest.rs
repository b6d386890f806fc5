//! Events in: what is answered with 202 is stored, once per key, as it was sent.

use futures_util::future::join_all;

use super::client::{post, request, say};
use super::{desk, stored};

#[tokio::test(flavor = "multi_thread")]
async fn plain_json_is_stored_when_it_is_answered_and_handled_after() {
    let (desk, address) = desk().await;
    let ids = post(address, "/events/order.created", &[], r#"{"n": 1.0}"#).await.ids();
    let events = stored(&desk, "order.created").await;
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0].id, events[0].source.as_str()), (&ids[0], "moontide"));
    assert_eq!(events[0].data.as_ref().expect("it has data").text(), r#"{"n": 1.0}"#, "byte for byte");
    let more = [("ce-subject", "a%20b"), ("ce-id", "mine"), ("ce-source", "/till"), ("ce-correlationid", "c")];
    assert_eq!(post(address, "/events/order.paid", &more, "null").await.ids(), ["mine"]);
    let event = stored(&desk, "order.paid").await.remove(0);
    assert_eq!((event.source.as_str(), event.subject.as_deref()), ("/till", Some("a b")));
    assert_eq!(event.correlation_id.as_deref(), Some("c"));
    desk.until_state("n", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_modes_of_cloudevents_are_taken() {
    let (desk, address) = desk().await;
    let event = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"order.a","shard":7,"data":{{"id":"{id}"}}}}"#
        )
    };
    let structured = [("Content-Type", "application/cloudevents+json; charset=utf-8")];
    let reply = say(address, &request("POST", "/events", &structured, event("1").as_bytes())).await;
    assert_eq!(reply.ids(), ["1"]);
    let batched = [("Content-Type", "application/cloudevents-batch+json")];
    let batch = format!("[{},{}]", event("2"), event("3"));
    assert_eq!(say(address, &request("POST", "/events", &batched, batch.as_bytes())).await.ids(), ["2", "3"]);
    assert!(say(address, &request("POST", "/events", &batched, b"[]")).await.ids().is_empty());
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "4"),
        ("ce-source", "/s"),
        ("ce-type", "order.a"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-shard", "%37"),
        ("Content-Type", "application/json"),
    ];
    assert_eq!(say(address, &request("POST", "/events", &binary, br#"{"id":"4"}"#)).await.ids(), ["4"]);
    let events = stored(&desk, "order.a").await;
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    for event in &events {
        let data = event.data.as_ref().expect("it has data").text();
        assert_eq!(data, format!(r#"{{"id":"{}"}}"#, event.id));
    }
    assert_eq!(events[0].ext.as_ref().expect("it has an attribute more").text(), r#"{"shard":7}"#);
    assert_eq!(events[3].ext.as_ref().expect("it has an attribute more").text(), r#"{"shard":"7"}"#);
    assert_eq!(events[3].time.as_deref(), Some("2026-01-01T00:00:00Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_event_refuses_its_whole_batch() {
    let (desk, address) = desk().await;
    let batched = [("Content-Type", "application/cloudevents-batch+json")];
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.a"}"#;
    let batch = format!("[{good},{}]", good.replace("order.a", "order a"));
    let (status, says) = say(address, &request("POST", "/events", &batched, batch.as_bytes())).await.problem();
    assert_eq!(status, 400);
    assert!(says.starts_with("event 2 has the type \"order a\""), "{says}");
    assert!(stored(&desk, "order.a").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_body_even_after_a_restart() {
    let (mut desk, address) = desk().await;
    let key = [("Idempotency-Key", "k-1")];
    let first = post(address, "/events/order.a", &key, r#"{"n":1}"#).await;
    let again = post(address, "/events/order.a", &key, r#"{"n":1}"#).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    let (status, says) = post(address, "/events/order.a", &key, r#"{"n":2}"#).await.problem();
    assert_eq!(status, 422);
    assert!(says.contains("k-1"), "{says}");
    assert_ne!(post(address, "/events/order.b", &key, r#"{"n":1}"#).await.ids(), first.ids(), "another type");
    let other = [("Idempotency-Key", "k-1"), ("ce-source", "/other")];
    assert_ne!(post(address, "/events/order.a", &other, r#"{"n":1}"#).await.ids(), first.ids(), "another sender");
    desk.stop().await;
    desk.start().await;
    let address = desk.host().http_address().expect("HTTP is on");
    assert_eq!(post(address, "/events/order.a", &key, r#"{"n":1}"#).await.ids(), first.ids());
    assert_eq!(stored(&desk, "order.a").await.len(), 2);
    desk.until_state("n", "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_under_one_key_store_one_event() {
    let (desk, address) = desk().await;
    let key = [("Idempotency-Key", "same")];
    let replies = join_all((0..40).map(|_| post(address, "/events/order.a", &key, "{}"))).await;
    let ids: std::collections::BTreeSet<_> = replies.iter().flat_map(super::client::Reply::ids).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(stored(&desk, "order.a").await.len(), 1);
}
