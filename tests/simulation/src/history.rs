//! One history: a world, its processes, what happens to them, and the look at what is left.

use std::sync::Arc;
use std::time::Duration;

use moontide::event::Json;
use moontide::outcome::Emit;
use tokio::runtime::Builder;

use crate::check::check;
use crate::editions;
use crate::events::{event, garbage};
use crate::flaw::Flaw;
use crate::plan::{Fault, Plan, SPAN, Script};
use crate::process::{Process, Standing};
use crate::store::Elapsed;
use crate::trace::{Step, Trace};
use crate::truth::Truth;
use crate::world::{TEXT, World};

/// When all faults are over, everything has ended within so many milliseconds, delays of the store's clock aside.
const QUIET_MAX: Elapsed = 600_000;
/// Steps of a history that never ends by itself.
const STEPS_MAX: usize = 200_000;

/// What a history came to.
pub struct History {
    pub truth: Truth,
    pub trace: Trace,
    /// How long it took, in its own time.
    pub lasted: Elapsed,
    /// Of that: from the last fault until everything had ended.
    pub quiet_after: Elapsed,
    pub events: u64,
}

/// Lets the history of a seed happen; `flaw`: what the model does wrong in it.
pub fn happen(seed: u64, flaw: Option<Flaw>) -> History {
    let runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("it needs no resources");
    runtime.block_on(async {
        let world = Arc::new(World::new(Plan::of(seed), seed, flaw));
        let quiet_after = live(&world).await;
        check(&world);
        // It holds the world, and the world it.
        world.processes.lock().clear();
        let truth = std::mem::take(&mut *world.truth.lock());
        let trace = std::mem::take(&mut *world.trace.lock());
        let events = (truth.published.len() + truth.lost.len()) as u64;
        History { truth, trace, lasted: world.elapsed(), quiet_after, events }
    })
}

/// From the first event to the last; answers how long it took to become quiet.
async fn live(world: &Arc<World>) -> Elapsed {
    fill(world);
    tokio::spawn(move_due(world.clone()));
    for slot in 0..world.plan.processes {
        world.processes.lock().insert(slot, Process::start(world, editions::first(0)));
        tokio::spawn(keep_alive(world.clone(), slot));
    }
    let publishing = tokio::spawn(publish(world.clone()));
    let faults = tokio::spawn(faults(world.clone()));
    for part in [publishing, faults] {
        if let Err(defect) = part.await {
            std::panic::resume_unwind(defect.into_panic());
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    mend(world);
    let mended = world.elapsed();
    let bound = QUIET_MAX + world.store.lock().all_due_in(mended);
    let _ = tokio::time::timeout(Duration::from_millis(bound as u64), quiet(world)).await;
    world.elapsed() - mended
}

/// What is in the store from the beginning.
fn fill(world: &World) {
    world.store.lock().set(TEXT, &Json::trusted("\"a text\""));
}

async fn quiet(world: &World) {
    loop {
        let over = world.trace.lock().len() > STEPS_MAX;
        if over || world.store.lock().is_quiet() {
            return;
        }
        world.changed.notified().await;
    }
}

/// Moves delayed work as soon as it is due.
async fn move_due(world: Arc<World>) {
    loop {
        let next = world.store.lock().due_in(world.elapsed());
        let wait = async {
            match next {
                Some(millis) => tokio::time::sleep(Duration::from_millis(millis as u64)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = world.due.notified() => {}
            () = wait => {}
        }
        world.store.lock().move_due(world.elapsed());
        world.spread_news();
    }
}

/// Starts a process anew whenever it has ended.
async fn keep_alive(world: Arc<World>, slot: usize) {
    loop {
        let process = world.processes.lock()[&slot].clone();
        let gone = process.standing() == Standing::Dead || process.is_closed();
        if gone {
            let millis = world.below(world.plan.restart_max + 1);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let next = Process::start(&world, world.edition_after(&process));
            world.processes.lock().insert(slot, next);
        } else {
            process.gone.notified().await;
        }
    }
}

async fn publish(world: Arc<World>) {
    for (number, planned) in world.plan.events.iter().enumerate() {
        until(&world, planned.at).await;
        let stream = format!("events:{}", planned.kind);
        world.note(Step::Published(number));
        world.truth.lock().published.push(number);
        let mut store = world.store.lock();
        match planned.script {
            Script::Garbage => store.publish_garbage(&stream, garbage(number)),
            _ => {
                let event = event(number, &format!("event-{}", planned.same_as), planned.kind);
                store.publish(vec![Emit { stream, event, delay: None }], world.elapsed());
            }
        }
        drop(store);
        world.spread_news();
    }
}

async fn until(world: &World, at: Elapsed) {
    let wait = (at - world.elapsed()).max(0) as u64;
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

async fn faults(world: Arc<World>) {
    let mut ends = Vec::new();
    for (at, fault) in world.plan.faults.clone() {
        until(&world, at).await;
        world.note(Step::Fault(fault));
        if let Some(end) = begin(&world, fault) {
            let world = world.clone();
            ends.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(end)).await;
                over(&world, fault);
            }));
        }
    }
    until(&world, SPAN).await;
    for end in ends {
        let _ = end.await;
    }
}

/// A fault begins; answers in how many milliseconds it is over.
fn begin(world: &Arc<World>, fault: Fault) -> Option<u64> {
    let at = |slot: usize| world.processes.lock()[&slot].clone();
    match fault {
        Fault::Kill { slot } => at(slot).kill(None),
        Fault::Stop { slot } => at(slot).stop(),
        Fault::Reload { slot, folder } => at(slot).reload(folder),
        Fault::ProcessClock { slot, millis } => at(slot).step_clock(millis),
        Fault::StoreClock { millis } => {
            world.store.lock().step_clock(millis);
            world.spread_news();
        }
        Fault::Reset => reset(world),
        Fault::Stall { slot, millis } => {
            let process = at(slot);
            process.freeze();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                process.thaw();
            });
        }
        Fault::Cut { slot: Some(slot), millis, silent } => {
            *at(slot).cut.lock() = Some(silent);
            at(slot).weigh();
            return Some(millis);
        }
        Fault::Cut { slot: None, millis, silent } => {
            *world.cut.lock() = Some(silent);
            world.weigh_all();
            return Some(millis);
        }
        Fault::RefuseLetters { millis } => {
            *world.refuses_letters.lock() = true;
            return Some(millis);
        }
    }
    None
}

fn over(world: &World, fault: Fault) {
    match fault {
        Fault::Cut { slot: Some(slot), .. } => *world.processes.lock()[&slot].cut.lock() = None,
        Fault::Cut { slot: None, .. } => *world.cut.lock() = None,
        Fault::RefuseLetters { .. } => *world.refuses_letters.lock() = false,
        _ => {}
    }
    world.weigh_all();
}

fn reset(world: &World) {
    world.store.lock().reset();
    world.truth.lock().reset();
    fill(world);
    world.spread_news();
}

/// No fault goes on, and all handlers are there.
fn mend(world: &World) {
    *world.mended.lock() = true;
    for process in world.processes.lock().values() {
        process.thaw();
        process.reload(0);
    }
}
