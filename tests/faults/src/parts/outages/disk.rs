//! A small disk of a round's own, that can be filled.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, until it is dropped. `scripts/faults` runs the rig where nobody else sees it.
pub struct Disk(PathBuf);

impl Disk {
    /// `None`: nothing may be mounted here, and so no disk can be full.
    pub fn mount(folder: &Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        match done {
            Ok(done) if done.status.success() => Some(Self(folder.to_owned())),
            _ => {
                eprintln!("  nothing may be mounted here: no disk is filled; run it by scripts/faults, as root");
                None
            }
        }
    }

    /// Takes all the room there is, until the answer is dropped.
    pub fn fill(&self) -> Filler {
        let path = self.0.join("filler");
        let mut file = File::create(&path).expect("a file");
        let mut piece = 1 << 16;
        while piece > 0 {
            if file.write_all(&vec![0; piece]).is_err() {
                piece /= 2;
            }
        }
        Filler(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has files there goes with the round.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// What fills a disk.
pub struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
