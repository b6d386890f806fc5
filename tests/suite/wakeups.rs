//! Nobody sleeps while there is something for him: many inboxes, tiny batches, receives that are given up at any moment.
//!
//! One wake-up that is lost leaves a receive waiting for ever, and its round never ends. In memory nothing else can save
//! it; on a file the doorbell of the other process is in the way as well.

use std::sync::Arc;

use futures_util::future::join_all;
use moontide::bus::sqlite::{Options, Place, SqliteStore, Synchronous};
use moontide::bus::{Bus, Inbox, Overview};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::conformance::{DONE, commit, emit, retry, run, settle, subscription};
use crate::support::PATIENCE;

const GROUPS: usize = 8;

async fn inboxes(store: &SqliteStore) -> Vec<Arc<dyn Inbox>> {
    let mut inboxes = Vec::new();
    for n in 0..GROUPS {
        let subscribed = store.subscribe(subscription(&format!("group {n}"))).await;
        inboxes.push(subscribed.expect("the group is opened").inbox);
    }
    inboxes
}

/// Receives `count` deliveries and settles each; every receive but the last of a turn is given up after a few polls.
async fn drain(inbox: &Arc<dyn Inbox>, count: usize, rng: &mut SmallRng) {
    let mut left = count;
    while left > 0 {
        let (max, polls) = (rng.random_range(1..=2), rng.random_range(0..6));
        let patient = rng.random_bool(0.5);
        let give_up = async {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
            if patient {
                std::future::pending::<()>().await;
            }
        };
        let got = tokio::select! {
            biased;
            got = inbox.receive(max) => got.expect("the bus can be read"),
            () = give_up => continue,
        };
        left -= got.len();
        let runs = got.into_iter().map(|delivery| commit(&Arc::new(delivery))).collect();
        assert!(settle(inbox, runs).await.iter().all(|answer| *answer == DONE));
    }
}

async fn rounds(count: u64, publisher: &SqliteStore, inboxes: &[Arc<dyn Inbox>]) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    for round in 0..count {
        let events = 1 + (round % 3) as usize;
        let publish = async {
            for n in 0..events {
                publisher.publish(vec![emit("orders", &format!("{round}/{n}"))]).await.expect("the event is stored");
            }
        };
        let drained = inboxes.iter().zip(0..).map(|(inbox, n)| async move {
            let mut rng = SmallRng::seed_from_u64(seed ^ (round << 8) ^ n);
            drain(inbox, events, &mut rng).await;
        });
        let both = async { tokio::join!(publish, join_all(drained)) };
        tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("a wake-up was lost in round {round}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_lost_within_a_process() {
    let store = SqliteStore::open(Options::at(Place::Memory)).expect("the store opens");
    let inboxes = inboxes(&store).await;
    rounds(300, &store, &inboxes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_lost_between_processes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = Place::File(folder.path().join("moontide.db"));
    let options = Options { synchronous: Synchronous::Normal, ..Options::at(place) };
    let store = SqliteStore::open(options.clone()).expect("the store opens");
    let other = SqliteStore::open(options).expect("the store opens");
    let inboxes = inboxes(&store).await;
    rounds(60, &other, &inboxes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_lost_when_retries_and_releases_come_back() {
    let store = SqliteStore::open(Options::at(Place::Memory)).expect("the store opens");
    let inbox = store.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    store.publish((0..50).map(|n| emit("orders", &n.to_string())).collect()).await.expect("the events are stored");
    let mut rng = SmallRng::seed_from_u64(7);
    let work = async {
        let mut left = 50;
        while left > 0 {
            let mut runs = Vec::new();
            for delivery in inbox.receive(rng.random_range(1..=5)).await.expect("the bus can be read") {
                let delivery = Arc::new(delivery);
                runs.push(match rng.random_range(0..3) {
                    0 => run(&delivery, moontide::judge::Verdict::Release),
                    1 => run(&delivery, retry(0, "again")),
                    _ => {
                        left -= 1;
                        commit(&delivery)
                    }
                });
            }
            settle(&inbox, runs).await;
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("what comes back is delivered");
    let status = store.groups().await.expect("groups are readable").remove(0);
    assert_eq!((status.lag, status.in_flight), (0, 0));
}
