//! Dead letters over HTTP: looked at by GET, which changes nothing, and given to their handlers once more by POST.

use std::net::SocketAddr;

use moontide::host::{Host, Start};
use serde_json::Value;

use super::client::{Reply, get, post, request, say};
use super::{ON, metrics};
use crate::support::{Desk, config_from, event};
use moontide_stage::server::{Kind, Server};

/// Refuses what it is told to, and counts the rest.
const PICKY: &str = r#"
return {
    on = "order.*",
    start = "earliest",
    handle = function(event, ctx)
        if ctx.kv:get("picky") then
            ctx:reject("not this one")
        end
        ctx.kv:add("n", 1)
    end,
}
"#;

/// With so many dead letters.
async fn desk(dead: usize) -> (Desk, SocketAddr) {
    let desk = Desk::with(ON, &[("picky", PICKY)]).await;
    set_picky(&desk, "true").await;
    desk.emit((0..dead).map(|n| event("order.a", n, &format!("{{\"n\":{n}}}"))).collect()).await;
    desk.until("they are dead", |desk| desk.counts("picky").dead == dead as u64).await;
    let address = desk.host().http_address().expect("HTTP is on");
    (desk, address)
}

async fn set_picky(desk: &Desk, value: &str) {
    let write = crate::conformance::set("picky", value);
    desk.host().backend().state.write(vec![write]).await.expect("state is writable");
}

