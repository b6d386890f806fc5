//! Services that behave badly, and the bounds of a run: no call outlives its run, and none fills the memory.

use std::time::Duration;

use super::server::Server;
use super::{desk, error_of, given, go};
use crate::support::{Desk, free_port};

/// What the call of `url`, an expression, with `opts` failed with, as the script sees it.
async fn failure(server: &Server, url: &str, opts: &str) -> String {
    let script = format!(
        r#"return function(event, ctx)
            local ok, why = pcall(http.get, {url}, {opts})
            ctx.kv:set("why", ok and "it worked" or why)
        end"#
    );
    let desk = desk(server, "", &[("go", &script)]).await;
    desk.emit(go(1)).await;
    desk.until("it ends", |desk| desk.counts("go").done + desk.counts("go").dead == 1).await;
    match desk.state("why").await {
        Some(why) => why,
        None => format!("dead: {}", error_of(&desk.dead().await[0])),
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_service_is_said_with_method_and_host() {
    let server = Server::start().await;
    let place = server.url();
    for (path, opts, part) in [
        ("/garbage?secret", "nil", "invalid HTTP version parsed"),
        ("/half?secret", "nil", "end of file before message length reached"),
        ("/hang-up?secret", "nil", "connection closed before message completed"),
        ("/endless?secret", "{ max_bytes = \"64 KiB\" }", "the body of the answer is longer than 64 KiB"),
        ("/long?65537", "{ max_bytes = \"64 KiB\" }", "the body of the answer is longer than 64 KiB"),
        ("/stall?secret", "{ timeout = \"50ms\" }", r#"no whole answer within timeout = \"50ms\""#),
        ("/around", "nil", "the answer redirects for the 6th time"),
    ] {
        let why = failure(&server, &format!("config.get(\"service\") .. {path:?}"), opts).await;
        assert!(why.contains(&format!("http.get: GET {place}: ")) && why.contains(part), "{path}: {why}");
        assert!(!why.contains("secret"), "{why}");
    }
}

#[tokio::test]
async fn a_service_that_is_away_is_named() {
    let server = Server::start().await;
    let (place, port) = (server.address.ip(), free_port());
    let grants = format!("[handlers.\"**\"]\ngrants = {{ hosts = [\"{place}:{port}\"] }}\n");
    let script = format!("return function() http.get('http://{place}:{port}/hush') end");
    let desk = Desk::with(&(grants + &given(&server, "")), &[("go", &script)]).await;
    desk.emit(go(1)).await;
    desk.until("it is given up", |desk| desk.counts("go").dead == 1).await;
    let error = error_of(&desk.dead().await[0]);
    let expected = format!("http.get: GET http://{place}:{port}: ");
    assert!(error.contains(&expected) && error.contains("refused") && !error.contains("hush"), "{error}");
}

#[tokio::test]
async fn the_deadline_of_the_run_ends_its_call() {
    let server = Server::start().await;
    let script = r#"
        return {
            on = "go",
            timeout = "100ms",
            handle = function(event, ctx)
                pcall(http.get, config.get("service") .. "/stall", { timeout = "1h" })
                ctx.kv:set("went", "on")
            end,
        }"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    desk.emit(go(1)).await;
    desk.until("it is given up", |desk| desk.counts("go").dead == 1).await;
    let error = error_of(&desk.dead().await[0]);
    let expected = format!("took longer than timeout = \"100ms\", waiting for GET {}", server.url());
    assert!(error.contains(&expected), "{error}");
    assert_eq!(desk.state("went").await, None);
}

#[tokio::test]
async fn a_host_stops_while_a_call_waits_and_its_event_is_done_later() {
    let server = Server::start().await;
    let script = r#"
        return function(event, ctx)
            http.get(config.get("service") .. "/stall-once", { timeout = "1h" })
            ctx.kv:add("done", 1)
        end"#;
    let mut desk = desk(&server, "", &[("go", script)]).await;
    desk.emit(go(1)).await;
    desk.until("the service is asked", |_| server.seen().len() == 1).await;
    tokio::time::timeout(crate::support::PATIENCE, desk.stop()).await.expect("it stops");
    desk.start().await;
    desk.until_state("done", "1").await;
    let keys: Vec<_> = server.seen().iter().map(|seen| seen.headers["idempotency-key"].clone()).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    assert_eq!(desk.dead().await.len(), 0);
}

#[tokio::test]
async fn calls_and_their_bodies_are_bounded_per_run_and_no_pcall_helps() {
    let server = Server::start().await;
    for (body, part) in [
        ("pcall(http.get, url .. '/')", "more than limits.calls = 3;"),
        ("pcall(http.get, url .. '/long?60000')", "more than limits.call_bytes = 100000;"),
        ("pcall(http.get, url .. '/endless')", "more than limits.call_bytes = 100000;"),
        ("pcall(http.post, url .. '/', { body = string.rep('x', 60000) })", "more than limits.call_bytes = 100000;"),
    ] {
        let script = format!(
            "return function(event, ctx)
                local url = config.get('service')
                for _ = 1, 5 do {body} end
                ctx.kv:set('went', 'on')
            end"
        );
        let settings = "[limits]\ncalls = 3\ncall_bytes = \"100000 B\"\n";
        let desk = desk(&server, settings, &[("go", &script)]).await;
        desk.emit(go(1)).await;
        desk.until("it is given up", |desk| desk.counts("go").dead == 1).await;
        let error = error_of(&desk.dead().await[0]);
        assert!(error.contains(part), "{body}: {error}");
        assert_eq!(desk.state("went").await, None);
    }
}

#[tokio::test]
async fn many_runs_wait_for_slow_services_without_holding_a_thread() {
    let server = Server::start().await;
    let script = r#"
        return {
            on = "go",
            concurrency = 200,
            handle = function(event, ctx)
                http.get(config.get("service") .. "/stall", { timeout = "1h" })
            end,
        }"#;
    let quick = "return function(event, ctx) ctx.kv:set('quick', true) end";
    let desk = desk(&server, "", &[("go", script), ("quick", quick)]).await;
    desk.emit((1..=100).flat_map(go).collect()).await;
    desk.until("all of them wait", |_| server.seen().len() == 100).await;
    desk.emit(vec![crate::support::event("quick", 1, "{}")]).await;
    desk.until_state("quick", "true").await;
    // Nothing is left behind that would hold up the end.
    tokio::time::timeout(Duration::from_secs(60), drop_all(desk)).await.expect("it stops");
}

async fn drop_all(mut desk: Desk) {
    desk.stop().await;
}
