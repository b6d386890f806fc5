//! Redis Pub/Sub, in and out: one copy of what has an id, at most one of what has none, and nothing published that is not stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use moontide::bus::redis::{Options, RedisBus};
use moontide::bus::{Answer, Bus, BusError, ChannelStatus, DeadFilter, DeadLetters, Delivery, Inbox, Overview};
use moontide::channels::{Channel, Deliver, Mirror};
use moontide::envelope::Layouts;
use moontide::event::Json;
use moontide::judge::Verdict;
use moontide::outcome::Emit;
use moontide::streams::Streams;

use super::rig::{entries, options};
use super::until;
use crate::conformance::{self, add, commit, emit, id, pattern, receive_one, retry, run, settle_one, subscription};
use moontide_stage::server::{Kind, Server};

const KINDS: [Kind; 2] = [Kind::Redis, Kind::Valkey];

fn channel(name: &str, layout: &str, deliver: Deliver) -> Channel {
    Channel { name: name.into(), layouts: Layouts::of_channel(&[layout], &[]).expect("a preset"), deliver }
}

/// A process that listens.
async fn listening(server: &Server, instance: &str, channels: Vec<Channel>) -> Arc<RedisBus> {
    let bus = opened(server, instance).await;
    bus.listen(channels);
    hears(server, instance).await;
    bus
}

/// Until it hears everything; its own channel comes last.
async fn hears(server: &Server, instance: &str) {
    let own = format!("moontide:lead:{instance}:*");
    until(|| !server.get::<Vec<String>>(&["PUBSUB", "CHANNELS", &own]).is_empty()).await;
}

async fn opened(server: &Server, instance: &str) -> Arc<RedisBus> {
    let options = Options {
        instance: instance.into(),
        beat_every: Duration::from_millis(20),
        recovery_time: Duration::from_secs(20),
        ..options(&server.url())
    };
    RedisBus::open(options).await.expect("the server can be used")
}

/// Until somebody leads.
async fn led(server: &Server) -> String {
    let leaders = || server.get::<BTreeMap<String, String>>(&["HGETALL", "moontide:lead"]);
    until(|| !leaders().is_empty()).await;
    leaders().into_values().next().expect("there is one")
}

fn status(bus: &RedisBus) -> ChannelStatus {
    bus.channels().pop().expect("it listens")
}

