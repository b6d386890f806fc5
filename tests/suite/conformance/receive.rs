//! Cases about receiving.

use super::*;

pub async fn hands_out_in_order_and_at_most_what_was_asked(h: &impl Harness) {
    let host = h.open().await;
    let ids: Vec<String> = (0..50).map(|n| format!("e{n:02}")).collect();
    host.publish("orders", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let inbox = host.inbox("group").await;
    let mut got = Vec::new();
    while got.len() < 50 {
        let some = inbox.receive(7).await.expect("the bus can be read");
        assert!((1..=7).contains(&some.len()));
        got.extend(some);
    }
    assert_eq!(got.iter().map(id).collect::<Vec<_>>(), ids);
    let first = &got[0];
    assert_eq!(first.event, Ok(event("order.created", "e00")), "every attribute survives, data byte for byte");
    assert_eq!((first.attempt(), first.orphaned, first.deaths, &first.past), (1, 0, 0, &None));
    assert_eq!(first.token(), format!("orders/{}#1", first.entry));
}

pub async fn waits_until_something_is_published(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    let waiting = tokio::spawn({
        let inbox = inbox.clone();
        async move { receive_one(&inbox).await }
    });
    host.publish("orders", &["late"]).await;
    assert_eq!(id(&*waiting.await.expect("the task ends")), "late");
}

pub async fn loses_nothing_when_cancelled(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    let ids: Vec<String> = (0..200).map(|n| format!("e{n:03}")).collect();
    let mut got = Vec::new();
    for id in &ids {
        host.publish("orders", &[id]).await;
        // Polled once, then dropped: the claim is under way, or has just arrived.
        tokio::select! {
            biased;
            some = inbox.receive(3) => got.extend(some.expect("the bus can be read")),
            () = std::future::ready(()) => {}
        }
    }
    while got.len() < 200 {
        got.extend(receive(&inbox, 1).await.into_iter().map(|one| (*one).clone()));
    }
    assert_eq!(got.iter().map(id).collect::<Vec<_>>(), ids, "all of them, once, in order");
}

pub async fn takes_turns_between_streams(h: &impl Harness) {
    let host = h.open().await;
    let many: Vec<String> = (0..100).map(|n| format!("m{n}")).collect();
    host.publish("orders", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    host.publish("payments", &["p"]).await;
    let both = Subscription { streams: vec!["orders".into(), "payments".into()], ..subscription("group") };
    let inbox = host.bus.subscribe(both).await.expect("the group is opened").inbox;
    let mut received = 0;
    loop {
        let some = inbox.receive(5).await.expect("the bus can be read");
        received += some.len();
        if some.iter().any(|delivery| &*delivery.stream == "payments") {
            break;
        }
        assert!(received < 50, "a long stream does not starve a short one");
    }
}

pub async fn does_not_deliver_types_nobody_asked_for(h: &impl Harness) {
    let host = h.open().await;
    let wants = Subscription { types: vec![pattern("stock.*")], ..subscription("group") };
    let inbox = host.bus.subscribe(wants).await.expect("the group is opened").inbox;
    let mut emits: Vec<Emit> = (0..40).map(|n| emit("orders", &format!("unwanted{n}"))).collect();
    for (at, name) in [(7, "first"), (20, "second"), (41, "third")] {
        emits.insert(at, Emit { stream: "orders".into(), event: event("stock.low", name), delay: None });
    }
    host.bus.publish(emits).await.expect("the events are stored");
    let got = receive(&inbox, 3).await;
    assert_eq!(got.iter().map(|one| id(&**one)).collect::<Vec<_>>(), ["first", "second", "third"]);
    host.publish("orders", &["unwanted, alone"]).await;
    host.bus
        .publish(vec![Emit { stream: "orders".into(), event: event("stock.low", "last"), delay: None }])
        .await
        .expect("the event is stored");
    let last = receive_one(&inbox).await;
    assert_eq!(id(&*last), "last");
    let runs = got.iter().chain([&last]).map(commit).collect();
    assert_eq!(settle(&inbox, runs).await, vec![DONE; 4]);
    let status = host.status("group").await;
    assert_eq!((status.lag, status.in_flight), (0, 0), "what is not asked for does not stay behind");
}

pub async fn hands_out_what_is_no_event_beside_its_neighbours(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["before"]).await;
    h.put_garbage(&host, "orders").await;
    host.publish("orders", &["after"]).await;
    let got = receive(&inbox, 3).await;
    assert_eq!((id(&*got[0]), id(&*got[2])), ("before".into(), "after".into()));
    let raw = got[1].event.as_ref().expect_err("it is no event");
    assert!(!raw.reason.is_empty() && !raw.fields.is_empty(), "{raw:?}");
}

pub async fn stores_all_of_a_publish_or_none(h: &impl Harness) {
    let host = h.open().await;
    let later = Emit { delay: Some(Duration::from_secs(60)), ..emit("orders", "later") };
    let entries = host.bus.publish(vec![emit("orders", "a"), later, emit("orders", "b")]).await.expect("it is stored");
    assert!(entries.len() == 3 && entries[1].is_none());
    if h.features().one_store {
        assert!(entries[0].expect("a place") < entries[2].expect("a place"));
    }
    let refused = host.bus.publish(vec![emit("orders", "c"), emit("moontide:retry:group", "d")]).await;
    assert!(refused.is_err(), "the host's own streams are not published to");
    assert_eq!(host.ids("orders").await, ["a", "b"]);
    let a = host.overview.history("orders", None, 1).await.expect("history is readable")[0].0;
    let page = host.overview.history("orders", Some(a), 10).await.expect("history is readable");
    let ids: Vec<_> = page.into_iter().map(|(_, event)| event.map(|event| event.id)).collect();
    assert_eq!(ids, [Ok("b".to_owned())]);
}
