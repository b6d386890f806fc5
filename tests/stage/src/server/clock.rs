//! A wall clock in a test's hand: a server's, or that of any process.
//!
//! It lies in a file that they have in their memory (`clock.c`). A [`ManualClock`] stands still until the test moves it; a
//! [`Shift`] goes on, ahead of the real one or behind.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use parking_lot::Mutex;

/// Where the clock begins: 2026-11-21T00:00:00Z, in milliseconds.
const BEGIN: i64 = 1_795_219_200_000;

pub struct ManualClock {
    path: PathBuf,
    file: File,
    now: Mutex<i64>,
}

impl ManualClock {
    pub fn in_folder(folder: &Path) -> Self {
        let path = folder.join("clock");
        let file = File::create_new(&path).expect("the clock's file is made");
        let clock = Self { path, file, now: Mutex::new(0) };
        clock.advance(BEGIN);
        clock
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn now(&self) -> i64 {
        *self.now.lock()
    }

    /// Moves the clock by `millis`, which may be negative.
    pub fn advance(&self, millis: i64) {
        let mut now = self.now.lock();
        *now += millis;
        self.file.write_all_at(&now.to_ne_bytes(), 0).expect("the clock's file is written");
    }
}

/// How far a wall clock that goes on is ahead of the real one.
pub struct Shift {
    path: PathBuf,
    file: File,
}

impl Shift {
    /// A clock that is right, in a file of this name.
    pub fn at(path: &Path) -> Self {
        let shift = Self { path: path.to_owned(), file: File::create_new(path).expect("the clock's file is made") };
        shift.set(0);
        shift
    }

    /// Steps to `seconds` ahead of the real clock, or behind.
    pub fn set(&self, seconds: i64) {
        self.file.write_all_at(&(seconds * 1000).to_ne_bytes(), 0).expect("the clock's file is written");
    }

    /// With these variables a process has this clock.
    pub fn variables(&self) -> [(&str, &str); 2] {
        let text = |path| Path::to_str(path).expect("paths of tests are text");
        [("LD_PRELOAD", text(shim())), ("TEST_CLOCK_AHEAD", text(&self.path))]
    }
}

/// What is loaded into the server, compiled beside the test binary when it is not there yet.
pub fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(compile)
}

fn compile() -> PathBuf {
    const SOURCE: &str = include_str!("clock.c");
    let mut hash = DefaultHasher::new();
    SOURCE.hash(&mut hash);
    let this = std::env::current_exe().expect("the test binary knows its path");
    let folder = this.parent().expect("it lies in a folder");
    let shim = folder.join(format!("redis-clock-{:016x}.so", hash.finish()));
    if shim.exists() {
        return shim;
    }
    let unfinished = tempfile::tempdir_in(folder).expect("a temporary folder");
    let (source, library) = (unfinished.path().join("clock.c"), unfinished.path().join("clock.so"));
    std::fs::write(&source, SOURCE).expect("the source is written");
    let compiler =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(&source).output();
    let done = compiler.expect("cc is there: scripts/test installs it");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // Several test binaries may be here at once: whoever comes last replaces it with the same.
    std::fs::rename(&library, &shim).expect("the library is put in its place");
    shim
}
