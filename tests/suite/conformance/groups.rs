//! Cases about groups: where they begin, and that they go on.

use moontide::bus::Began;

use super::*;

pub async fn begins_where_its_handler_says(h: &impl Harness) {
    let host = h.open().await;
    host.publish("orders", &["a", "b"]).await;
    h.advance(1000);
    let time = h.now();
    host.publish("orders", &["c"]).await;
    let mut opened = Vec::new();
    for (start, group, skipped, taken_in, first) in [
        (Start::Latest, "latest", 3, 0, "d"),
        (Start::Earliest, "earliest", 0, 3, "a"),
        (Start::At(time), "at", 2, 1, "c"),
        (Start::At(0), "at the epoch", 0, 3, "a"),
        (Start::At(time + 1), "at the end", 3, 0, "d"),
    ] {
        let wants = Subscription { start, ..subscription(group) };
        let subscribed = host.bus.subscribe(wants).await.expect("the group is opened");
        assert_eq!(subscribed.began, [Began { stream: "orders".into(), skipped, taken_in }], "{group}");
        opened.push((subscribed.inbox, group, first));
    }
    host.publish("orders", &["d"]).await;
    for (inbox, group, first) in opened {
        assert_eq!(id(&*receive_one(&inbox).await), first, "{group}");
    }
}

fn discoverer(group: &str) -> Subscription {
    let discover = vec![("events:".to_owned(), pattern("order.*"))];
    Subscription { streams: Vec::new(), discover, start: Start::Latest, ..subscription(group) }
}

pub async fn reads_streams_that_appear_later_from_their_first_entry(h: &impl Harness) {
    let host = h.open().await;
    host.publish("events:order.created", &["old"]).await;
    let inbox = host.bus.subscribe(discoverer("group")).await.expect("the group is opened").inbox;
    host.publish("events:stock.low", &["not asked for"]).await;
    host.publish("events:order.paid", &["first", "second"]).await;
    host.publish("events:order.created", &["new"]).await;
    let mut got: Vec<String> = receive(&inbox, 3).await.iter().map(|one| id(&**one)).collect();
    got.sort();
    assert_eq!(got, ["first", "new", "second"]);
}

pub async fn goes_on_where_it_was(h: &impl Harness) {
    if !h.features().durable {
        return;
    }
    let host = h.open().await;
    host.publish("orders", &["a", "b", "c"]).await;
    let inbox = host.inbox("group").await;
    let got = receive(&inbox, 2).await;
    assert_eq!(settle(&inbox, got.iter().map(commit).collect()).await, [DONE, DONE]);
    drop((host, inbox));
    let host = h.open().await;
    let again = host.bus.subscribe(subscription("group")).await.expect("the group is opened");
    assert_eq!(again.began, [], "the group is not new");
    assert_eq!(id(&*receive_one(&again.inbox).await), "c");
}

pub async fn misses_no_stream_that_appeared_while_it_was_away(h: &impl Harness) {
    if !h.features().durable {
        return;
    }
    let host = h.open().await;
    let inbox = host.bus.subscribe(discoverer("group")).await.expect("the group is opened").inbox;
    drop(inbox);
    host.publish("events:order.paid", &["while away"]).await;
    host.publish("other", &["not asked for"]).await;
    drop(host);
    let host = h.open().await;
    let more = Subscription { streams: vec!["other".into()], ..discoverer("group") };
    let again = host.bus.subscribe(more).await.expect("the group is opened");
    let stream = |name: &str, skipped, taken_in| Began { stream: name.into(), skipped, taken_in };
    assert_eq!(again.began, [stream("events:order.paid", 0, 1), stream("other", 1, 0)]);
    assert_eq!(id(&*receive_one(&again.inbox).await), "while away");
}

pub async fn gets_back_what_a_closed_inbox_held(h: &impl Harness) {
    let host = h.open().await;
    host.publish("orders", &["a", "b", "c", "d"]).await;
    let inbox = host.inbox("group").await;
    let got = receive(&inbox, 3).await;
    assert_eq!(settle_one(&inbox, commit(&got[1])).await, DONE);
    drop(inbox);
    let inbox = host.inbox("group").await;
    let mut again = receive(&inbox, 3).await;
    again.sort_by_key(|one| one.entry);
    assert_eq!(again.iter().map(|one| id(&**one)).collect::<Vec<_>>(), ["a", "c", "d"]);
    assert!(again.iter().all(|one| one.orphaned == 0 && one.attempt() == 1));
    assert_eq!(settle_one(&inbox, commit(&got[0])).await, Answer::Fenced, "the old lease is void");
}

pub async fn is_settled_anew_when_it_is_opened_anew(h: &impl Harness) {
    let host = h.open().await;
    host.publish("orders", &["a"]).await;
    for (times, event) in ["b", "c", "d"].into_iter().enumerate() {
        let inbox = host.inbox("group").await;
        let mut run = commit(&receive_one(&inbox).await);
        run.effects.writes = vec![add("count", 1.0)];
        assert_eq!(settle_one(&inbox, run).await, DONE);
        assert_eq!(host.value("count").await, Some((times + 1).to_string()), "what is answered is done");
        host.publish("orders", &[event]).await;
    }
}

pub async fn shows_how_it_stands(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a", "b", "c", "d", "e"]).await;
    let got = receive(&inbox, 4).await;
    let runs = vec![commit(&got[0]), run(&got[1], retry(60, "later")), run(&got[2], reject("no"))];
    settle(&inbox, runs).await;
    let status = host.status("group").await;
    assert_eq!(status.handler, "group-handler");
    assert_eq!((status.lag, status.in_flight, status.delayed, status.dead), (2, 1, 1, 1));
}

pub async fn keeps_groups_apart(h: &impl Harness) {
    let host = h.open().await;
    host.publish("orders", &["a"]).await;
    let (one, other) = (host.inbox("one").await, host.inbox("other").await);
    let got = receive_one(&one).await;
    assert_eq!(settle_one(&one, run(&got, retry(1, "again"))).await, DONE);
    h.advance(2000);
    assert_eq!(receive_one(&one).await.attempt(), 2);
    assert_eq!(receive_one(&other).await.attempt(), 1);
    nothing_but_a_marker(&host, &other).await;
}
