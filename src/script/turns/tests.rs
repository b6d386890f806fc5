//! The order of polls, by what the runs themselves write down.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

use super::*;

type Log = Rc<RefCell<Vec<&'static str>>>;

struct Rig {
    turns: Turns<LocalBoxFuture<'static, ()>>,
    manners: Rc<Manners>,
    log: Log,
}

impl Rig {
    fn new() -> Self {
        Self { turns: Turns::new(Arc::default()), manners: Rc::default(), log: Rc::default() }
    }

    /// A run that uses up so many turns.
    fn busy(&mut self, name: &'static str, turns: usize) {
        let (log, manners, mut left) = (self.log.clone(), self.manners.clone(), turns);
        self.turns.push(Box::pin(poll_fn(move |cx| {
            log.borrow_mut().push(name);
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            manners.spent.set(true);
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
    }

    fn light(&mut self, name: &'static str) {
        let log = self.log.clone();
        self.turns.push(Box::pin(async move { log.borrow_mut().push(name) }));
    }

    /// One round, as a thread makes it; what it polled.
    fn round(&mut self) -> Vec<&'static str> {
        let cx = Context::from_waker(Waker::noop());
        self.turns.begin_round(&cx);
        while self.turns.poll_woken(&self.manners).is_some() {}
        let _ = self.turns.poll_preempted(&self.manners);
        self.turns.end_round(&cx);
        self.log.take()
    }
}

#[test]
fn a_new_run_is_polled_before_those_that_were_preempted() {
    let mut rig = Rig::new();
    rig.busy("a", 9);
    rig.busy("b", 9);
    assert_eq!(rig.round(), ["a"], "a round ends with the turn that was used up");
    assert_eq!(rig.round(), ["b"]);
    rig.light("new");
    rig.light("newer");
    assert_eq!(rig.round(), ["new", "newer", "a"], "a light run waits for one turn at most");
}

#[test]
fn a_run_that_is_woken_is_polled_before_those_that_were_preempted() {
    let mut rig = Rig::new();
    let (wake, woken) = oneshot::channel::<()>();
    let log = rig.log.clone();
    rig.turns.push(Box::pin(async move {
        woken.await.expect("the test wakes it");
        log.borrow_mut().push("woken");
    }));
    rig.busy("a", 9);
    rig.busy("b", 9);
    assert_eq!((rig.round(), rig.round()), (vec!["a"], vec!["b"]));
    wake.send(()).expect("it waits");
    assert_eq!(rig.round(), ["woken", "a"]);
}

#[test]
fn preempted_runs_have_their_turns_in_order() {
    let mut rig = Rig::new();
    ["a", "b", "c"].into_iter().for_each(|name| rig.busy(name, 3));
    let order: Vec<_> = (0..9).flat_map(|_| rig.round()).collect();
    assert_eq!(order, ["a", "b", "c", "a", "b", "c", "a", "b", "c"]);
    assert!(rig.turns.is_empty());
}

#[test]
fn a_flood_of_light_runs_leaves_preempted_ones_their_turns() {
    let mut rig = Rig::new();
    rig.busy("busy", 9);
    rig.round();
    (0..3 * WOKEN_MAX).for_each(|_| rig.light("light"));
    let first = rig.round();
    assert_eq!(first.last(), Some(&"busy"));
    assert!(first.len() <= WOKEN_MAX + 1, "{} polls", first.len());
    let rest: Vec<_> = (0..3).flat_map(|_| rig.round()).collect();
    assert_eq!(rest.iter().filter(|name| **name == "light").count() + first.len() - 1, 3 * WOKEN_MAX);
    assert_eq!(rest.iter().filter(|name| **name == "busy").count(), 3);
}

#[test]
fn a_flood_of_new_busy_runs_leaves_the_older_ones_their_turns() {
    let mut rig = Rig::new();
    rig.busy("old", 9);
    rig.round();
    (0..50).for_each(|_| rig.busy("new", 9));
    let order: Vec<_> = (0..5).flat_map(|_| rig.round()).collect();
    assert!(order.contains(&"old"), "{order:?}");
}

#[test]
fn a_preempted_run_gives_way_unless_its_turn_is_due() {
    let mut rig = Rig::new();
    let (log, manners) = (rig.log.clone(), rig.manners.clone());
    rig.turns.push(Box::pin(poll_fn(move |cx| {
        log.borrow_mut().push(if manners.gives_way.get() { "gives way" } else { "has its turn" });
        manners.spent.set(true);
        cx.waker().wake_by_ref();
        Poll::Pending
    })));
    assert_eq!(rig.round(), ["has its turn"], "the first turn is its own");
    assert_eq!(rig.round(), ["gives way"]);
    (0..2 * WOKEN_MAX).for_each(|_| rig.light("light"));
    assert_eq!(rig.round().last(), Some(&"has its turn"));
}

#[test]
fn a_run_that_could_not_be_left_and_waits_now_is_no_preempted_one() {
    let mut rig = Rig::new();
    let (wake, woken) = oneshot::channel::<()>();
    let (log, manners) = (rig.log.clone(), rig.manners.clone());
    rig.turns.push(Box::pin(async move {
        manners.spent.set(true);
        woken.await.expect("the test wakes it");
        log.borrow_mut().push("woken");
    }));
    rig.busy("busy", 9);
    assert_eq!(rig.round(), ["busy"]);
    wake.send(()).expect("it waits");
    assert_eq!(rig.round(), ["woken", "busy"]);
}

#[test]
fn a_late_call_for_a_run_that_ended_harms_nobody() {
    let mut rig = Rig::new();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let waker = kept.clone();
    rig.turns.push(Box::pin(poll_fn(move |cx| {
        *waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Ready(())
    })));
    rig.round();
    let waker = kept.take().expect("it was polled");
    waker.wake_by_ref();
    assert_eq!(rig.round(), Vec::<&str>::new());
    waker.wake_by_ref();
    rig.light("next");
    waker.wake_by_ref();
    assert_eq!(rig.round(), ["next"]);
    assert!(rig.turns.is_empty());
}
