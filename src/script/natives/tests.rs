//! That the bounded functions answer as Luau's own, and where they do not.

use mlua::Lua;

use super::install;
use super::texts::longest_set;

#[test]
fn the_longest_set_of_a_pattern_is_found_as_the_matcher_reads_it() {
    for (pattern, longest) in [
        ("abc", 0),
        ("[abc]", 5),
        ("%[abcdef]", 0),
        ("[]abc]x[a]", 6),
        ("[^]abc]", 7),
        ("[a%]b]c", 6),
        ("[open", 6),
        ("%f[%w]", 4),
        ("[a%", 5),
    ] {
        assert_eq!(longest_set(pattern.as_bytes()), longest, "{pattern}");
    }
}

/// Calls `script` with the bounded functions and with Luau's own, and expects the same of both.
#[test]
fn the_bounded_functions_answer_as_luaus_own() {
    let (bounded, own) = (Lua::new(), Lua::new());
    install(&bounded).expect("there is memory");
    let big = "local big = string.rep('ab', 60000) .. 'c' .. string.rep('ab', 10) ";
    for script in [
        "return string.find(big, string.rep('ab', 5) .. 'c')",
        "return string.find(big, string.rep('ab', 30000) .. 'c', 2, true)",
        "return string.find(big, string.rep('ab', 30000) .. 'd', 1, true)",
        "return string.find(big, 'c' .. string.rep('ab', 5), -15, true)",
        "return string.find(big, 'c' .. string.rep('ab', 5), -30, true)",
        "return string.find(big, 'c' .. string.rep('ab', 5), '7')",
        "return string.find(big, string.rep('ab', 5), 1e6)",
        "return string.find(big, string.rep('ab', 5), 2^40)",
        "return string.find(big, string.rep('ab', 5), {})",
        "return string.find(big, string.rep('%w', 50))",
        "return string.find('a.b', '.', 2, true)",
        "return big:find('c')",
        "return string.find()",
        "return string.find(nil, 'a')",
        "return ('x'):rep(3, 4), ('x'):rep(-1), string.rep()",
        "return string.format('%d %s %5.1f %*', 1, 'a', 2.25, true)",
        "return string.format('%d', 'x')",
        "return string.split('a,b,c')[3], #string.split(big, 'abab'), string.split(1)[1]",
        "return string.gsub('hello world', '%w+', '<%0>', 1)",
        "return string.gsub('a', 'b', true)",
        "return table.concat({1, 2, 3}, '-', 2), table.concat({}, 'x', 1, 0)",
        "return table.concat({1, {}, 3})",
        "return table.concat(nil)",
        "return table.unpack({1, 2, 3}, 2)",
        "return table.move({1, 2, 3}, 2, 3, 1)[1], #table.move({1, 2, 3}, 1, 3, 3)",
        "return table.move({}, 1, 'x', 2)",
        "return table.move(table.freeze({}), 1, 2, 3)",
        "local t = {3, 1, 2} table.sort(t) return unpack(t)",
        "local t = {3, 1, 2} table.sort(t, function(a, b) return a > b end) return unpack(t)",
        "local t = {} for i = 1, 70000 do t[i] = (i * 7919) % 70001 end table.sort(t) return t[1], t[2], t[69999], t[70000]",
        "local t = {big .. 'x', big .. 'b', big} table.sort(t) return #t[1], t[2] < t[3]",
        "return table.sort({3, 'x', 1})",
        "return table.sort({3, nil, 1})",
        "return table.sort(table.create(70000, true))",
        "return table.sort({1, 2}, 5)",
        "return table.sort(table.freeze({2, 1}))",
        "return table.sort({{1}, {2}}, rawequal)",
        "return table.sort({2, 1, 3}, string.find)",
        "return next({}), next({7}), next({}, 'x')",
        "local n = 0 for k, v in next, {1, 2, a = 3} do n += v end return n",
        "return utf8.len('äö'), utf8.codepoint('ä'), utf8.len('\\xff')",
        "return buffer.tostring(buffer.fromstring('abc')), buffer.readstring(buffer.create(4), 2, 3)",
        "return tonumber('0x10'), tonumber('z', 36), tonumber()",
    ] {
        let script = format!(
            "{big} local r = table.pack(pcall(function() {script} end)) local s = {{}}
            for i = 1, r.n do s[i] = tostring(r[i]) end return table.concat(s, ' | ')"
        );
        let answer = |lua: &Lua| lua.load(script.as_str()).set_name("=work").eval::<String>().expect("it is caught");
        assert_eq!(answer(&bounded), answer(&own), "{script}");
    }
}

#[test]
fn what_is_out_of_proportion_is_refused_at_the_callers_line() {
    let lua = Lua::new();
    install(&lua).expect("there is memory");
    for (script, expected) in [
        (
            "string.gsub(string.rep('b', 2^20), '[' .. string.rep('a', 200) .. ']*', '')",
            "string.gsub: pattern: expected a set of at most 128 bytes for a text of 1048576 bytes, got 202",
        ),
        (
            "string.split(string.rep('a', 2^20), string.rep('a', 2^15))",
            "string.split: separator: expected at most 2048 bytes for a text of 1048576 bytes, got 32768",
        ),
        ("table.move({}, 1, 2^26, 2)", "table.move: range: expected at most 1048576 elements, got 67108864"),
        ("table.concat({}, '', 1, 2^21)", "table.concat: range: expected at most 1048576 elements, got 2097152"),
        (
            "string.format('', table.unpack(table.create(20000, 1)))",
            "string.format: values: expected at most 10000, got 20000",
        ),
    ] {
        let error = lua.load(format!("\n{script}")).set_name("=work.luau").exec().expect_err(script);
        let text = error.to_string();
        assert!(text.contains(&format!("work.luau:2: {expected}")), "{text}");
    }
}

#[test]
fn c_code_that_calls_c_code_asks_the_interrupt() {
    for script in [
        "table.sort(table.create(2000, ('a'):rep(2000)))",
        "local t = {} for i = 1, 2000 do t[i] = i end table.sort(t, rawequal)",
        "table.sort(table.create(100000, 1))",
        "local m = { __eq = table.find } local t = setmetatable({ 1 }, m)
            table.find(table.create(2000, t), setmetatable({ 2 }, m))",
        "local m = { __lt = table.find } table.sort(table.create(2000, setmetatable({ 1 }, m)))",
    ] {
        let lua = Lua::new();
        install(&lua).expect("there is memory");
        let chunk = lua.load(script).into_function().expect("it is Luau");
        let asked = std::rc::Rc::new(std::cell::Cell::new(0));
        let counter = asked.clone();
        lua.set_interrupt(move |_| {
            counter.set(counter.get() + 1);
            Ok(mlua::VmState::Continue)
        });
        chunk.call::<()>(()).expect(script);
        assert!(asked.get() > 1000, "{script}: {}", asked.get());
    }
}
