//! Processes that are killed and stopped while they work, on SQLite and, by `redis::process`, on servers.

use std::time::{Duration, Instant};

use crate::rig::{COUNT, Place, Rig, SINK};
use crate::support::{PATIENCE, event};

/// Asks to be killed when it meets the killer; everything else it counts.
const TRAP: &str = r#"
return {
    on = "trap",
    start = "earliest",
    handle = function(event, ctx)
        if event.data.n == 50 then
            log.warn("KILL ME")
            ctx:sleep("25s")
        end
        ctx:sleep("10ms")
        ctx.kv:add("innocent", 1)
    end,
}
"#;

/// Says when it does its work, and waits to be killed in the process that has done it.
const CHARGE: &str = r#"
local me = uuid.v4()
return {
    on = "charge",
    start = "earliest",
    handle = function(event, ctx)
        local by = ctx:step("charge", function()
            log.warn("CHARGED " .. event.data.n .. ";")
            return me
        end)
        if by == me then
            log.warn("KILL ME " .. event.data.n .. ";")
            ctx:sleep("25s")
        end
        ctx.kv:add("charged", 1)
    end,
}
"#;

pub async fn a_step_is_not_run_again_after_its_process_was_killed(place: Place) {
    const EVENTS: usize = 5;
    let rig = Rig::new(place, &[("charge", CHARGE)]).await;
    let mut worker = rig.start();
    rig.publish((0..EVENTS).map(|n| event("charge", n, &format!("{{\"n\":{n}}}"))).collect()).await;
    rig.until("every step is recorded", async || rig.said("KILL ME") == EVENTS).await;
    worker.kill();
    let _worker = rig.start();
    rig.quiet().await;
    assert_eq!(rig.state().await.get("charged"), Some(&(EVENTS as u64)));
    assert_eq!(rig.said("CHARGED"), EVENTS, "a step was run twice\n{}", rig.tail());
    assert_eq!(rig.dead_reasons().await, Vec::<&str>::new());
}

pub async fn one_process_killed_a_hundred_times(place: Place) {
    let mut rig = Rig::new(place, &[("count", COUNT), ("sink", SINK)]).await;
    for _ in 0..100 {
        rig.feed(25).await;
        let mut worker = rig.start();
        rig.pause(40..260).await;
        worker.kill();
    }
    let _worker = rig.start();
    rig.quiet().await;
    rig.check().await;
}

pub async fn two_processes_killed_in_turns(place: Place) {
    let mut rig = Rig::new(place, &[("count", COUNT), ("sink", SINK)]).await;
    let mut workers = [rig.start(), rig.start()];
    for round in 0..30 {
        rig.feed(60).await;
        rig.pause(50..400).await;
        workers[round % 2].kill();
        workers[round % 2] = rig.start();
    }
    rig.quiet().await;
    rig.check().await;
}

pub async fn an_event_that_kills_its_process_is_given_up_and_its_neighbours_are_not(place: Place) {
    let rig = Rig::new(place, &[("trap", TRAP)]).await;
    let events = (0..100).map(|n| event("trap", n, &format!("{{\"n\":{n}}}"))).collect();
    rig.publish(events).await;
    let mut deaths = 0;
    let mut worker = rig.start();
    let began = Instant::now();
    while rig.dead_reasons().await.is_empty() {
        let asked = rig.said("KILL ME");
        if asked > deaths {
            worker.kill();
            deaths = asked;
            worker = rig.start();
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{deaths} deaths\n{}", rig.tail());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rig.quiet().await;
    assert_eq!(rig.dead_reasons().await, ["killer"]);
    assert_eq!(rig.state().await.get("innocent"), Some(&99));
    assert_eq!(deaths, 4, "twice among others, twice alone");
}

/// Sets an alarm, replaces it, and takes it back.
const ALARM: &str = r#"
return {
    on = { "set", "reset", "off", "alarm" },
    start = "earliest",
    handle = function(event, ctx)
        local n = event.data.n
        ctx.kv:add(event.type .. "/" .. n, 1)
        ctx:cancel("alarm " .. n)
        if event.type == "set" or event.type == "reset" then
            ctx:emit("alarm", { n = n }, { id = "alarm " .. n, delay = "1h" })
            ctx:emit(if event.type == "set" then "reset" else "off", { n = n })
        end
    end,
}
"#;

pub async fn what_is_taken_back_stays_away_however_often_its_process_is_killed(place: Place) {
    const ROUND: u64 = 40;
    let mut rig = Rig::new(place, &[("alarm", ALARM)]).await;
    let rounds = 15;
    for round in 0..rounds {
        let numbers = round * ROUND..(round + 1) * ROUND;
        rig.publish(numbers.map(|n| event("set", n, &format!("{{\"n\":{n}}}"))).collect()).await;
        let mut worker = rig.start();
        rig.pause(40..260).await;
        worker.kill();
    }
    let _worker = rig.start();
    // An alarm that nobody took back would be left for an hour.
    rig.quiet().await;
    let state = rig.state().await;
    assert_eq!(state.len() as u64, 3 * rounds * ROUND, "each was set, reset and taken back, and none came: {state:?}");
    assert!(state.values().all(|times| *times == 1), "{state:?}");
    assert_eq!(rig.dead_reasons().await, Vec::<&str>::new());
}

/// Longer than recovery, and patience with a process that was stopped in the middle of a write.
const STOPPED: Duration = Duration::from_secs(15);

pub async fn what_a_stopped_process_still_does_when_it_goes_on_is_fenced(place: Place) {
    let slow = COUNT.replace("local n =", "ctx:sleep('400ms') local n =");
    let settings = "[groups]\nrecovery = \"1s\"\n[sqlite]\nsynchronous = \"normal\"";
    let mut rig = Rig::configured(place, &[("count", &slow), ("sink", SINK)], settings).await;
    let workers = [rig.start(), rig.start()];
    let fenced = "another process took this event over";
    for round in 0..10 {
        rig.feed(300).await;
        let zombie = &workers[round % 2];
        rig.pause(600..900).await;
        zombie.signal("STOP");
        // One that was stopped in the middle of a write holds SQLite's lock, and everybody waits for it.
        rig.quiet_within(STOPPED).await;
        zombie.signal("CONT");
        rig.quiet().await;
        if round >= 2 && rig.said(fenced) > 0 {
            break;
        }
    }
    rig.check().await;
    assert!(rig.said(fenced) > 0, "no process was ever stopped in the middle of a run\n{}", rig.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_on_a_file() {
    one_process_killed_a_hundred_times(Place::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_on_a_file() {
    a_step_is_not_run_again_after_its_process_was_killed(Place::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_file() {
    two_processes_killed_in_turns(Place::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killer_on_a_file() {
    an_event_that_kills_its_process_is_given_up_and_its_neighbours_are_not(Place::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_on_a_file() {
    what_is_taken_back_stays_away_however_often_its_process_is_killed(Place::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_on_a_file() {
    what_a_stopped_process_still_does_when_it_goes_on_is_fenced(Place::File).await;
}
