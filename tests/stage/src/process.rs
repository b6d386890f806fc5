//! A process that a test started, and that it stops, wakes and kills.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Longest wait for a process that is to end; only a defect waits that long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display())))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "process {} does not end", self.id());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How it has ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("it is ours")
    }

    /// Waits until it has ended by itself, in order.
    pub fn ended(&mut self) {
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    /// Whether it has come so far that it deals with this signal itself.
    pub fn heeds(&self, signal: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        caught >> (signal - 1) & 1 == 1
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill is there").success(), "it lives");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
