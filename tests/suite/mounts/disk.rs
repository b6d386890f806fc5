//! A disk that is full: events are refused with a reason, handlers wait, and all goes on by itself when there is room.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moontide::bus::sqlite::{Options, Place, SqliteStore};
use moontide::bus::{Bus, BusError, Overview};
use moontide::outcome::Emit;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::{mount, mount_disk, place, run_inside};
use crate::http::client::{get, post};
use crate::support::{Desk, PATIENCE, event};

const ORDERS: &str = "return { on = 'order.*', start = 'earliest', retry = { attempts = 1 },
    handle = function(event, ctx)
        ctx.kv:add('n/' .. event.id, 1)
        ctx:emit('later', { of = event.id }, { delay = '20ms' })
    end }";
const LATER: &str = "return { on = 'later', start = 'earliest', retry = { attempts = 1 },
    handle = function(event, ctx) ctx.kv:add('later/' .. event.data.of, 1) end }";
const ON: &str = "[http]\nlisten = \"127.0.0.1:0\"\n[groups]\nrecovery = \"2s\"";
/// How long the log is watched while the disk is full.
const WATCHED: Duration = Duration::from_secs(3);

/// How often each message was logged; numbers in it do not count.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<BTreeMap<String, usize>>>);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if ["message", "handler"].contains(&field.name()) {
            self.0 += &format!("{value:?} ").replace(|c: char| c.is_ascii_digit(), "");
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::WARN {
            let mut message = Message(String::new());
            event.record(&mut message);
            *self.0.lock().entry(message.0).or_default() += 1;
        }
    }
}

/// Takes all the room there is, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(folder: &Path) -> Self {
        let path = folder.join("filler");
        let mut file = File::create(&path).expect("a file");
        let mut piece = 1 << 16;
        while piece > 0 {
            if file.write_all(&vec![0; piece]).is_err() {
                piece /= 2;
            }
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("it is there");
    }
}

/// Sends orders until one is refused; answers the ids of those that were taken.
async fn send_until_refused(address: SocketAddr) -> Vec<String> {
    let (began, mut taken) = (Instant::now(), Vec::new());
    loop {
        let reply = post(address, "/events/order.a", &[], &format!("\"{}\"", "x".repeat(5000))).await;
        if reply.status != 202 {
            let (status, problem) = reply.problem();
            assert!(status == 503 && problem.contains("is full: ") && problem.contains("free some space"), "{reply:?}");
            assert!(reply.has("retry-after: 10"), "{reply:?}");
            return taken;
        }
        taken.extend(reply.ids());
        assert!(began.elapsed() < PATIENCE, "it is never full");
    }
}

async fn until_ready(address: SocketAddr, status: u16) {
    let began = Instant::now();
    loop {
        let ready = get(address, "/readyz").await;
        if ready.status == status {
            assert!(status == 200 || ready.body.contains("full"), "{ready:?}");
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{ready:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Delayed work that falls due all the time for a while.
fn falling_due() -> Vec<Emit> {
    let due =
        |n: u64| Emit { delay: Some(Duration::from_millis(50 * n)), ..event("later", n, &format!("{{\"of\":{n}}}")) };
    (0..80).map(due).collect()
}

async fn check_each_once(desk: &Desk, prefix: &str, mut expected: Vec<String>) {
    let entries = desk.host().backend().state.scan(prefix, None, usize::MAX).await.expect("the store answers");
    assert!(entries.iter().all(|entry| &*entry.value == b"1"), "{entries:?}");
    let keys: Vec<String> = entries.into_iter().map(|entry| entry.key.replacen(prefix, "", 1)).collect();
    expected.sort();
    assert_eq!(keys, expected, "{prefix}");
}

#[test]
fn a_disk_that_cannot_be_written_is_named_and_nothing_is_started_on_it() {
    run_inside("mounts::disk::read_only");
}

#[tokio::test]
#[ignore = "run by the test before it, where it may mount"]
async fn read_only() {
    mount_disk(&place(), 8);
    let open = || SqliteStore::open(Options::at(Place::File(place().join("moontide.db"))));
    let store = open().expect("a new file is made");
    store.publish(vec![event("order.a", 1, "{}")]).await.expect("the store takes events");
    store.close().await;
    drop(store);
    mount(&["-o", "remount,ro"], &[&place()]);
    let Err(error @ BusError::Unusable { .. }) = open() else { panic!("it cannot be written") };
    let text = error.to_string();
    assert!(text.contains("moontide.db") && text.contains("check the path and its permissions"), "{text}");
    mount(&["-o", "remount,rw"], &[&place()]);
    let store = open().expect("it can be written again");
    let entries = store.history("events:order.a", None, 9).await.expect("history is readable");
    assert_eq!(entries.len(), 1, "what was stored is there");
}

#[test]
fn a_full_disk_loses_nothing_and_all_goes_on_when_there_is_room() {
    run_inside("mounts::disk::full");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test before it, where it may mount"]
async fn full() {
    let log = Log::default();
    Registry::default().with(log.clone()).init();
    mount_disk(&place(), 8);
    let mut desk = Desk::within(&place(), ON, &[("orders", ORDERS), ("later", LATER)]).await;
    let address = desk.host().http_address().expect("HTTP is on");
    let mut taken = post(address, "/events/order.a", &[], "{}").await.ids();
    desk.emit(falling_due()).await;

    let filler = Filler::fill(&place());
    taken.extend(send_until_refused(address).await);
    until_ready(address, 503).await;
    log.0.lock().clear();
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        taken.extend(send_until_refused(address).await);
        assert_eq!(get(address, "/healthz").await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (lines, seconds) = (log.0.lock().clone(), began.elapsed().as_secs() as usize);
    assert!(lines.values().all(|times| *times <= 1 + seconds), "{lines:#?} in {seconds} s");
    until_ready(address, 503).await;

    drop(filler);
    until_ready(address, 200).await;
    taken.extend(post(address, "/events/order.a", &[], "{}").await.ids());
    desk.quiet().await;
    check_each_once(&desk, "n/", taken.clone()).await;
    check_each_once(&desk, "later/", (0..80).map(|n| n.to_string()).chain(taken.clone()).collect()).await;
    let charged = ["orders", "later"].map(|name| desk.counts(name)).map(|counts| counts.retried + counts.dead);
    assert_eq!(charged, [0, 0]);

    let filler = Filler::fill(&place());
    taken.extend(send_until_refused(address).await);
    desk.stop().await;
    drop(filler);
    desk.start().await;
    desk.quiet().await;
    check_each_once(&desk, "n/", taken).await;
    desk.stop().await;
}
