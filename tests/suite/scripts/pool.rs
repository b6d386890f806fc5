//! What takes more than one run to show: interleaving, neighbours, release, memory over many runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moontide::outcome::{FailureKind, Outcome, Release};
use moontide::script::{Finished, Limits, LoadOptions, Sources, load};

use super::rig::{MemoryLedger, Rig, delivery, event, program};

fn kind(finished: &Finished) -> Option<FailureKind> {
    match &finished.outcome {
        Outcome::Failed(failure) => Some(failure.kind),
        _ => None,
    }
}

fn done(finished: &Finished) -> bool {
    matches!(finished.outcome, Outcome::Done(_))
}

fn limits(limits: Limits) -> LoadOptions {
    LoadOptions { limits, ..LoadOptions::default() }
}

#[test]
fn waiting_runs_share_a_vm_and_go_on_in_turn() {
    // The first run can end only after the second one has run in the same VM.
    let text = "local seen = 0
        return function(event, ctx)
            seen += 1
            while seen < event.data do ctx:sleep('1ms') end
            ctx:emit('seen', seen)
        end";
    let mut rig = Rig::new(1, MemoryLedger::default());
    rig.submit_data(&program(text, &LoadOptions::default()), &["3", "3", "3"]);
    assert!(rig.finished(3).iter().all(done));
}

#[test]
fn a_busy_run_does_not_hold_up_its_neighbours() {
    // The busy run ends only when its neighbour has been.
    let text = "local other = false
        return function(event, ctx)
            if event.data == 'busy' then while not other do end else ctx:sleep('5ms') other = true end
        end";
    let mut rig = Rig::new(1, MemoryLedger::default());
    rig.submit_data(
        &program(text, &limits(Limits { cpu: Duration::from_secs(30), ..Limits::default() })),
        &["\"busy\"", "1"],
    );
    assert!(rig.finished(2).iter().all(done));
}

#[test]
fn a_neighbour_runs_again_and_again_while_another_is_busy() {
    // However long a slice may be on this machine: the busy run goes on until its neighbours, of its own and of another
    // handler, have had a hundred turns each.
    let busy = "local turns = 0
        return function(event, ctx)
            if event.data ~= 'busy' then turns += 1 return end
            while turns < 100 do end
        end";
    let options = limits(Limits { cpu: Duration::from_secs(60), ..Limits::default() });
    let sources = Arc::new(Sources::new([("light.luau".to_owned(), Arc::from("return function() end"))]));
    let light = Arc::new(load("light.luau", &sources, &options).expect("it loads"));
    let busy = program(busy, &options);
    let mut rig = Rig::new(1, MemoryLedger::default());
    rig.submit_data(&busy, &["\"busy\""]);
    for turn in 2..=101 {
        for program in [&light, &busy] {
            rig.submit(program, vec![delivery(turn, event("light", "1"))], false);
            if turn < 101 || Arc::ptr_eq(program, &light) {
                let finished = rig.finished(1);
                assert!(done(&finished[0]) && finished[0].delivery.lease.claim == turn, "{:?}", finished[0].outcome);
            }
        }
    }
    assert!(rig.finished(2).iter().all(done), "only now the busy one ends");
}

/// A text with so many keys, all in one place of Luau's hash tables: the hash has no seed, and its last steps can be solved.
fn colliding_keys(count: usize) -> Vec<String> {
    let step = |hash: u32, byte: u8| hash ^ (hash << 5).wrapping_add(hash >> 2).wrapping_add(u32::from(byte));
    let letters = || b'#'..b'[';
    let mut keys = Vec::new();
    for seed in 0.. {
        let tail = format!("{seed:05}");
        let begin = tail.bytes().rev().fold(3 + tail.len() as u32, step);
        for (second, third) in letters().flat_map(|second| letters().map(move |third| (second, third))) {
            let hash = step(step(begin, third), second);
            let first = letters().find(|first| step(hash, *first) & 0x3fff == 0);
            keys.extend(first.map(|first| format!("{}{}{}{tail}", first as char, second as char, third as char)));
            if keys.len() == count {
                return keys;
            }
        }
    }
    keys
}

#[test]
fn a_hash_flood_in_an_event_ends_by_the_runs_own_budget() {
    let keys: Vec<String> = colliding_keys(9_000).iter().map(|key| format!("{key:?}:1")).collect();
    let object = format!("{{{}}}", keys.join(","));
    let flood = format!("[{}]", [object.as_str(); 12].join(","));
    let program =
        program("return function() end", &limits(Limits { cpu: Duration::from_millis(200), ..Limits::default() }));
    let mut rig = Rig::new(1, MemoryLedger::default());
    rig.submit_data(&program, &[&flood, "1"]);
    let finished = rig.finished(2);
    assert_eq!(kind(&finished[0]), Some(FailureKind::Cpu), "{:?}", finished[0].outcome);
    assert!(finished[0].usage.cpu >= Duration::from_millis(200), "{:?}", finished[0].usage);
    assert!(done(&finished[1]));
}

