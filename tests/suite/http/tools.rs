//! Other people's programs: promtool, a Prometheus that scrapes, a CloudEvents library that sends.
//!
//! `scripts/test` installs what is missing; without it these tests fail, and say so.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::{get, post};
use super::{desk, stored};
use crate::support::PATIENCE;
use crate::support::free_port;

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_to_complain_about() {
    let (desk, address) = desk().await;
    post(address, "/events/order.a", &[], "{}").await.ids();
    desk.until("it is handled", |desk| desk.counts("count").done == 1).await;
    let text = get(address, "/metrics").await.body;
    let file = desk.dir.path().join("metrics");
    std::fs::write(&file, text).expect("the folder is writable");
    let input = std::fs::File::open(&file).expect("it was just written");
    let checked = Command::new("promtool").args(["check", "metrics"]).stdin(input).output();
    let checked = checked.expect("promtool is there: scripts/test installs it");
    let says = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && says.trim().is_empty(), "{says}");
}

/// Ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prometheus(dir: &Path, port: u16) -> Server {
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Server(child.expect("prometheus is there: scripts/test installs it"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_scrapes_it() {
    let (desk, address) = desk().await;
    post(address, "/events/order.a", &[], "{}").await.ids();
    desk.until("it is handled", |desk| desk.counts("count").done == 1).await;
    let port = free_port();
    let scrape = format!(
        "scrape_configs:\n- job_name: moontide\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['{address}']\n"
    );
    std::fs::write(desk.dir.path().join("prometheus.yml"), scrape).expect("the folder is writable");
    let _server = prometheus(desk.dir.path(), port);
    let query = "/api/v1/query?query=moontide_outcomes_total%7Boutcome%3D%22done%22%7D";
    let began = Instant::now();
    loop {
        let up = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        let found = if up { get(([127, 0, 0, 1], port).into(), query).await.body } else { String::new() };
        if found.contains("\"handler\":\"count\"") {
            assert!(found.contains("\"1\"]"), "{found}");
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloudevents_library_sends_all_three_modes() {
    let (desk, address) = desk().await;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "{} is missing: scripts/test makes it", python.display());
    let script = root.join("tests/clients/send.py");
    let sent = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).arg(format!("http://{address}/events")).output()
    });
    let sent = sent.await.expect("it ends").expect("python runs");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let events = stored(&desk, "order.sent").await;
    let subjects: Vec<_> = events.iter().map(|event| event.subject.as_deref().unwrap_or_default()).collect();
    assert_eq!(subjects, ["binary €", "structured €", "batched 1", "batched 2"]);
    for event in &events {
        let data: serde_json::Value =
            serde_json::from_slice(event.data.as_ref().expect("it has data").bytes()).expect("JSON");
        assert_eq!(data["mode"], event.subject.as_deref().unwrap_or_default());
        assert_eq!(event.source, "/shop");
    }
    desk.until_state("n", "4").await;
}
