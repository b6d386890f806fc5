//! Services that give each type a stream of its own, each in its layout.

use super::{ask, at_once};
use crate::rig::{Place, Rig};
use moontide_stage::server::Kind;

/// What becomes of tasks and users; `subject` is the aggregate that it is about.
const ANSWERS: &str = r#"
return {
    on = { "task.created", "user.created" },
    start = "earliest",
    handle = function(event, ctx)
        local about = event.ext.aggregate_id or tostring(event.ext.user_id)
        ctx:emit("notification.sent", { n = event.data.n, text = event.data.text, tags = event.data.tags }, {
            subject = about,
            ext = { aggregate_type = "notification" },
        })
        ctx:emit("user.notified", { user_id = event.data.n, tags = event.data.tags, beyond = event.data.beyond })
    end,
}
"#;

const SETTINGS: &str = r#"
[[stream]]
types = ["task.*", "notification.*"]
name = "events:{type}"
layout = "aggregate"

[[stream]]
types = ["user.*"]
name = "events:{type}"
layout = "event_data"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_type_has_a_stream_of_its_own_in_the_layout_of_its_service() {
    let rig = Rig::configured(Place::server(Kind::Redis), &[("answers", ANSWERS)], SETTINGS).await;
    let url = rig.server().url();
    at_once(&[
        ("publish.py", &[&url, "events:{type}", "0", "10", "aggregate"]),
        ("publish.js", &[&url, "events:{type}", "0", "10", "event_data"]),
    ]);
    let _worker = rig.start();
    rig.quiet().await;
    let said = ask("consumer.py", &[&url, "20"], "");
    assert_eq!(said.trim(), "20 notifications, 20 users", "{}", rig.tail());
}
