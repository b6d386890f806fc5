//! Numbers as text: what JSON's digits become in Luau and back, and exact comparison of decimals.
//!
//! Owns the rule that no number is ever rounded silently: what neither a double nor 64 bits hold stays text.

use std::cmp::Ordering;

/// The largest integer up to which every integer is a double of its own.
const SAFE_INTEGER_MAX: i64 = 1 << 53;

/// Decimals of at most this many significant digits survive a double (DBL_DIG).
const DIGITS_ALWAYS_KEPT: usize = 15;

/// Longer exponents are refused, so that sums of exponents and lengths cannot overflow.
const EXPONENT_DIGITS_MAX: usize = 17;

/// Whether `integer` is a Luau integer rather than a number.
pub(super) fn is_beyond_doubles(integer: i64) -> bool {
    integer.unsigned_abs() > SAFE_INTEGER_MAX.unsigned_abs()
}

/// What a JSON number is in Luau.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Double(f64),
    /// Beyond ±2^53.
    Integer(i64),
    /// Neither can hold it: it stays text.
    Opaque,
}

/// Reads the number that begins at `start`; returns it and where it ends. The error is where and why.
#[inline]
pub(super) fn scan(text: &[u8], start: usize) -> Result<(Number, usize), (usize, &'static str)> {
    let negative = text.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let mut at = first;
    let mut value: u64 = 0;
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    match at - first {
        0 => return Err((at, "a number needs a digit here")),
        2.. if text.get(first) == Some(&b'0') => return Err((first, "a number cannot begin with 0")),
        _ => {}
    }
    if matches!(text.get(at), Some(b'.' | b'e' | b'E')) {
        let end = scan_rest(text, at)?;
        return Ok((classify_decimal(text.get(start..end).unwrap_or_default()), end));
    }
    // 19 digits cannot wrap 64 bits.
    let number = if at - first <= 19 { classify_integer(negative, value) } else { Number::Opaque };
    Ok((number, at))
}

/// Reads the fraction and exponent at `at`; returns the end.
fn scan_rest(text: &[u8], mut at: usize) -> Result<usize, (usize, &'static str)> {
    if text.get(at) == Some(&b'.') {
        at = scan_digits(text, at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(text.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        let first = at;
        at = scan_digits(text, first)?;
        if at - first > EXPONENT_DIGITS_MAX {
            return Err((first, "an exponent has at most 17 digits"));
        }
    }
    Ok(at)
}

fn scan_digits(text: &[u8], first: usize) -> Result<usize, (usize, &'static str)> {
    let digits = text.get(first..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 { Err((first, "a number needs a digit here")) } else { Ok(first + digits) }
}

#[inline]
fn classify_integer(negative: bool, magnitude: u64) -> Number {
    match i64::try_from(magnitude) {
        Ok(0) if negative => Number::Double(-0.0),
        Ok(value) if value <= SAFE_INTEGER_MAX => Number::Double(if negative { -value } else { value } as f64),
        Ok(value) => Number::Integer(if negative { -value } else { value }),
        Err(_) if negative && magnitude == i64::MIN.unsigned_abs() => Number::Integer(i64::MIN),
        Err(_) => Number::Opaque,
    }
}

/// A double, if its shortest text denotes the same decimal as `text`.
fn classify_decimal(text: &[u8]) -> Number {
    let Some(value) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()) else {
        return Number::Opaque;
    };
    let kept = if value.is_normal() && text.len() <= DIGITS_ALWAYS_KEPT {
        true
    } else {
        value.is_finite() && compare(ryu::Buffer::new().format_finite(value).as_bytes(), text) == Ordering::Equal
    };
    if kept { Number::Double(value) } else { Number::Opaque }
}

/// Appends the shortest text that reads back as `value`, which is finite. Within ±2^53 integers have no fraction; beyond
/// they keep one, or an exponent, so that they are read back as numbers and not as Luau integers.
pub(super) fn write(out: &mut Vec<u8>, value: f64) {
    // Saturates; the comparison below finds that out.
    let integer = value as i64;
    let integral = !is_beyond_doubles(integer) && integer as f64 == value;
    if !integral {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if integer == 0 && value.is_sign_negative() {
        out.extend_from_slice(b"-0");
    } else {
        write_integer(out, integer);
    }
}

/// Appends `value` in digits.
pub(super) fn write_integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Compares two JSON numbers by value, exactly, whatever their size.
pub(super) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let (left, right) = (Decimal::of(left), Decimal::of(right));
    match left.sign.cmp(&right.sign) {
        Ordering::Equal if left.sign < 0 => right.compare_magnitude(&left),
        Ordering::Equal => left.compare_magnitude(&right),
        unequal => unequal,
    }
}

/// A JSON number taken apart: sign · 0.digits · 10^exponent, where the first digit is not 0.
struct Decimal<'a> {
    /// -1, 0 or 1.
    sign: i8,
    exponent: i64,
    /// From the first digit that is not 0; may contain the point and end in zeros.
    digits: &'a [u8],
}

impl<'a> Decimal<'a> {
    /// Takes apart what [`scan`] accepted.
    fn of(text: &'a [u8]) -> Self {
        let (negative, text) = match text.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, text),
        };
        let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
            None => (text, 0),
        };
        let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        let Some(first) = mantissa.iter().position(|byte| matches!(byte, b'1'..=b'9')) else {
            return Self { sign: 0, exponent: 0, digits: &[] };
        };
        // Lengths are far below 2^62, exponents below 10^17.
        let shift = if first < point { (point - first) as i64 } else { -((first - point - 1) as i64) };
        Self { sign: if negative { -1 } else { 1 }, exponent: exponent + shift, digits: &mantissa[first..] }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        self.exponent.cmp(&other.exponent).then_with(|| self.compare_digits(other))
    }

    fn compare_digits(&self, other: &Self) -> Ordering {
        let longest = self.digits.len().max(other.digits.len());
        self.padded_digits().take(longest).cmp(other.padded_digits().take(longest))
    }

    fn padded_digits(&self) -> impl Iterator<Item = u8> {
        self.digits.iter().copied().filter(|byte| *byte != b'.').chain(std::iter::repeat(b'0'))
    }
}

