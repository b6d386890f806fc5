//! Only what the operator grants is called, wherever a script, a name or an answer leads.

use std::process::Command;

use super::server::Server;
use super::{desk, error_of, given, go};
use crate::cli::Place;
use crate::config::given as configuration;
use crate::support::{Desk, run_alone};

/// What came of `http.get(url)` of a handler with these grants.
pub async fn came_of(server: &Server, hosts: &str, url: &str) -> String {
    let grants = format!("[handlers.\"**\"]\ngrants = {{ hosts = [{hosts}] }}\n");
    let script = format!(
        r#"return function(event, ctx)
            local ok, answer = pcall(http.get, "{url}")
            ctx.kv:set("came", ok and answer.status or answer)
        end"#
    );
    let desk = Desk::with(&(grants + &given(server, "")), &[("go", &script)]).await;
    desk.emit(go(1)).await;
    desk.until("it is done", |desk| desk.counts("go").done == 1).await;
    desk.state("came").await.expect("it was set")
}

#[tokio::test]
async fn a_host_that_is_not_granted_is_not_called() {
    let server = Server::start().await;
    let port = server.address.port();
    let not_granted = |host: &str| {
        format!(
            r#"the host \"{host}\" is not granted to go; the configuration would grant it by: [handlers.\"go\"] grants = {{ hosts = [\"{host}\"] }}"#
        )
    };
    for (hosts, url, host) in [
        ("", format!("http://127.0.0.1:{port}/"), format!("127.0.0.1:{port}")),
        ("\"127.0.0.1\"", format!("http://127.0.0.1:{port}/"), format!("127.0.0.1:{port}")),
        (&format!("\"localhost:{port}\""), format!("http://127.0.0.1:{port}/"), format!("127.0.0.1:{port}")),
        (&format!("\"127.0.0.1:{port}\""), format!("http://localhost:{port}/"), format!("localhost:{port}")),
        ("\"shop.example\"", "https://other.example/x".to_owned(), "other.example".to_owned()),
    ] {
        let came = came_of(&server, hosts, &url).await;
        assert!(came.contains(&not_granted(&host)), "{url} with {hosts}: {came}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn what_is_granted_is_called_and_this_machine_by_its_name() {
    let server = Server::start().await;
    let port = server.address.port();
    for (hosts, host) in [
        (format!("\"127.0.0.1:{port}\""), "127.0.0.1"),
        (format!("\"http://127.0.0.1:{port}\""), "127.0.0.1"),
        (format!("\"localhost:{port}\""), "localhost"),
        (format!("{{ host = \"localhost:{port}\", private = true }}"), "localhost"),
    ] {
        let came = came_of(&server, &hosts, &format!("http://{host}:{port}/")).await;
        assert_eq!(came, "200", "{hosts}");
    }
}

#[tokio::test]
async fn an_answer_leads_nowhere_that_is_not_granted() {
    let (server, other) = (Server::start().await, Server::start().await);
    let script = r#"
        return function(event, ctx)
            local to = config.get("service") .. "/to?" .. event.data.to
            local ok, answer = pcall(http.get, to, { headers = { Authorization = "hush", ["X-Api-Key"] = "hush" } })
            ctx.kv:set("came", ok and answer.status or answer)
        end"#;
    let address = other.address;
    for (to, part) in [
        (format!("http://{address}/x"), format!(r#"the host \"{address}\" is not granted to go"#)),
        ("http://169.254.169.254/latest/meta-data".to_owned(), r#"host \"169.254.169.254\" is not granted"#.to_owned()),
        ("http://[::1]/".to_owned(), r#"host \"[::1]\" is not granted"#.to_owned()),
        ("http://localhost/".to_owned(), r#"host \"localhost\" is not granted"#.to_owned()),
        ("http://2130706433/".to_owned(), "the answer redirects to what is no place".to_owned()),
        ("file:///etc/passwd".to_owned(), "the answer redirects to what is no place".to_owned()),
        ("/landed".to_owned(), "200".to_owned()),
    ] {
        let desk = desk(&server, "", &[("go", script)]).await;
        desk.emit(vec![crate::support::event("go", 1, &format!("{{\"to\":{to:?}}}"))]).await;
        desk.until("it is done", |desk| desk.counts("go").done == 1).await;
        let came = desk.state("came").await.expect("it was set");
        assert!(came.contains(&part), "{to}: {came}");
    }
    assert_eq!(other.seen().len(), 0);
    let landed = server.seen().into_iter().find(|seen| seen.path == "/landed").expect("it went on there");
    assert_eq!(landed.headers.get("authorization").map(String::as_str), Some("hush"), "the same service");
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_service() {
    let (server, other) = (Server::start().await, Server::start().await);
    let script = r#"
        return function(event, ctx)
            local to = config.get("service") .. "/to?" .. event.data.to
            http.get(to, { headers = { Authorization = "hush", Cookie = "hush", ["X-Api-Key"] = "hush" } })
            ctx.kv:set("done", true)
        end"#;
    let hosts = format!("\"{}\", \"{}\"", server.address, other.address);
    let grants = format!("[handlers.\"**\"]\ngrants = {{ hosts = [{hosts}] }}\n");
    let desk = Desk::with(&(grants + &given(&server, "")), &[("go", script)]).await;
    desk.emit(vec![crate::support::event("go", 1, &format!("{{\"to\":\"{}/x\"}}", other.url()))]).await;
    desk.until_state("done", "true").await;
    let seen = other.seen();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].headers.values().any(|value| value == "hush"), "{:?}", seen[0].headers);
}

#[test]
fn a_proxy_of_the_environment_is_ignored() {
    let mut env = Command::new("env");
    let proxy = "http://127.0.0.1:1";
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        env.arg(format!("{name}={proxy}"));
    }
    run_alone(Some(env), "outbound::granting::within_an_environment_with_a_proxy");
}

#[tokio::test]
#[ignore = "started by a_proxy_of_the_environment_is_ignored, with variables of its own"]
async fn within_an_environment_with_a_proxy() {
    assert!(std::env::var("HTTP_PROXY").is_ok());
    let server = Server::start().await;
    let came = came_of(&server, &format!("\"{}\"", server.address), &server.url()).await;
    assert_eq!(came, "200");
}

#[test]
fn grants_that_cannot_be_meant_are_refused_at_load() {
    for (grants, expected) in [
        ("hosts = \"shop.example\"", "must be a list of hosts: [\"shop.example\"], not \"shop.example\""),
        (
            "hosts = [\"*\"]",
            "\"*\": would grant every host; name the hosts, or what they are below: \"*.shop.example\"",
        ),
        ("hosts = [\"https://shop.example/x\"]", "\"https://shop.example/x\": expected a host without a path"),
        ("hosts = [{ host = \"127.1\", private = true }]", "\"127.1\": expected a name, or an address of four numbers"),
        ("hosts = [{ host = \"a.example\", privat = true }]", "is no key; did you mean private?"),
        ("hosts = [{ private = true }]", "is missing"),
        ("hosts = [7]", "must be a table, not 7"),
        ("secrets = [\"strip\"]", "there is no secret \"strip\" in [secrets]"),
    ] {
        let text = format!("[handlers.\"billing/*\"]\ngrants = {{ {grants} }}\n");
        let problems = configuration(&text).problems().join("\n");
        assert!(problems.contains(expected), "{grants}: {problems}");
    }
}

#[test]
fn what_is_asked_for_and_not_granted_is_said_by_check() {
    let place = Place::new();
    let asks = r#"return {
        grants = { hosts = { "api.shop.example", "a.mail.example", "10.0.0.7:81" }, secrets = "stripe_key" },
        handle = function() end,
    }"#;
    place.file("handlers/charge.luau", asks);
    place.file("handlers/odd.luau", "return { grants = { hosts = '0x7f.1' }, handle = function() end }");
    place.file("moontide.toml", "[handlers.charge]\ngrants = { hosts = [\"*.mail.example\"] }\n[handlers.nobody]\n");
    let said = place.moontide(&["check"]).output().expect("it starts");
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    for part in [
        "warning: charge asks for the host \"api.shop.example\", which [handlers.\"charge\"] does not grant",
        "warning: charge asks for the host \"10.0.0.7:81\", which",
        "warning: charge asks for the secret \"stripe_key\", which",
        "problem: odd.luau: grants.hosts: \"0x7f.1\": expected a name, or an address of four numbers",
        "warning: [handlers.\"nobody\"] fits no handler",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("a.mail.example"), "{text}");
}

#[tokio::test]
async fn a_secret_is_in_no_dead_letter() {
    let server = Server::start().await;
    let script = r#"
        local key = config.get("key")
        return {
            on = { "thrown", "rejected", "sent" },
            handle = function(event, ctx)
                if event.type == "thrown" then
                    error("no use for " .. key)
                elseif event.type == "rejected" then
                    ctx:reject("no use for " .. key)
                end
                http.get(config.get("service") .. "/", { query = key })
            end,
        }"#;
    let desk = desk(&server, "", &[("go", script)]).await;
    let events = ["thrown", "rejected", "sent"].map(|kind| crate::support::event(kind, 1, "{}"));
    desk.emit(events.to_vec()).await;
    desk.until("all are given up", |desk| desk.counts("go").dead == 3).await;
    let (secret, dead) = (std::env::var("PATH").expect("it is set"), desk.dead().await);
    for letter in &dead {
        let error = error_of(letter);
        assert!(error.contains("[secret key]") && !error.contains(&secret[..9]), "{error}");
    }
}

#[test]
fn a_secret_is_in_no_log_line_and_no_problem_of_a_file() {
    let place = Place::new();
    let script = r#"
        local key = config.get("stripe_key")
        log.error("the key is " .. key, { key = key, list = { key } })
        print(key)
        error(key)"#;
    place.file("handlers/charge.luau", script);
    let config =
        "[handlers.charge]\ngrants = { secrets = [\"stripe_key\"] }\n[secrets]\nstripe_key = { env = \"KEY\" }\n";
    place.file("moontide.toml", config);
    let said = place.moontide(&["--log", "info", "check"]).env("KEY", "sk_live_\"4711\"").output().expect("it starts");
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(text.contains("the key is [secret stripe_key]"), "{text}");
    assert!(text.contains("problem: charge.luau:5: [secret stripe_key]"), "{text}");
    assert!(text.matches("[secret stripe_key]").count() >= 5 && !text.contains("4711"), "{text}");
}
