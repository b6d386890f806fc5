//! What holds for any document and any value.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;

use mlua::Value;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::super::number;
use super::{Bounds, DecodeError, vm};

/// A JSON document whose numbers are still text.
#[derive(Clone, Debug)]
enum Doc {
    Null,
    Boolean(bool),
    Number(String),
    Text(String),
    Array(Vec<Doc>),
    Object(BTreeMap<String, Doc>),
}

impl Doc {
    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Boolean(value) => write!(out, "{value}").expect("writing to a String works"),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::Array(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at == 0 { "[ " } else { ", " });
                    element.write(out);
                }
                out.push_str(if elements.is_empty() { "[]" } else { "\n]" });
            }
            Self::Object(fields) => {
                for (at, (key, value)) in fields.iter().enumerate() {
                    out.push_str(if at == 0 { "{" } else { "," });
                    out.push_str(&quoted(key));
                    out.push_str(" :\t");
                    value.write(out);
                }
                out.push_str(if fields.is_empty() { "{ }" } else { "}" });
            }
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// Reads by serde_json, which takes numbers as they are written.
    fn read(text: &str) -> Self {
        let expect = "the codec writes JSON";
        match text.as_bytes()[0] {
            b'n' => Self::Null,
            b't' | b'f' => Self::Boolean(text == "true"),
            b'"' => Self::Text(serde_json::from_str(text).expect(expect)),
            b'[' => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).expect(expect);
                Self::Array(elements.into_iter().map(|element| Self::read(element.get())).collect())
            }
            b'{' => {
                let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect(expect);
                Self::Object(fields.into_iter().map(|(key, value)| (key, Self::read(value.get()))).collect())
            }
            _ => Self::Number(text.to_owned()),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Boolean(left), Self::Boolean(right)) => left == right,
            (Self::Number(left), Self::Number(right)) => {
                number::compare(left.as_bytes(), right.as_bytes()) == Ordering::Equal
            }
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Array(left), Self::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is(right))
            }
            (Self::Object(left), Self::Object(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.0 == r.0 && l.1.is(r.1))
            }
            _ => false,
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text has JSON")
}

fn numbers() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string()),
        (-1000..1000_i32).prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter_map("finite", |value| value.is_finite().then(|| ryu::Buffer::new().format(value).to_owned())),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
    ]
}

fn documents() -> impl Strategy<Value = Doc> {
    let leaf = prop_oneof![
        Just(Doc::Null),
        any::<bool>().prop_map(Doc::Boolean),
        numbers().prop_map(Doc::Number),
        ".{0,20}".prop_map(Doc::Text),
        "[\\x00-\\x7f]{0,40}".prop_map(Doc::Text),
    ];
    leaf.prop_recursive(5, 200, 40, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..40).prop_map(Doc::Array),
            prop::collection::btree_map(".{0,8}", inner, 0..40).prop_map(Doc::Object),
        ]
    })
}

/// Compares two values deeply; `integer` and `json.number` are compared as they are.
const SAME: &str = "
local function same(a, b)
    if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
    for k, v in a do if not same(v, b[k]) then return false end end
    for k in b do if a[k] == nil then return false end end
    return true
end
return same(a, b)";

fn round_trip(text: &str) -> String {
    let (lua, codec) = vm();
    let value = codec.decode(&lua, text.as_bytes(), true).expect(text);
    let json = codec.encode(&lua, &value, None, &Bounds::default()).expect(text);
    String::from_utf8(json).expect("JSON is UTF-8")
}

proptest! {
    #[test]
    fn documents_come_back_equal(document in documents()) {
        let back = round_trip(&document.text());
        prop_assert!(Doc::read(&back).is(&document), "{back}");
        prop_assert!(Doc::read(&round_trip(&back)).is(&document), "{back}");
    }

    #[test]
    fn numbers_keep_their_value(text in numbers()) {
        let back = round_trip(&text);
        prop_assert_eq!(number::compare(back.as_bytes(), text.as_bytes()), Ordering::Equal, "{}", back);
        let back = round_trip(&format!("[{text}]"));
        prop_assert_eq!(number::compare(&back.as_bytes()[1..back.len() - 1], text.as_bytes()), Ordering::Equal, "{}", back);
    }

    #[test]
    fn doubles_keep_their_bits(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let (lua, codec) = vm();
        let table = lua.create_sequence_from([value]).expect("there is memory");
        let json = codec.encode(&lua, &Value::Table(table), None, &Bounds::default()).expect("it is finite");
        let back = codec.decode(&lua, &json, false).expect("it is JSON");
        let back: f64 = back.as_table().and_then(|table| table.get(1).ok()).expect("an array with a number");
        prop_assert_eq!(back.to_bits(), bits);
    }

    #[test]
    fn comparison_agrees_with_integers(left in any::<i64>(), right in any::<i64>(), shift in 0_usize..9) {
        let scaled = format!("{left}{}e-{shift}", "0".repeat(shift));
        prop_assert_eq!(number::compare(scaled.as_bytes(), right.to_string().as_bytes()), left.cmp(&right));
    }

    #[test]
    fn luau_values_come_back_equal(document in documents()) {
        let (lua, codec) = vm();
        let value = codec.decode(&lua, document.text().as_bytes(), false).expect("it is JSON");
        let globals = lua.globals();
        globals.set("a", value).expect("globals are writable");
        let copied: Value = lua.load("local function copy(v) if type(v) ~= 'table' then return v end
            local c = {} for k, w in v do c[k] = copy(w) end return c end return copy(a)").eval().expect("runs");
        let json = codec.encode(&lua, &copied, None, &Bounds::default()).expect("it came from JSON");
        globals.set("b", codec.decode(&lua, &json, true).expect("it is JSON")).expect("globals are writable");
        prop_assert!(lua.load(SAME).eval::<bool>().expect("runs"));
    }

    #[test]
    fn garbage_is_refused_as_serde_json_does(text in garbage()) {
        let (lua, codec) = vm();
        let ours = codec.decode(&lua, &text, true);
        let theirs = serde_json::from_slice::<serde_json::Value>(&text);
        match ours {
            Ok(_) => prop_assert!(theirs.is_ok() || theirs.is_err_and(|error| error.to_string().contains("out of range"))),
            Err(DecodeError::Syntax { message, .. }) if message.contains("already") || message.contains("17 digits") => {}
            Err(error) => prop_assert!(theirs.is_err(), "{error}"),
        }
    }
}

/// Bytes, texts of JSON's characters, and documents with a few bytes changed.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let mutated = (documents(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)).prop_map(
        |(document, changes)| {
            let mut text = document.text().into_bytes();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            text
        },
    );
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "[\\[\\]{}\":,0-9eE.+\\-ntf \\\\u]{0,30}".prop_map(String::into_bytes),
        mutated,
    ]
}