#[test]
fn a_cpu_deadline_retires_the_vm_and_its_waiting_runs_finish() {
    let text = "local runs = 0
        return function(event, ctx)
            runs += 1
            if event.data == 'burn' then while true do pcall(function() while true do end end) end end
            if event.data == 'wait' then ctx.kv:get('k') end
            ctx:emit('runs', runs)
        end";
    let program = program(text, &limits(Limits { cpu: Duration::from_millis(200), ..Limits::default() }));
    let mut rig = Rig::new(1, MemoryLedger::default());
    let turn = rig.take_turn("k");
    rig.submit_data(&program, &["\"wait\"", "\"burn\""]);
    let first = rig.finished(1);
    assert_eq!(kind(&first[0]), Some(FailureKind::Cpu), "{:?}", first[0].outcome);
    drop(turn);
    rig.submit(&program, vec![delivery(9, event("e9", "1"))], false);
    let rest = rig.finished(2);
    let runs = |finished: &Finished| match &finished.outcome {
        Outcome::Done(effects) => effects.events[0].event.data.as_ref().map(|data| data.text().into_owned()),
        _ => None,
    };
    assert_eq!(runs(&rest[0]).as_deref(), Some("2"), "it finished in its old VM: {:?}", rest[0].outcome);
    assert_eq!(runs(&rest[1]).as_deref(), Some("1"), "it got a new VM: {:?}", rest[1].outcome);
}

