//! What is refused, and what it says; nothing that is refused is stored.

use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::{get, post, request, say};
use super::{ON, desk, stored};
use crate::support::{Desk, PATIENCE};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TYPE: (&str, &str) = ("ce-type", "order.a");
const BINARY: [(&str, &str); 5] = [JSON, TYPE, ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s")];

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_document_that_says_what_would_be_right() {
    let (desk, address) = desk().await;
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let key = "k".repeat(300);
    let structured = ("Content-Type", "application/cloudevents+json");
    let without = |name: &str| BINARY.iter().copied().filter(|(it, _)| *it != name).collect::<Vec<_>>();
    let with = |name: &'static str, value: &'static str| [&BINARY[..], &[(name, value)]].concat();
    let plain = "/events/order.a";
    for (method, path, headers, body, status, says) in [
        ("POST", plain, vec![], "{}", 415, "has no Content-Type"),
        ("POST", plain, vec![("Content-Type", "text/plain")], "{}", 415, "text/plain is not taken"),
        ("POST", plain, vec![("Content-Type", "application/x-www-form-urlencoded")], "a=1", 415, "is not taken"),
        (
            "POST",
            plain,
            vec![JSON],
            "{\"a\":1,}",
            400,
            "the body is no JSON document: trailing comma at line 1 column 8",
        ),
        ("POST", plain, vec![JSON], "", 400, "EOF while parsing a value"),
        ("POST", plain, vec![JSON], "{\"a\":1,\"a\":2}", 400, "\"a\" comes twice"),
        ("POST", plain, vec![JSON], &large, 413, "limits.payload = 1048576 bytes"),
        ("POST", plain, vec![JSON, ("ce-type", "order.b")], "{}", 400, "sent to /events/order.a"),
        ("POST", plain, vec![JSON, ("ce-time", "soon")], "{}", 400, "has the time \"soon\""),
        ("POST", plain, vec![JSON, ("ce-specversion", "0.3")], "{}", 400, "\"0.3\""),
        ("POST", plain, vec![JSON, ("Idempotency-Key", "")], "{}", 400, "1 to 255"),
        ("POST", plain, vec![JSON, ("Idempotency-Key", &key)], "{}", 400, "1 to 255"),
        ("POST", plain, vec![JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")], "{}", 400, "twice"),
        ("POST", "/events/a%20b", vec![JSON], "{}", 400, "' ' cannot stand in an event type"),
        ("POST", "/events/%ff", vec![JSON], "{}", 400, "no UTF-8"),
        ("POST", "/events", vec![JSON], "{}", 400, "no CloudEvent"),
        ("POST", "/events", vec![], "{}", 415, "application/cloudevents+json"),
        ("POST", "/events", vec![structured], "[]", 400, "a JSON object"),
        ("POST", "/events", vec![structured], "{}", 400, "the event has no \"specversion\""),
        ("POST", "/events", without("ce-id"), "{}", 400, "no ce-id"),
        ("POST", "/events", without("ce-source"), "{}", 400, "no ce-source"),
        ("POST", "/events", with("ce-order_id", "1"), "{}", 400, "\"orderid\""),
        ("POST", "/events", with("ce-datacontenttype", "x"), "{}", 400, "Content-Type"),
        ("POST", "/events", with("ce-subject", "%ff"), "{}", 400, "no UTF-8"),
        ("GET", "/events", vec![], "", 405, "sent by POST"),
        ("DELETE", "/handlers", vec![], "", 405, "asked for by GET"),
        ("GET", "/", vec![], "", 404, "/readyz"),
        ("GET", "/handlers", vec![("Host", "evil.example")], "", 421, "\"evil.example\""),
        ("GET", "/metrics", vec![("Host", "evil.example:7100")], "", 421, "\"evil.example\""),
        ("POST", plain, vec![JSON, ("Origin", "https://evil.example")], "{}", 403, "https://evil.example"),
    ] {
        let reply = say(address, &request(method, path, &headers, body.as_bytes())).await;
        let (code, detail) = reply.problem();
        assert_eq!(code, status, "{method} {path} {headers:?}: {detail}");
        assert!(detail.contains(says), "{method} {path} {headers:?}: {detail}");
        assert!(!reply.head.contains("access-control"), "no page elsewhere may read us: {reply:?}");
    }
    assert!(stored(&desk, "order.a").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_is_cut_off_at_the_limit() {
    let (desk, address) = desk().await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let body = format!("{}0\r\n\r\n", chunk.repeat(20));
    let headers = [JSON, ("Transfer-Encoding", "chunked")];
    let reply = say(address, &request("POST", "/events/order.a", &headers, body.as_bytes())).await;
    // 0: it was shown out while it was still speaking, and may not have heard why.
    assert!(reply.status == 413 || reply.status == 0, "{reply:?}");
    let small = b"2\r\n{}\r\n0\r\n\r\n";
    assert_eq!(say(address, &request("POST", "/events/order.a", &headers, small)).await.ids().len(), 1);
    assert_eq!(stored(&desk, "order.a").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_too_much_is_being_sent_is_told_to_come_again() {
    let (desk, address) = desk().await;
    let head = "POST /events/order.a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 1048576\r\n\r\n";
    let (mut waiting, began) = (Vec::new(), Instant::now());
    loop {
        // One more each time: while a small request is under way, there is no room for a large one.
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it is open");
        waiting.push(stream);
        let reply = post(address, "/events/order.a", &[], "{}").await;
        if reply.status == 429 {
            assert!(reply.has("retry-after: 1"), "{reply:?}");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{reply:?}");
    }
    assert!(waiting.len() >= 64, "{} were too many", waiting.len());
    drop(waiting);
    while post(address, "/events/order.a", &[], "{}").await.status != 202 {
        assert!(began.elapsed() < PATIENCE, "nobody is let in any more");
    }
    drop(desk);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_a_token_nobody_passes_without_but_to_health_and_metrics() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "0123456789abcdef\n").expect("it is ours");
    let settings = format!("{ON}\ntoken = {{ file = \"{}\" }}", file.path().display());
    let desk = Desk::with(&settings, &[]).await;
    let address = desk.host().http_address().expect("HTTP is on");
    for open in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(get(address, open).await.status, 200, "{open}");
    }
    for (sent, status) in [
        (None, 401),
        (Some("Bearer 0123456789abcdeF"), 401),
        (Some("Bearer 0123456789abcde"), 401),
        (Some("Bearer "), 401),
        (Some("Basic 0123456789abcdef"), 401),
        (Some("bearer 0123456789abcdef"), 202),
    ] {
        let headers: Vec<_> = sent.map(|sent| ("Authorization", sent)).into_iter().collect();
        let reply = post(address, "/events/order.a", &headers, "{}").await;
        assert_eq!(reply.status, status, "{sent:?}");
        assert_eq!(reply.has("www-authenticate: bearer"), status == 401, "{reply:?}");
        assert!(!reply.body.contains("0123456789abcde"), "{reply:?}");
    }
    let headers = [("Host", "moon.example"), ("Authorization", "Bearer 0123456789abcdef")];
    let reply = say(address, &request("GET", "/handlers", &headers, b"")).await;
    assert_eq!(reply.status, 200, "who has the token may call us what they like");
}

/// Every mutation ends in an answer below 500 or in silence, and only what is answered with 202 is stored.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_malformed_requests_leave_it_standing() {
    let (desk, address) = desk().await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let structured = br#"{"specversion":"1.0","id":"1","source":"/s","type":"order.a","data":{"n":[1,"a\u0041"]}}"#;
    let whole = [
        request("POST", "/events/order.a", &[JSON], br#"{"n":[1,"\ud83d\ude00"]}"#),
        request("POST", "/events", &BINARY, b"{}"),
        request("POST", "/events", &[("Content-Type", "application/cloudevents+json")], structured),
    ];
    let mut taken = 0;
    for round in 0..2000 {
        let mut bytes = whole[round % whole.len()].clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\0\r\n\"{}%\xff:"[rng.random_range(0..9)]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let reply = say(address, &bytes).await;
        assert!(reply.status < 500, "{}: {reply:?}", String::from_utf8_lossy(&bytes));
        taken += usize::from(reply.status == 202);
    }
    assert!(taken < 1900, "the requests were hardly mutated: {taken} were taken");
    let metrics = get(address, "/metrics").await.body;
    let published = metrics.lines().filter_map(|line| line.strip_prefix("events_published_total{")?.split(' ').nth(1));
    let published: usize = published.map(|count| count.parse::<usize>().expect("a count")).sum();
    // Who went away before the answer may have been stored.
    assert!(published >= taken, "{published} stored, {taken} answered");
    assert_eq!(get(address, "/readyz").await.status, 200);
    drop(desk);
}
