//! What is sent, what comes back, and what tells a service that it is the same call again.

use std::collections::HashSet;

use super::server::Server;
use super::{desk, go};
use crate::support::event;

/// The header `name` of every call to `path`, in their order; empty where a call had none.
fn sent(server: &Server, path: &str, name: &str) -> Vec<String> {
    let seen = server.seen().into_iter().filter(|seen| seen.path == path);
    seen.map(|seen| seen.headers.get(name).cloned().unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_call_carries_what_it_was_given_and_its_answer_is_seen() {
    let server = Server::start().await;
    let script = r#"
        local service = config.get("service")
        return function(event, ctx)
            local answer = http.post(service .. "/orders?x=1", {
                json = { id = event.id, list = json.array() },
                query = { b = { "1", "two words" }, a = true },
                headers = { ["X-Shop"] = "7" },
            })
            ctx.kv:set("answer", {
                status = answer.status, ok = answer:json().ok, twice = answer.headers["x-twice"], body = answer.body,
            })
            http.get(service .. "/plain")
            http.request({ method = "options", url = service .. "/asked", body = "text" })
            http.delete(service .. "/gone")
            local head = http.head(service .. "/head")
            ctx.kv:set("done", head.status)
        end"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    desk.emit(go(1)).await;
    desk.until_state("done", "200").await;
    let answer = desk.state("answer").await.expect("it was set");
    for part in [r#""status":200"#, r#""ok":true"#, r#""twice":"a, b""#, r#""body":"{\"ok\":true,\"n\":[1,2]}""#] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    let post = "POST /orders?x=1&a=true&b=1&b=two+words";
    assert_eq!(asked, [post, "GET /plain", "OPTIONS /asked", "DELETE /gone", "HEAD /head"]);
    assert_eq!((&*seen[0].body, &*seen[2].body), (r#"{"id":"1","list":[]}"#, "text"));
    let header = |at: usize, name: &str| seen[at].headers.get(name).map(String::as_str);
    assert_eq!((header(0, "content-type"), header(0, "x-shop")), (Some("application/json"), Some("7")));
    assert_eq!((header(1, "content-type"), header(1, "accept-encoding")), (None, None));
    assert!(header(1, "user-agent").is_some_and(|agent| agent.starts_with("moontide/")));
    desk.quiet().await;
    let metrics = desk.host().metrics().text().expect("metrics can be written");
    let address = server.address;
    let counted = format!("moontide_calls_total{{handler=\"go\",host=\"{address}\",result=\"2xx\"}} 5");
    let timed = format!("moontide_call_seconds_count{{handler=\"go\",host=\"{address}\"}} 5");
    assert!(metrics.contains(&counted) && metrics.contains(&timed), "{metrics}");
}

#[tokio::test]
async fn keys_are_stable_over_attempts_and_no_two_calls_share_one() {
    let server = Server::start().await;
    let script = r#"
        return {
            on = "go",
            retry = { attempts = 3, delay = "1ms", jitter = 0 },
            handle = function(event, ctx)
                local service = config.get("service")
                http.post(service .. "/first")
                if http.post(service .. "/flaky").status == 500 then
                    error("once more")
                end
                http.post(service .. "/own", { headers = { ["Idempotency-Key"] = "mine", traceparent = "mine" } })
                ctx.kv:add("done", 1)
            end,
        }"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut traced = event("go", 2, "{}");
    traced.event.traceparent = Some(trace.to_owned());
    desk.emit(go(1)).await;
    desk.until_state("done", "1").await;
    desk.emit(vec![traced]).await;
    desk.until_state("done", "2").await;
    let of = |path: &str, name: &str| sent(&server, path, name);
    let (first, flaky) = (of("/first", "idempotency-key"), of("/flaky", "idempotency-key"));
    assert_eq!((first.len(), flaky.len()), (3, 3), "the first event took two attempts");
    assert!(first[0] == first[1] && flaky[0] == flaky[1], "{first:?} {flaky:?}");
    let different: HashSet<_> = [&first[0], &flaky[0], &first[2], &flaky[2]].into_iter().collect();
    assert_eq!(different.len(), 4, "{different:?}");
    assert_eq!(of("/own", "idempotency-key"), ["mine", "mine"]);
    let traces = [of("/first", "traceparent"), of("/flaky", "traceparent")].concat();
    assert_eq!(traces.iter().filter(|seen| *seen == trace).count(), 2, "the second event has a trace: {traces:?}");
    let made: HashSet<_> = traces.iter().filter(|seen| *seen != trace).collect();
    assert_eq!(made.len(), 1, "all calls and attempts of the first event share one: {made:?}");
    assert!(made.iter().all(|made| made.len() == trace.len()), "{made:?}");
    assert_eq!(of("/own", "traceparent"), ["mine", "mine"]);
}

#[tokio::test]
async fn connections_are_used_again_by_later_runs() {
    let server = Server::start().await;
    let script = r#"
        return {
            on = "go",
            concurrency = 1,
            handle = function(event, ctx)
                http.get(config.get("service") .. "/", { timeout = "30s" })
                ctx.kv:add("done", 1)
            end,
        }"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    for id in 1..=5 {
        desk.emit(go(id)).await;
        desk.until_state("done", &id.to_string()).await;
    }
    let seen = server.seen();
    assert_eq!(seen.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [1; 5]);
}

#[tokio::test]
async fn a_busy_service_puts_the_event_off_without_an_attempt() {
    let server = Server::start().await;
    let script = r#"
        return function(event, ctx)
            local service = config.get("service")
            ctx.kv:set("down", ctx:snooze_if_busy(http.get(service .. "/down")))
            local answer = http.get(service .. "/busy")
            ctx:snooze_if_busy(answer)
            ctx.kv:set("done", { status = answer.status, attempt = ctx.attempt })
        end"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    desk.emit(go(1)).await;
    desk.until("it comes again", |desk| desk.counts("go").done == 1).await;
    let done = desk.state("done").await.expect("it is done");
    assert!(done.contains("\"attempt\":1") && done.contains("\"status\":200"), "{done}");
    assert_eq!(desk.state("down").await.as_deref(), Some("false"), "a 503 that does not say until when");
    assert_eq!((desk.counts("go").retried, desk.counts("go").dead), (1, 0));
}

#[tokio::test]
async fn a_call_in_a_step_is_made_until_it_is_answered_and_then_never_again() {
    let server = Server::start().await;
    let script = r#"
        return {
            on = "go",
            retry = { attempts = 3, delay = "1ms", jitter = 0 },
            handle = function(event, ctx)
                local service = config.get("service")
                local status = ctx:step("charge", function()
                    http.get(service .. "/asked")
                    local answer = http.post(service .. "/busy")
                    ctx:snooze_if_busy(answer)
                    return answer.status
                end)
                http.post(service .. "/after")
                if ctx.attempt == 1 then
                    error("once more")
                end
                ctx.kv:set("done", status)
            end,
        }"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    desk.emit(go(1)).await;
    desk.until_state("done", "200").await;
    let (busy, after) = (sent(&server, "/busy", "idempotency-key"), sent(&server, "/after", "idempotency-key"));
    assert_eq!((busy.len(), after.len()), (2, 2), "busy once, and not asked again when the run is repeated");
    assert!(
        !busy[0].is_empty() && busy[0] == busy[1] && after[0] == after[1] && busy[0] != after[0],
        "{busy:?} {after:?}"
    );
}

#[tokio::test]
async fn nothing_is_unpacked_and_json_says_what_is_wrong_with_it() {
    let server = Server::start().await;
    let script = r#"
        return function(event, ctx)
            local answer = http.get(config.get("service") .. "/zipped")
            ctx.kv:set("body", answer.body)
            local ok, why = pcall(function() return answer:json() end)
            ctx.kv:set("why", why)
        end"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    desk.emit(go(1)).await;
    desk.until_state("body", "\"not unpacked\"").await;
    let why = desk.state("why").await.expect("it was set");
    assert!(why.contains("go.luau:5: answer:json: body: expected JSON, but "), "{why}");
}
