//! The server is there and cannot be reached, or not heard: progress as soon as it can be again, and little ado until then.

use std::time::Duration;

use moontide::bus::redis::Options;
use moontide::bus::{Bus, BusError};
use tokio::time::{Instant, timeout};

use super::rig::{Rig, open, options, passing};
use moontide_stage::proxy::{Mode, Proxy, Way};
use moontide_stage::server::{Kind, Server};

/// What the bell's read takes at most, and two seconds; a defect takes far longer, or for ever.
const SOON: Duration = Duration::from_secs(3);
/// Other tests have the same processors.
const SLACK: Duration = Duration::from_secs(2);

async fn half_open(ways: &[Way], before: Duration) {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    // Where nothing else shows that an answer is lost, it is given up when it was waited for long enough.
    let mut rig = Rig::with(Options { patience: SOON, ..options(&proxy.url()) }).await;
    rig.one().await;
    ways.iter().for_each(|way| proxy.set(*way, Mode::Lose));
    // Something is on its way while the line is dead: an event that is published, and somebody who waits for it.
    let bus = rig.bus.clone();
    let lost = tokio::spawn(async move { passing(bus.publish(Vec::new()).await) });
    tokio::time::sleep(before).await;
    proxy.heal();
    let healed = Instant::now();
    rig.one().await;
    assert!(healed.elapsed() < SOON + SLACK, "{ways:?} for {before:?}: progress after {:?}", healed.elapsed());
    lost.await.expect("it did not panic").expect_err("its answer is lost");
    rig.check_all(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_dead_and_says_nothing_is_given_up() {
    let (down, up) = ([Way::ToClient], [Way::ToServer]);
    let both = [Way::ToClient, Way::ToServer];
    let moment = Duration::from_millis(50);
    let while_away = Duration::from_secs(4);
    tokio::join!(half_open(&down, moment), half_open(&up, moment), half_open(&both, while_away));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_inbox_hears_again_after_its_line_was_dead() {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    let rig = Rig::new(&proxy.url()).await;
    let idle = rig.inbox.receive(1);
    tokio::pin!(idle);
    // It has looked, and waits for the bell.
    assert!(timeout(Duration::from_millis(300), &mut idle).await.is_err());
    proxy.set(Way::ToClient, Mode::Lose);
    let mut other = Rig::new(&server.url()).await;
    other.publish(1).await;
    proxy.heal();
    let healed = Instant::now();
    while passing(idle.as_mut().await).is_err() {
        idle.set(rig.inbox.receive(1));
    }
    assert!(healed.elapsed() < SOON + SLACK, "it came after {:?}", healed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_dead_for_all_is_given_up_before_patience_is_over() {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    let mut rig = Rig::with(Options { patience: Duration::from_secs(60), ..options(&proxy.url()) }).await;
    rig.one().await;
    proxy.set(Way::ToClient, Mode::Lose);
    let bus = rig.bus.clone();
    let lost = tokio::spawn(async move { passing(bus.publish(Vec::new()).await) });
    // Longer than the server holds a read, so that the answer to the bell's is lost as well.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    proxy.heal();
    timeout(SOON + SLACK, lost)
        .await
        .expect("it is not waited for")
        .expect("no panic")
        .expect_err("its answer is lost");
    rig.one().await;
    rig.check_all(&server);
}

/// The shared connection and the bell's.
async fn all_made(proxy: &Proxy) -> usize {
    super::until(|| proxy.accepted() == 2).await;
    2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_back_arrives_and_counts() {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    let mut rig = Rig::new(&proxy.url()).await;
    rig.publish(1).await;
    let deliveries = rig.receive(1).await;
    let connections = all_made(&proxy).await;
    proxy.set(Way::ToClient, Mode::Hold);
    let settling = rig.settle(&deliveries);
    tokio::pin!(settling);
    assert!(timeout(Duration::from_millis(200), &mut settling).await.is_err(), "nothing is answered");
    proxy.heal();
    assert_eq!(settling.await, [moontide::bus::Answer::Done { dead: None }]);
    assert_eq!(proxy.accepted(), connections, "nobody gave the connection up");
    rig.check_all(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_calls_fail_at_once_and_one_task_looks_for_it() {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    let mut rig = Rig::new(&proxy.url()).await;
    rig.one().await;
    server.kill();
    let before = proxy.accepted();
    let began = Instant::now();
    let (mut failed, mut slowest) = (0, Duration::ZERO);
    while began.elapsed() < Duration::from_secs(2) {
        let calls = (0..100).map(|_| async {
            let began = Instant::now();
            let error = rig.bus.publish(Vec::new()).await.expect_err("nobody is there");
            assert!(error.to_string().contains("away: "), "{error}");
            began.elapsed()
        });
        let took = futures_util::future::join_all(calls).await;
        failed += took.len();
        slowest = took.into_iter().chain([slowest]).max().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(failed > 2_000 && slowest < SLACK, "{failed} calls, the slowest took {slowest:?}");
    let attempts = proxy.accepted() - before;
    assert!((2..20).contains(&attempts), "{attempts} connections were tried in two seconds");
    server.start();
    let began = Instant::now();
    rig.publish(1).await;
    assert!(began.elapsed() < SOON, "it was found after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_does_no_harm() {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    let mut rig = Rig::new(&proxy.url()).await;
    let connections = all_made(&proxy).await;
    for round in 0..100 {
        rig.publish(2).await;
        // At another moment each time, and all of them within what a round trip takes.
        let patience = Duration::from_micros(20 * round);
        drop(timeout(patience, rig.bus.publish(Vec::new())).await);
        if let Ok(received) = timeout(patience, rig.inbox.receive(1)).await {
            let received: Vec<_> =
                passing(received).expect("it answers").into_iter().map(std::sync::Arc::new).collect();
            rig.settle(&received).await;
        }
    }
    let left = 200 - super::rig::entries(&server, "out").len();
    for _ in 0..left {
        let received = rig.receive(1).await;
        rig.settle(&received).await;
    }
    assert_eq!(proxy.accepted(), connections, "nobody gave the connection up");
    rig.check_all(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_say_whose_they_are() {
    let server = Server::with(Kind::Redis, &[]);
    let _rig = Rig::new(&server.url()).await;
    super::until(|| server.get::<String>(&["CLIENT", "LIST"]).matches("name=moontide:a-process ").count() == 2).await;
}

#[tokio::test]
async fn what_is_no_server_is_said_at_once() {
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
    let port = web.local_addr().expect("it is bound").port();
    let served = tokio::spawn(async move {
        while let Ok((mut client, _)) = web.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = client.read(&mut [0; 1024]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    });
    for (url, unusable, says) in [
        (format!("redis://127.0.0.1:{port}"), true, "does not speak Redis' protocol"),
        (format!("rediss://127.0.0.1:{port}"), true, "no TLS with it"),
        ("redis://127.0.0.1:1".into(), false, "refused"),
        ("redis://no-such-host.invalid".into(), false, "lookup"),
        ("unix:///no/such/socket".into(), false, "No such file"),
        ("rediss://127.0.0.1:1?ca_file=/no/such.pem".into(), true, "?ca_file=/no/such.pem: No such file"),
        ("redis+sentinel://127.0.0.1:1/main".into(), false, "no sentinel knows the master: 127.0.0.1:1: "),
    ] {
        let error = open(&url).await.map(drop).expect_err("nobody is there");
        assert_eq!(matches!(error, BusError::Unusable { .. }), unusable, "{url}: {error:?}");
        assert!(error.to_string().contains(says), "{url}: {error}");
    }
    served.abort();
}
