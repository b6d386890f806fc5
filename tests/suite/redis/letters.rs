//! A stream of dead letters that others write to and take from, and what stays right then.

use std::sync::Arc;
use std::time::Duration;

use moontide::bus::redis::{Address, Options, RedisBus};
use moontide::bus::{
    Answer, Bus, BusError, DeadFilter, DeadId, DeadLetter, DeadLetters, DeadReason, Delivery, Inbox, Ledger, Overview,
    Recorded, Replayed,
};

use crate::conformance::{
    DONE, commit, emit, id, receive, receive_one, record, record_key, reject, run, settle_one, subscription, until,
};
use moontide_stage::server::{Kind, Server};

const KINDS: [Kind; 2] = [Kind::Redis, Kind::Valkey];
const DLQ: &str = "event_dlq";
const DAY: Duration = Duration::from_secs(86_400);

fn options(url: &str) -> Options {
    let address = Address::parse(url).expect("the address is valid");
    Options {
        dead_letters_stream: Some(DLQ.into()),
        dead_letters_retain: Some(DAY),
        upkeep_every: Duration::from_millis(20),
        ..Options::at(address)
    }
}

struct Shop {
    server: Server,
    bus: Arc<RedisBus>,
    inbox: Arc<dyn Inbox>,
}

impl Shop {
    async fn new(kind: Kind) -> Self {
        Self::over(Server::new(kind)).await
    }

    async fn over(server: Server) -> Self {
        let bus = RedisBus::open(options(&server.url())).await.expect("the server can be used");
        let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
        Self { server, bus, inbox }
    }

    async fn publish(&self, id: &str) {
        self.bus.publish(vec![emit("orders", id)]).await.expect("it is stored");
    }

    /// An event that is given up under the key `key`.
    async fn dead_one(&self, id: &str) -> (Arc<Delivery>, DeadId) {
        self.publish(id).await;
        let delivery = receive_one(&self.inbox).await;
        let mut run = run(&delivery, reject("hopeless"));
        run.record = record("key");
        match settle_one(&self.inbox, run).await {
            Answer::Done { dead: Some(dead) } => (delivery, dead),
            other => panic!("it becomes a dead letter, not {other:?}"),
        }
    }

    /// What becomes of another event under that key.
    async fn late_one(&self, id: &str) -> Answer {
        self.publish(id).await;
        let mut run = commit(&receive_one(&self.inbox).await);
        run.record = record("key");
        settle_one(&self.inbox, run).await
    }

    async fn holder(&self) -> Option<Option<DeadId>> {
        self.recorded().await.map(|holder| holder.dead)
    }

    async fn recorded(&self) -> Option<Recorded> {
        self.bus.recorded(&[record_key("key")]).await.expect("it is readable").remove(0)
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        let filter = DeadFilter { limit: 1000, ..DeadFilter::default() };
        self.bus.list(filter).await.expect("they are readable")
    }

    async fn replay(&self, id: DeadId) -> Replayed {
        self.bus.replay(id).await.expect("a replay is possible")
    }

    async fn until_counted(&self, dead: u64) {
        until(async || {
            self.server.advance(30);
            self.bus.groups().await.expect("groups are readable")[0].dead == dead
        })
        .await;
    }

    /// As somebody else does it: the fields that the entry has go into `stream`, and the entry goes.
    fn take_away(&self, id: DeadId, stream: &str) {
        let at = id.entry().to_string();
        let entries: Vec<(String, Vec<String>)> = self.server.get(&["XRANGE", DLQ, &at, &at]);
        let fields = entries[0].1.iter().map(String::as_str);
        let words: Vec<&str> = ["XADD", stream, "*"].into_iter().chain(fields).collect();
        self.server.call(&words);
        assert_eq!(self.server.get::<u64>(&["XDEL", DLQ, &at]), 1);
    }