async fn list(address: SocketAddr, query: &str) -> Vec<Value> {
    let reply = get(address, &format!("/admin/dlq{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.has("content-type: application/json") && reply.has("cache-control: no-store"), "{reply:?}");
    reply.json().as_array().expect("it is a list").clone()
}

async fn reprocess(address: SocketAddr, id: &str) -> Reply {
    say(address, &request("POST", &format!("/admin/dlq/reprocess/{id}"), &[], b"")).await
}

fn id(letter: &Value) -> &str {
    letter["id"].as_str().expect("an id is a text")
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_page_by_page_and_shown_in_full() {
    let (desk, address) = desk(5).await;
    let all = list(address, "").await;
    assert_eq!(all.len(), 5);
    let first = &all[0];
    for (name, expected) in [
        ("type", Value::from("order.a")),
        ("stream", "events:order.a".into()),
        ("handler", "picky".into()),
        ("reason", "rejected".into()),
        ("error", "not this one".into()),
        ("attempts", 1.into()),
        ("replayed_at", Value::Null),
        ("data", serde_json::json!({ "n": 0 })),
    ] {
        assert_eq!(first[name], expected, "{name}: {first}");
    }
    assert!(first["original_id"].is_string() && first["failed_at"].as_str().is_some_and(|at| at.ends_with('Z')));
    let ids: Vec<&str> = all.iter().map(id).collect();
    let page = list(address, &format!("?limit=2&after={}", ids[1])).await;
    assert_eq!(page.iter().map(id).collect::<Vec<_>>(), ids[2..4]);
    assert_eq!(list(address, "?handler=picky&reason=rejected").await.len(), 5);
    for none in ["?handler=other", "?reason=killer", "?reason=foreign", &format!("?after={}", ids[4])] {
        assert!(list(address, none).await.is_empty(), "{none}");
    }
    let shown = get(address, &format!("/admin/dlq/{}", ids[0])).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let shown = shown.json();
    assert_eq!((&shown["id"], &shown["data"], &shown["group"]), (&first["id"], &first["data"], &"picky".into()));
    assert_eq!((&shown["event"]["id"], &shown["failures"][0]["message"]), (&"0".into(), &"not this one".into()));
    assert_eq!(shown["raw"], Value::Null);
    assert_eq!(desk.dead().await.len(), 5, "looking changes nothing");
    let text = get(address, "/metrics").await.body;
    let requests = |route: &str| format!("moontide_http_requests_total{{code=\"200\",route=\"{route}\"}}");
    assert_eq!(metrics::value(&text, &requests("/admin/dlq")), 7.0);
    assert_eq!(metrics::value(&text, &requests("/admin/dlq/{id}")), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_before_it_is_too_large_and_the_rest_follows() {
    let (desk, address) = desk(0).await;
    let large = format!("\"{}\"", "x".repeat(200_000));
    desk.emit((0..12).map(|n| event("order.a", n, &large)).collect()).await;
    desk.until("they are dead", |desk| desk.counts("picky").dead == 12).await;
    let (mut ids, mut answers, mut query) = (Vec::new(), 0, "?limit=200".to_owned());
    loop {
        let page = list(address, &query).await;
        assert!(page.len() <= 6, "an answer has about 1 MiB: {}", page.len());
        let Some(last) = page.last() else { break };
        query = format!("?limit=200&after={}", id(last));
        ids.extend(page.iter().map(|letter| id(letter).to_owned()));
        answers += 1;
    }
    let expected: Vec<String> = desk.dead().await.iter().map(|letter| letter.id.to_string()).collect();
    assert_eq!((ids, answers), (expected, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_given_to_its_handler_once_more_and_once_only() {
    let (desk, address) = desk(2).await;
    let ids: Vec<String> = list(address, "").await.iter().map(|letter| id(letter).to_owned()).collect();
    set_picky(&desk, "false").await;
    let reply = reprocess(address, &ids[0]).await;
    assert_eq!((reply.status, id(&reply.json())), (202, ids[0].as_str()), "{reply:?}");
    desk.until_state("n", "1").await;
    assert_eq!(list(address, "").await.len(), 1);
    let (status, says) = reprocess(address, &ids[0]).await.problem();
    assert_eq!((status, says.contains("there is no dead letter")), (404, true), "{says}");

    // Nobody is there to take it.
    desk.remove("picky");
    desk.until("its file is gone", |desk| desk.host().snapshot().is_empty()).await;
    let json = [("Content-Type", "application/json")];
    let path = format!("/admin/dlq/reprocess/{}", ids[1]);
    assert_eq!(say(address, &request("POST", &path, &json, b"{}")).await.status, 202);
    let (status, says) = reprocess(address, &ids[1]).await.problem();
    assert_eq!((status, says.contains("on its way already, since 2")), (409, true), "{says}");
    assert!(list(address, "").await[0]["replayed_at"].is_string());
    desk.write("picky", PICKY);
    desk.until_state("n", "2").await;
    assert!(list(address, "").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_what_would_be_right_and_changes_nothing() {
    let (desk, address) = desk(1).await;
    let letter = desk.dead().await[0].id.to_string();
    let path = format!("/admin/dlq/reprocess/{letter}");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let json = ("Content-Type", "application/json");
    for (method, path, headers, body, status, says) in [
        ("GET", "/admin/dlq?limit=1000", vec![], "", 400, "from 1 to 200"),
        ("GET", "/admin/dlq?page=2", vec![], "", 400, "handler, reason, after, limit"),
        ("GET", "/admin/dlq?reason=tired", vec![], "", 400, "exhausted"),
        ("GET", "/admin/dlq/999", vec![], "", 404, "no dead letter 999"),
        ("GET", "/admin/dlq/error-1", vec![], "", 404, "no dead letter error-1"),
        ("GET", "/admin/dlq/%ff", vec![], "", 400, "no UTF-8"),
        ("GET", &path, vec![], "", 405, "sent by POST"),
        ("POST", "/admin/dlq", vec![], "", 405, "asked for by GET"),
        ("DELETE", "/admin/dlq/1", vec![], "", 405, "asked for by GET"),
        ("POST", "/admin/dlq/reprocess/999", vec![], "", 404, "no dead letter 999"),
        // What a page of another site can send without asking.
        ("POST", &path, vec![form], "", 415, "application/json"),
        ("POST", &path, vec![("Content-Type", "text/plain")], "{}", 415, "application/json"),
        ("POST", &path, vec![], "{}", 415, "without Content-Type"),
        ("POST", &path, vec![("Origin", "https://evil.example")], "", 403, "https://evil.example"),
        ("POST", &path, vec![("Origin", "null")], "", 403, "null"),
        ("POST", &path, vec![("Host", "evil.example")], "", 421, "evil.example"),
        ("POST", &path, vec![json], "{\"force\": true}", 400, "no options"),
        ("GET", "/admin/dlq", vec![("Host", "evil.example")], "", 421, "evil.example"),
    ] {
        let reply = say(address, &request(method, path, &headers, body.as_bytes())).await;
        let (code, detail) = reply.problem();
        assert_eq!(code, status, "{method} {path} {headers:?}: {detail}");
        assert!(detail.contains(says), "{method} {path} {headers:?}: {detail}");
    }
    let kept = desk.dead().await;
    assert_eq!((kept.len(), kept[0].replayed_at), (1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_a_token_it_is_asked_for() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "0123456789abcdef\n").expect("it is ours");
    let desk = Desk::with(&format!("{ON}\ntoken = {{ file = \"{}\" }}", file.path().display()), &[]).await;
    let address = desk.host().http_address().expect("HTTP is on");
    let bearer = [("Authorization", "Bearer 0123456789abcdef")];
    for (method, path, with) in
        [("GET", "/admin/dlq", 200), ("GET", "/admin/dlq/7", 404), ("POST", "/admin/dlq/reprocess/7", 404)]
    {
        assert_eq!(say(address, &request(method, path, &[], b"")).await.status, 401, "{method} {path}");
        assert_eq!(say(address, &request(method, path, &bearer, b"")).await.status, with, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_server_ids_of_entries_name_letters_too_and_foreign_ones_go_back() {
    let server = Server::with(Kind::Redis, &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let handlers = folder.path().join("handlers");
    std::fs::create_dir(&handlers).expect("a folder");
    std::fs::write(handlers.join("picky.luau"), PICKY).expect("a file");
    let file = folder.path().join("moontide.toml");
    let text = format!(
        "{ON}\n[bus]\nurl = \"{}\"\n[run]\nhandlers = \"{}\"\n[dead_letters]\nstream = \"event_dlq\"\n",
        server.url(),
        handlers.display()
    );
    std::fs::write(&file, text).expect("a file");
    let host = Host::start(config_from(&file), Start::default()).await.expect("the host starts");
    let address = host.http_address().expect("HTTP is on");
    let given_up = ["type", "order.a", "data", "{\"n\":1}", "original_id", "17-0", "error", "Connection timeout"];
    let words: Vec<&str> = ["XADD", "event_dlq", "*"].into_iter().chain(given_up).collect();
    let entry: String = server.get(&words);
    let letter = list(address, "").await.remove(0);
    assert_eq!((&letter["reason"], &letter["handler"]), (&"foreign".into(), &Value::Null));
    assert_eq!((&letter["original_id"], &letter["error"]), (&"17-0".into(), &"Connection timeout".into()));
    assert_eq!(letter["data"], serde_json::json!({ "n": 1 }));
    assert_eq!(get(address, &format!("/admin/dlq/{entry}")).await.json()["id"], letter["id"]);
    let reply = post(address, &format!("/admin/dlq/reprocess/{entry}"), &[], "{}").await;
    assert_eq!((reply.status, &reply.json()["stream"]), (202, &"events:order.a".into()));
    assert_eq!(reprocess(address, &entry).await.status, 404);
    let handled = async || server.get::<Option<u64>>(&["GET", "state:n"]) == Some(1);
    crate::conformance::until(handled).await;
    host.stop().await;
}
