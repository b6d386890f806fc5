//! The target that `MOONTIDE_FUZZ` names, under libFuzzer.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use moontide_fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("MOONTIDE_FUZZ").unwrap_or_default();
    moontide_fuzz::named(&name).unwrap_or_else(|| panic!("there is no target {name:?}"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
