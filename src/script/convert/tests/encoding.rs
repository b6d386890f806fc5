//! What is written as JSON text, and what is refused with its path.

use mlua::{Error, Table, Value};

use super::super::{Exact, Problem};
use super::{Bounds, EncodeError, encode, vm, with_document};

#[track_caller]
fn encodes(expression: &str, json: &str) {
    assert_eq!(encode(expression, &Bounds::default()).expect(expression), json, "{expression}");
}

#[track_caller]
fn refused(expression: &str, path: &str, problem: Problem) {
    refused_within(&Bounds::default(), expression, path, problem);
}

#[track_caller]
fn refused_within(bounds: &Bounds, expression: &str, path: &str, problem: Problem) {
    match encode(expression, bounds) {
        Err(EncodeError::Value { path: p, problem: q, .. }) => assert_eq!((&*p, q), (path, problem), "{expression}"),
        other => panic!("{expression}: {other:?}"),
    }
}

#[test]
fn values_leave_as_json_has_them() {
    encodes("{ a = { 1, 2.5, 'x', true, json.null } }", r#"{"a":[1,2.5,"x",true,null]}"#);
    encodes("{}", "{}");
    encodes("json.array()", "[]");
    encodes("json.array({ 1 })", "[1]");
    encodes("'é\"\\n\\0'", r#""é\"\n\u0000""#);
    encodes("{ 1e21, -0.0, 2^53, 2^60, 0.1 }", "[1e21,-0,9007199254740992,1.152921504606847e18,0.1]");
    encodes("json.decode('9223372036854775807')", "9223372036854775807");
    encodes("{ json.decode('9223372036854775807') }", "[9223372036854775807]");
    encodes("{ json.number('1.50e400') }", "[1.50e400]");
    encodes("json.number('1.50e400')", "1.50e400");
    encodes("{ [3] = 'c', [2] = 'b', [1] = 'a' }", r#"["a","b","c"]"#);
    encodes(
        "(function() local t = {} for i = 1, 9 do t[i] = i end for i = 9, 3, -1 do t[i] = nil end return t end)()",
        "[1,2]",
    );
    encodes("(function() local t = table.create(100) t[1] = 1 return t end)()", "[1]");
    encodes("(function() local t = { 1 } return { t, t } end)()", "[[1],[1]]");
}

#[test]
fn empty_arrays_stay_arrays() {
    let emptied = "local c = table.clone(d) c.l = table.clone(c.l) table.remove(c.l) return json.encode(c)";
    assert_eq!(with_document::<String>(r#"{"l":[1]}"#, true, emptied).expect("runs"), r#"{"l":[]}"#);
    assert_eq!(with_document::<String>(r#"[[],{}]"#, true, "return json.encode(d)").expect("runs"), "[[],{}]");
}

#[test]
fn what_json_cannot_keep_is_refused_with_its_path() {
    refused("nil", "", Problem::Nil);
    refused("{ lines = { {}, {}, { price = 0/0 } } }", ".lines[3].price", Problem::Nan);
    refused("{ a = -math.huge }", ".a", Problem::Infinite);
    refused("{ ['a b'] = { '\\255' } }", "[\"a b\"][1]", Problem::Encoding);
    refused("{ x = { ['\\255'] = 1 } }", ".x", Problem::KeyEncoding);
    refused("{ x = { 1, 2, [4] = 4 } }", ".x", Problem::Sparse);
    refused("{ x = { [2] = 2 } }", ".x", Problem::Sparse);
    refused("{ x = { [1] = 1, [3] = 3 } }", ".x", Problem::Sparse);
    refused("{ x = { 1, nil, 3 } }", ".x", Problem::Sparse);
    refused("{ x = { 1, 2, x = 3 } }", ".x", Problem::Mixed);
    refused("(function() local t = json.array() t.x = 1 return t end)()", "", Problem::Mixed);
    refused("{ x = { [0] = 1 } }", ".x", Problem::Key("number"));
    refused("{ x = { [1.5] = 1 } }", ".x", Problem::Key("number"));
    refused("{ x = { [true] = 1 } }", ".x", Problem::Key("boolean"));
    refused("{ x = { [json.null] = 1 } }", ".x", Problem::Key("json.null"));
    refused("{ x = { [json.decode('9007199254740993')] = 1 } }", ".x", Problem::Key("integer"));
    refused("{ f = print }", ".f", Problem::Kind("function"));
    refused("{ f = coroutine.create(print) }", ".f", Problem::Kind("thread"));
    refused("{ f = newproxy() }", ".f", Problem::Kind("userdata"));
    refused("{ { b = buffer.create(1) } }", "[1].b", Problem::Buffer);
    refused("{ v = vector.create(1, 2, 3) }", ".v", Problem::Vector);
    refused("{ o = setmetatable({}, { __index = { a = 1 } }) }", ".o", Problem::Metatable);
    refused("(function() local t = {} t.a = { t } return t end)()", ".a[1]", Problem::Cycle);
}

#[test]
fn refusals_read_well() {
    let error = encode("{ lines = { { price = 0/0 } } }", &Bounds::default()).expect_err("refused");
    assert_eq!(error.to_string(), "value.lines[1].price is NaN, which JSON cannot keep");
    assert_eq!(error.rooted("data").to_string(), "data.lines[1].price is NaN, which JSON cannot keep");
}

const BOMB: &str = "(function() local t = {} for _ = 1, 24 do t = { t, t } end return t end)()";

#[test]
fn bounds_hold() {
    assert!(matches!(encode(BOMB, &Bounds::default()), Err(EncodeError::Value { problem: Problem::Bytes(_), .. })));
    let bounds = Bounds { nodes_max: 100, ..Bounds::default() };
    assert!(matches!(encode(BOMB, &bounds), Err(EncodeError::Value { problem: Problem::Nodes(100), .. })));
    let bounds = Bounds { depth_max: 2, bytes_max: 10, keys_max: 2, key_bytes_max: 3, nodes_max: 5 };
    encode("{ { 1 } }", &bounds).expect("two levels");
    refused_within(&bounds, "{ { { 1 } } }", "[1][1]", Problem::Depth(2));
    encode("'12345678'", &bounds).expect("ten bytes");
    refused_within(&bounds, "'123456789'", "", Problem::Bytes(10));
    refused_within(&bounds, "'\\n\\n\\n\\n\\n'", "", Problem::Bytes(10));
    refused_within(&bounds, "{ 1, 2, 3, 4, 5 }", "[5]", Problem::Nodes(5));
    refused_within(&bounds, "{ abcd = 1 }", "", Problem::KeyBytes(3));
    let bounds = Bounds { keys_max: 2, ..Bounds::default() };
    encode("{ a = 1, b = 2 }", &bounds).expect("two keys");
    refused_within(&bounds, "{ a = 1, b = 2, c = 3 }", "", Problem::Keys(2));
    let deep = "(function() local t = {} for _ = 1, 100000 do t = { t } end return t end)()";
    refused(deep, &"[1]".repeat(128), Problem::Depth(128));
}

/// Encodes `script`'s value where `d` is known to be `document`.
fn forward(document: &str, script: &str) -> Result<String, EncodeError> {
    let (lua, codec) = vm();
    let known = codec.decode(&lua, document.as_bytes(), true).expect(document);
    lua.globals().set("d", &known).expect("globals are writable");
    let known: Table = known.as_table().expect("the document is a container").clone();
    let value: Value = lua.load(script).eval().expect(script);
    let json = codec.encode(&lua, &value, Some((&known, document.as_bytes())), &Bounds::default())?;
    Ok(String::from_utf8(json).expect("JSON is UTF-8"))
}

#[test]
fn a_known_table_leaves_byte_for_byte() {
    let document = "{ \"b\": 1.0,\n\"a\": [ 1e2 , \"\\u0041\" ] }";
    assert_eq!(forward(document, "d").expect("fine"), document);
    assert_eq!(forward(document, "{ x = { d, d } }").expect("fine"), format!("{{\"x\":[{document},{document}]}}"));
    assert_eq!(forward(document, "d.a").expect("fine"), "[100,\"A\"]");
    assert_eq!(forward("{ \"a\": 1 }", "table.clone(d)").expect("fine"), "{\"a\":1}");
}

#[test]
fn a_known_table_does_not_nest_deeper_than_can_be_read() {
    let document = "[".repeat(127) + "\"[[[\\\"[\"" + &"]".repeat(127);
    assert!(forward(&document, "{ d }").is_ok());
    assert!(matches!(
        forward(&document, "{ { d } }"),
        Err(EncodeError::Value { path, problem: Problem::Depth(128), .. }) if path == "[1][1]"
    ));
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let (lua, codec) = vm();
    let table: Table = lua.load("{ 'kept?', { a = { print } } }").eval().expect("runs");
    let value = Value::Table(table.clone());
    codec.encode(&lua, &value, None, &Bounds::default()).expect_err("refused");
    table.set(2, 1).expect("it is not frozen");
    assert_eq!(codec.encode(&lua, &value, None, &Bounds::default()).expect("fine"), b"[\"kept?\",1]");
}

#[test]
fn the_interrupt_ends_a_conversion() {
    let (lua, codec) = vm();
    let value: Value = lua.load(BOMB).eval().expect("runs");
    lua.set_interrupt(|_| Err(Error::runtime("deadline")));
    let error = codec.encode(&lua, &value, None, &Bounds::default()).expect_err("interrupted");
    assert!(matches!(error, EncodeError::Vm(_)) && error.to_string().contains("deadline"), "{error}");
}

#[test]
fn a_rounded_integer_does_not_come_from_us() {
    let (lua, codec) = vm();
    let json = codec.encode(&lua, &Value::Integer(i64::MAX), None, &Bounds::default()).expect("fine");
    assert_eq!(json, b"9223372036854775807");
    let function = lua.create_function(|_, ()| Ok(Some(Exact(Value::Integer(i64::MIN))))).expect("there is memory");
    lua.globals().set("f", function).expect("globals are writable");
    assert_eq!(lua.load("tostring(f())").eval::<String>().expect("runs"), "-9223372036854775808");
}
