//! What a group can take back, as it lies on the server: nothing of it stays behind.

use super::super::RedisBus;
use super::super::hand_over::HandOver;
use super::*;
use crate::bus::{Answer, Bus, Delivery, Groups, Run, Settling, Start, Subscription};
use crate::event::{Event, TypePattern};
use crate::judge::Verdict;
use crate::outcome::{Effects, Emit};

const MINUTE: u64 = 60_000;

fn emit(id: &str, delay: Option<u64>) -> Emit {
    let event = Event::new(id, "test", "a");
    Emit { stream: "orders".into(), event, delay: delay.map(Duration::from_millis) }
}

/// Settles one event of the group so; answers what was settled.
async fn settle(bus: &RedisBus, group: &str, effects: Effects) -> Answer {
    let any = TypePattern::parse("*").expect("it is a pattern");
    let (types, streams) = (vec![any], vec!["orders".to_owned()]);
    let (handler, discover) = ("handler".into(), Vec::new());
    let wants = Subscription { handler, group: group.into(), types, streams, discover, start: Start::Earliest };
    let inbox = bus.subscribe(wants).await.expect("it opens").inbox;
    bus.publish(vec![emit("x", None)]).await.expect("it is stored");
    let delivery: Arc<Delivery> = Arc::new(inbox.receive(1).await.expect("there is one").remove(0));
    let deliveries = vec![Settling { delivery, verdict: Verdict::Commit }];
    let run = Run { deliveries, reads: Vec::new(), effects, record: None, steps: None, version: "v".into() };
    inbox.settle(Arc::new([run])).await.expect("the server answers").remove(0)
}

fn left(server: &Server) -> Vec<String> {
    let mut keys = strings(server, &["KEYS", "moontide:named:*"]);
    keys.extend(strings(server, &["KEYS", "moontide:owners"]));
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_was_taken_back_or_is_due() {
    for server in KINDS.map(Server::new) {
        let bus = RedisBus::open(options(&server)).await.expect("the server can be used");
        let events = (0..20).map(|n| emit(&format!("t {}", n % 10), Some(MINUTE))).collect();
        let done = settle(&bus, "group", Effects { events, ..Effects::default() }).await;
        assert_eq!((done, left(&server).len()), (Answer::Done { dead: None }, 2));
        assert_eq!(server.get::<usize>(&["ZCARD", "moontide:named:group"]), 20);
        let cancels = (0..5).map(|n| format!("t {n}")).collect();
        let done = settle(&bus, "group", Effects { cancels, ..Effects::default() }).await;
        assert_eq!(done, Answer::Done { dead: None });
        let counts =
            ["ZCARD moontide:named:group", "HLEN moontide:owners", "ZCARD moontide:due", "XLEN moontide:parked"];
        for count in counts.map(|words| words.split(' ').collect::<Vec<_>>()) {
            assert_eq!(server.get::<usize>(&count), 10, "{count:?}");
        }
        server.advance(i64::try_from(MINUTE).expect("it is short"));
        until("the rest is moved", || left(&server).is_empty()).await;
        assert_eq!(server.get::<usize>(&["XLEN", "orders"]), 12);
        assert_eq!(server.get::<usize>(&["EXISTS", "moontide:due", "moontide:delayed"]), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_group_takes_over_what_can_be_taken_back() {
    const COUNT: usize = 1200;
    let server = Server::new(Kind::Redis);
    let bus = RedisBus::open(options(&server)).await.expect("the server can be used");
    let events = (0..COUNT).map(|n| emit(&n.to_string(), Some(MINUTE))).collect();
    settle(&bus, "old", Effects { events, ..Effects::default() }).await;
    HandOver::new(&store(&server), "old", "new").run().await.expect("nobody serves them");
    assert_eq!(server.get::<usize>(&["ZCARD", "moontide:named:new"]), COUNT);
    let cancels = (1..COUNT).map(|n| n.to_string()).collect();
    settle(&bus, "new", Effects { cancels, ..Effects::default() }).await;
    assert_eq!(server.get::<usize>(&["ZCARD", "moontide:due"]), 1);
    let other = RedisBus::open(options(&server)).await.expect("the server can be used");
    drop(bus);
    until("nobody serves it", || server.get::<usize>(&["HLEN", "moontide:owners"]) == 1).await;
    other.forget("new").await.expect("nobody serves it");
    server.advance(i64::try_from(MINUTE).expect("it is short"));
    until("what a forgotten group emitted comes all the same", || left(&server).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_note_what_is_theirs_emits_it_and_takes_nothing_back() {
    let server = Server::new(Kind::Redis);
    server.call(&["ACL", "SETUSER", "worker", "on", ">geheim", "~*", "&*", "+@all"]);
    let address = server.url().replace("redis://", "redis://worker:geheim@");
    let address = Address::parse(&address).expect("it is an address");
    let bus = RedisBus::open(Options { address, ..options(&server) }).await.expect("the server can be used");
    let allowed = ["parked", "due", "due:clock", "delayed", "bell", "streams", "dead", "receipts:*", "group:*"];
    let allowed = allowed.map(|name| format!("~moontide:{name}"));
    let more =
        ["published", "record:*", "groups", "retry:*", "beats", "seen", "processes", "dead:*", "marks:*", "moved"];
    let more = more.map(|name| format!("~moontide:{name}"));
    let allowed: Vec<&str> = allowed.iter().chain(&more).map(String::as_str).collect();
    server.call(&[&["ACL", "SETUSER", "worker", "resetkeys", "~orders"][..], &allowed].concat());
    let events = vec![emit("t", Some(MINUTE))];
    let done = settle(&bus, "group", Effects { events, ..Effects::default() }).await;
    assert_eq!((done, left(&server)), (Answer::Done { dead: None }, Vec::new()));
    server.advance(i64::try_from(MINUTE).expect("it is short"));
    until("it comes", || server.get::<usize>(&["XLEN", "orders"]) == 2).await;
}
