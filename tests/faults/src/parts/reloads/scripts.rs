//! The files of the storm: handlers and modules that say their generation, and what is wrong with those that must be refused.

use rand::Rng as _;
use rand::rngs::SmallRng;

/// Handlers that share one module.
pub const USERS: usize = 3;
/// Modules, each with handlers of its own: the first ones.
pub const MODULES: usize = 8;

/// The module that handler number `handler` requires.
pub fn module_of(handler: usize) -> Option<usize> {
    Some(handler / USERS).filter(|module| *module < MODULES)
}

/// Numbers that handlers refuse.
pub fn is_rejected(n: u64) -> bool {
    n % 25 == 3
}

/// A handler that tells with every effect which version of it was at work.
pub fn handler(handler: usize, generation: &str) -> String {
    format!("{}return {}\n", head(handler), table(handler, generation))
}

/// A handler in two halves: the first alone would be a handler, which nobody may ever see.
pub fn halves(handler: usize, generation: &str) -> [String; 2] {
    let (half, whole) = (table(handler, "half"), table(handler, generation));
    [format!("{}return {half}", head(handler)), format!(" and {whole}\n")]
}

fn head(handler: usize) -> String {
    match module_of(handler) {
        Some(module) => format!("local m = require(\"@lib/m{module}\")\n"),
        None => "local m = { generation = \"none\" }\n".to_owned(),
    }
}

fn table(handler: usize, generation: &str) -> String {
    let text = r#"{
    on = "nHANDLER",
    start = "earliest",
    retry = { attempts = 5, delay = "20ms", factor = 1, jitter = 0 },
    handle = function(event, ctx)
        local n = event.data.n
        if n % 10 == 7 then
            ctx:sleep("150ms")
            log.info("went on")
        end
        local by = ctx.version .. " GENERATION " .. m.generation
        if n % 25 == 3 then
            ctx:reject(by)
        end
        if n % 10 == 1 and ctx.attempt == 1 then
            error("flaky " .. n)
        end
        ctx.kv:add("times/" .. n, 1)
        ctx.kv:set("by/" .. n, by)
    end,
}"#;
    text.replace("HANDLER", &handler.to_string()).replace("GENERATION", generation)
}

pub fn module(generation: &str) -> String {
    format!("return {{ generation = \"{generation}\" }}\n")
}

/// A file that must be refused, and whose refusal is another one each time.
pub fn broken_handler(rng: &mut SmallRng, handler: usize, generation: &str) -> Vec<u8> {
    let good = self::handler(handler, generation);
    match rng.random_range(0..7) {
        0 => good.as_bytes()[..rng.random_range(0..good.len() - 10)].to_vec(),
        1 => format!("error(\"generation {generation}\")\n{good}").into_bytes(),
        2 => good.replace("start =", &format!("start{} =", generation.replace('.', "_"))).into_bytes(),
        3 => format!("return {{ on = \"n{handler}\", handle = \"{generation}\" }}").into_bytes(),
        4 => [good.as_bytes(), b"-- ", generation.as_bytes(), b"\xff"].concat(),
        5 => format!("require(\"@lib/none-{generation}\")\n{good}").into_bytes(),
        _ => good.replace("start = \"earliest\"", &format!("start = \"{generation}\"")).into_bytes(),
    }
}

pub fn broken_module(rng: &mut SmallRng, generation: &str) -> Vec<u8> {
    match rng.random_range(0..3) {
        0 => format!("return {{ generation = \"{generation}\"").into_bytes(),
        1 => format!("error(\"generation {generation}\")").into_bytes(),
        _ => format!("return '{generation}\\").into_bytes(),
    }
}

/// A top level that never ends.
pub fn looping(handler: usize, generation: &str) -> Vec<u8> {
    let lines = generation.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let good = self::handler(handler, generation);
    format!("{}while true do end\n{good}", "\n".repeat(lines)).into_bytes()
}