fn parse_exponent(text: &[u8]) -> i64 {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let size = digits.fold(0_i64, |value, byte| value.saturating_mul(10).saturating_add(i64::from(byte - b'0')));
    if text.first() == Some(&b'-') { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Number {
        let (number, end) = scan(text.as_bytes(), 0).expect("the number is valid");
        assert_eq!(end, text.len(), "{text}");
        number
    }

    #[test]
    fn digits_become_what_holds_them() {
        let cases = [
            ("0", Number::Double(0.0)),
            ("1.0", Number::Double(1.0)),
            ("-1.50", Number::Double(-1.5)),
            ("1E+2", Number::Double(100.0)),
            ("0.0000", Number::Double(0.0)),
            ("0e999", Number::Double(0.0)),
            ("9007199254740992", Number::Double(9_007_199_254_740_992.0)),
            ("-9007199254740992", Number::Double(-9_007_199_254_740_992.0)),
            ("9007199254740993", Number::Integer(9_007_199_254_740_993)),
            ("9223372036854775807", Number::Integer(i64::MAX)),
            ("-9223372036854775808", Number::Integer(i64::MIN)),
            ("9223372036854775808", Number::Opaque),
            ("-9223372036854775809", Number::Opaque),
            ("18446744073709551616", Number::Opaque),
            ("100000000000000000000", Number::Opaque),
            ("0.1", Number::Double(0.1)),
            ("0.30000000000000004", Number::Double(0.1 + 0.2)),
            ("0.10000000000000001", Number::Opaque),
            ("9007199254740993.0", Number::Opaque),
            ("9007199254740994.0", Number::Double(9_007_199_254_740_994.0)),
            ("1.7976931348623157e308", Number::Double(f64::MAX)),
            ("1e400", Number::Opaque),
            ("-1e400", Number::Opaque),
            ("1e-400", Number::Opaque),
            ("5e-324", Number::Double(5e-324)),
            ("4e-324", Number::Opaque),
            ("1e22", Number::Double(1e22)),
        ];
        for (text, expected) in cases {
            assert_eq!(whole(text), expected, "{text}");
        }
        assert!(matches!(whole("-0"), Number::Double(zero) if zero.is_sign_negative()));
        assert!(matches!(whole("-0.0"), Number::Double(zero) if zero.is_sign_negative()));
    }

    #[test]
    fn what_is_no_number_is_refused_where_it_goes_wrong() {
        for (text, at) in [("-", 1), ("01", 0), ("-00", 1), ("1.", 2), ("1.e3", 2), ("1e", 2), ("1e+", 3)] {
            assert_eq!(scan(text.as_bytes(), 0).expect_err(text).0, at, "{text}");
        }
        assert!(scan(b"1e123456789012345678", 0).is_err());
    }

    #[test]
    fn numbers_leave_in_their_shortest_form() {
        let cases = [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (-1234.5, "-1234.5"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (9_007_199_254_740_994.0, "9007199254740994.0"),
            (1e21, "1e21"),
            (1e-7, "1e-7"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::MIN, "-1.7976931348623157e308"),
        ];
        for (value, expected) in cases {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn decimals_compare_by_value() {
        let ordered =
            ["-1e400", "-123456789012345678901", "-2", "-1", "0", "1e-400", "0.1", "1", "12", "1e20", "1e400"];
        for (i, left) in ordered.iter().enumerate() {
            for (j, right) in ordered.iter().enumerate() {
                assert_eq!(compare(left.as_bytes(), right.as_bytes()), i.cmp(&j), "{left} {right}");
            }
        }
        for (left, right) in
            [("1e2", "100.00"), ("0.001", "1e-3"), ("-0", "0e7"), ("12.340", "0.1234E+2"), ("1e02", "1e2")]
        {
            assert_eq!(compare(left.as_bytes(), right.as_bytes()), Ordering::Equal, "{left} {right}");
        }
    }
}
