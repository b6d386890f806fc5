//! Every layout of streams on one stream, and every one of them emitted again.

use super::{ask, at_once};
use crate::rig::{Place, Rig};
use moontide_stage::server::Kind;

/// Emits what it gets once more to a stream of each layout. Every other document is built anew; the others leave as they came.
const AGAIN: &str = r#"
local LAYOUTS = { "payload", "aggregate", "event_data", "cloudevents", "service", "webhook" }
return {
    on = "*",
    start = "earliest",
    handle = function(event, ctx)
        local data = event.data
        if type(data) == "string" then
            ctx:emit(event.type, data, { id = event.id, stream = "out.binary" })
            return
        end
        if data.n % 2 == 1 then
            data = table.clone(data)
            data.rebuilt = true
        end
        for _, layout in LAYOUTS do
            ctx:emit(event.type, data, { id = event.id, stream = "out." .. layout, ext = event.ext })
        end
    end,
}
"#;

/// Where several services write, and one stream for each layout: no type lives there, a handler names them.
const SETTINGS: &str = r#"
[[stream]]
types = ["*"]
name = "mixed"
layout = ["auto", "service", "webhook"]

[layout.service]
id = "event_id"
type = "event_type"
source = "service"
correlation_id = "correlation_id"
time = "timestamp"
data = "data"

[layout.webhook]
type = "event_type"
data = "payload"
time = { field = "event_time", unit = "ms" }
traceparent = { trace_id = "trace_id", parent_id = "parent_span_id" }

[layout.binary]
type = "=parcel.packed"
data = { field = "envelope", encoding = "base64" }
"#;

fn settings() -> String {
    let out = ["payload", "aggregate", "event_data", "cloudevents", "service", "webhook", "binary"].map(|layout| {
        format!("[[stream]]\ntypes = [\"out.{layout}\"]\nname = \"out.{layout}\"\nlayout = \"{layout}\"\n")
    });
    format!("{SETTINGS}{}", out.concat())
}

const STREAM: &str = "mixed";
const DEAD: &str = "moontide:dead";
/// Events of each layout, half of them from Python and half from Node.
const EACH: usize = 100;
const LAYOUTS: usize = 6;
const BINARY: usize = 40;
const MALFORMED: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn every_layout_goes_in_and_out_and_what_has_none_is_a_dead_letter_that_comes_back() {
    let rig = Rig::configured(Place::server(Kind::Redis), &[("again", AGAIN)], &settings()).await;
    let url = rig.server().url();
    at_once(&[
        ("publish.py", &[&url, STREAM, "0", "50"]),
        ("publish.js", &[&url, STREAM, "50", "50"]),
        ("binary.py", &["publish", &url, STREAM, "0", "20"]),
        ("binary.js", &["publish", &url, STREAM, "20", "20"]),
    ]);
    let mut worker = rig.start();
    rig.quiet().await;
    let (count, out) = ((EACH * LAYOUTS).to_string(), "out.{layout}");
    at_once(&[("read.py", &[&url, STREAM, &count, out]), ("read.js", &[&url, STREAM, &count, out])]);
    let dead = || ask("binary.py", &["dead", &url, STREAM, DEAD], "");
    assert_eq!(dead().trim(), (BINARY + MALFORMED).to_string(), "{}", rig.tail());

    // The layout that was missing is added; what it describes is handled now, and the rest stays what it was.
    worker.signal("TERM");
    worker.ended();
    let file = rig.dir.path().join("moontide.toml");
    let text = std::fs::read_to_string(&file).expect("the rig has written it");
    std::fs::write(&file, text.replacen(r#""webhook"]"#, r#""webhook", "binary"]"#, 1))
        .expect("the folder is writable");
    let _worker = rig.start();
    rig.moontide(&["dead", "replay", "--all"]);
    rig.quiet().await;
    assert_eq!(dead().trim(), MALFORMED.to_string(), "{}", rig.tail());
    let (python, node) = ("binary.py", "binary.js");
    at_once(&[(python, &["again", &url, STREAM, "out.binary"]), (node, &["again", &url, STREAM, "out.binary"])]);
}
