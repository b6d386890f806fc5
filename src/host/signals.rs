//! What tells this process to end: SIGINT and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How often the process was told to end.
#[derive(Clone)]
pub struct Signals(watch::Receiver<u32>);

impl Signals {
    /// Listens from now on: what comes before somebody asks is kept.
    pub fn listen() -> Self {
        let (times, told) = watch::channel(0);
        let mut interrupt = signal(SignalKind::interrupt()).ok();
        let mut terminate = signal(SignalKind::terminate()).ok();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = next(&mut interrupt) => {}
                    () = next(&mut terminate) => {}
                }
                times.send_modify(|times| *times += 1);
            }
        });
        Self(told)
    }

    /// Waits until the process was told to end so many times.
    pub async fn told(&mut self, times: u32) {
        if self.0.wait_for(|told| *told >= times).await.is_err() {
            // Nobody will say so any more.
            std::future::pending().await
        }
    }
}

/// The next of its kind, where the system lets us listen.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
