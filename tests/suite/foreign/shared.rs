//! A stream that many services write to, and a handler that wants little of it.

use super::{at_once, metric};
use crate::http::client::get;
use crate::rig::{Place, Rig};
use moontide_stage::server::{Kind, free_port};

const WANTED: &str =
    r#"return { on = "order.placed", start = "earliest", handle = function(event, ctx) ctx.kv:add("handled", 1) end }"#;

const SETTINGS: &str = r#"
[[stream]]
types = ["*"]
name = "mixed"
layout = ["auto", "service", "webhook"]

[layout.service]
id = "event_id"
type = "event_type"
data = "data"

[layout.webhook]
type = "event_type"
data = "payload"
"#;

const EACH: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asks_for_costs_no_run_and_no_record() {
    let metrics = ([127, 0, 0, 1], free_port()).into();
    let settings = format!("{SETTINGS}[metrics]\nlisten = \"{metrics}\"\n");
    let rig = Rig::configured(Place::server(Kind::Redis), &[("wanted", WANTED)], &settings).await;
    let (server, url) = (rig.server(), rig.server().url());
    at_once(&[
        ("publish.py", &[&url, "mixed", "0", "100"]),
        ("publish.js", &[&url, "mixed", "100", "100"]),
        // Of three that nobody can read, two are of a type that nobody wants.
        ("binary.py", &["publish", &url, "mixed", "0", "0"]),
    ]);
    let _worker = rig.start();
    rig.quiet().await;
    assert_eq!(server.get::<usize>(&["XLEN", "mixed"]), 6 * EACH + 3);
    assert_eq!(server.get::<usize>(&["GET", "state:handled"]), EACH);
    assert_eq!(
        server.get::<Vec<String>>(&["KEYS", "moontide:record:*"]).len(),
        EACH,
        "a record for each that was handled"
    );
    assert_eq!(server.get::<usize>(&["XLEN", "moontide:dead"]), 1, "what says no type may be wanted");
    for (series, expected) in [
        ("moontide_outcomes_total{handler=\"wanted\",outcome=\"done\"}", EACH),
        ("moontide_attempts_total{handler=\"wanted\"}", EACH),
        ("moontide_deliveries_total{handler=\"wanted\"}", EACH + 1),
    ] {
        // What was settled is counted a moment later.
        rig.until(series, async || metric(metrics, series).await == Some(expected as f64)).await;
    }
    let text = get(metrics, "/metrics").await.body;
    let consumed: Vec<_> = text.lines().filter(|line| line.starts_with("events_consumed_total{")).collect();
    let only = format!("events_consumed_total{{consumer=\"wanted\",topic=\"mixed\",type=\"order.placed\"}} {EACH}");
    assert_eq!(consumed, [only]);
}
