//! The failpoints of a build that has them: one of them may be armed, by a variable of the environment.
//!
//! `MOONTIDE_FAILPOINT=settle.sent@3` ends the process when it passes `settle.sent` for the third time.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::ALL;
use crate::nearest::nearest;

const VARIABLE: &str = "MOONTIDE_FAILPOINT";
/// From when a request is handed to its connection until it has surely left.
const LEAVES: Duration = Duration::from_millis(3);

static ARMED: OnceLock<Armed> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    point: &'static str,
    /// At which pass it acts; the first one is 1.
    pass: u64,
    action: Action,
    passes: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// As by SIGKILL: nothing is tidied up, nothing written out. The signal is another one, so that whoever started the
    /// process can tell it from a kill of its own.
    Abort,
    /// As by SIGSTOP, until somebody sends SIGCONT.
    Stop,
    Panic,
    /// The thread that passes sleeps.
    Sleep(Duration),
}

/// Arms the point that the environment names, if it names one.
///
/// # Errors
/// What is wrong with the variable, and what would have worked.
pub fn arm() -> Result<(), String> {
    match std::env::var(VARIABLE) {
        Ok(text) => {
            let armed = Armed::parse(&text).map_err(|problem| format!("{VARIABLE}={text}: {problem}"))?;
            tracing::warn!(point = armed.point, pass = armed.pass, "a failpoint is armed");
            ARMED.set(armed).map_err(|armed| format!("{VARIABLE}: another one is armed besides {}", armed.point))
        }
        Err(std::env::VarError::NotPresent) => Ok(()),
        Err(error) => Err(format!("{VARIABLE}: {error}")),
    }
}

/// Whether the variable `name` of the environment is ours.
pub fn is_switch(name: &str) -> bool {
    name == VARIABLE
}

/// The process passes `point`.
pub fn reached(point: &'static str) {
    if let Some(armed) = passes(point) {
        armed.act();
    }
}

/// The process passes `point` once it has `value`.
pub fn after<T>(point: &'static str, value: T) -> T {
    reached(point);
    value
}

/// The process passes `point` when the request that `future` sends has left and its answer, which may be there, was not
/// heard.
pub async fn during<T>(point: &'static str, future: impl Future<Output = T>) -> T {
    let Some(armed) = passes(point) else { return future.await };
    let mut future = pin!(future);
    let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    tokio::time::sleep(LEAVES).await;
    armed.act();
    match polled {
        Poll::Ready(answer) => answer,
        Poll::Pending => future.await,
    }
}

/// What is armed, if it is `point`, and this the pass at which it acts.
fn passes(point: &'static str) -> Option<&'static Armed> {
    ARMED.get().filter(|armed| armed.point == point && armed.counts())
}

impl Armed {
    /// `NAME`, `NAME@PASS` or `NAME@PASS:ACTION`.
    fn parse(text: &str) -> Result<Self, String> {
        let (place, action) = text.split_once(':').unwrap_or((text, "abort"));
        let (name, pass) = place.split_once('@').unwrap_or((place, "1"));
        let pass = pass.parse().ok().filter(|pass| *pass > 0);
        Ok(Self {
            point: point_named(name)?,
            pass: pass.ok_or("after the @ comes the number of the pass at which it acts, from 1")?,
            action: Action::parse(action)?,
            passes: AtomicU64::new(0),
        })
    }

    /// Counts a pass; true: it is the one.
    fn counts(&self) -> bool {
        self.passes.fetch_add(1, Ordering::Relaxed) + 1 == self.pass
    }

    fn act(&self) {
        tracing::warn!(point = self.point, action = ?self.action, "a failpoint was passed");
        match self.action {
            Action::Abort => std::process::abort(),
            Action::Stop => kill_process(getpid(), Signal::STOP).expect("a process may stop itself"),
            Action::Panic => panic!("failpoint {}", self.point),
            Action::Sleep(time) => std::thread::sleep(time),
        }
    }
}

fn point_named(name: &str) -> Result<&'static str, String> {
    let names = || ALL.iter().map(|point| point.name);
    names().find(|known| *known == name).ok_or_else(|| match nearest(name, names()) {
        Some(near) => format!("there is no failpoint {name:?}; did you mean {near}?"),
        None => format!("there is no failpoint {name:?}; there are {}", names().collect::<Vec<_>>().join(", ")),
    })
}

impl Action {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "abort" => Ok(Self::Abort),
            None if text == "stop" => Ok(Self::Stop),
            None if text == "panic" => Ok(Self::Panic),
            Some(("sleep", millis)) => {
                let millis = millis.parse().map_err(|_| "sleep=MS takes milliseconds")?;
                Ok(Self::Sleep(Duration::from_millis(millis)))
            }
            _ => Err(format!("there is no action {text:?}; there are abort, stop, panic and sleep=MS")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_its_pass_and_its_action_are_read() {
        let read = |text: &str| Armed::parse(text).map(|armed| (armed.point, armed.pass, armed.action));
        assert_eq!(read("settle.sent"), Ok(("settle.sent", 1, Action::Abort)));
        assert_eq!(read("settle.sent@12"), Ok(("settle.sent", 12, Action::Abort)));
        assert_eq!(read("run.mid@2:stop"), Ok(("run.mid", 2, Action::Stop)));
        assert_eq!(read("run.mid:sleep=250"), Ok(("run.mid", 1, Action::Sleep(Duration::from_millis(250)))));
        for wrong in ["run.mid@0", "run.mid@x", "run.mid@1:die", "run.mid:sleep", "run.mid:sleep=long"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let unknown = read("settle.send@1").expect_err("there is no such point");
        assert!(unknown.ends_with("did you mean settle.sent?"), "{unknown}");
    }

    #[test]
    fn only_one_pass_counts() {
        let armed = Armed::parse("run.mid@3").expect("it is a point");
        let passes: Vec<bool> = (0..5).map(|_| armed.counts()).collect();
        assert_eq!(passes, [false, false, true, false, false]);
    }
}
