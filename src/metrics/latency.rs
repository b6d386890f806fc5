//! How long an event was on its way.
//!
//! Publishers of document 5 write `emitted_at` (seconds) into the data; it is looked for without parsing data that does not
//! name it. Otherwise the event's own time counts.

use serde::Deserialize;

use crate::clock::Millis;
use crate::event::Event;

/// Data beyond this size is not searched: its length would be the latency.
const SEARCHED_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct Emitted {
    emitted_at: Option<f64>,
}

/// Seconds from the emission of `event` to `now`; never below 0, because clocks differ. `None`: nobody knows.
pub(super) fn seconds(event: &Event, now: Millis) -> Option<f64> {
    let emitted = emitted_at(event).or_else(|| time(event))?;
    let passed = now as f64 / 1000.0 - emitted;
    passed.is_finite().then(|| passed.max(0.0))
}

fn emitted_at(event: &Event) -> Option<f64> {
    let data = event.data.as_ref()?.bytes();
    if data.len() > SEARCHED_BYTES_MAX || memchr::memmem::find(data, b"\"emitted_at\"").is_none() {
        return None;
    }
    serde_json::from_slice::<Emitted>(data).ok()?.emitted_at
}

fn time(event: &Event) -> Option<f64> {
    let time: jiff::Timestamp = event.time.as_ref()?.parse().ok()?;
    Some(time.as_millisecond() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Json;

    #[test]
    fn the_data_counts_then_the_time_and_never_below_zero() {
        let at = |time: Option<&str>, data: &str| {
            let event = Event {
                id: "1".into(),
                source: "s".into(),
                kind: "a".into(),
                subject: None,
                time: time.map(str::to_owned),
                dataschema: None,
                correlation_id: None,
                causation_id: None,
                traceparent: None,
                ext: None,
                data: Some(Json::trusted(data.to_owned())),
            };
            seconds(&event, 10_000)
        };
        let time = Some("1970-01-01T00:00:08Z");
        assert_eq!(at(time, r#"{"emitted_at":9.5,"n":1}"#), Some(0.5));
        assert_eq!(at(time, r#"{"emitted_at":99}"#), Some(0.0));
        assert_eq!(at(time, r#"{"inner":{"emitted_at":1}}"#), Some(2.0));
        assert_eq!(at(time, r#"{"emitted_at":"soon"}"#), Some(2.0));
        assert_eq!(at(time, "[]"), Some(2.0));
        assert_eq!(at(Some("yesterday"), "{}"), None);
        assert_eq!(at(None, "{}"), None);
    }
}
