//! What several modules of this suite use: a host in this process over a temporary folder.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use moontide::bus::{DeadFilter, DeadLetter};
use moontide::config::{self, Config, Flags};
use moontide::event::{Event, Json};
use moontide::host::{Host, Start};
use moontide::metrics::Counts;
use moontide::outcome::Emit;

/// Longest wait for something that must happen; only a broken build ever waits that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the ignored test `name` in a process of its own, for which `launcher` is the command in front, if any.
pub fn run_alone(launcher: Option<Command>, name: &str) {
    let this = std::env::current_exe().expect("the test binary knows its path");
    let mut command = match launcher {
        Some(mut launcher) => {
            launcher.arg(this);
            launcher
        }
        None => Command::new(this),
    };
    let run = command.args(["--exact", name, "--ignored", "--nocapture"]).output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{name} failed in its process:\n{out}\n{err}");
    assert!(out.contains("1 passed"), "{name} is no test:\n{out}");
}

/// The configuration of one file.
pub fn config_from(file: &Path) -> Config {
    let flags = Flags { config: Some(file.to_owned()), ..Flags::default() };
    config::load(&flags).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A port that nobody has just now.
pub fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("some port is free");
    free.local_addr().expect("it is bound").port()
}

/// An event of type `kind` in the stream that the default configuration gives it.
pub fn event(kind: &str, id: impl ToString, data: &str) -> Emit {
    Emit {
        stream: format!("events:{kind}"),
        delay: None,
        event: Event {
            data: Some(Json::trusted(data.to_owned())),
            ..Event::new(id.to_string(), "test", kind.to_owned())
        },
    }
}

/// A temporary folder with handlers, a store in a file, and a host over both.
pub struct Desk {
    pub dir: tempfile::TempDir,
    /// What its configuration says besides.
    settings: String,
    host: Option<Host>,
}

impl Desk {
    /// Starts a host over these handlers (name, script).
    pub async fn new(handlers: &[(&str, &str)]) -> Self {
        Self::with("[http]\nlisten = \"\"", handlers).await
    }

    /// As [`Desk::new`], with these settings.
    pub async fn with(settings: &str, handlers: &[(&str, &str)]) -> Self {
        Self::within(&std::env::temp_dir(), settings, handlers).await
    }

    /// As [`Desk::with`], in a new folder within `place`.
    pub async fn within(place: &Path, settings: &str, handlers: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir_in(place).expect("a temporary folder");
        let mut desk = Self { dir, settings: settings.to_owned(), host: None };
        std::fs::create_dir(desk.dir.path().join("handlers")).expect("a folder");
        handlers.iter().for_each(|(name, script)| desk.write(name, script));
        desk.start().await;
        desk
    }

    /// Writes a script; a running host notices by itself.
    pub fn write(&self, name: &str, script: &str) {
        let path = self.dir.path().join("handlers").join(format!("{name}.luau"));
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        std::fs::write(path, script).expect("a file");
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.dir.path().join("handlers").join(format!("{name}.luau"))).expect("it was there");
    }

    pub fn config(&self) -> Config {
        let file = self.dir.path().join("moontide.toml");
        let (db, handlers) = (self.dir.path().join("moontide.db"), self.dir.path().join("handlers"));
        let text = format!(
            "[bus]\nurl = \"sqlite:{}\"\n[run]\nhandlers = \"{}\"\ngrace = \"300ms\"\n[reload]\nscan = \"100ms\"\n{}\n",
            db.display(),
            handlers.display(),
            self.settings
        );
        std::fs::write(&file, text).expect("a file");
        config_from(&file)
    }

    pub async fn start(&mut self) {
        self.host = Some(Host::start(self.config(), Start::default()).await.expect("the host starts"));
    }

    pub async fn stop(&mut self) {
        self.host.take().expect("it runs").stop().await;
    }

    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("it runs")
    }

    pub async fn emit(&self, emits: Vec<Emit>) {
        self.host().backend().bus.publish(emits).await.expect("the store takes events");
    }

    /// The value of a state key as JSON text.
    pub async fn state(&self, key: &str) -> Option<String> {
        let values = self.host().backend().ledger.read(&[key.to_owned()]).await.expect("the store answers");
        values[0].as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub async fn dead(&self) -> Vec<DeadLetter> {
        let filter = DeadFilter { limit: 10_000, ..DeadFilter::default() };
        self.host().backend().dead.list(filter).await.expect("the store answers")
    }

    pub fn counts(&self, handler: &str) -> Counts {
        let snapshot = self.host().snapshot();
        snapshot.iter().find(|row| row.name == handler).map(|row| row.counts).unwrap_or_default()
    }

    pub fn version(&self, handler: &str) -> String {
        let snapshot = self.host().snapshot();
        snapshot.iter().find(|row| row.name == handler).map(|row| row.version.clone()).unwrap_or_default()
    }

    /// Waits until a state key has this value.
    pub async fn until_state(&self, key: &str, value: &str) {
        let began = Instant::now();
        loop {
            let now = self.state(key).await;
            if now.as_deref() == Some(value) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{key} is {now:?}, not {value}; {:?}", self.host().snapshot());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until `done` says so.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "never: {what}; {:?}", self.host().snapshot());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until every group has settled everything, delayed work included.
    pub async fn quiet(&self) {
        let began = Instant::now();
        loop {
            let groups = self.host().backend().overview.groups().await.expect("the store answers");
            if groups.iter().all(|group| group.lag + group.in_flight == 0) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "still {groups:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
