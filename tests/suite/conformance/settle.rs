//! Cases about settling: all or nothing, once, and only on what is still as it was read.

use super::*;

pub async fn applies_everything_once(h: &impl Harness) {
    let (host, inbox, delivery) = one(h).await;
    let mut run = commit(&delivery);
    run.effects.events = vec![emit("out", "x"), emit("out", "y")];
    run.effects.writes = vec![
        set("k", r#"{"n":1}"#),
        add("count", 2.0),
        set("gone", "1"),
        Write { key: "gone".into(), change: Change::Delete },
    ];
    run.record = record("key");
    for expected in [DONE, Answer::AlreadyMine, Answer::AlreadyMine] {
        assert_eq!(settle_one(&inbox, run.clone()).await, expected);
        assert_eq!(host.ids("out").await, ["x", "y"]);
        assert_eq!(host.value("k").await.as_deref(), Some(r#"{"n":1}"#));
        assert_eq!(host.value("count").await.as_deref(), Some("2"));
        assert_eq!(host.value("gone").await, None);
        let recorded = host.ledger.recorded(&[record_key("key"), record_key("other")]).await.expect("it is readable");
        assert_eq!(recorded[0].as_ref().map(|found| found.by.clone()), Some(delivery.token()));
        assert_eq!(recorded[1], None);
    }
    nothing_but_a_marker(&host, &inbox).await;
}

pub async fn answers_already_mine_for_every_verdict(h: &impl Harness) {
    for verdict in
        [Verdict::Commit, retry(60, "later"), reject("no"), Verdict::Skip { by: "another".into() }, Verdict::Release]
    {
        let host = h.open().await;
        let inbox = host.inbox("group").await;
        host.publish("orders", &["a"]).await;
        let delivery = receive_one(&inbox).await;
        let before = host.status("group").await;
        let run = run(&delivery, verdict.clone());
        let first = settle_one(&inbox, run.clone()).await;
        assert!(matches!(first, Answer::Done { .. }), "{verdict:?} was answered {first:?}");
        let after = host.status("group").await;
        assert_eq!(settle_one(&inbox, run).await, Answer::AlreadyMine, "{verdict:?}");
        let again = host.status("group").await;
        assert_eq!((again.dead, again.delayed, again.lag), (after.dead, after.delayed, after.lag), "{verdict:?}");
        assert_eq!(after.dead - before.dead, u64::from(matches!(verdict, Verdict::Dead { .. })));
        assert_eq!(after.delayed - before.delayed, u64::from(matches!(verdict, Verdict::Retry { .. })));
        if verdict == Verdict::Release {
            assert_eq!(settle_one(&inbox, commit(&receive_one(&inbox).await)).await, DONE);
        }
        drop((inbox, host));
    }
}

pub async fn refuses_what_was_read_stale(h: &impl Harness) {
    let (host, inbox, delivery) = one(h).await;
    host.set("stock", "10").await;
    let read = host.seen("stock").await;
    let absent = host.seen("absent").await;
    host.set("stock", "9").await;
    for verdict in [Verdict::Commit, retry(1, "later"), reject("no")] {
        let mut run = run(&delivery, verdict.clone());
        run.reads = vec![absent.clone(), read.clone()];
        run.record = record("key");
        if verdict == Verdict::Commit {
            run.effects.events = vec![emit("out", "x")];
            run.effects.writes = vec![set("k", "1")];
        }
        assert_eq!(settle_one(&inbox, run).await, Answer::Conflict { key: "stock".into() }, "{verdict:?}");
    }
    assert_eq!((host.ids("out").await.len(), host.value("k").await), (0, None));
    let status = host.status("group").await;
    assert_eq!((status.in_flight, status.delayed, status.dead), (1, 0, 0), "it is still ours, and nothing happened");
    let mut run = commit(&delivery);
    run.reads = vec![host.seen("stock").await, absent];
    assert_eq!(settle_one(&inbox, run).await, DONE);
}

pub async fn sees_what_its_batch_wrote(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.set("stock", "10").await;
    host.publish("orders", &["a", "b", "c"]).await;
    let got = receive(&inbox, 3).await;
    let sell = |delivery: &Arc<Delivery>, saw_now: &str, left: &str| {
        let mut run = commit(delivery);
        run.reads = vec![saw("stock", Some(saw_now))];
        run.effects.writes = vec![set("stock", left)];
        run.effects.events = vec![emit("sold", &id(&**delivery))];
        run
    };
    let runs = vec![sell(&got[0], "10", "9"), sell(&got[1], "10", "9"), sell(&got[2], "9", "8")];
    assert_eq!(settle(&inbox, runs).await, [DONE, Answer::Conflict { key: "stock".into() }, DONE]);
    assert_eq!(host.value("stock").await.as_deref(), Some("8"));
    assert_eq!(host.ids("sold").await, ["a", "c"]);
}

pub async fn compares_large_values(h: &impl Harness) {
    let (host, inbox, delivery) = one(h).await;
    let large = |end: &str| format!("\"{}{end}\"", "x".repeat(5000));
    host.set("k", &large("1")).await;
    let read = host.seen("k").await;
    host.set("k", &large("2")).await;
    let mut run = commit(&delivery);
    run.reads = vec![read];
    assert_eq!(settle_one(&inbox, run.clone()).await, Answer::Conflict { key: "k".into() });
    host.set("k", &large("1")).await;
    assert_eq!(settle_one(&inbox, run).await, DONE, "compared by value: it is as it was read");
}

pub async fn adds_without_reading(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a", "b", "c"]).await;
    host.set("big", "9007199254740993").await;
    let got = receive(&inbox, 3).await;
    let runs = got
        .iter()
        .map(|delivery| {
            let mut run = commit(delivery);
            run.effects.writes =
                vec![add("n", 1.0), add("n", 0.5), add("big", 1.0), set("fresh", "5"), add("fresh", 1.0)];
            run
        })
        .collect();
    assert_eq!(settle(&inbox, runs).await, [DONE, DONE, DONE]);
    assert_eq!(host.value("n").await.as_deref(), Some("4.5"));
    assert_eq!(host.value("big").await.as_deref(), Some("9007199254740996"), "whole numbers stay exact");
    assert_eq!(host.value("fresh").await.as_deref(), Some("6"));
}

pub async fn refuses_to_add_to_a_text(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.set("name", r#""seven""#).await;
    host.publish("orders", &["a", "b"]).await;
    let got = receive(&inbox, 2).await;
    let mut bad = commit(&got[0]);
    bad.effects.events = vec![emit("out", "x")];
    bad.effects.writes = vec![set("k", "1"), add("name", 1.0)];
    bad.record = record("key");
    let mut good = commit(&got[1]);
    good.effects.writes = vec![add("n", 1.0)];
    let answers = settle(&inbox, vec![bad.clone(), good]).await;
    let Answer::Invalid { reason } = &answers[0] else { panic!("{:?}", answers[0]) };
    assert!(reason.contains("name"), "{reason}");
    assert_eq!(answers[1], DONE, "its batch mate is not harmed");
    assert_eq!((host.ids("out").await.len(), host.value("k").await), (0, None));
    let mut dead = run(&got[0], reject("no number"));
    dead.record = record("key");
    assert!(
        matches!(settle_one(&inbox, dead).await, Answer::Done { dead: Some(_) }),
        "it is ours, and its key is free"
    );
}

pub async fn releases_without_a_trace(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a", "b", "c", "d"]).await;
    let got = receive(&inbox, 4).await;
    let mut stale = run(&got[1], Verdict::Release);
    stale.reads = vec![saw("never", Some("written"))];
    let runs = vec![commit(&got[0]), stale, run(&got[2], Verdict::Release), commit(&got[3])];
    assert_eq!(settle(&inbox, runs).await, vec![DONE; 4], "a run that gives back judges nothing, so nothing is stale");
    let again = receive(&inbox, 2).await;
    for (before, after) in got[1..3].iter().zip(&again) {
        assert_eq!((before.entry, &before.event), (after.entry, &after.event));
        assert_eq!((after.attempt(), after.orphaned, after.deaths, &after.past), (1, 0, 0, &None));
        assert_eq!(before.token(), after.token());
    }
    assert_eq!(settle(&inbox, again.iter().map(commit).collect()).await, [DONE, DONE]);
    nothing_but_a_marker(&host, &inbox).await;
}

pub async fn skips_without_effects(h: &impl Harness) {
    let (host, inbox, delivery) = one(h).await;
    assert_eq!(settle_one(&inbox, run(&delivery, Verdict::Skip { by: "another".into() })).await, DONE);
    let status = host.status("group").await;
    assert_eq!((status.lag, status.in_flight, status.dead), (0, 0, 0));
}

pub async fn settles_many_deliveries_as_one(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a", "b", "c"]).await;
    let got = receive(&inbox, 3).await;
    let mut run = commit(&got[0]);
    run.deliveries.push(Settling { delivery: got[1].clone(), verdict: Verdict::Release });
    run.deliveries.push(Settling { delivery: got[2].clone(), verdict: reject("this one") });
    run.effects.writes = vec![add("n", 1.0)];
    let answer = settle_one(&inbox, run.clone()).await;
    assert!(matches!(answer, Answer::Done { dead: Some(_) }), "{answer:?}");
    assert_eq!(settle_one(&inbox, run).await, Answer::AlreadyMine);
    assert_eq!(host.value("n").await.as_deref(), Some("1"));
    assert_eq!(id(&*receive_one(&inbox).await), "b");
}

pub async fn keeps_the_hosts_streams(h: &impl Harness) {
    let (host, inbox, delivery) = one(h).await;
    let mut run = commit(&delivery);
    run.effects.writes = vec![set("k", "1")];
    run.effects.events = vec![emit("moontide:retry:group", "forged")];
    assert!(matches!(settle_one(&inbox, run).await, Answer::Invalid { .. }));
    assert_eq!(host.value("k").await, None);
}

pub async fn forgets_state_after_its_ttl(h: &impl Harness) {
    let (host, inbox, delivery) = one(h).await;
    let ttl = Some(Duration::from_secs(10));
    let mut run = commit(&delivery);
    run.effects.writes = vec![Write { key: "k".into(), change: Change::Set { value: json("1"), ttl } }, add("k", 1.0)];
    assert_eq!(settle_one(&inbox, run).await, DONE);
    let read = host.seen("k").await;
    assert_eq!(host.value("k").await.as_deref(), Some("2"));
    h.advance(10_000);
    assert_eq!(host.value("k").await, None);
    assert!(host.state.scan("", None, 10).await.expect("state is readable").is_empty());
    host.publish("orders", &["b"]).await;
    let mut run = commit(&receive_one(&inbox).await);
    run.reads = vec![read];
    assert_eq!(settle_one(&inbox, run).await, Answer::Conflict { key: "k".into() }, "expired is absent");
}

pub async fn survives_a_lost_reply(h: &impl Harness) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    for round in 0..50 {
        host.publish("orders", &["a", "b"]).await;
        let got = receive(&inbox, 2).await;
        let runs: Arc<[Run]> = got
            .iter()
            .map(|delivery| {
                let mut run = commit(delivery);
                run.effects.writes = vec![add("n", 1.0)];
                run
            })
            .collect();
        // The settle is sent, and nobody waits for the answer.
        tokio::select! {
            biased;
            _ = inbox.settle(runs.clone()) => {}
            () = std::future::ready(()) => {}
        }
        let answers = inbox.settle(runs).await.expect("the store can be written");
        assert!(
            answers.iter().all(|answer| matches!(answer, Answer::AlreadyMine | Answer::Done { .. })),
            "{answers:?}"
        );
        assert_eq!(host.value("n").await, Some((2 * (round + 1)).to_string()), "once, whether answered or not");
    }
}

pub async fn lets_operators_write_state(h: &impl Harness) {
    let host = h.open().await;
    for key in ["a/2", "a/1", "b/1", "a/3"] {
        host.set(key, "1").await;
    }
    let scan = |prefix: &'static str, after: Option<&'static str>, limit| {
        let state = host.state.clone();
        async move {
            let found = state.scan(prefix, after, limit).await.expect("state is readable");
            found.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
        }
    };
    assert_eq!(scan("a/", None, 2).await, ["a/1", "a/2"]);
    assert_eq!(scan("a/", Some("a/2"), 9).await, ["a/3"]);
    assert_eq!(scan("", None, 9).await.len(), 4);
    let delete = |key: &str| Write { key: key.into(), change: Change::Delete };
    let existed = host.state.write(vec![delete("a/1"), delete("nobody"), set("new", "1")]).await;
    assert_eq!(existed.expect("state is writable"), [true, false, false]);
    host.set("text", r#""t""#).await;
    assert!(host.state.write(vec![set("half", "1"), add("text", 1.0)]).await.is_err());
    assert_eq!(host.value("half").await, None, "all writes or none");
}
