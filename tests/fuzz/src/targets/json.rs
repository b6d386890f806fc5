//! Documents on their way into a script and back.

use moontide::script::convert::{Bounds, DecodeError};
use serde_json::Value;

use super::VM;

/// An integer has at most so many, whatever is allowed.
const DIGITS_MAX: usize = 20;

pub fn run(text: &[u8]) {
    VM.with(|vm| {
        let value = match vm.codec.decode(&vm.lua, text, true) {
            Ok(value) => value,
            Err(DecodeError::Vm(error)) => panic!("{error}"),
            Err(error) => return is_placed(&error, text),
        };
        let (depth_max, nodes_max, bytes_max) = (usize::MAX, usize::MAX, usize::MAX);
        let bounds = Bounds { depth_max, nodes_max, bytes_max, ..Bounds::default() };
        let written = vm.codec.encode(&vm.lua, &value, None, &bounds).expect("what was read can be written");
        is_same(text, &written);
        let again = vm.codec.decode(&vm.lua, &written, true).expect("what was written can be read");
        let rewritten = vm.codec.encode(&vm.lua, &again, None, &bounds).expect("it was written before");
        is_same(&written, &rewritten);
        let less = Bounds { bytes_max: (text.len() / 2).max(DIGITS_MAX), ..bounds };
        if let Ok(short) = vm.codec.encode(&vm.lua, &value, None, &less) {
            assert!(short.len() <= less.bytes_max, "{} bytes, and {} are allowed", short.len(), less.bytes_max);
        }
    });
}

/// A line and a column that are in the text, or just behind it.
fn is_placed(error: &DecodeError, text: &[u8]) {
    let (DecodeError::Syntax { line, column, .. } | DecodeError::Bounds { line, column, .. }) = error else { return };
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let length = lines.get(line.wrapping_sub(1)).map(|line| line.len());
    assert!(length.is_some_and(|length| (1..=length + 1).contains(column)), "{error}, and lines are {length:?} long");
}

/// By another reader of JSON, but for digits that no double has.
fn is_same(one: &[u8], other: &[u8]) {
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text);
    // It takes no number beyond the doubles, which scripts are given as texts of digits.
    let Ok(one) = read(one) else { return };
    let Ok(other) = read(other) else { panic!("{} is no JSON", String::from_utf8_lossy(other)) };
    assert!(agree(&one, &other), "{one} became {other}");
}

fn agree(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap_or(f64::NAN), other.as_f64().unwrap_or(f64::NAN));
            // Its reader is not exact in the last digit.
            (one - other).abs() <= one.abs() * 1e-15 || (one - other).abs() <= f64::MIN_POSITIVE
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| agree(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(key, value)| other.get(key).is_some_and(|other| agree(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}
