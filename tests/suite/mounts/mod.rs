//! File systems of a test's own: a disk that is full, a folder that is mounted over.
//!
//! What may mount runs in this very binary once more, in a mount namespace that ends with it: as root, or in a user namespace
//! where the system allows those. Where neither is possible the test fails and says so.

mod disk;
mod folder;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::run_alone;

/// The folder that is the inner test's own; its presence says that it runs inside.
const PLACE: &str = "TEST_MOUNT_PLACE";

const UNSHARE: &str = r#"
for how in "unshare --mount" "unshare --user --map-root-user --mount"; do
    if $how true 2>/dev/null; then exec $how "$@"; fi
done
echo "this test mounts file systems: run it as root, or allow user namespaces and install util-linux" >&2
exit 1
"#;

/// Runs the ignored test `name` where it may mount.
fn run_inside(name: &str) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let mut shell = Command::new("sh");
    shell.args(["-c", UNSHARE, "sh"]).env(PLACE, place.path());
    run_alone(Some(shell), name);
}

/// The inner test's folder.
fn place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).expect("it is run by another test, where it may mount"))
}

/// Mounts a file system in memory of `megabytes` on `folder`.
fn mount_disk(folder: &Path, megabytes: u32) {
    mount(&["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"], &[folder]);
}

fn mount(options: &[&str], paths: &[&Path]) {
    let done = Command::new("mount").args(options).args(paths).output().expect("there is mount");
    assert!(done.status.success(), "mount {options:?} {paths:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn unmount(path: &Path) {
    let done = Command::new("umount").arg(path).output().expect("there is umount");
    assert!(done.status.success(), "umount {}: {}", path.display(), String::from_utf8_lossy(&done.stderr));
}
