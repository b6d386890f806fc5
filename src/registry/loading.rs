//! Loads several files at a time, and says what is waited for.
//!
//! Owns how many at a time: no more than there are processors, because a file's budget is wall time. Knows nothing of what
//! loading means.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, available_parallelism, scope};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long one waits without a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// Luau's parser goes deep: as deep as on a script thread.
const STACK_BYTES: usize = 8 << 20;

/// Does `work` on each of `jobs`, at the same time, and answers in their order; names of what it waits for go to the log.
pub(super) fn load_all<J: Sync, R: Send>(
    jobs: &[J],
    name: impl Fn(&J) -> &str,
    work: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    let threads = available_parallelism().map_or(1, usize::from);
    let tell = |waits: &[usize], left: usize| {
        let names: Vec<&str> = waits.iter().map(|at| name(&jobs[*at])).collect();
        tracing::warn!("still loading {}; {left} of {} files are not loaded yet", names.join(", "), jobs.len());
    };
    each(jobs, threads, PATIENCE, work, tell)
}

fn each<J: Sync, R: Send>(
    jobs: &[J],
    threads: usize,
    patience: Duration,
    work: impl Fn(&J) -> R + Sync,
    tell: impl Fn(&[usize], usize),
) -> Vec<R> {
    let desk = Desk { jobs, next: AtomicUsize::new(0), under_way: Mutex::default(), work };
    let (sender, done) = channel();
    let mut results: Vec<Option<R>> = jobs.iter().map(|_| None).collect();
    scope(|scope| {
        let desk = &desk;
        let spawn = |_: &usize| {
            let sender = sender.clone();
            let thread = Builder::new().name("load".into()).stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, move || desk.work_off(&sender)).is_ok()
        };
        let spawned = (0..threads.min(jobs.len())).take_while(spawn).count();
        if spawned == 0 {
            desk.work_off(&sender);
        }
        drop(sender);
        let (mut left, mut tell_at) = (jobs.len(), Instant::now() + patience);
        loop {
            match done.recv_timeout(tell_at.saturating_duration_since(Instant::now())) {
                Ok((at, result)) => (results[at], left) = (Some(result), left - 1),
                Err(RecvTimeoutError::Timeout) => {
                    tell(&desk.under_way.lock().iter().copied().collect::<Vec<_>>(), left);
                    tell_at = Instant::now() + patience;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    // None is missing: where a thread panicked, the scope did.
    results.into_iter().flatten().collect()
}

/// What the threads share.
struct Desk<'a, J, W> {
    jobs: &'a [J],
    next: AtomicUsize,
    under_way: Mutex<BTreeSet<usize>>,
    work: W,
}

impl<J, R, W: Fn(&J) -> R> Desk<'_, J, W> {
    fn work_off(&self, done: &Sender<(usize, R)>) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = self.jobs.get(at) else { return };
            self.under_way.lock().insert(at);
            let result = (self.work)(job);
            self.under_way.lock().remove(&at);
            // Whoever waits holds the other end.
            drop(done.send((at, result)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn two_are_under_way_at_a_time_and_the_answers_come_in_order() {
        let (to_second, from_first) = channel::<()>();
        let (to_first, from_second) = channel::<()>();
        let ends = [(to_second, from_second), (to_first, from_first)].map(Mutex::new);
        let meet = |end: &Mutex<(Sender<()>, Receiver<()>)>| {
            let end = end.lock();
            end.0.send(()).is_ok() && end.1.recv_timeout(LONG).is_ok()
        };
        let met = each(&[0, 1], 2, LONG, |at| (*at, meet(&ends[*at])), |_, _| {});
        assert_eq!(met, [(0, true), (1, true)]);
    }

    #[test]
    fn no_more_are_under_way_than_threads_and_none_is_missed() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let jobs: Vec<usize> = (0..200).collect();
        let work = |at: &usize| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            now.fetch_sub(1, Ordering::SeqCst);
            at * 2
        };
        assert_eq!(each(&jobs, 3, LONG, work, |_, _| {}), jobs.iter().map(|at| at * 2).collect::<Vec<_>>());
        assert!(most.into_inner() <= 3);
        assert_eq!(each(&[] as &[usize], 3, LONG, |at| *at, |_, _| {}), [] as [usize; 0]);
    }

    #[test]
    fn what_is_waited_for_is_told() {
        let (told, is_told) = channel();
        let is_told = Mutex::new(is_told);
        let work = |at: &usize| *at == 0 || is_told.lock().recv_timeout(LONG) == Ok((vec![1], 1));
        let tell = |waits: &[usize], left: usize| drop(told.send((waits.to_vec(), left)));
        let results = each(&[0, 1], 1, Duration::from_millis(20), work, tell);
        assert_eq!(results, [true, true]);
    }
}
