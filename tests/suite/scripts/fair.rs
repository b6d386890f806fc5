//! Busy runs and their neighbours on one thread.

use std::sync::Arc;
use std::time::Duration;

use moontide::outcome::Outcome;
use moontide::script::{Finished, Limits, LoadOptions, Program};

use super::rig::{MemoryLedger, Rig, delivery, event, program};

/// Budgets that nobody here uses up.
fn patient() -> LoadOptions {
    let limits = Limits { cpu: Duration::from_secs(3600), ..Limits::default() };
    LoadOptions { limits, ..LoadOptions::default() }
}

fn submit(rig: &Rig, program: &Arc<Program>, number: u64, data: &str) {
    rig.submit(program, vec![delivery(number, event(&format!("e{number}"), data))], false);
}

fn numbers(finished: &[Finished]) -> Vec<u64> {
    finished.iter().map(|finished| finished.delivery.lease.claim).collect()
}

fn emitted(finished: &Finished) -> Option<String> {
    let Outcome::Done(effects) = &finished.outcome else { return None };
    Some(effects.events.first()?.event.data.as_ref()?.text().into_owned())
}

#[test]
fn light_runs_come_and_go_while_every_thread_is_busy() {
    let busy = program("return function() while true do end end", &patient());
    let light = program("return function(event, ctx) ctx:sleep('1ms') ctx:emit('a', 1) end", &patient());
    let mut rig = Rig::new(2, MemoryLedger::default());
    (1..=8).for_each(|number| submit(&rig, &busy, number, "1"));
    for number in 100..200 {
        submit(&rig, &light, number, "1");
        assert_eq!(numbers(&rig.finished(1)), [number]);
    }
    rig.pool().release_all();
    assert_eq!(numbers(&rig.finished(8)), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn busy_runs_end_although_light_ones_keep_coming() {
    let text = "return function(event, ctx) local n = 0 while n < event.data do n += 1 end ctx:emit('a', n) end";
    let (busy, light) = (program(text, &patient()), program("return function() end", &patient()));
    let mut rig = Rig::new(1, MemoryLedger::default());
    submit(&rig, &busy, 1, "1000000");
    let mut number = 100;
    loop {
        rig.submit(&light, (number..number + 200).map(|n| delivery(n, event("e", "1"))).collect(), false);
        number += 200;
        let finished = rig.finished(1);
        if let Some(busy) = finished.iter().find(|finished| finished.delivery.lease.claim == 1) {
            assert_eq!(emitted(busy).as_deref(), Some("1000000"));
            return;
        }
        assert!(number < 2_000_000, "it never had a turn");
    }
}

#[test]
fn the_top_level_of_a_file_holds_up_nobody_and_runs_once_for_all_who_wait_for_it() {
    let text = "local n, runs = 0, 0
        for i = 1, 3000000 do n += 1 end
        return function(event, ctx) runs += 1 ctx:emit('a', runs) end";
    let (slow, light) = (program(text, &patient()), program("return function() end", &patient()));
    let mut rig = Rig::new(1, MemoryLedger::default());
    (1..=3).for_each(|number| submit(&rig, &slow, number, "1"));
    submit(&rig, &light, 100, "1");
    assert_eq!(numbers(&rig.finished(1)), [100]);
    let mut runs: Vec<_> = rig.finished(3).iter().filter_map(emitted).collect();
    runs.sort();
    assert_eq!(runs, ["1", "2", "3"], "in one VM");
}

#[test]
fn a_run_can_end_while_its_vm_is_made_and_the_next_one_makes_it() {
    let text = "for i = 1, 3000000 do end
        return { timeout = event_timeout, handle = function(event, ctx) ctx:emit('a', 1) end }";
    let with = |timeout: &str| program(&text.replace("event_timeout", timeout), &patient());
    let (hasty, slow) = (with("'1ms'"), with("'1h'"));
    let mut rig = Rig::new(1, MemoryLedger::default());
    submit(&rig, &hasty, 1, "1");
    submit(&rig, &slow, 2, "1");
    let finished = rig.finished(2);
    assert!(matches!(&finished[0].outcome, Outcome::Failed(_)), "{:?}", finished[0].outcome);
    assert_eq!(emitted(&finished[1]).as_deref(), Some("1"), "{:?}", finished[1].outcome);
}
