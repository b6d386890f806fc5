//! How programs save files.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Writes a file as some program would.
pub type Save = fn(&Path, &str);

pub const WAYS: &[(&str, Save)] = &[
    ("truncated", |path, text| fs::write(path, text).expect("a file")),
    ("halves", |path, text| in_two_halves(path, text, text.len() / 2, HALVES)),
    ("backed", backup_and_write),
    ("renamed", write_and_rename),
    ("sedded", sed),
    ("fresh", remove_and_write),
    ("linked", write_and_link),
];

/// How far apart the halves of a file are written by a slow writer.
pub const HALVES: Duration = Duration::from_millis(200);

/// Truncates, writes `at` bytes, and the rest `later`.
pub fn in_two_halves(path: &Path, text: &str, at: usize, later: Duration) {
    let mut file = File::create(path).expect("a file");
    file.write_all(&text.as_bytes()[..at]).expect("half a file");
    std::thread::sleep(later);
    file.write_all(&text.as_bytes()[at..]).expect("the other half");
}

/// vim with `backupcopy=no`: the old file moves away, the new one is written in its place.
fn backup_and_write(path: &Path, text: &str) {
    let backup = path.with_extension("luau~");
    fs::rename(path, &backup).expect("a backup");
    std::thread::sleep(Duration::from_millis(20));
    fs::write(path, text).expect("a file");
    fs::remove_file(backup).expect("the backup goes");
}

/// Most others: a temporary file is renamed over the old one.
fn write_and_rename(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp.luau.swp");
    fs::write(&temporary, text).expect("a file");
    fs::rename(temporary, path).expect("a rename");
}

/// `sed -i`, with everything replaced.
fn sed(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file");
    let read = format!("1r {}", new.display());
    let status = Command::new("sed").args(["-i", "-e", &read, "-e", "d"]).arg(path).status();
    assert!(status.expect("sed is there").success());
    fs::remove_file(new).expect("it was there");
}

fn remove_and_write(path: &Path, text: &str) {
    fs::remove_file(path).expect("it was there");
    fs::write(path, text).expect("a file");
}

fn write_and_link(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::remove_file(path).expect("it was there");
    fs::hard_link(&new, path).expect("a link");
    fs::remove_file(new).expect("it was there");
}
