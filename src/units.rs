//! Durations and sizes as people write them: `250ms`, `5m`, `64 MiB`.
//!
//! Owns the two grammars and what is said about a text that fits neither. A number without a unit is refused: nobody can
//! tell seconds from milliseconds by looking at it. Knows nobody.

use std::time::Duration;

const TIMES: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
const SIZES: [(&str, f64); 4] = [("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];

/// Longest duration that is accepted: 100 years, so that sums with a wall clock cannot overflow.
const SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;
/// Largest size that is accepted: 1 PiB.
const BYTES_MAX: f64 = 1_125_899_906_842_624.0;

/// Why a text is no duration or size. Each message says what would be right.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UnitError {
    #[error("{text:?} has no unit; write \"{text}{example}\"")]
    NoUnit { text: String, example: &'static str },
    #[error("{unit:?} is no unit; write \"{number}{nearest}\" (units: {units})")]
    Unit { unit: String, number: String, nearest: String, units: String },
    #[error("{text:?} is no {what}; write it like \"{example}\"")]
    Number { text: String, what: &'static str, example: &'static str },
    #[error("{text:?} is too much")]
    TooMuch { text: String },
}

/// Reads a duration: a number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let seconds = Grammar { what: "duration", units: &TIMES, space: "", bare: "s", example: "30s" }.read(text)?;
    if seconds > SECONDS_MAX {
        return Err(UnitError::TooMuch { text: text.to_owned() });
    }
    // Whole milliseconds: what every store and clock counts in.
    Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
}

/// Reads a size in bytes: a number and one of `B`, `KiB`, `MiB`, `GiB`.
pub fn bytes(text: &str) -> Result<u64, UnitError> {
    let bytes = Grammar { what: "size", units: &SIZES, space: " ", bare: " MiB", example: "64 MiB" }.read(text)?;
    if bytes > BYTES_MAX {
        return Err(UnitError::TooMuch { text: text.to_owned() });
    }
    Ok(bytes as u64)
}

/// A duration in its largest unit that keeps it whole, as [`duration`] reads it: `90s`, `5m`.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let fits = units.into_iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / unit))
}

/// A size in its largest unit that keeps it whole, as [`bytes()`] reads it: `64 MiB`, `1000 B`.
pub fn show_bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = units.into_iter().find(|(_, power)| bytes > 0 && bytes.is_multiple_of(1 << power));
    fits.map_or_else(|| format!("{bytes} B"), |(name, power)| format!("{} {name}", bytes >> power))
}

struct Grammar {
    what: &'static str,
    units: &'static [(&'static str, f64)],
    /// Customary between number and unit.
    space: &'static str,
    /// What a number without a unit probably lacks.
    bare: &'static str,
    example: &'static str,
}

impl Grammar {
    fn read(&self, text: &str) -> Result<f64, UnitError> {
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (digits, unit) = (&trimmed[..end], trimmed[end..].trim_start());
        let number: f64 = digits.parse().map_err(|_| UnitError::Number {
            text: text.to_owned(),
            what: self.what,
            example: self.example,
        })?;
        if unit.is_empty() {
            return Err(UnitError::NoUnit { text: trimmed.to_owned(), example: self.bare });
        }
        match self.units.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => Ok(number * factor),
            None => Err(self.wrong_unit(digits, unit)),
        }
    }

    fn wrong_unit(&self, digits: &str, unit: &str) -> UnitError {
        let same_letter = |name: &&str| name.chars().next().map(lower) == unit.chars().next().map(lower);
        let names = self.units.iter().map(|(name, _)| *name);
        // "mins" and "minutes" mean m, not ms; "msec" and "millis" mean ms.
        let millis = self.space.is_empty() && (unit.starts_with("ms") || unit.starts_with("mil"));
        let nearest = if millis {
            "ms"
        } else {
            names.clone().filter(|name| *name != "ms").find(same_letter).unwrap_or(self.bare.trim())
        };
        UnitError::Unit {
            unit: unit.to_owned(),
            number: digits.to_owned(),
            nearest: format!("{}{nearest}", self.space),
            units: names.collect::<Vec<_>>().join(", "),
        }
    }
}

fn lower(c: char) -> char {
    c.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_written() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1.5 h", 5_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, expected) in [("17 B", 17), ("512 KiB", 524_288), ("64MiB", 67_108_864), ("1.5 GiB", 1_610_612_736)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_the_same() {
        for (count, text) in [(0, "0 B"), (17, "17 B"), (1536, "1536 B"), (512 << 10, "512 KiB"), (64 << 20, "64 MiB")]
        {
            assert_eq!(show_bytes(count), text);
            assert_eq!(bytes(text), Ok(count));
        }
        for (millis, text) in [(0, "0ms"), (1500, "1500ms"), (90_000, "90s"), (18_000_000, "5h")] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn what_is_wrong_comes_with_what_is_right() {
        for (text, says) in [
            ("5", "\"5\" has no unit; write \"5s\""),
            ("5 minutes", "\"minutes\" is no unit; write \"5m\" (units: ms, s, m, h, d)"),
            ("5 millis", "\"millis\" is no unit; write \"5ms\" (units: ms, s, m, h, d)"),
            ("5 S", "\"S\" is no unit; write \"5s\" (units: ms, s, m, h, d)"),
            ("5 weeks", "\"weeks\" is no unit; write \"5s\" (units: ms, s, m, h, d)"),
            ("soon", "\"soon\" is no duration; write it like \"30s\""),
            ("-5s", "\"-5s\" is no duration; write it like \"30s\""),
            ("1.2.3s", "\"1.2.3s\" is no duration; write it like \"30s\""),
            ("99999999d", "\"99999999d\" is too much"),
        ] {
            assert_eq!(duration(text).expect_err(text).to_string(), says);
        }
        for (text, says) in [
            ("64", "\"64\" has no unit; write \"64 MiB\""),
            ("64 MB", "\"MB\" is no unit; write \"64 MiB\" (units: B, KiB, MiB, GiB)"),
            ("64k", "\"k\" is no unit; write \"64 KiB\" (units: B, KiB, MiB, GiB)"),
            ("", "\"\" is no size; write it like \"64 MiB\""),
        ] {
            assert_eq!(bytes(text).expect_err(text).to_string(), says);
        }
    }
}