#[test]
fn memory_charges_nobody_while_there_are_neighbours_and_the_culprit_when_alone() {
    let text = "return function(event, ctx)
            if event.data ~= 'hungry' then ctx.kv:get('k') return end
            ctx:sleep('5ms')
            local all = {}
            while true do
                pcall(function() table.insert(all, string.rep(tostring(#all), 100000)) end)
            end
        end";
    let most = Limits { memory_bytes: 4 << 20, cpu: Duration::from_secs(60), ..Limits::default() };
    let program = program(text, &limits(most));
    let mut rig = Rig::new(1, MemoryLedger::default());
    let turn = rig.take_turn("k");
    rig.submit_data(&program, &["\"hungry\"", "1", "2"]);
    let together = rig.finished(3);
    let neighbour = |finished: &Finished| finished.outcome == Outcome::Released(Release::Neighbour);
    assert!(together.iter().all(neighbour), "{:?}", together.iter().map(|run| &run.outcome).collect::<Vec<_>>());

    drop(turn);
    let again = ["\"hungry\"", "1"].iter().zip(1..).map(|(data, n)| delivery(n, event(&format!("e{n}"), data)));
    rig.submit(&program, again.collect(), true);
    let alone = rig.finished(2);
    assert_eq!(kind(&alone[0]), Some(FailureKind::Memory), "{:?}", alone[0].outcome);
    assert!(done(&alone[1]));
}

#[test]
fn release_ends_what_runs_waits_and_comes_later() {
    let text = "return function(event, ctx)
            if event.data == 'busy' then while true do end end
            ctx:sleep('1h')
        end";
    let options = limits(Limits { cpu: Duration::from_secs(3600), ..Limits::default() });
    let program = program(text, &options);
    let mut rig = Rig::new(2, MemoryLedger::default());
    rig.submit_data(&program, &["\"busy\"", "1", "2", "3"]);
    rig.pool().release_all();
    rig.submit(&program, vec![delivery(9, event("e9", "1"))], false);
    let released = |finished: &Finished| finished.outcome == Outcome::Released(Release::Stopping);
    assert!(rig.finished(5).iter().all(released));
}

#[test]
fn a_newer_version_gets_its_own_vm_while_the_old_one_finishes() {
    let old = program("return function(event, ctx) ctx:sleep('30ms') ctx:emit('old', 1) end", &LoadOptions::default());
    let new = program("return function(event, ctx) ctx:emit('new', 1) end", &LoadOptions::default());
    assert_ne!(old.version, new.version);
    let mut rig = Rig::new(1, MemoryLedger::default());
    rig.submit(&old, vec![delivery(1, event("e1", "1"))], false);
    rig.submit(&new, vec![delivery(2, event("e2", "1"))], false);
    rig.submit(&old, vec![delivery(3, event("e3", "1"))], false);
    let kinds: Vec<String> = rig
        .finished(3)
        .into_iter()
        .map(|finished| match finished.outcome {
            Outcome::Done(effects) => effects.events[0].event.kind.clone(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["old", "new", "old"]);
}

#[test]
fn many_deliveries_ask_the_ledger_few_questions() {
    let ledger = Arc::new(MemoryLedger {
        state: HashMap::from([("k".to_owned(), bytes::Bytes::from_static(b"1"))]),
        ..MemoryLedger::default()
    });
    let program = program("return function(event, ctx) ctx.kv:get('k') end", &LoadOptions::default());
    let mut rig = Rig::over(1, ledger.clone());
    let deliveries = (1..=256).map(|n| delivery(n, event(&format!("e{n}"), "1"))).collect();
    rig.submit(&program, deliveries, false);
    assert!(rig.finished(256).iter().all(done));
    let asked = ledger.asked.load(std::sync::atomic::Ordering::SeqCst);
    assert!(asked <= 20, "{asked} questions for 256 runs with a record and a read each");
}

#[test]
fn nothing_of_a_run_stays_in_its_vm() {
    let text = "local function used() local t = table.create(1) return t end
        return function(event, ctx)
            ctx:emit('a', event.data)
            ctx.kv:set('k', (ctx.kv:get('k') or 0) + 1)
            pcall(error, { used() })
            if event.data.fail then error({ code = 1 }) end
        end";
    // So little that anything kept of each run would hit the limit long before the end.
    let program = program(text, &limits(Limits { memory_bytes: 3 << 20, ..Limits::default() }));
    let mut rig = Rig::new(1, MemoryLedger::default());
    for _ in 0..500 {
        let data = |n| if n % 10 == 0 { r#"{"fail": true, "list": [1, 2, 3]}"# } else { r#"{"list": ["a", "b"]}"# };
        rig.submit(&program, (1..=200).map(|n| delivery(n, event(&format!("e{n}"), data(n)))).collect(), false);
        for finished in rig.finished(200) {
            let expected = if finished.delivery.lease.claim % 10 == 0 { Some(FailureKind::Error) } else { None };
            assert_eq!(kind(&finished), expected, "{:?}", finished.outcome);
        }
    }
}

#[test]
fn a_source_that_is_too_large_is_not_compiled() {
    let text = format!("{} return function() end", " ".repeat(600 << 10));
    let sources = Arc::new(Sources::new([("work.luau".to_owned(), Arc::from(text))]));
    let error = load("work.luau", &sources, &LoadOptions::default()).expect_err("it is too large");
    assert_eq!(error.problems, ["work.luau has 614422 bytes; a file has at most 524288"]);
}

#[test]
fn a_program_is_named_and_versioned_by_its_file_and_modules() {
    let load = |module: &str| {
        let files = [("a/b.luau", "require('@lib/m') return function() end"), ("lib/m.luau", module), ("c.luau", "")];
        let sources = Sources::new(files.map(|(path, text)| (path.to_owned(), Arc::from(text))));
        load("a/b.luau", &Arc::new(sources), &LoadOptions::default()).expect("it loads")
    };
    let (one, same, other) = (load("return 1"), load("return 1"), load("return 2"));
    assert_eq!((&*one.name, one.version.len(), one.modules.as_slice()), ("a/b", 12, &["lib/m.luau".to_owned()][..]));
    assert_eq!(one.version, same.version);
    assert_ne!(one.version, other.version);
}

#[test]
fn dropping_a_pool_ends_a_busy_run() {
    let program = program(
        "return function(event, ctx) while true do pcall(function() while true do end end) end end",
        &limits(Limits { cpu: Duration::from_secs(3600), ..Limits::default() }),
    );
    let mut rig = Rig::new(1, MemoryLedger::default());
    rig.submit_data(&program, &["1"]);
    rig = rig.without_pool();
    assert_eq!(rig.finished(1)[0].outcome, Outcome::Released(Release::Stopping));
}

#[test]
fn a_run_that_read_a_hot_key_holds_its_turn_until_it_is_settled() {
    let program = program("return function(event, ctx) ctx.kv:get('k') end", &LoadOptions::default());
    let mut rig = Rig::new(1, MemoryLedger::default());
    rig.hot.mark("k");
    rig.submit_data(&program, &["1", "2"]);
    let first = rig.finished(1);
    assert_eq!(first[0].held.len(), 1);
    drop(first);
    let second = rig.finished(1);
    assert!(done(&second[0]) && second[0].held.len() == 1);
}

#[test]
fn a_run_that_waits_for_a_turn_can_time_out() {
    let text = "return { timeout = '20ms', handle = function(event, ctx) ctx.kv:get('k') end }";
    let mut rig = Rig::new(1, MemoryLedger::default());
    let _turn = rig.take_turn("k");
    rig.submit_data(&program(text, &LoadOptions::default()), &["1"]);
    let finished = rig.finished(1);
    assert_eq!(kind(&finished[0]), Some(FailureKind::Timeout), "{:?}", finished[0].outcome);
    assert!(finished[0].held.is_empty());
}
