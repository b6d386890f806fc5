//! Cases about several processes on one store, and their deaths.

use std::collections::HashMap;

use moontide::bus::BusError;

use super::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("e{n}")).collect()
}

async fn publish_many(host: &Host, count: usize) {
    host.publish("orders", &names(count).iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// One more in `n`, and one in a counter of the event's own.
fn count(delivery: &Arc<Delivery>) -> Run {
    let mut run = commit(delivery);
    run.effects.writes = vec![add("n", 1.0), add(&format!("of/{}", id(&**delivery)), 1.0)];
    run
}

async fn each_counted_once(host: &Host, events: usize) {
    assert_eq!(host.value("n").await, Some(events.to_string()));
    for name in names(events) {
        assert_eq!(host.value(&format!("of/{name}")).await.as_deref(), Some("1"), "{name}");
    }
}

pub async fn delivers_nothing_twice(h: &impl Harness) {
    if !h.features().shared {
        return;
    }
    let (one, other) = (h.open().await, h.open().await);
    let inboxes = [one.inbox("group").await, other.inbox("group").await];
    let work = inboxes.clone().map(|inbox| {
        tokio::spawn(async move {
            let mut seen = Vec::new();
            // Ends when the store is closed under it.
            while let Ok(some) = inbox.receive(10).await {
                let some: Vec<_> = some.into_iter().map(Arc::new).collect();
                seen.extend(some.iter().map(|delivery| id(&**delivery)));
                assert!(settle(&inbox, some.iter().map(count).collect()).await.iter().all(|answer| *answer == DONE));
            }
            seen
        })
    });
    for part in names(600).chunks(20) {
        one.publish("orders", &part.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    until(|| async { one.value("n").await.as_deref() == Some("600") }).await;
    each_counted_once(&one, 600).await;
    drop((one, other));
    let mut deliveries: HashMap<String, u32> = HashMap::new();
    for worker in work {
        worker.await.expect("the worker ends").into_iter().for_each(|id| *deliveries.entry(id).or_default() += 1);
    }
    assert!(deliveries.len() == 600 && deliveries.values().all(|times| *times == 1));
}

pub async fn wakes_the_other_process(h: &impl Harness) {
    if !h.features().shared {
        return;
    }
    let (one, other) = (h.open().await, h.open().await);
    let inbox = one.inbox("group").await;
    for id in ["a", "b", "c"] {
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { receive_one(&inbox).await }
        });
        other.publish("orders", &[id]).await;
        assert_eq!(super::id(&*waiting.await.expect("the task ends")), id);
    }
}

pub async fn takes_over_from_the_dead(h: &impl Harness) {
    if !h.features().durable {
        return;
    }
    let host = h.open().await;
    publish_many(&host, 10).await;
    let inbox = host.inbox("group").await;
    let got = receive(&inbox, 6).await;
    assert_eq!(settle(&inbox, vec![count(&got[0]), count(&got[3])]).await, [DONE, DONE]);
    drop(host);
    let died = inbox.settle(Arc::from([commit(&got[1])])).await;
    assert!(matches!(died, Err(BusError::Closed)));
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    let mut again = receive(&inbox, 8).await;
    again.sort_by_key(|delivery| delivery.entry);
    let orphans: Vec<_> = again.iter().map(|delivery| (id(&**delivery), delivery.orphaned)).collect();
    let one = u32::from(h.features().marks);
    let expected = [("e1", one), ("e2", one), ("e4", one), ("e5", one), ("e6", 0), ("e7", 0), ("e8", 0), ("e9", 0)];
    assert_eq!(orphans, expected.map(|(id, orphaned)| (id.to_owned(), orphaned)));
    assert!(again.iter().all(|delivery| delivery.attempt() == 1), "a death is not an attempt");
    settle(&inbox, again.iter().map(count).collect()).await;
    each_counted_once(&host, 10).await;
}

pub async fn shares_what_the_dead_left(h: &impl Harness) {
    if !h.features().shared {
        return;
    }
    let dying = h.open().await;
    publish_many(&dying, 10).await;
    let lost = dying.inbox("group").await;
    receive(&lost, 10).await;
    let (one, other) = (h.open().await, h.open().await);
    let (inbox, other_inbox) = (one.inbox("group").await, other.inbox("group").await);
    drop(dying);
    let first = receive(&inbox, 3).await;
    let rest = receive(&other_inbox, 7).await;
    let deaths = u32::from(h.features().marks);
    assert!(first.iter().chain(&rest).all(|delivery| delivery.orphaned == deaths));
    settle(&inbox, first.iter().map(count).collect()).await;
    settle(&other_inbox, rest.iter().map(count).collect()).await;
    each_counted_once(&one, 10).await;
}

pub async fn fences_a_zombie(h: &impl Harness) {
    // Where the acknowledgement is elsewhere, whoever settles first wins.
    if !h.features().shared || !h.features().one_store {
        return;
    }
    let zombie = h.open_silent().await;
    publish_many(&zombie, 2).await;
    let theirs = zombie.inbox("group").await;
    let got = receive(&theirs, 2).await;
    let host = h.open().await;
    let ours = host.inbox("group").await;
    let taken = receive(&ours, 2).await;
    assert!(taken.iter().all(|delivery| delivery.orphaned == 1));
    for verdict in [Verdict::Commit, retry(1, "late"), reject("late"), Verdict::Release] {
        assert_eq!(settle_one(&theirs, run(&got[0], verdict)).await, Answer::Fenced);
    }
    assert!(!theirs.mark(&got[1]).await.expect("the store can be written"));
    assert_eq!(settle(&ours, taken.iter().map(count).collect()).await, [DONE, DONE]);
    assert_eq!(settle_one(&theirs, count(&got[1])).await, Answer::Fenced);
    each_counted_once(&host, 2).await;
    let status = host.status("group").await;
    assert_eq!((status.delayed, status.dead, status.in_flight), (0, 0, 0));
}

pub async fn counts_deaths_under_the_mark(h: &impl Harness) {
    if !h.features().durable || !h.features().marks {
        return;
    }
    let host = h.open().await;
    publish_many(&host, 3).await;
    drop(host);
    // Without a mark nobody is charged, however often it dies.
    for orphaned in 0..2 {
        let host = h.open().await;
        let inbox = host.inbox("group").await;
        let got = receive(&inbox, 3).await;
        assert!(got.iter().all(|delivery| (delivery.orphaned, delivery.deaths) == (orphaned, 0)));
        drop(host);
    }
    for deaths in 0..2 {
        let host = h.open().await;
        let inbox = host.inbox("group").await;
        let got = receive(&inbox, 3).await;
        let charged: Vec<u32> = got.iter().map(|delivery| delivery.deaths).collect();
        assert_eq!(charged, [0, deaths, 0], "only the one that ran alone");
        assert!(got.iter().all(|delivery| delivery.orphaned == 2 + deaths));
        assert!(inbox.mark(&got[1]).await.expect("the store can be written"));
        drop(host);
    }
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    let got = receive(&inbox, 3).await;
    assert_eq!(got[1].deaths, moontide::bus::CRASH_BUDGET);
    // Nobody died: an inbox that closes under a mark charges nobody.
    assert!(inbox.mark(&got[2]).await.expect("the store can be written"));
    drop(inbox);
    let inbox = host.inbox("group").await;
    let got = receive(&inbox, 3).await;
    let charged: Vec<u32> = got.iter().map(|delivery| delivery.deaths).collect();
    assert_eq!(charged, [0, moontide::bus::CRASH_BUDGET, 0]);
    // A mark that is given back is no death; one that is settled is gone.
    assert!(inbox.mark(&got[0]).await.expect("the store can be written"));
    let killer = Verdict::Dead { reason: DeathReason::Killer, failure: failure("died") };
    settle(&inbox, vec![run(&got[0], Verdict::Release), run(&got[1], killer), count(&got[2])]).await;
    assert!(!inbox.mark(&got[1]).await.expect("the store can be written"), "it is settled");
    drop(host);
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    let last = receive_one(&inbox).await;
    assert_eq!((id(&*last), last.deaths), ("e0".into(), 0));
    assert_eq!(settle_one(&inbox, commit(&last)).await, DONE);
    nothing_but_a_marker(&host, &inbox).await;
}

pub async fn releases_to_the_others(h: &impl Harness) {
    if !h.features().shared {
        return;
    }
    let (one, other) = (h.open().await, h.open().await);
    let (inbox, other_inbox) = (one.inbox("group").await, other.inbox("group").await);
    publish_many(&one, 4).await;
    let mut got = Vec::new();
    while got.len() < 4 {
        // Either may claim them; what the other one claims goes back at once.
        tokio::select! {
            some = inbox.receive(4) => got.extend(some.expect("readable").into_iter().map(Arc::new)),
            some = other_inbox.receive(4) => {
                let back = some.expect("readable").into_iter().map(|d| run(&Arc::new(d), Verdict::Release)).collect();
                settle(&other_inbox, back).await;
            }
        }
    }
    assert_eq!(
        settle(&inbox, got.iter().map(|delivery| run(delivery, Verdict::Release)).collect()).await,
        vec![DONE; 4]
    );
    drop(inbox);
    let again = receive(&other_inbox, 4).await;
    assert!(again.iter().all(|delivery| delivery.orphaned == 0));
    settle(&other_inbox, again.iter().map(count).collect()).await;
    each_counted_once(&one, 4).await;
}

pub async fn adds_up_over_many_deaths(h: &impl Harness) {
    if !h.features().durable {
        return;
    }
    const EVENTS: usize = 120;
    let mut host = h.open().await;
    publish_many(&host, EVENTS).await;
    let mut settled = 0;
    for round in 0.. {
        let inbox = host.inbox("group").await;
        let got = receive(&inbox, 16.min(EVENTS - settled)).await;
        let part: Arc<[Run]> = got.iter().take(1 + round % 16).map(count).collect();
        if round % 3 == 0 {
            // Dies with a settle under way: whether it is applied is open.
            tokio::select! {
                biased;
                _ = inbox.settle(part.clone()) => {}
                () = std::future::ready(()) => {}
            }
        } else {
            assert!(inbox.settle(part).await.expect("it is written").iter().all(|answer| *answer == DONE));
        }
        drop(host);
        host = h.open().await;
        settled = host.value("n").await.map_or(0, |n| n.parse().expect("a number"));
        if settled == EVENTS {
            break;
        }
        assert!(round < 500, "it comes to an end");
    }
    each_counted_once(&host, EVENTS).await;
}

pub async fn moves_due_work_of_the_dead(h: &impl Harness) {
    if !h.features().durable {
        return;
    }
    let host = h.open().await;
    publish_many(&host, 1).await;
    let inbox = host.inbox("group").await;
    let first = receive_one(&inbox).await;
    assert_eq!(settle_one(&inbox, run(&first, retry(10, "later"))).await, DONE);
    drop(host);
    h.advance(10_000);
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    let second = receive_one(&inbox).await;
    assert_eq!((second.attempt(), second.orphaned), (2, 0));
}
