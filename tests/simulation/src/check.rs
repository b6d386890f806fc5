//! What must hold when a history has ended: every event ended once, its effects are there once, every letter says why.

use moontide::bus::CRASH_BUDGET;
use moontide::judge::DeathReason;

use crate::editions::{ATTEMPTS, CHILD, GROUPS};
use crate::events::{CHILDREN, Number, number_of};
use crate::plan::{Plan, Script};
use crate::store::{Letter, Store};
use crate::truth::{Fate, Truth};
use crate::world::World;

/// Looks at everything; what is wrong is added to the truth.
pub fn check(world: &World) {
    let (store, mut truth) = (world.store.lock(), world.truth.lock());
    let mut wrong = Vec::new();
    for group in GROUPS {
        for number in expected(&world.plan, &truth, group) {
            let fate = truth.fates(group).get(&number).cloned().unwrap_or_default();
            wrong.extend(ended_once(&store, group, number, &fate));
            wrong.extend(ended_rightly(&world.plan, group, number, &fate).map(|text| ("I3", text)));
            wrong.extend(effects_once(&store, group, number, &fate).map(|text| ("I2", text)));
        }
    }
    wrong.extend(one_of_its_kind(&world.plan, &truth).map(|text| ("I2", text)));
    wrong.extend(children_once(&world.plan, &store, &truth).map(|text| ("I2", text)));
    wrong.extend(sums(&world.plan, &store, &truth).map(|text| ("I2", text)));
    wrong.extend(nothing_of_the_lost(&store, &truth).map(|text| ("I2", text)));
    wrong.extend(store.letters.iter().filter_map(says_why).map(|text| ("I5", text)));
    let blamed = GROUPS.into_iter().flat_map(|group| truth.fates(group).iter()).filter(|(number, fate)| {
        let is_killer = world.plan.events.get(**number).is_some_and(|planned| planned.script.is_killer());
        fate.reason == Some(DeathReason::Killer) && fate.blamed > 0 && !is_killer
    });
    let blamed = blamed.count();
    (0..blamed).for_each(|_| truth.tally("innocent given up: processes died under its mark, by others"));
    wrong.into_iter().for_each(|(invariant, text)| truth.violation(invariant, text));
}

/// The numbers that a group must have handled.
fn expected(plan: &Plan, truth: &Truth, group: &str) -> Vec<Number> {
    let of = |number: &Number| match plan.events.get(*number) {
        Some(planned) => planned.kind.strip_prefix("work.") == Some(group),
        None => group == "audit",
    };
    let is_there = |child: &Number| child.checked_sub(CHILDREN).is_some_and(|parent| truth.published.contains(&parent));
    let children = truth.fates("audit").keys().copied().filter(is_there);
    truth.published.iter().copied().chain(children).filter(of).collect()
}

fn ended_once(store: &Store, group: &str, number: Number, fate: &Fate) -> Option<(&'static str, String)> {
    match fate.ends() {
        1 => None,
        0 if store.waiting(group).contains(&number) => Some(("I4", format!("{number} is still waiting for {group}"))),
        0 => Some(("I1", format!("{number} vanished from {group}"))),
        ends => Some(("I1", format!("{number} ended {ends} times in {group}: {fate:?}"))),
    }
}

/// Whether it may have come to this end.
fn ended_rightly(plan: &Plan, group: &str, number: Number, fate: &Fate) -> Option<String> {
    let script = plan.events.get(number).map_or(Script::Count, |planned| planned.script);
    let wrong = |what: &str| Some(format!("{number} ({script:?}) {what} in {group}: {fate:?}"));
    if fate.counted >= ATTEMPTS {
        return wrong("had more attempts than it may");
    }
    if let Script::Kill { .. } | Script::Stuck { .. } = script
        && fate.killed > moontide::bus::ORPHANED_ALONE + CRASH_BUDGET
    {
        return wrong("ended more processes than it may");
    }
    if plan.is_calm() && fate.stuck > CRASH_BUDGET {
        return wrong("cost more threads than it may");
    }
    match fate.reason {
        Some(DeathReason::Killer) if fate.charged + fate.stuck < CRASH_BUDGET => wrong("is no killer"),
        Some(DeathReason::Killer) if !script.is_killer() && fate.blamed_beside > 0 => {
            wrong("was given up for another suspect")
        }
        Some(DeathReason::Killer) => None,
        Some(DeathReason::Exhausted) if fate.counted + 1 != ATTEMPTS => wrong("was given up too early"),
        Some(reason) if expected_death(script) != Some(reason) => wrong("was given up"),
        None if fate.commits > 0 && must_not_commit(script) => wrong("was committed"),
        _ => None,
    }
}

/// Why it is given up, if nothing else happens to it.
fn expected_death(script: Script) -> Option<DeathReason> {
    match script {
        Script::Fail { times } | Script::Ask { times, .. } | Script::Bomb { times } if times >= ATTEMPTS => {
            Some(DeathReason::Exhausted)
        }
        Script::Reject => Some(DeathReason::Rejected),
        Script::Garbage => Some(DeathReason::Undecodable),
        Script::NoKey | Script::AddToText => Some(DeathReason::Invalid),
        _ => None,
    }
}

