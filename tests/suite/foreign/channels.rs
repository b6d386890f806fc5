//! Services that publish to channels, and listen to them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStdout, Stdio};

use super::{ask, client};
use crate::rig::{Place, Rig};
use moontide_stage::server::Kind;

const COUNT: usize = 20;
const TYPES: [&str; 3] = ["identity.patient.created", "user.created", "user.registered"];

const ANSWERS: &str = r#"
return {
    on = { "identity.patient.created", "user.created", "user.registered" },
    handle = function(event, ctx)
        local data = event.data
        ctx.kv:add(event.type, 1)
        for _, layout in { "subject", "domain", "event_data" } do
            ctx:emit("answer." .. layout, { n = data.n, to = event.type, text = data.text, tags = data.tags, beyond = data.beyond })
        end
    end,
}
"#;

/// A user who was created is told of in a stream and in a channel.
const SETTINGS: &str = r#"
[[stream]]
types = ["user.created"]
name = "events:user.created"
layout = "event_data"

[[channel]]
name = "identity.*"
layout = "subject"

[[channel]]
name = "events:*"
layout = "domain"

[[channel]]
name = "events.*"
layout = "event_data"

[[mirror]]
types = ["answer.subject"]
channel = "answers.{type}"
layout = "subject"

[[mirror]]
types = ["answer.domain"]
channel = "answers.{type}"
layout = "domain"

[[mirror]]
types = ["answer.event_data"]
channel = "answers.{type}"
layout = "event_data"
"#;

/// Listens by now.
fn listener(url: &str, count: usize) -> BufReader<ChildStdout> {
    let mut command = client("channels.py");
    let child = command.args(["listen", url, &count.to_string()]).stdout(Stdio::piped()).spawn();
    let mut said = BufReader::new(child.expect("it starts").stdout.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says something");
    assert_eq!(line.trim(), "listening");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_one_whether_it_comes_by_channel_by_stream_or_both() {
    let rig = Rig::configured(Place::server(Kind::Redis), &[("answers", ANSWERS)], SETTINGS).await;
    let url = rig.server().url();
    let _workers = ["one", "two"].map(|name| rig.start_with(&["--name", name]));
    rig.until("both listen", async || rig.said("listening") == 2).await;
    let answers = COUNT * TYPES.len() * 3;
    let mut heard = listener(&url, answers);
    ask("channels.py", &["publish", &url, &COUNT.to_string()], "");
    let expected = TYPES.map(|kind| (kind.to_owned(), COUNT as u64)).into();
    rig.until("all are handled", async || rig.state().await == expected).await;
    rig.quiet().await;
    assert_eq!(rig.state().await, expected, "each is handled once: {}", rig.tail());
    assert_eq!(rig.server().get::<usize>(&["XLEN", "events:user.created"]), 2 * COUNT, "by both ways");

    let mut text = String::new();
    heard.read_to_string(&mut text).expect("it ends");
    let messages: Vec<serde_json::Value> = serde_json::from_str(&text).expect("it is JSON");
    let mut seen = BTreeSet::new();
    for message in &messages {
        let (channel, document) = (message["channel"].as_str().expect("a text"), &message["message"]);
        let (kind, data) = match channel {
            "answers.answer.subject" => (&document["subject"], &document["data"]),
            "answers.answer.domain" => (&document["event_name"], &document["payload"]),
            "answers.answer.event_data" => (&document["event_type"], document),
            other => panic!("nobody publishes to {other}"),
        };
        assert_eq!(format!("answers.{}", kind.as_str().expect("a text")), channel);
        let n = data["n"].as_i64().expect("a number");
        let text = format!("Заказ № {n}: «готов к выдаче»");
        assert_eq!((&data["text"], &data["tags"]), (&text.into(), &serde_json::json!([])));
        assert_eq!(data["beyond"], (1_i64 << 53) + 1 + n);
        seen.insert((channel.to_owned(), data["to"].to_string(), n));
    }
    assert_eq!((messages.len(), seen.len()), (answers, answers), "each is published once");
}
