use moontide::event::{Event, Json};
use moontide::outcome::Emit;
use std::time::Duration;
pub const PATIENCE: Duration = Duration::from_secs(5);
/// An event of type `kind` in the stream that the default configuration gives it.
pub fn event(kind: &str, id: impl ToString, data: &str) -> Emit {
    Emit {
        stream: format!("events:{kind}"),
        delay: None,
        event: Event {
            id: id.to_string(),
            source: "test".to_owned(),
            kind: kind.to_owned(),
            subject: None,
            time: None,
            dataschema: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            ext: None,
            data: Some(Json::trusted(data.to_owned())),
        },
    }
}

