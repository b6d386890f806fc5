//! The binary as a process: what it promised before it was killed, and what it writes into its log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use moontide::host;
use tokio::net::TcpStream;

use super::client::post;
use crate::support::free_port;
use crate::support::{PATIENCE, config_from};

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts it in `folder`, and waits until it listens.
    async fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = std::fs::File::options().append(true).create(true).open(log_of(folder)).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_moontide"))
            .arg("run")
            .current_dir(folder)
            .env_clear()
            .env("MOONTIDE_HTTP_LISTEN", address.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let process = Self { child: child.expect("the binary starts"), address };
        let began = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "{}", log_text(folder));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("handlers")).expect("a folder");
    folder
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn log_text(folder: &Path) -> String {
    std::fs::read_to_string(log_of(folder)).unwrap_or_default()
}

const SENDERS: usize = 8;
const EVENTS_EACH: usize = 40;

/// Sends its events in order; one that got no answer is sent again in the next round. Answers how many are through.
async fn send(
    address: SocketAddr,
    sender: usize,
    from: usize,
    answered: &parking_lot::Mutex<HashMap<String, String>>,
) -> usize {
    for n in from..EVENTS_EACH {
        let key = format!("{sender}-{n}");
        let Ok(reply) =
            tokio::time::timeout(PATIENCE, post_or_none(address, &key)).await.expect("an answer, or an end")
        else {
            return n;
        };
        answered.lock().insert(key, reply);
    }
    EVENTS_EACH
}

async fn post_or_none(address: SocketAddr, key: &str) -> Result<String, ()> {
    let reply = post(address, "/events/order.a", &[("Idempotency-Key", key)], &format!("\"{key}\"")).await;
    // Cut off anywhere: nothing was said.
    if reply.status == 0 || !reply.body.ends_with('}') { Err(()) } else { Ok(reply.ids().remove(0)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_once_after_the_process_was_killed() {
    let folder = folder();
    let answered = parking_lot::Mutex::new(HashMap::new());
    let mut through = [0; SENDERS];
    let mut rounds = 0;
    while through.iter().any(|sent| *sent < EVENTS_EACH) {
        rounds += 1;
        let mut process = Process::start(folder.path(), &[]).await;
        let goal = answered.lock().len() + 60;
        let address = process.address;
        let storm = join_all((0..SENDERS).map(|sender| send(address, sender, through[sender], &answered)));
        let kill = async {
            while answered.lock().len() < goal.min(SENDERS * EVENTS_EACH) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            process.child.kill().expect("it runs");
        };
        let (sent, ()) = tokio::join!(storm, kill);
        through = sent.try_into().expect("one per sender");
    }
    assert!(rounds > 2, "it was hardly killed");
    let config = folder.path().join("moontide.toml");
    let text = format!("[bus]\nurl = \"sqlite:{}\"\n", folder.path().join("data/moontide.db").display());
    std::fs::write(&config, text).expect("the folder is writable");
    let backend = host::open(&config_from(&config), Some("checker")).await.expect("the store opens");
    let entries = backend.overview.history("events:order.a", None, 10_000).await.expect("the store answers");
    let mut stored: HashMap<String, usize> = HashMap::new();
    for (_, event) in entries {
        *stored.entry(event.expect("it is an event").id).or_default() += 1;
    }
    let answered = answered.into_inner();
    assert_eq!((answered.len(), stored.len()), (SENDERS * EVENTS_EACH, SENDERS * EVENTS_EACH));
    for (key, id) in answered {
        assert_eq!(stored.get(&id), Some(&1), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handled_event_is_a_line_with_the_word_consumed_but_a_flood_is_not_a_flood_of_lines() {
    let folder = folder();
    let script = "return { on = 'order.*', start = 'earliest', handle = function() end }";
    std::fs::write(folder.path().join("handlers/orders.luau"), script).expect("the folder is writable");
    let began = Instant::now();
    let process = Process::start(folder.path(), &[("MOONTIDE_LOG_FORMAT", "json")]).await;
    let headers = [("ce-id", "e-1"), ("ce-correlationid", "c-1")];
    post(process.address, "/events/order.a", &headers, "{}").await.ids();
    while !log_text(folder.path()).contains("consumed") {
        assert!(began.elapsed() < PATIENCE, "{}", log_text(folder.path()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = log_text(folder.path());
    let line = text.lines().find(|line| line.contains("consumed")).expect("it is there");
    let line: serde_json::Value = serde_json::from_str(line).expect("every line is JSON");
    let fields = &line["fields"];
    assert_eq!((&fields["handler"], &fields["event"]), (&"orders".into(), &"e-1".into()), "{line}");
    assert_eq!((&fields["type"], &fields["attempt"]), (&"order.a".into(), &1.into()), "{line}");
    assert_eq!(fields["correlation"], "c-1", "{line}");

    let one = |n: usize| format!(r#"{{"specversion":"1.0","id":"{n}","source":"/s","type":"order.a"}}"#);
    let batch = format!("[{}]", (0..5000).map(one).collect::<Vec<_>>().join(","));
    let batched = [("Content-Type", "application/cloudevents-batch+json")];
    let request = super::client::request("POST", "/events", &batched, batch.as_bytes());
    assert_eq!(super::client::say(process.address, &request).await.ids().len(), 5000);
    while super::metrics::value(
        &super::client::get(process.address, "/metrics").await.body,
        r#"moontide_outcomes_total{handler="orders",outcome="done"}"#,
    ) < 5001.0
    {
        assert!(began.elapsed() < PATIENCE, "{}", log_text(folder.path()));
    }
    let seconds = began.elapsed().as_secs() as usize + 2;
    let lines = log_text(folder.path()).matches("consumed").count();
    assert!(lines <= 20 * seconds, "{lines} lines in {seconds} s");
}
