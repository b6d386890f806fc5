//! Processes that are killed, stopped and told to end while they work on a server.

use std::time::{Duration, Instant};

use super::storm::consumers_do_not_pile_up;
use crate::crash;
use crate::cycles;
use crate::rig::{COUNT, Place, Rig, SINK};
use crate::support::event;
use moontide_stage::process::Process;
use moontide_stage::proxy::{Mode, Proxy, Way};
use moontide_stage::server::{Kind, Server};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills() {
    crash::one_process_killed_a_hundred_times(Place::server(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_server() {
    crash::two_processes_killed_in_turns(Place::server(Kind::Valkey)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killer() {
    crash::an_event_that_kills_its_process_is_given_up_and_its_neighbours_are_not(Place::server(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step() {
    crash::a_step_is_not_run_again_after_its_process_was_killed(Place::server(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process() {
    crash::what_a_stopped_process_still_does_when_it_goes_on_is_fenced(Place::server(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels() {
    crash::what_is_taken_back_stays_away_however_often_its_process_is_killed(Place::server(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle() {
    let layouts = ["event_data", "event_data"];
    cycles::a_cycle_ends_as_a_dead_letter_that_shows_its_chain(Place::server(Kind::Redis), layouts).await;
    let layouts = ["payload", "aggregate"];
    cycles::a_cycle_ends_as_a_dead_letter_that_shows_its_chain(Place::server(Kind::Valkey), layouts).await;
}

/// Sleeps for long, as long as the state says so.
const SLOW: &str = r#"
return {
    on = "job",
    start = "earliest",
    concurrency = 4,
    handle = function(event, ctx)
        if ctx.kv:get("slow") then
            log.warn("BEGUN")
            ctx:sleep("25s")
        end
        ctx.kv:add("attempt/" .. ctx.attempt, 1)
    end,
}
"#;
const STREAM: &str = "events:job";
const GROUP: &str = "job";
const JOBS: u64 = 100;
/// Runs of one process at a time.
const RUNNING: usize = 4;

/// One process that is in the middle of runs and has more in its buffer; then another one, which has nothing left to do.
async fn busy_and_idle(settings: &str) -> (Rig, Process, Process) {
    let rig = Rig::configured(Place::server(Kind::Redis), &[("job", SLOW)], settings).await;
    rig.server().call(&["SET", "state:slow", "true"]);
    let busy = rig.start_with(&["--name", "busy"]);
    rig.publish((0..JOBS).map(|n| event("job", n, "{}")).collect()).await;
    let in_hand = || pending(rig.server(), "moontide:busy:").len();
    rig.until("it is busy", async || rig.said("BEGUN") == RUNNING && in_hand() > RUNNING).await;
    rig.server().call(&["DEL", "state:slow"]);
    let idle = rig.start_with(&["--name", "idle"]);
    rig.until("the other one is idle", async || {
        let done: Option<u64> = rig.server().get(&["GET", "state:attempt/1"]);
        pending(rig.server(), "moontide:idle:").is_empty()
            && done.unwrap_or_default() + pending(rig.server(), "moontide:busy:").len() as u64 == JOBS
    })
    .await;
    (rig, busy, idle)
}

/// How often each pending entry of the consumers whose names begin so was delivered.
fn pending(server: &Server, consumer: &str) -> Vec<i64> {
    let Ok(found) = server.try_call(&["XPENDING", STREAM, GROUP, "-", "+", "100000"]) else { return Vec::new() };
    let rows: Vec<(String, String, i64, i64)> = redis::from_redis_value(found).expect("it has rows");
    rows.into_iter().filter(|(_, owner, ..)| owner.starts_with(consumer)).map(|(.., times)| times).collect()
}

/// Every job is done, each at its first attempt, once.
async fn check_jobs(rig: &Rig) {
    assert_eq!(rig.state().await, [("attempt/1".to_owned(), JOBS)].into(), "{}", rig.tail());
    assert_eq!(rig.server().get::<u64>(&["EXISTS", "moontide:marks:job"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_end_gives_the_rest_back_at_once_and_uncharged() {
    let (rig, mut busy, idle) = busy_and_idle("[run]\ngrace = \"500ms\"").await;
    let in_hand = pending(rig.server(), "moontide:busy:").len();
    idle.signal("STOP");
    let began = Instant::now();
    busy.signal("TERM");
    rig.until("what it did not begin goes back", async || pending(rig.server(), "moontide:busy:").len() == RUNNING)
        .await;
    println!("given back {:?} after SIGTERM: {}", began.elapsed(), in_hand - RUNNING);
    busy.ended();
    println!("ended {:?} after SIGTERM", began.elapsed());
    let free = pending(rig.server(), "moontide:free");
    assert_eq!(free, vec![1; in_hand], "all of it, and as if nobody had had it");
    let began = Instant::now();
    idle.signal("CONT");
    rig.quiet().await;
    println!("taken over and done in {:?}", began.elapsed());
    check_jobs(&rig).await;
    consumers_do_not_pile_up(&rig, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_end_while_it_starts_ends_in_order() {
    let rig = Rig::new(Place::server(Kind::Redis), &[("count", COUNT)]).await;
    let proxy = Proxy::before(rig.server().port()).await;
    proxy.set(Way::ToClient, Mode::Hold);
    let mut process = rig.start_with(&["--bus", &proxy.url()]);
    rig.until("it asks the server", async || proxy.accepted() > 0).await;
    process.signal("TERM");
    proxy.heal();
    process.ended();
    assert_eq!(rig.said("stopping; a second signal stops at once"), 1, "{}", rig.tail());
    assert_eq!(rig.said("the grace time"), 0, "nothing was to be waited for: {}", rig.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_the_dead_is_taken_over_at_once_on_one_machine() {
    let (rig, mut busy, _idle) = busy_and_idle("[groups]\nrecovery = \"60s\"").await;
    // Right after a heartbeat: the others have not seen it.
    let beats = || rig.server().get::<std::collections::HashMap<String, i64>>(&["HGETALL", "moontide:beats"]);
    let beaten = || beats().into_iter().find(|(name, _)| name.starts_with("busy:")).map(|(_, beat)| beat);
    rig.until("its heart has beaten", async || beaten() == Some(3)).await;
    let began = Instant::now();
    busy.kill();
    rig.quiet().await;
    println!("taken over and done {:?} after SIGKILL", began.elapsed());
    check_jobs(&rig).await;
}

/// The kernel says that a stopped process lives; so its heartbeat decides, as for a process on another machine.
#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_the_silent_is_taken_over_after_the_recovery_time() {
    let (rig, busy, _idle) = busy_and_idle("[groups]\nrecovery = \"1s\"").await;
    let began = Instant::now();
    busy.signal("STOP");
    rig.quiet().await;
    println!("taken over and done {:?} after SIGSTOP, recovery time 1 s", began.elapsed());
    assert!(began.elapsed() >= Duration::from_millis(750), "it was taken over while it might have lived");
    busy.signal("CONT");
    check_jobs(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_again_under_its_name_goes_on_at_once() {
    let (rig, mut busy, mut idle) = busy_and_idle("").await;
    idle.kill();
    let began = Instant::now();
    busy.kill();
    let _again = rig.start_with(&["--name", "busy"]);
    rig.quiet().await;
    println!("started again and done {:?} after SIGKILL", began.elapsed());
    check_jobs(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_one_name_are_two() {
    let mut rig = Rig::new(Place::server(Kind::Redis), &[("count", COUNT), ("sink", SINK)]).await;
    let mut twins = [rig.start_with(&["--name", "twin"]), rig.start_with(&["--name", "twin"])];
    let known = || rig.server().get::<Vec<String>>(&["HKEYS", "moontide:processes"]);
    rig.until("both are there", async || known().iter().filter(|name| name.starts_with("twin:")).count() == 2).await;
    rig.feed(500).await;
    rig.pause(20..200).await;
    twins[0].kill();
    rig.quiet().await;
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_restarts_leave_nothing_behind() {
    let mut rig = Rig::new(Place::server(Kind::Redis), &[("count", COUNT), ("sink", SINK)]).await;
    for round in 0..50 {
        rig.feed(10).await;
        let mut worker = rig.start();
        rig.pause(20..120).await;
        match round % 2 {
            0 => worker.kill(),
            _ => worker.signal("TERM"),
        }
    }
    let _worker = rig.start();
    rig.quiet().await;
    rig.check().await;
    consumers_do_not_pile_up(&rig, 1).await;
}

/// One that reads and never acknowledges, as a service written in another language might.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_consumer_of_the_same_group_is_not_robbed() {
    let rig = Rig::configured(Place::server(Kind::Redis), &[("job", SLOW)], "[groups]\nrecovery = \"1s\"").await;
    let server = rig.server();
    server.call(&["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    rig.publish((0..JOBS).map(|n| event("job", n, "{}")).collect()).await;
    server.call(&["XREADGROUP", "GROUP", GROUP, "python-1", "COUNT", "10", "STREAMS", STREAM, ">"]);
    let theirs =
        || server.get::<Vec<(String, String, i64, i64)>>(&["XPENDING", STREAM, GROUP, "-", "+", "100", "python-1"]);
    let before: Vec<_> = theirs().into_iter().map(|(entry, owner, _, times)| (entry, owner, times)).collect();
    assert_eq!(before.len(), 10);
    let mut workers = [rig.start(), rig.start()];
    let done = || server.get::<Option<u64>>(&["GET", "state:attempt/1"]).unwrap_or_default();
    rig.until("the rest is done", async || done() == JOBS - 10).await;
    // Those who come after a death look for what was left behind.
    workers[0].kill();
    workers[0] = rig.start();
    let silent = Instant::now() + Duration::from_secs(2);
    rig.until("it was silent for longer than the recovery time", async || Instant::now() > silent).await;
    let after: Vec<_> = theirs().into_iter().map(|(entry, owner, _, times)| (entry, owner, times)).collect();
    assert_eq!(after, before);
    assert_eq!(done(), JOBS - 10);
    for (entry, ..) in before {
        server.call(&["XACK", STREAM, GROUP, &entry]);
    }
    rig.quiet().await;
}