fn must_not_commit(script: Script) -> bool {
    let never = u32::MAX;
    let kills = script == Script::Kill { times: never } || script == Script::Stuck { times: never };
    kills || expected_death(script).is_some()
}

/// Whether what it counts for itself is there once, if it was committed.
fn effects_once(store: &Store, group: &str, number: Number, fate: &Fate) -> Option<String> {
    let count = store.number(&format!("of/{group}/{number}")).unwrap_or(f64::NAN);
    (count != f64::from(fate.commits.min(1))).then(|| format!("{number} has {count} effects in {group}: {fate:?}"))
}

/// Of events with one idempotency key one is handled, and the others are skipped. The letter of a killer holds no key: nothing
/// was run that could say which it is.
fn one_of_its_kind<'a>(plan: &'a Plan, truth: &'a Truth) -> impl Iterator<Item = String> + 'a {
    let keys = (0..plan.events.len()).filter(|number| plan.events[*number].same_as == *number);
    keys.filter_map(|key| {
        let same = |number: &Number| plan.events[*number].same_as == key && truth.published.contains(number);
        let group = plan.events[key].kind.trim_start_matches("work.");
        let fates = (0..plan.events.len()).filter(same).filter_map(|number| truth.fates(group).get(&number));
        let (mut handled, mut killers, mut all) = (0, 0, 0);
        for fate in fates {
            let is_killer = fate.reason == Some(DeathReason::Killer);
            *if is_killer { &mut killers } else { &mut handled } += fate.commits + fate.letters;
            all += 1;
        }
        let is_wrong = all > 0 && handled != 1 && (handled > 1 || killers == 0);
        is_wrong.then(|| format!("{handled} of {all} events with the key of {key} were handled in {group}"))
    })
}

/// Every committed parent has its child, and nobody else has.
fn children_once(plan: &Plan, store: &Store, truth: &Truth) -> impl Iterator<Item = String> {
    let stream = store.streams.get(format!("events:{CHILD}").as_str());
    let born: Vec<Number> = stream.into_iter().flatten().map(|entry| number_of(&entry.event)).collect();
    let parents = truth.published.iter().filter_map(|number| {
        let planned = &plan.events[*number];
        let fate = truth.fates(planned.kind.trim_start_matches("work.")).get(number)?;
        let wanted = usize::from(fate.commits > 0 && planned.script.emits());
        let children = born.iter().filter(|child| **child == CHILDREN + number).count();
        (children != wanted).then(|| format!("{number} has {children} children, not {wanted}"))
    });
    parents.collect::<Vec<_>>().into_iter()
}

/// No increment was lost, none came twice.
fn sums(plan: &Plan, store: &Store, truth: &Truth) -> impl Iterator<Item = String> {
    let mut sums = std::collections::BTreeMap::<u8, u32>::new();
    for (number, planned) in plan.events.iter().enumerate() {
        let fate = truth.fates(planned.kind.trim_start_matches("work.")).get(&number);
        let commits = fate.map_or(0, |fate| fate.commits);
        planned.script.sums().into_iter().for_each(|key| *sums.entry(key).or_default() += commits);
    }
    let wrong = sums.into_iter().filter_map(|(key, commits)| {
        let sum = store.number(&format!("sum/{key}")).unwrap_or(f64::NAN);
        (sum != f64::from(commits)).then(|| format!("{commits} runs added one to sum/{key}, and it is {sum}"))
    });
    wrong.collect::<Vec<_>>().into_iter()
}

/// What was lost with the store left nothing in the new one.
fn nothing_of_the_lost(store: &Store, truth: &Truth) -> impl Iterator<Item = String> {
    let of =
        |number: &Number| GROUPS.into_iter().any(|group| store.state.contains_key(&format!("of/{group}/{number}")));
    let wrong = truth.lost.iter().filter(|number| of(number));
    wrong
        .map(|number| format!("{number} was lost with the store, and has effects in the new one"))
        .collect::<Vec<_>>()
        .into_iter()
}

/// A letter names handler, version, event and attempt, and says why.
fn says_why(letter: &Letter) -> Option<String> {
    let last = letter.failures.last();
    let says = last.is_some_and(|last| !last.failure.message.is_empty() && last.attempt == letter.attempts);
    let named = !letter.handler.is_empty() && !letter.version.is_empty() && letter.group == letter.handler;
    let ordered = letter.failures.is_sorted_by_key(|past| past.attempt);
    let counted = letter.reason != DeathReason::Exhausted || letter.failures.len() >= ATTEMPTS as usize;
    let complete = says && named && ordered && counted;
    (!complete).then(|| format!("the letter of {} says too little: {:?}", number_of(&letter.event), letter.failures))
}
