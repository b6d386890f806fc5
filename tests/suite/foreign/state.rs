//! State that others read and write while handlers do, under keys without a prefix.

use std::time::Instant;

use super::{ask, metric};
use crate::rig::{Place, Rig};
use crate::support::{PATIENCE, event};
use moontide_stage::server::{Kind, free_port};

/// One run at a time: who comes between reading and writing is somebody else.
const COUNT: &str = r#"
return {
    on = "tick",
    start = "earliest",
    concurrency = 1,
    handle = function(event, ctx)
        local row = ctx.kv:get("compteurs:ligne") or { moontide = 0, python = 0 }
        row.moontide += 1
        ctx.kv:set("compteurs:ligne", row)
        ctx.kv:add("compteurs:total", 1)
    end,
}
"#;

const CONFLICTS: f64 = 3.0;

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_between_reading_and_commit_is_not_overwritten() {
    let metrics = ([127, 0, 0, 1], free_port()).into();
    let settings = format!("[redis]\nstate_prefix = \"\"\n[metrics]\nlisten = \"{metrics}\"\n");
    let rig = Rig::configured(Place::server(Kind::Redis), &[("count", COUNT)], &settings).await;
    let url = rig.server().url();
    let _worker = rig.start();
    let python = std::thread::spawn(move || ask("counter.py", &[&url], ""));
    let outcome = |name: &str| {
        let series = format!("moontide_outcomes_total{{handler=\"count\",outcome=\"{name}\"}}");
        async move { metric(metrics, &series).await.unwrap_or_default() }
    };
    let (mut fed, began) = (0, Instant::now());
    while outcome("conflict").await < CONFLICTS {
        assert!(began.elapsed() < PATIENCE, "nobody came between in {fed} runs");
        rig.publish((fed..fed + 50).map(|n| event("tick", n, "{}")).collect()).await;
        fed += 50;
        let goes_on = async || outcome("conflict").await >= CONFLICTS || outcome("done").await >= fed as f64;
        rig.until("its runs are repeated, or done", goes_on).await;
    }
    rig.server().call(&["SET", "stop", "1"]);
    let theirs: u64 = python.join().expect("it ends in order").trim().parse().expect("it prints a number");
    rig.quiet().await;

    let server = rig.server();
    let row: serde_json::Value =
        serde_json::from_str(&server.get::<String>(&["GET", "compteurs:ligne"])).expect("JSON");
    assert_eq!(row, serde_json::json!({ "moontide": fed, "python": theirs }), "no change is lost");
    assert_eq!(server.get::<String>(&["GET", "compteurs:total"]), (fed + theirs).to_string());
    assert!(theirs > 0);
}
