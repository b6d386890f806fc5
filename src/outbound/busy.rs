//! When a service that is busy wants to be asked again.
//!
//! Reads `Retry-After`: seconds, or a date as HTTP writes it. Decides nothing about the event.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Millis;

/// Nobody is asked again sooner.
const LEAST: Duration = Duration::from_secs(1);

/// How long after `now` a service that answered with `status` wants to be asked again; `None`: it is not busy, or does not
/// say until when.
pub fn busy_for(status: u16, retry_after: Option<&str>, now: Millis) -> Option<Duration> {
    let text = retry_after.filter(|_| matches!(status, 429 | 503))?.trim();
    let after = match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than any number of seconds has: as long as can be.
        true => Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX))),
        false => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
            at.saturating_sub(Duration::from_millis(u64::try_from(now).unwrap_or(0)))
        }
    };
    Some(after.max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06T08:49:07Z
    const NOW: Millis = 784_111_747_000;

    #[test]
    fn seconds_and_dates_say_when() {
        let cases = [
            (429, Some("7"), Some(7)),
            (503, Some(" 120 "), Some(120)),
            (503, Some("0"), Some(1)),
            (429, Some("99999999999999999999999"), Some(u64::from(u32::MAX))),
            (503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30)),
            (503, Some("Sunday, 06-Nov-94 08:49:37 GMT"), Some(30)),
            (503, Some("Sun Nov  6 08:49:37 1994"), Some(30)),
            (503, Some("Sun, 06 Nov 1994 08:00:00 GMT"), Some(1)),
            (503, Some("-5"), None),
            (503, Some("1.5"), None),
            (503, Some("soon"), None),
            (503, Some(""), None),
            (503, None, None),
            (429, None, None),
            (200, Some("7"), None),
            (500, Some("7"), None),
            (301, Some("7"), None),
        ];
        for (status, text, expected) in cases {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(busy_for(status, text, NOW), expected, "{status} {text:?}");
        }
    }
}
