//! The handlers folder where no file event tells what happens: something is mounted over it, or over a file in it.

use std::fs;

use super::{mount, mount_disk, place, run_inside, unmount};
use crate::reload::load::{Load, script};
use crate::reload::{saved, until_seen};
use crate::support::Desk;

const OFF: &str = "[http]\nlisten = \"\"";

#[test]
fn what_is_mounted_over_handlers_is_live_without_a_hint() {
    run_inside("mounts::folder::mounted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test before it, where it may mount"]
async fn mounted() {
    let desk = Desk::within(&place(), OFF, &[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let (root, other) = (desk.dir.path().join("handlers"), desk.dir.path().join("other"));
    fs::create_dir(&other).expect("a folder");
    let save = |version: &str| fs::write(other.join("tick.luau"), script(version)).expect("a file");

    // As Kubernetes mounts one file of a volume (subPath), and as that file changes there.
    save("file");
    mount(&["--bind"], &[&other.join("tick.luau"), &root.join("tick.luau")]);
    until_seen(&desk, "file").await;
    save("changed file");
    until_seen(&desk, "changed file").await;
    unmount(&root.join("tick.luau"));
    desk.write("tick", &script("second"));
    until_seen(&desk, "second").await;

    save("folder");
    mount(&["--bind"], &[&other, &root]);
    until_seen(&desk, "folder").await;
    save("changed folder");
    until_seen(&desk, "changed folder").await;
    unmount(&root);
    desk.write("tick", &script("third"));
    until_seen(&desk, "third").await;

    mount_disk(&root, 1);
    desk.until("its file is gone", |desk| desk.version("tick").is_empty()).await;
    desk.write("tick", &script("disk"));
    until_seen(&desk, "disk").await;
    let names = ["first", "file", "changed file", "second", "folder", "changed folder", "third", "disk"];
    load.check(&desk, &saved(names)).await;
}
