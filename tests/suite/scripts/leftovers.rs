//! What versions leave behind in a pool: nothing, however their runs ended.

use std::sync::{Arc, Weak};
use std::time::Duration;

use moontide::script::{Limits, LoadOptions, Sources};

use super::rig::{MemoryLedger, Rig, delivery, event, program};

const ENDS: [&str; 7] = ["done", "throw", "return", "reject", "wait", "burn", "hungry"];

const SCRIPT: &str = "local kept = table.create(10000, 'x')
    return { on = 'order.created', timeout = '200ms', handle = function(event, ctx)
        local how = event.data
        ctx.kv:get('k')
        if how == 'throw' then error({ code = #kept }) end
        if how == 'return' then return kept end
        if how == 'reject' then ctx:reject('no') end
        if how == 'wait' then pcall(function() ctx:sleep('1h') end) end
        while how == 'burn' do end
        while how == 'hungry' do table.insert(kept, string.rep(tostring(#kept), 100000)) end
    end }";

#[test]
fn a_version_is_freed_when_the_next_one_has_run() {
    let limits = Limits { cpu: Duration::from_millis(150), memory_bytes: 4 << 20, ..Limits::default() };
    let options = LoadOptions { limits, ..LoadOptions::default() };
    let mut rig = Rig::new(1, MemoryLedger::default());
    let mut versions: Vec<(String, Weak<Sources>)> = Vec::new();
    for (how, alone) in ENDS.into_iter().flat_map(|how| [(how, false), (how, true)]) {
        let version = format!("{how} {alone}");
        let program = program(&format!("{SCRIPT} -- {version}"), &options);
        let data = format!("{how:?}");
        let deliveries = [&*data, "\"wait\"", "\"done\""].into_iter().zip(1..);
        let deliveries = deliveries.map(|(data, n)| delivery(n, event(&format!("e{n}"), data)));
        rig.submit(&program, deliveries.collect(), alone);
        assert_eq!(rig.finished(3).len(), 3);
        versions.push((version, Arc::downgrade(&program.sources)));
    }
    // A VM holds the sources that it was made of; the last one may still be warm.
    versions.pop();
    let kept: Vec<_> = versions.iter().filter(|(_, sources)| sources.strong_count() > 0).collect();
    assert!(kept.is_empty(), "{} of {} are still in memory: {kept:?}", kept.len(), versions.len());
}
