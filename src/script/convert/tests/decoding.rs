//! What is read from JSON text, and what is refused with its place.

use std::cell::Cell;
use std::fmt::Write;

use mlua::{Error, Value, VmState};

use super::super::Exact;
use super::{DecodeError, decode, vm, with_document};

/// `script` gives true for the decoded `document`.
#[track_caller]
fn holds(document: &str, script: &str) {
    let result: mlua::Result<bool> = with_document(document, false, script);
    assert!(matches!(result, Ok(true)), "{document} | {script}: {result:?}");
}

#[test]
fn values_arrive_as_luau_has_them() {
    holds(
        r#"{"a":1,"b":[true,false],"c":"x"}"#,
        "d.a == 1 and d.b[1] and d.b[2] == false and #d.b == 2 and d.c == 'x'",
    );
    holds("1.0", "d == 1 and tostring(d) == '1'");
    holds(r#" { "a" : [ ] , "b" : { } } "#, "type(d.a) == 'table' and next(d.a) == nil and next(d.b) == nil");
    holds(r#"{"":0}"#, "d[''] == 0");
    holds(r#""a\u0000b""#, r"d == 'a\0b'");
    holds(r#"{"n":null}"#, "d.n == json.null and json.is_null(d.n) and d.missing == nil and not json.is_null(nil)");
    holds("null", "if d then return tostring(d) == 'null' and typeof(d) == 'json.null' else return false end");
}

#[test]
fn large_containers_keep_order_and_keys() {
    let numbers: Vec<String> = (1..=1000).map(|n| n.to_string()).collect();
    holds(
        &format!("[{}]", numbers.join(",")),
        "for i = 1, 1000 do if d[i] ~= i then return false end end return #d == 1000",
    );
    let fields: Vec<String> = (1..=1000).map(|n| format!("\"k{n}\":{n}")).collect();
    holds(
        &format!("{{{}}}", fields.join(",")),
        "for i = 1, 1000 do if d['k' .. i] ~= i then return false end end return true",
    );
    for count in [15, 16, 17] {
        let fields: Vec<String> = (1..=count).map(|n| format!("\"k{n}\":[{n}]")).collect();
        let script = format!("local n = 0 for k, v in d do n += v[1] end return n == {}", count * (count + 1) / 2);
        holds(&format!("{{{}}}", fields.join(",")), &script);
        let elements: Vec<String> = (1..=count).map(|n| format!("{{\"n\":{n}}}")).collect();
        holds(
            &format!("[{}]", elements.join(",")),
            &format!("return #d == {count} and d[{count}].n == {count} and d[1].n == 1"),
        );
    }
}

#[test]
fn large_integers_are_luau_integers() {
    let document = r#"{"a":9007199254740993,"b":-9223372036854775808,"c":9007199254740992}"#;
    holds(document, "typeof(d.a) == 'integer' and tostring(d.a) == '9007199254740993'");
    holds(document, "tostring(d.b) == '-9223372036854775808' and type(d.c) == 'number'");
    holds(document, "d.a == json.decode('9007199254740993') and ({[d.a] = 7})[json.decode('9007199254740993')] == 7");
}

#[test]
fn numbers_nothing_can_hold_stay_text() {
    let document = r#"{"a":18446744073709551616,"b":1e400,"c":0.10000000000000000000001}"#;
    holds(document, "typeof(d.a) == 'json.number' and tostring(d.a) == '18446744073709551616'");
    holds(document, "d.a == json.number('18446744073709551616.0') and d.a ~= d.b");
    holds(document, "d.a < d.b and d.c < d.a and d.a <= d.a and not (d.b < d.a) and d.c > json.number(0.1)");
    let mixed = with_document::<Value>(document, false, "d.a < 1").expect_err("it does not mix with numbers");
    assert!(mixed.to_string().contains("json.number"), "{mixed}");
}

#[test]
fn a_large_integer_alone_is_never_rounded() {
    let (lua, codec) = vm();
    holds("12e17", "type(d) == 'number' and d == 12e17");
    holds("9007199254740993", "tostring(d) == '9007199254740993' and typeof(d) == 'json.number'");
    let exact = codec.decode_exact(&lua, b"9007199254740993", false).expect("it is JSON");
    assert_eq!(exact, Exact(Value::Integer(9_007_199_254_740_993)));
    lua.globals().set("d", exact).expect("globals are writable");
    let fine: bool = lua.load("typeof(d) == 'integer' and d == json.decode('9007199254740993')").eval().expect("runs");
    assert!(fine);
}

#[test]
fn frozen_documents_cannot_be_written() {
    for write in [
        "d.a = 1",
        "d.x.y = 1",
        "d.x.l[1] = 1",
        "table.insert(d.x.l, 1)",
        "d.x.l[1].z = 1",
        "d.e[1] = 1",
        "rawset(d, 'a', 1)",
    ] {
        let document = r#"{"a":0,"x":{"y":0,"l":[{"z":0}]},"e":[]}"#;
        let error = with_document::<()>(document, true, write).expect_err(write).to_string();
        assert!(error.contains("attempt to modify a readonly table"), "{write}: {error}");
        with_document::<()>(document, false, write).expect(write);
    }
}

#[test]
fn refusals_name_line_and_column() {
    let cases: &[(&[u8], usize, usize, &str)] = &[
        (b"", 1, 1, "ends"),
        (b"{\"a\": 1,\n  \"b\": x}", 2, 8, "value"),
        (b"[1,]", 1, 4, "value"),
        (b"[1 2]", 1, 4, "`,` or `]`"),
        (b"{\"a\":1,}", 1, 8, "key"),
        (b"{\"a\" 1}", 1, 6, "`:`"),
        (b"{\"a\":1 \"b\":2}", 1, 8, "`,` or `}`"),
        (b"[1] x", 1, 5, "nothing can follow"),
        (b"nul", 1, 1, "value"),
        (b"NaN", 1, 1, "value"),
        (b"[01]", 1, 2, "begin with 0"),
        (b"[1.]", 1, 4, "digit"),
        (b"\"\xc3\xa9\\x\"", 1, 3, "escape"),
        (b"\"\\ud800\"", 1, 2, "surrogate"),
        (b"\"a\tb\"", 1, 3, "control"),
        (b"\"a", 1, 3, "not closed"),
        (b"[\"\xff\"]", 1, 3, "UTF-8"),
        (b"\xef\xbb\xbf{}", 1, 1, "byte order mark"),
        (b"{\"a\":1,\n\"\\u0061\":2}", 2, 1, "already"),
    ];
    for (text, line, column, message) in cases {
        let shown = String::from_utf8_lossy(text);
        match decode(text) {
            Err(DecodeError::Syntax { line: l, column: c, message: m }) => {
                assert_eq!((l, c), (*line, *column), "{shown}");
                assert!(m.contains(message), "{shown}: {m}");
            }
            other => panic!("{shown}: {other:?}"),
        }
    }
    assert_eq!(decode(b"[\n1 2]").expect_err("refused").to_string(), "line 2, column 3: `,` or `]` is expected here");
}

fn object(keys: usize) -> String {
    let mut text = String::from("{");
    for key in 0..keys {
        write!(text, "\"{key}\":0,").expect("writing to a String works");
    }
    text + "\"last\":0}"
}

#[test]
fn a_repeated_key_is_found_wherever_it_is() {
    for keys in [0, 1, 15, 16, 17, 40] {
        assert!(decode(object(keys).as_bytes()).is_ok());
        for repeated in [0, keys / 2, keys.saturating_sub(1)] {
            let text = object(keys).replacen("\"last\"", &format!("\"{repeated}\""), 1);
            assert_eq!(decode(text.as_bytes()).is_err(), keys > 0, "{text}");
        }
    }
}

#[test]
fn documents_have_bounds() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let key = |bytes: usize| format!("{{\"{}\":1}}", "k".repeat(bytes));
    for (inside, beyond) in [(nested(128), nested(129)), (key(256), key(257)), (object(9_999), object(10_000))] {
        decode(inside.as_bytes()).expect("within the bounds");
        assert!(matches!(decode(beyond.as_bytes()), Err(DecodeError::Bounds { .. })));
    }
    let (lua, codec) = vm();
    let deep = r#"{"a":[1,"#.repeat(64) + "2" + &"]}".repeat(64);
    let value = codec.decode(&lua, deep.as_bytes(), true).expect("128 levels fit");
    let again = codec.encode(&lua, &value, None, &super::Bounds::default()).expect("and leave again");
    assert_eq!(String::from_utf8(again).expect("JSON is UTF-8"), deep);
    assert!(matches!(decode("[".repeat(1_000_000).as_bytes()), Err(DecodeError::Bounds { column: 129, .. })));
}

#[test]
fn the_memory_limit_is_an_error_and_nothing_breaks() {
    let (lua, codec) = vm();
    let strings: Vec<String> = (0..20_000).map(|n| format!("{{\"key{n}\":\"a\\nvalue{n}\"}}")).collect();
    let text = format!("[{}]", strings.join(","));
    let deep = r#"{"a":["#.repeat(64);
    for room in (0..400_000).step_by(7_001) {
        lua.gc_collect().expect("nothing is finalised");
        lua.set_memory_limit(lua.used_memory() + room).expect("limits are supported");
        let result = codec.decode(&lua, text.as_bytes(), true);
        assert!(matches!(result, Err(DecodeError::Vm(Error::MemoryError(_)))), "{room}: {result:?}");
        // In whatever state the limit struck, the next conversion must find the buffers and the stack in order.
        let result = codec.decode(&lua, deep.as_bytes(), true);
        assert!(
            matches!(result, Err(DecodeError::Vm(Error::MemoryError(_)) | DecodeError::Syntax { .. })),
            "{room}: {result:?}"
        );
        lua.set_memory_limit(0).expect("limits are supported");
        assert!(codec.decode(&lua, br#"{"a":[1,"\n"]}"#, true).is_ok());
    }
    assert!(codec.decode(&lua, text.as_bytes(), true).is_ok());
}

#[test]
fn the_interrupt_ends_a_conversion() {
    let (lua, codec) = vm();
    lua.set_interrupt(|_| Err(Error::runtime("deadline")));
    let text = format!("[{}1]", "1,".repeat(1000));
    let error = codec.decode(&lua, text.as_bytes(), true).expect_err("interrupted");
    assert!(matches!(error, DecodeError::Vm(_)) && error.to_string().contains("deadline"), "{error}");
    assert!(codec.decode(&lua, b"[1,2,3]", true).is_ok(), "short conversions are not asked");
}

#[test]
fn an_interrupt_that_yields_waits_for_a_better_moment() {
    let (lua, _codec) = vm();
    let asked = Cell::new(0_u32);
    lua.set_interrupt(move |_| {
        asked.set(asked.get() + 1);
        // A VM that yields at every question never gets anywhere.
        Ok(if asked.get().is_multiple_of(2) { VmState::Yield } else { VmState::Continue })
    });
    let script = "local t = json.decode('[' .. string.rep('[1],', 2000) .. '1]') return #json.encode(t)";
    let thread = lua.create_thread(lua.load(script).into_function().expect("compiles")).expect("there is memory");
    let length = loop {
        if let Some(length) = thread.resume::<Option<usize>>(()).expect("runs") {
            break length;
        }
    };
    assert_eq!(length, 2000 * 4 + 3);
}

#[test]
fn a_vm_has_one_codec() {
    let (lua, _codec) = vm();
    assert!(super::Codec::install(&lua).is_err());
}
