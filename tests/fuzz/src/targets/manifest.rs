//! A handler's file, beside a module.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use moontide::script::{LoadOptions, Program, Sources, check_group, load};

const FILE: &str = "shop/order.paid.luau";
const MODULE: &str = "lib/money.luau";

pub fn run(input: &[u8]) {
    let Ok(file) = std::str::from_utf8(input) else { return };
    let module = "return { round = function(n) return n // 1 end }";
    let files = BTreeMap::from([(FILE.to_owned(), file.into()), (MODULE.to_owned(), module.into())]);
    let sources = Arc::new(Sources::new(files));
    match load(FILE, &sources, &options()) {
        Ok(program) => {
            is_sound(&program);
            let again = load(FILE, &sources, &options()).expect("it loaded before");
            assert_eq!((again.version, again.manifest), (program.version, program.manifest));
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                let named = problem.split(':').next().unwrap_or_default();
                assert!(sources.files.contains_key(named), "{problem:?} names no file");
            }
        }
    }
}

fn options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.limits.cpu = Duration::from_millis(20);
    options
}

fn is_sound(program: &Program) {
    let manifest = &program.manifest;
    assert_eq!((&*program.name, program.version.len()), ("shop/order.paid", 12));
    assert!(!manifest.types.is_empty() && check_group(&manifest.group).is_ok(), "{manifest:?}");
    assert!((1..=10_000).contains(&manifest.concurrency), "{manifest:?}");
    assert!((1..=1000).contains(&manifest.retry.attempts), "{manifest:?}");
    assert!((0.0..=1.0).contains(&manifest.retry.jitter) && manifest.retry.factor >= 1.0, "{manifest:?}");
    assert!(manifest.limits.cpu <= options().limits.cpu, "a handler asks for less, never for more: {manifest:?}");
    assert!(manifest.limits.memory_bytes <= options().limits.memory_bytes, "{manifest:?}");
    assert!(program.modules.iter().all(|module| module == MODULE), "{:?}", program.modules);
}
