//! Units in which other services write times, and RFC 3339, in which events have them.

use jiff::Timestamp;
use jiff::civil::DateTime;

/// How a layout writes a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// As events have it. A time without a zone is read as UTC.
    #[default]
    Rfc3339,
    /// The same without a zone; always UTC.
    WithoutZone,
    /// Seconds since 1970-01-01T00:00:00Z, with or without decimals.
    Seconds,
    /// Milliseconds since then.
    Millis,
}

impl Unit {
    /// The names of units in the configuration.
    pub const NAMES: [(&str, Self); 4] = [
        ("rfc3339", Self::Rfc3339),
        ("rfc3339 without zone", Self::WithoutZone),
        ("s", Self::Seconds),
        ("ms", Self::Millis),
    ];

    /// `text` in RFC 3339.
    ///
    /// # Errors
    /// What it should have been.
    pub(super) fn read(self, text: &str) -> Result<String, &'static str> {
        match self {
            Self::Rfc3339 | Self::WithoutZone => Ok(zoned(text)),
            Self::Seconds => moment(text, 1e9).ok_or("is no number of seconds since 1970"),
            Self::Millis => moment(text, 1e6).ok_or("is no number of milliseconds since 1970"),
        }
    }

    /// A time in RFC 3339 as this layout writes it; what is no such time is written as it is.
    pub(super) fn write(self, text: &str) -> String {
        let Ok(at) = text.parse::<Timestamp>() else { return text.to_owned() };
        match self {
            Self::Rfc3339 => text.to_owned(),
            Self::WithoutZone => at.to_zoned(jiff::tz::TimeZone::UTC).datetime().to_string(),
            Self::Seconds => decimal(at.as_nanosecond(), 9),
            Self::Millis => at.as_millisecond().to_string(),
        }
    }
}

/// A number of nanoseconds as one of units of `10^digits` of them.
fn decimal(nanoseconds: i128, digits: usize) -> String {
    let (sign, size) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let unit = 10u128.pow(digits as u32);
    let rest = format!("{:0digits$}", size % unit);
    let rest = rest.trim_end_matches('0');
    format!("{sign}{}{}{rest}", size / unit, if rest.is_empty() { "" } else { "." })
}

/// A time that says no zone is one in UTC.
fn zoned(text: &str) -> String {
    let says_zone = text.parse::<Timestamp>().is_ok();
    match text.parse::<DateTime>() {
        Ok(_) if !says_zone => format!("{}Z", text.replacen(' ', "T", 1)),
        _ => text.to_owned(),
    }
}

/// The moment that is so many units after the epoch: as exact as the text, to the microsecond.
fn moment(text: &str, nanoseconds_each: f64) -> Option<String> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let number: i128 = whole.parse().ok()?;
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    let part = (fraction * nanoseconds_each) as i128;
    let whole = number.checked_mul(nanoseconds_each as i128)?;
    let nanoseconds = if whole < 0 || text.trim().starts_with('-') { whole - part } else { whole + part };
    let at = Timestamp::from_nanosecond(nanoseconds - nanoseconds.rem_euclid(1000)).ok()?;
    Some(at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (unit, text, time, back) in [
            (Unit::Seconds, "1735689600.25", "2025-01-01T00:00:00.25Z", "1735689600.25"),
            (Unit::Seconds, "1735689600", "2025-01-01T00:00:00Z", "1735689600"),
            (Unit::Seconds, "-0.5", "1969-12-31T23:59:59.5Z", "-0.5"),
            (Unit::Seconds, "1735689600.123456", "2025-01-01T00:00:00.123456Z", "1735689600.123456"),
            (Unit::Millis, "1735689600250", "2025-01-01T00:00:00.25Z", "1735689600250"),
            (Unit::WithoutZone, "2025-01-15T10:30:00", "2025-01-15T10:30:00Z", "2025-01-15T10:30:00"),
            (Unit::WithoutZone, "2025-01-15 10:30:00.5", "2025-01-15T10:30:00.5Z", "2025-01-15T10:30:00.5"),
            (Unit::WithoutZone, "2025-01-15T10:30:00+02:00", "2025-01-15T10:30:00+02:00", "2025-01-15T08:30:00"),
            (Unit::Rfc3339, "2025-09-26T10:30:00Z", "2025-09-26T10:30:00Z", "2025-09-26T10:30:00Z"),
            (
                Unit::Rfc3339,
                "2025-09-26T10:30:00.1+00:00",
                "2025-09-26T10:30:00.1+00:00",
                "2025-09-26T10:30:00.1+00:00",
            ),
            (Unit::Rfc3339, "yesterday", "yesterday", "yesterday"),
        ] {
            assert_eq!(unit.read(text).as_deref(), Ok(time), "{text}");
            assert_eq!(unit.write(time), back, "{text}");
        }
        for text in ["", "soon", "1e400", "99999999999999999999", "1.x", "NaN"] {
            assert!(Unit::Seconds.read(text).is_err(), "{text}");
        }
    }
}
