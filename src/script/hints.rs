//! The way Luau writes it: what habits from other Luas, and what is not given to scripts, are answered with.
//!
//! A table of signs in the line where an error happened. A hint is added to the message, never put in its place.

/// When a hint applies, by the message.
enum When {
    /// The compiler complained.
    Syntax,
    /// Something was nil that was called or indexed.
    Nil,
    /// Something was written that cannot be.
    ReadOnly,
}

const HINTS: &[(When, &str, &str)] = &[
    (When::Syntax, "goto ", "Luau has no goto: use continue, break, or a function"),
    (When::Syntax, "::", "Luau has no goto labels: use continue, break, or a function"),
    (When::Syntax, "<const>", "Luau has no <const>: a plain local does"),
    (When::Syntax, "<close>", "Luau has no <close>: call what closes it yourself"),
    (When::Syntax, "!=", "Luau writes it ~="),
    (When::Syntax, "!", "Luau writes it not"),
    (When::Syntax, "&&", "Luau writes it and"),
    (When::Syntax, "||", "Luau writes it or"),
    (When::Syntax, "&", "Luau writes it bit32.band(a, b)"),
    (When::Syntax, "|", "Luau writes it bit32.bor(a, b)"),
    (When::Syntax, "<<", "Luau writes it bit32.lshift(a, n)"),
    (When::Syntax, ">>", "Luau writes it bit32.rshift(a, n)"),
    (When::Syntax, "++", "Luau writes it n += 1"),
    (When::Syntax, "~", "Luau writes it bit32.bnot(a) or bit32.bxor(a, b)"),
    (When::Nil, "coroutine", "scripts have no coroutines: the host interleaves runs itself; ctx:sleep waits"),
    (When::Nil, "os.getenv", "scripts have no environment: config.get(name) reads what the configuration grants"),
    (When::Nil, "os.date", "not given to scripts: time.format(seconds)"),
    (When::Nil, "io.", "scripts have no files: ctx.kv keeps state, log writes"),
    (When::Nil, "os.", "scripts have os.clock and os.time of this library, nothing else"),
    (When::Nil, "loadstring", "not given to scripts: put modules into lib/ and require them"),
    (When::Nil, "load", "not given to scripts: put modules into lib/ and require them"),
    (When::Nil, "dofile", "not given to scripts: require(\"@lib/name\")"),
    (When::Nil, "package", "not given to scripts: require(\"@lib/name\")"),
    (When::Nil, "fenv", "not given to scripts"),
    (When::Nil, "newproxy", "not given to scripts"),
    (When::Nil, "collectgarbage", "not given to scripts: the host sees to memory"),
    (When::Nil, "_G", "not given to scripts: name the global itself"),
    (When::Nil, "debug.", "scripts have debug.traceback of this library, nothing else"),
    (When::Nil, "table.getn", "Luau writes it #t"),
    (When::Nil, "math.pow", "Luau writes it a ^ b"),
    (When::Nil, "string.gfind", "Luau writes it string.gmatch"),
    (When::ReadOnly, "", "events, libraries and globals are read-only: declare a variable local, change a table.clone"),
];

/// What to say about `message`, which the line `source` caused.
pub(super) fn hint(message: &str, source: &str) -> Option<&'static str> {
    let applies = |when: &When| match when {
        When::ReadOnly => message.contains("readonly table"),
        When::Nil => message.contains("nil value") || message.contains("index nil"),
        When::Syntax => SYNTAX.iter().any(|sign| message.contains(sign)),
    };
    let found = HINTS.iter().find(|(when, sign, _)| applies(when) && source.contains(sign));
    found.map(|(_, _, hint)| *hint)
}

/// How the compiler's messages begin.
const SYNTAX: [&str; 4] = ["Expected ", "Incomplete statement", "Malformed", "Unexpected"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits_of_other_luas_are_answered_by_the_way_luau_writes_it() {
        for (message, source, expected) in [
            ("Incomplete statement: expected assignment or a function call", "goto done", "no goto"),
            ("Expected '=' when parsing", "if a != b then", "~="),
            ("Expected identifier", "local flags = a & b", "bit32.band"),
            ("attempt to index nil with 'open'", "local file = io.open('x')", "no files"),
            ("attempt to call a nil value", "local f = loadstring('x')", "not given"),
            ("attempt to modify a readonly table", "event.data.x = 1", "read-only"),
        ] {
            assert!(hint(message, source).is_some_and(|hint| hint.contains(expected)), "{message} in {source}");
        }
        assert_eq!(hint("attempt to call a nil value", "local x = nothing()"), None);
        assert_eq!(hint("Expected 'end'", "local x = 1"), None);
    }
}