    /// The names of what is kept beside the letters.
    fn kept(&self) -> Vec<String> {
        let mut names: Vec<String> = self.server.get(&["KEYS", "moontide:dead*"]);
        names.sort();
        names
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_letter_others_took_is_handled_anew() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let (_, letter) = shop.dead_one("a").await;
        assert_eq!(shop.holder().await, Some(Some(letter)), "while it is there, it holds the key");
        assert!(matches!(shop.late_one("late").await, Answer::Duplicate { .. }));
        assert!(shop.recorded().await.is_some_and(|holder| holder.contested), "others may take it away just now");
        shop.take_away(letter, "orders");
        assert_eq!(shop.holder().await, None);
        let again = receive_one(&shop.inbox).await;
        assert_eq!(id(&*again), "a");
        let ext = again.event.as_ref().expect("it is an event").ext.as_ref().expect("it has more").text().into_owned();
        assert!(ext.contains(r#""handler":"group-handler""#) && ext.contains(r#""error":"hopeless""#), "{ext}");
        let mut run = commit(&again);
        run.record = record("key");
        assert_eq!(settle_one(&shop.inbox, run).await, DONE);
        assert_eq!(shop.holder().await, Some(None), "the key is committed now");
        shop.until_counted(0).await;
        assert_eq!(shop.kept(), Vec::<String>::new(), "nothing is left of it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_again_is_a_letter_again() {
    let shop = Shop::new(Kind::Redis).await;
    let (_, first) = shop.dead_one("a").await;
    shop.take_away(first, "orders");
    let mut run = run(&receive_one(&shop.inbox).await, reject("still hopeless"));
    run.record = record("key");
    let Answer::Done { dead: Some(second) } = settle_one(&shop.inbox, run).await else { panic!("it dies") };
    let letters = shop.letters().await;
    assert_eq!((letters.len(), letters[0].id, letters[0].error()), (1, second, Some("still hopeless")));
    assert_eq!(letters[0].reason.as_str(), "rejected");
    shop.until_counted(1).await;
    assert_eq!(shop.replay(second).await, Replayed::Queued);
    let mut run = commit(&receive_one(&shop.inbox).await);
    run.record = record("key");
    assert_eq!(settle_one(&shop.inbox, run).await, DONE);
    shop.until_counted(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reprocessed_while_it_is_replayed_has_its_effects_once() {
    let shop = Shop::new(Kind::Redis).await;
    let (_, letter) = shop.dead_one("a").await;
    assert_eq!(shop.replay(letter).await, Replayed::Queued);
    shop.take_away(letter, "orders");
    let both = receive(&shop.inbox, 2).await;
    let mut runs: Vec<_> = both.iter().map(commit).collect();
    runs.iter_mut().for_each(|run| run.record = record("key"));
    let answers = crate::conformance::settle(&shop.inbox, runs).await;
    assert_eq!(answers[0], DONE);
    assert!(matches!(answers[1], Answer::Duplicate { .. }), "{answers:?}");
    shop.until_counted(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_others_deleted_are_counted_no_more() {
    let shop = Shop::new(Kind::Redis).await;
    let (_, letter) = shop.dead_one("a").await;
    shop.server.call(&["XADD", DLQ, "*", "theirs", "1"]);
    assert_eq!(shop.replay(letter).await, Replayed::Queued);
    shop.server.call(&["DEL", DLQ]);
    shop.until_counted(0).await;
    assert_eq!(shop.kept(), Vec::<String>::new());
    assert!(shop.letters().await.is_empty());
    assert_eq!(shop.replay(letter).await, Replayed::Missing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_goes_and_goes_on_holding_its_key_but_foreign_letters_stay() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        for n in 0..300 {
            shop.server.call(&["XADD", DLQ, "*", "type", "x", "n", &n.to_string()]);
        }
        shop.publish("a").await;
        let delivery = receive_one(&shop.inbox).await;
        let mut dies = run(&delivery, reject("hopeless"));
        dies.record = record("key").map(|record| moontide::outcome::Record { window: 3 * DAY, ..record });
        let answer = settle_one(&shop.inbox, dies).await;
        let Answer::Done { dead: Some(letter) } = answer else { panic!("it dies: {answer:?}") };
        assert_eq!(shop.letters().await.len(), 301);
        shop.server.advance(DAY.as_millis() as i64 + 1);
        shop.until_counted(0).await;
        assert_eq!(shop.letters().await.len(), 300);
        assert!(shop.letters().await.iter().all(|letter| letter.reason == DeadReason::Foreign));
        let sealed = Recorded { by: delivery.token(), dead: Some(letter), contested: false };
        assert_eq!(shop.recorded().await, Some(sealed));
        assert_eq!(shop.late_one("late").await, Answer::Duplicate { by: delivery.token() });
        shop.server.advance(2 * DAY.as_millis() as i64);
        assert_eq!(shop.holder().await, None, "as long as its window says");
    }
}

/// Entries that others wrote, as they please.
fn put_strange_ones(server: &Server) -> usize {
    let strange: [&[(&[u8], &[u8])]; 7] = [
        &[(b"\xff\xfe", b"\x00\xff")],
        &[(b"type", b"x"), (b"type", b"y"), (b"error", b"\xff"), (b"error", b"twice")],
        &[(b"", b"")],
        &[(b"original_id", b"error-1"), (b"failed_at", b"yesterday"), (b"attempts", b"-5")],
        &[(b"handler", b"theirs"), (b"reason", b"none of ours"), (b"failures", b"{")],
        &[(b"type", b"task.created"), (b"data", b"{}"), (b"stream", b"moontide:retry:group")],
        &[(b"event_data", b"no json"), (b"\x1b[2J", b"\x1b[31m")],
    ];
    let mut connection = server.connect();
    for entry in strange {
        let mut add = redis::cmd("XADD");
        add.arg(DLQ).arg("*");
        entry.iter().for_each(|(name, value)| {
            add.arg(name).arg(value);
        });
        let _: String = add.query(&mut connection).expect("it is added");
    }
    strange.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_others_put_there_can_be_listed_page_by_page_and_discarded() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        // Ids that nobody but a person makes: there is no number for the first two.
        for entry in ["5-1048576", "5-18446744073709551615", "6-3"] {
            shop.server.call(&["XADD", DLQ, entry, "type", "x"]);
        }
        let (_, first) = shop.dead_one("a").await;
        let strange = put_strange_ones(&shop.server);
        let all = shop.letters().await;
        assert_eq!(all.len(), 1 + 1 + strange);
        assert!(all.is_sorted_by_key(|letter| letter.id));
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = DeadFilter { after, limit: 1, ..DeadFilter::default() };
            let page = shop.bus.list(page).await.expect("they are readable");
            let Some(letter) = page.first() else { break };
            after = Some(letter.id);
            paged.extend(page.into_iter().map(|letter| letter.id));
        }
        assert_eq!(paged, all.iter().map(|letter| letter.id).collect::<Vec<_>>());
        let ours = DeadFilter { handler: Some("group-handler".into()), limit: 9, ..DeadFilter::default() };
        let ours = shop.bus.list(ours).await.expect("they are readable");
        assert_eq!(ours.iter().map(|letter| letter.id).collect::<Vec<_>>(), [first]);
        let foreign = DeadFilter { reason: Some(DeadReason::Foreign), limit: 99, ..DeadFilter::default() };
        let foreign = shop.bus.list(foreign).await.expect("they are readable");
        assert_eq!(foreign.len(), 1 + strange);
        for letter in &foreign {
            assert_eq!(shop.bus.get(letter.id).await.expect("it is readable").map(|found| found.id), Some(letter.id));
        }
        let ids: Vec<DeadId> = foreign.iter().map(|letter| letter.id).collect();
        assert_eq!(shop.bus.discard(&ids).await.expect("they can be discarded"), ids.len() as u64);
        assert_eq!(shop.letters().await.len(), 1);
        shop.until_counted(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_of_ours_that_others_gave_up_again_is_theirs() {
    let shop = Shop::new(Kind::Redis).await;
    let (_, letter) = shop.dead_one("a").await;
    // Reprocessed with every field, and given up by a service that keeps them all.
    shop.take_away(letter, DLQ);
    let letters = shop.letters().await;
    assert_eq!((letters.len(), letters[0].reason), (1, DeadReason::Foreign));
    assert_eq!((letters[0].handler.as_str(), letters[0].group.as_str()), ("group-handler", ""));
    let id = letters[0].id;
    assert_eq!(shop.replay(id).await, Replayed::PutBack { stream: "orders".into() });
    let mut run = commit(&receive_one(&shop.inbox).await);
    run.record = record("key");
    assert_eq!(settle_one(&shop.inbox, run).await, DONE);
    shop.until_counted(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_replay_a_foreign_letter_at_once_one_does() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let other = RedisBus::open(options(&shop.server.url())).await.expect("the server can be used");
        for round in 1..=20_usize {
            let entry: String =
                shop.server.get(&["XADD", DLQ, "*", "type", "order.created", "original_stream", "orders"]);
            let id: DeadId = entry.parse().expect("it has a number");
            let replays = [&shop.bus, &other, &shop.bus, &other].map(|bus| {
                let bus = bus.clone();
                tokio::spawn(async move { bus.replay(id).await.expect("a replay is possible") })
            });
            let mut told = Vec::new();
            for replay in replays {
                told.push(replay.await.expect("it ends"));
            }
            let put_back = Replayed::PutBack { stream: "orders".into() };
            assert_eq!(told.iter().filter(|told| **told == put_back).count(), 1, "{told:?}");
            assert_eq!(told.iter().filter(|told| **told == Replayed::Missing).count(), 3, "{told:?}");
            assert_eq!(shop.server.get::<usize>(&["XLEN", "orders"]), round);
        }
        assert_eq!(shop.server.get::<usize>(&["XLEN", DLQ]), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_letter_goes_where_it_came_from_and_nowhere_else() {
    let shop = Shop::new(Kind::Redis).await;
    let put = |fields: &[&str]| -> DeadId {
        let words: Vec<&str> = ["XADD", DLQ, "*"].iter().chain(fields).copied().collect();
        shop.server.get::<String>(&words).parse().expect("it has a number")
    };
    shop.server.call(&["XADD", "there", "*", "a", "b"]);
    shop.server.call(&["SET", "text", "1"]);
    for (fields, stream) in [
        (&["stream", "there", "x", "1"][..], "there"),
        (&["original_stream", "there", "stream", "gone", "type", "x"], "there"),
        // Fields of these names need not mean a stream.
        (&["stream", "gone", "type", "x"], "events:x"),
        (&["stream", "text", "type", "x"], "events:x"),
        (&["stream", "moontide:retry:group", "type", "x"], "events:x"),
        (&["stream", DLQ, "event_type", "x"], "events:x"),
    ] {
        let id = put(fields);
        assert_eq!(shop.replay(id).await, Replayed::PutBack { stream: stream.into() }, "{fields:?}");
        let last: Vec<(String, Vec<String>)> = shop.server.get(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]);
        assert_eq!(last[0].1, fields, "as it lay");
    }
    assert_eq!(shop.server.get::<u64>(&["SISMEMBER", "moontide:streams", "events:x"]), 1, "who looks for it finds it");
    assert_eq!(shop.server.get::<u64>(&["SISMEMBER", "moontide:published", "events:x"]), 0, "it is not ours to trim");
    let id = put(&["who", "knows"]);
    let refused = shop.bus.replay(id).await.expect_err("nobody knows where to");
    assert!(matches!(&refused, BusError::Refused(why) if why.contains("nobody knows where it came from")), "{refused}");
    shop.server.call(&["SET", "events:text", "1"]);
    let id = put(&["type", "text"]);
    let refused = shop.bus.replay(id).await.expect_err("it is no stream");
    assert!(refused.to_string().contains("holds a string, not a stream"), "{refused}");
    assert_eq!(shop.letters().await.len(), 2, "what cannot go back stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_that_forbids_the_stream_of_dead_letters_is_named_and_costs_no_event_anything() {
    for kind in KINDS {
        let server = Server::with(kind, &[]);
        server.call(&["ACL", "SETUSER", "worker", "on", ">geheim", "~*", "&*", "+@all"]);
        let url = server.url().replace("redis://", "redis://worker:geheim@");
        let bus = RedisBus::open(options(&url)).await.expect("the server can be used");
        let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
        bus.publish(vec![emit("orders", "a"), emit("orders", "b")]).await.expect("they are stored");
        let got = receive(&inbox, 2).await;
        let mut dies = run(&got[0], reject("hopeless"));
        dies.record = record("key");
        let runs: Arc<[_]> = [dies, commit(&got[1])].into();
        let forbid =
            |rules: &[&str]| drop(server.call(&[&["ACL", "SETUSER", "worker", "resetkeys"][..], rules].concat()));
        forbid(&["~orders", "~moontide:*", "~state:*"]);
        let error = inbox.settle(runs.clone()).await.expect_err("it is forbidden");
        assert!(error.is_passing(), "{error:?}");
        assert!(error.to_string().contains("no permission to XADD the key \"event_dlq\""), "{error}");
        let foreign = DeadFilter { limit: 9, ..DeadFilter::default() };
        let error = bus.list(foreign.clone()).await.expect_err("it is forbidden");
        assert!(error.is_passing(), "{error:?}");
        assert_eq!(server.get::<u64>(&["XLEN", DLQ]), 0);
        // Written, not read.
        forbid(&["%W~event_dlq", "~orders", "~moontide:*", "~state:*"]);
        let error = inbox.settle(runs.clone()).await.expect_err("it is forbidden");
        assert!(error.to_string().contains("XRANGE the key \"event_dlq\""), "{error}");
        assert_eq!(server.get::<u64>(&["XLEN", DLQ]), 0);
        forbid(&["~*"]);
        let answers = inbox.settle(runs).await.expect("it is allowed");
        assert!(matches!(answers[..], [Answer::Done { dead: Some(_) }, Answer::Done { dead: None }]), "{answers:?}");
        // A foreign one goes back only where we may write, and stays otherwise.
        let id: String = server.get(&["XADD", DLQ, "*", "type", "x"]);
        let id: DeadId = id.parse().expect("it has a number");
        forbid(&["~event_dlq", "~orders", "~moontide:*", "~state:*"]);
        let error = bus.replay(id).await.expect_err("it is forbidden");
        assert!(error.to_string().contains("no permission to XADD the key \"events:x\""), "{error}");
        let named: String = server.get(&["XADD", DLQ, "*", "type", "x", "stream", "theirs"]);
        let error = bus.replay(named.parse().expect("it has a number")).await.expect_err("it is forbidden");
        assert!(error.to_string().contains("no permission to TYPE the key \"theirs\""), "{error}");
        assert_eq!(bus.list(foreign).await.expect("they are readable").len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_handles_the_dead_letters_as_events_and_nobody_trims_them() {
    let shop = Shop::new(Kind::Redis).await;
    let mut reader = subscription("reader");
    reader.streams = vec![DLQ.into()];
    let refused = shop.bus.subscribe(reader).await.map(drop).expect_err("it would read what it gives up");
    assert!(refused.to_string().contains("belongs to the host"), "{refused}");
    // A script may write one as others do.
    shop.bus.publish(vec![emit(DLQ, "emitted")]).await.expect("it is stored");
    shop.dead_one("a").await;
    shop.server.advance(30 * DAY.as_millis() as i64);
    shop.until_counted(0).await;
    assert_eq!(shop.letters().await.iter().map(|letter| letter.reason).collect::<Vec<_>>(), [DeadReason::Foreign]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_stay_where_they_are_when_the_stream_gets_another_name() {
    let shop = Shop::new(Kind::Redis).await;
    let (_, letter) = shop.dead_one("a").await;
    let url = shop.server.url();
    let renamed = Options { dead_letters_stream: None, ..options(&url) };
    let renamed = RedisBus::open(renamed).await.expect("the server can be used");
    let list = DeadFilter { limit: 9, ..DeadFilter::default() };
    assert!(renamed.list(list).await.expect("they are readable").is_empty());
    let held = renamed.recorded(&[record_key("key")]).await.expect("it is readable");
    assert_eq!(held[0].as_ref().and_then(|holder| holder.dead), Some(letter), "it holds its key");
    assert!(held[0].as_ref().is_some_and(|holder| !holder.contested), "nobody else takes what lies under our prefix");
    let _reader = renamed.subscribe(subscription("other")).await.expect("the group is opened");
    shop.server.advance(1000);
    assert_eq!(renamed.replay(letter).await.expect("it is readable"), Replayed::Missing);
    let letters = shop.letters().await;
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "rejected"), "under its name it is as it was");
    assert_eq!(shop.replay(letter).await, Replayed::Queued);
}