fn domain(n: u64) -> String {
    format!(
        r#"{{"event_id":"e-{n}","event_name":"user.registered","occurred_at":"2025-01-15T10:30:00","payload":{{"n":{n}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_an_id_is_stored_once_however_many_listen() {
    for server in KINDS.map(Server::new) {
        let heard = || vec![channel("events:*", "domain", Deliver::Stream)];
        let one = listening(&server, "one", heard()).await;
        let two = listening(&server, "two", heard()).await;
        for n in 0..200 {
            server.call(&["PUBLISH", "events:user.registered", &domain(n)]);
            // A publisher that was not sure.
            server.call(&["PUBLISH", "events:user.registered", &domain(n)]);
        }
        let all = |status: ChannelStatus| status.taken + status.duplicates;
        until(|| all(status(&one)) == 400 && all(status(&two)) == 400).await;
        let expected: Vec<_> = (0..200).map(|n| format!("e-{n}")).collect();
        assert_eq!(entries(&server, "events:user.registered"), expected, "each once, in order");
        assert_eq!(status(&one).taken + status(&two).taken, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_id_is_stored_at_most_once_and_by_somebody_else_when_its_owner_dies() {
    for server in KINDS.map(Server::new) {
        let heard = || vec![channel("news", "subject", Deliver::Stream)];
        let mut buses = BTreeMap::new();
        for name in ["one", "two", "three"] {
            buses.insert(name, listening(&server, name, heard()).await);
        }
        let mut published = 0;
        while buses.len() > 1 {
            let leader = led(&server).await;
            let before = server.get::<u64>(&["XLEN", "events:n"]);
            // Until the marker has come, what is published is nobody's.
            until(|| {
                published += 1;
                server.call(&["PUBLISH", "news", &format!(r#"{{"subject":"n","data":{published}}}"#)]);
                server.get::<u64>(&["XLEN", "events:n"]) > before + 20
            })
            .await;
            let name = leader.split(':').next().expect("it has a name").to_owned();
            drop(buses.remove(&*name).expect("it lives"));
            until(|| server.get::<Option<String>>(&["HGET", "moontide:lead", "news"]) != Some(leader.clone())).await;
        }
        let entries: Vec<(String, Vec<String>)> = server.get(&["XRANGE", "events:n", "-", "+"]);
        let data =
            |fields: &Vec<String>| fields.chunks(2).find(|field| field[0] == "data").map(|field| field[1].clone());
        let mut numbers: Vec<_> = entries.iter().filter_map(|(_, fields)| data(fields)).collect();
        let count = numbers.len();
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "none twice");
        assert!(count > 40, "{count} of {published}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_becomes_a_dead_letter_alone() {
    let server = Server::new(Kind::Redis);
    let bus = listening(&server, "one", vec![channel("in", "event_data", Deliver::Stream)]).await;
    led(&server).await;
    let publish = |message: &[u8]| {
        let mut command = redis::cmd("PUBLISH");
        let _: i64 = command.arg("in").arg(message).query(&mut server.connect()).expect("it is published");
    };
    let good = |n: u64| format!(r#"{{"event_id":"{n}","event_type":"user.created","source_service":"users"}}"#);
    let letters = async || DeadLetters::list(&*bus, DeadFilter { limit: 10, ..DeadFilter::default() }).await;
    // Until the marker has come.
    conformance::until(async || {
        publish(b"\xff\x00");
        letters().await.is_ok_and(|letters| !letters.is_empty())
    })
    .await;
    publish(good(1).as_bytes());
    publish(b"{\"event_id\":\"2\"}");
    publish(good(3).as_bytes());
    until(|| entries(&server, "events:user.created") == ["1", "3"]).await;
    let letters = letters().await.expect("the server answers");
    assert!(letters.len() >= 2);
    let raw = letters[0].event.as_ref().expect_err("it is none");
    assert!(raw.fields.iter().any(|(name, value)| name == "message" && value == &b"\xff\x00"[..]), "{raw:?}");
    let last = letters.last().expect("there is one");
    assert!(last.failures[0].failure.message.contains("\"event_type\" is missing"), "{last:?}");
    assert_eq!((last.handler.as_str(), last.stream.as_str()), ("channel in", "moontide:channel:in"));
    let replayed = bus.replay(last.id).await.expect_err("it has no handler");
    assert!(replayed.to_string().ends_with("it came by channel in to nobody; publish it again"), "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_is_stored_before_a_process_ends() {
    let server = Server::new(Kind::Redis);
    let bus = listening(&server, "one", vec![channel("in", "domain", Deliver::Stream)]).await;
    for n in 0..500 {
        server.call(&["PUBLISH", "in", &domain(n)]);
    }
    until(|| status(&bus).heard == 500).await;
    bus.close().await;
    assert_eq!(entries(&server, "events:user.registered").len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_cut_is_counted_and_listened_to_again() {
    let server = Server::new(Kind::Redis);
    let bus = listening(&server, "one", vec![channel("in", "domain", Deliver::Stream)]).await;
    server.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until(|| status(&bus).gaps == 1).await;
    server.call(&["PUBLISH", "in", &domain(1)]);
    until(|| entries(&server, "events:user.registered") == ["e-1"]).await;
    bus.stop_listening();
    until(|| server.get::<Vec<String>>(&["PUBSUB", "CHANNELS"]).is_empty()).await;
}

/// Listens directly, with an inbox that asks for what comes.
async fn direct(server: &Server, name: &str) -> (Arc<RedisBus>, Arc<dyn Inbox>) {
    let bus = opened(server, name).await;
    let inbox = bus.subscribe(moontide::bus::Subscription {
        types: vec![pattern("user.*")],
        streams: vec!["events:user.registered".into()],
        ..subscription("group")
    });
    let inbox = inbox.await.expect("the group is opened").inbox;
    bus.listen(vec![channel("in", "domain", Deliver::Direct)]);
    hears(server, name).await;
    (bus, inbox)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handled_directly_is_handled_by_one_and_stored_nowhere() {
    for server in KINDS.map(Server::new) {
        let (one, first) = direct(&server, "one").await;
        let leader = led(&server).await;
        assert!(leader.starts_with("one:"));
        until(|| publish_until_taken(&server, &one)).await;
        let (two, _second) = direct(&server, "two").await;
        let delivery = receive_one(&first).await;
        assert_eq!(delivery.stream.as_ref(), "moontide:channel:in");
        let mut done = commit(&delivery);
        done.effects.writes = vec![add("count", 1.0)];
        assert_eq!(settle_one(&first, done.clone()).await, Answer::Done { dead: None });
        assert_eq!(settle_one(&first, done).await, Answer::AlreadyMine);
        assert_eq!(server.get::<String>(&["GET", "state:count"]), "1");
        assert_eq!(server.get::<u64>(&["EXISTS", "events:user.registered"]), 1, "the group is there, but no entry");
        assert_eq!(server.get::<u64>(&["XLEN", "events:user.registered"]), 0);
        assert_eq!(status(&two).taken, 0);
        // A retry is durable, and so is what a stopping host gives back.
        for verdict in [retry(0, "not yet"), Verdict::Release] {
            server.call(&["PUBLISH", "in", &domain(2)]);
            let delivery = receive_named(&first, "e-2").await;
            assert_eq!(settle_one(&first, run(&delivery, verdict)).await, Answer::Done { dead: None });
            let again = receive_named(&first, "e-2").await;
            assert_eq!((again.stream.as_ref(), id(&*again).as_str()), ("moontide:retry:group", "e-2"));
            assert_eq!(again.origin().0, "moontide:channel:in");
            assert_eq!(settle_one(&first, commit(&again)).await, Answer::Done { dead: None });
        }
        // Whoever lost the lead settles nothing.
        server.call(&["PUBLISH", "in", &domain(3)]);
        let delivery = receive_named(&first, "e-3").await;
        server.call(&["HSET", "moontide:lead", "in group", "somebody"]);
        assert_eq!(settle_one(&first, commit(&delivery)).await, Answer::Fenced);
    }
}

/// The delivery of that event; what else comes was published while nobody knew whether anybody heard.
async fn receive_named(inbox: &Arc<dyn Inbox>, name: &str) -> Arc<Delivery> {
    loop {
        let delivery = receive_one(inbox).await;
        if id(&*delivery) == name {
            return delivery;
        }
        settle_one(inbox, commit(&delivery)).await;
    }
}

/// Publishes once more; true: something was taken.
fn publish_until_taken(server: &Server, bus: &RedisBus) -> bool {
    let taken = status(bus).taken;
    if taken == 0 {
        server.call(&["PUBLISH", "in", &domain(1)]);
    }
    taken > 0
}

/// A bus that publishes `user.*` besides.
async fn mirroring(server: &Server) -> Arc<RedisBus> {
    let layouts = Layouts::of_channel(&["event_data"], &[]).expect("a preset");
    let mirror = Mirror { types: vec![pattern("user.*")], channel: "events.{type}".into(), layouts };
    let streams = Arc::new(Streams { mirrors: vec![mirror], ..Streams::default() });
    let options = Options { streams, upkeep_every: Duration::from_millis(5), ..options(&server.url()) };
    RedisBus::open(options).await.expect("the server can be used")
}

fn user(id: &str) -> Emit {
    let mut emit = emit("events:user.created", id);
    emit.event.kind = "user.created".into();
    emit.event.data = Some(Json::trusted(r#"{"first_name":"Иван"}"#));
    emit
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_published_besides_and_what_is_not_is_not() {
    for server in KINDS.map(Server::new) {
        let bus = mirroring(&server).await;
        let mut connection = server.connect();
        let mut heard = connection.as_pubsub();
        heard.psubscribe("events.*").expect("it can listen");
        heard.set_read_timeout(Some(Duration::from_secs(20))).expect("it can be set");
        let mut hear = || {
            let message = heard.get_message().expect("a message comes");
            let text: String = message.get_payload().expect("it is text");
            let document: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            (message.get_channel_name().to_owned(), document)
        };
        let later = Emit { delay: Some(Duration::from_secs(60)), ..user("later") };
        bus.publish(vec![user("now"), emit("other", "x"), later]).await.expect("they are stored");
        let (channel, document) = hear();
        assert_eq!((channel.as_str(), &document["event_id"]), ("events.user.created", &"now".into()));
        assert_eq!((&document["first_name"], &document["event_type"]), (&"Иван".into(), &"user.created".into()));
        // In a settle, with its effects.
        let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
        bus.publish(vec![emit("orders", "cause")]).await.expect("it is stored");
        let delivery = receive_one(&inbox).await;
        let mut done = commit(&delivery);
        done.effects.events = vec![user("effect")];
        assert_eq!(settle_one(&inbox, done.clone()).await, Answer::Done { dead: None });
        assert_eq!(settle_one(&inbox, done).await, Answer::AlreadyMine);
        assert_eq!(hear().1["event_id"], "effect");
        // What is due later is published when it is stored.
        server.advance(60_001);
        assert_eq!(hear().1["event_id"], "later", "once each");
        until(|| entries(&server, "events:user.created") == ["now", "effect", "later"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_server_forbids_is_said_and_nothing_is_stored() {
    let server = Server::new(Kind::Redis);
    let bus = mirroring(&server).await;
    server.call(&["ACL", "SETUSER", "default", "resetchannels", "&moontide:*"]);
    let refused = bus.publish(vec![user("1")]).await.expect_err("it may not");
    assert!(matches!(&refused, BusError::Away { .. } | BusError::Unusable { .. }), "{refused}");
    assert!(refused.to_string().contains("events.user.created"), "{refused}");
    assert_eq!(server.get::<u64>(&["XLEN", "events:user.created"]), 0);
    server.call(&["ACL", "SETUSER", "default", "allchannels"]);
    bus.publish(vec![user("1")]).await.expect("it may now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_by_channel_is_not_published_again() {
    let server = Server::new(Kind::Redis);
    let bus = mirroring(&server).await;
    bus.listen(vec![channel("events.*", "event_data", Deliver::Stream)]);
    until(|| server.get::<u64>(&["PUBSUB", "NUMPAT"]) == 1).await;
    let message = r#"{"event_id":"1","event_type":"user.created","source_service":"users"}"#;
    server.call(&["PUBLISH", "events.user.created", message]);
    until(|| status(&bus).taken == 1).await;
    server.call(&["PUBLISH", "events.user.created", message]);
    until(|| status(&bus).duplicates == 1).await;
    assert_eq!((status(&bus).heard, entries(&server, "events:user.created")), (2, vec!["1".to_owned()]));
}
