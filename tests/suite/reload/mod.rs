//! Hot reload under load: whatever way a file is saved, no event is lost, none has its effects twice, and none runs on half
//! a file.

mod delay;
mod flood;
mod leftovers;
pub mod load;
mod saves;
mod soak;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use moontide::registry::{self, Registry, Renamed};
use moontide::script::Sources;

use crate::support::Desk;
use load::{Load, numbers, script};

fn handlers(desk: &Desk) -> PathBuf {
    desk.dir.path().join("handlers")
}

/// The versions that were saved as a whole.
pub fn saved(names: impl IntoIterator<Item = impl ToString>) -> BTreeSet<String> {
    names.into_iter().map(|name| name.to_string()).collect()
}

/// Waits until version `name` has handled something.
pub async fn until_seen(desk: &Desk, name: &str) {
    let began = std::time::Instant::now();
    while desk.state(&format!("v/{name}")).await.is_none() {
        assert!(began.elapsed() < crate::support::PATIENCE, "never seen: {name}; {:?}", desk.host().snapshot());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn problem(desk: &Desk, handler: &str) -> String {
    let snapshot = desk.host().snapshot();
    let row = snapshot.into_iter().find(|row| row.name == handler);
    row.and_then(|row| row.problem).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_save_a_file_is_seen_and_no_half_of_it_ever_runs() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let path = handlers(&desk).join("tick.luau");
    let mut versions = saved(["first"]);
    for round in 0..3 {
        for (way, save) in saves::WAYS {
            let version = format!("{way}{round}");
            versions.insert(version.clone());
            save(&path, &script(&version));
            until_seen(&desk, &version).await;
        }
    }
    load.flow(100).await;
    assert_eq!(load.check(&desk, &versions).await.len(), versions.len());
    let metrics = desk.host().metrics().text().expect("metrics are text");
    let reloads = format!("moontide_reloads_total{{handler=\"tick\",result=\"loaded\"}} {}", versions.len());
    assert!(metrics.contains(&reloads), "one receipt for each version: {reloads}");
    let infos = metrics.matches("moontide_handler_info{handler=\"tick\"").count();
    assert_eq!(infos, 1, "the versions that are gone are not told any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_file_that_would_compile_does_not_take_over_while_its_writer_writes() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let path = handlers(&desk).join("tick.luau");
    for round in 0..3 {
        // `return a` is a handler; `return a and b` is b.
        let half = script(&format!("half{round}")).trim_end().to_owned();
        let other = script(&format!("whole{round}")).replacen("return ", "", 1);
        saves::in_two_halves(&path, &format!("{half} and {other}"), half.len(), saves::HALVES);
        until_seen(&desk, &format!("whole{round}")).await;
    }
    load.check(&desk, &saved(["first", "whole0", "whole1", "whole2"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_hint_tells_is_found_and_not_by_halves() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    // Whoever writes by another name of the file is not heard in this folder.
    let elsewhere = desk.dir.path().join("elsewhere");
    fs::hard_link(handlers(&desk).join("tick.luau"), &elsewhere).expect("a link");
    let mut versions = saved(["first"]);
    for round in 0..3 {
        let (half, whole) = (script(&format!("half{round}")), script(&format!("whole{round}")));
        let half = half.trim_end();
        let text = format!("{half} and {}", whole.replacen("return ", "", 1));
        // Here nothing but standing still tells that a file is whole, so its halves must come closer together.
        saves::in_two_halves(&elsewhere, &text, half.len(), saves::HALVES * 3 / 4);
        versions.insert(format!("whole{round}"));
        until_seen(&desk, &format!("whole{round}")).await;
    }
    load.check(&desk, &versions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_saves_a_second_good_and_broken_keep_every_event() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let mut versions = saved(["first"]);
    for n in 0..25 {
        load.flow(200).await;
        if n % 3 == 2 {
            desk.write("tick", "return { on = 'tick', handle = function(event, ctx)");
        } else {
            desk.write("tick", &script(&format!("n{n}")));
            versions.insert(format!("n{n}"));
        }
    }
    desk.write("tick", &script("last"));
    until_seen(&desk, "last").await;
    versions.insert("last".to_owned());
    load.check(&desk, &versions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_no_longer_be_read_keeps_its_last_good_version() {
    let desk = Desk::new(&[("deep/tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let path = handlers(&desk).join("deep/tick.luau");
    for (bytes, says) in [(vec![b' '; 600 << 10], "larger than"), (b"return '\xff'".to_vec(), "not UTF-8")] {
        fs::write(&path, bytes).expect("a file");
        desk.until("the problem is seen", |desk| problem(desk, "deep/tick").contains(says)).await;
        load.flow(100).await;
    }
    fs::remove_file(&path).expect("a file");
    symlink("/dev/zero", &path).expect("a link");
    desk.until("the problem is seen", |desk| problem(desk, "deep/tick").contains("leaves the folder")).await;
    load.flow(100).await;
    assert_eq!(load.check(&desk, &saved(["first"])).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_is_swapped_as_a_whole() {
    let desk = Desk::new(&[]).await;
    let root = handlers(&desk);
    let publish = |generation: &str| {
        let folder = root.join(format!("..{generation}"));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("tick.luau"), script(generation)).expect("a file");
        symlink(format!("..{generation}"), root.join("..data_tmp")).expect("a link");
        fs::rename(root.join("..data_tmp"), root.join("..data")).expect("a swap");
    };
    publish("one");
    symlink("..data/tick.luau", root.join("tick.luau")).expect("a link");
    desk.until("it is loaded", |desk| !desk.version("tick").is_empty()).await;
    let load = Load::start(&desk);
    until_seen(&desk, "one").await;
    for (generation, before) in [("two", "one"), ("three", "two")] {
        publish(generation);
        fs::remove_dir_all(root.join(format!("..{before}"))).expect("the old one goes");
        until_seen(&desk, generation).await;
    }
    load.check(&desk, &saved(["one", "two", "three"])).await;
    assert_eq!(desk.host().snapshot().len(), 1, "what lies in ..data is no handler of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_folder_is_read_and_a_missing_one_changes_nothing() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let (root, away) = (handlers(&desk), desk.dir.path().join("away"));
    fs::rename(&root, &away).expect("the folder moves");
    load.flow(500).await;
    assert_eq!(desk.host().snapshot().len(), 1, "a folder that is not there says nothing about its handlers");
    let other = desk.dir.path().join("other");
    fs::create_dir(&other).expect("a folder");
    fs::write(other.join("tick.luau"), script("second")).expect("a file");
    fs::rename(&other, &root).expect("another folder comes");
    until_seen(&desk, "second").await;
    desk.write("tick", &script("third"));
    until_seen(&desk, "third").await;
    load.check(&desk, &saved(["first", "second", "third"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_never_quiet_is_read_all_the_same() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let noisy = handlers(&desk).join("lib/noise.luau");
    fs::create_dir(noisy.parent().expect("it lies in a folder")).expect("a folder");
    let noise = tokio::spawn(async move {
        for n in 0.. {
            fs::write(&noisy, format!("return {n}")).expect("a file");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    load.flow(100).await;
    desk.write("tick", &script("second"));
    until_seen(&desk, "second").await;
    noise.abort();
    load.check(&desk, &saved(["first", "second"])).await;
}

const USES: &str = "local m = require('@lib/m') return { on = 'tick', handle = function(event, ctx)
    ctx.kv:add('HANDLER/' .. m.version, 1) end }";

fn user(handler: &str) -> String {
    USES.replace("HANDLER", handler)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_takes_all_its_handlers_along_or_none() {
    let desk = Desk::new(&[("lib/m", "return { version = 'one', f = 1 }"), ("a", &user("a")), ("b", &user("b"))]).await;
    let load = Load::start(&desk);
    let (a, b) = (desk.version("a"), desk.version("b"));
    desk.write("lib/m", "return { version = 'broken'");
    let both = |desk: &Desk, says: &str| ["a", "b"].iter().all(|name| problem(desk, name).contains(says));
    desk.until("both are told", |desk| both(desk, "lib/m.luau")).await;
    assert_eq!((desk.version("a"), desk.version("b")), (a.clone(), b.clone()));

    // a follows the new module, b does not: neither takes over.
    desk.write("b", &user("b").replace(" return {", " local f = m.f + 1 return {"));
    desk.until("b is told", |desk| problem(desk, "b").contains("lib/m.luau")).await;
    desk.write("lib/m", "return { version = 'two' }");
    desk.until("a waits for b", |desk| problem(desk, "a").contains("waits for b")).await;
    assert_eq!((desk.version("a"), desk.version("b")), (a, b));
    load.flow(100).await;
    assert!(numbers(&desk, "a/").await.keys().all(|version| version == "one"));

    desk.write("lib/m", "return { version = 'three', f = 3 }");
    desk.until("both follow", |desk| ["a", "b"].iter().all(|name| problem(desk, name).is_empty())).await;
    load.flow(100).await;
    desk.until("both are seen", |desk| ["a", "b"].iter().all(|name| desk.counts(name).done > 0)).await;
    for handler in ["a/", "b/"] {
        let seen: Vec<String> = numbers(&desk, handler).await.into_keys().collect();
        assert_eq!(seen, ["one", "three"], "{handler}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_of_many_files_and_a_flood_of_files_are_taken_up() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let write = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    for n in 0..12_000 {
        write(&handlers(&desk).join(format!("lib/deep{}/m{n}.luau", n % 7)), "return 1");
    }
    for n in 0..40 {
        write(&handlers(&desk).join(format!("many/h{n}.luau")), "return { on = 'other', handle = function() end }");
    }
    desk.write("tick", &script("second"));
    until_seen(&desk, "second").await;
    desk.until("all are loaded", |desk| desk.host().snapshot().len() == 41).await;
    fs::remove_dir_all(handlers(&desk).join("lib")).expect("the flood goes");
    desk.write("tick", &script("third"));
    until_seen(&desk, "third").await;
    load.check(&desk, &saved(["first", "second", "third"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_with_a_group_of_its_own_goes_on_where_it_stood() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    for (from, to) in [("tick", "tock"), ("tock", "deep/tick"), ("deep/tick", "tick")] {
        load.flow(100).await;
        let root = handlers(&desk);
        fs::create_dir_all(root.join("deep")).expect("a folder");
        fs::rename(root.join(format!("{from}.luau")), root.join(format!("{to}.luau"))).expect("a rename");
        desk.until("it has its new name", |desk| desk.version(from).is_empty() && !desk.version(to).is_empty()).await;
    }
    load.flow(100).await;
    load.check(&desk, &saved(["first"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_on_the_version_it_began_with() {
    let slow = "return { on = 'tick', handle = function(event, ctx)
        ctx:sleep('500ms') ctx.kv:add('by/' .. ctx.version, 1) end }";
    let desk = Desk::new(&[("tick", slow)]).await;
    let first = desk.version("tick");
    desk.emit(vec![crate::support::event("tick", 1, "{}")]).await;
    desk.until("it runs", |desk| desk.counts("tick").running == 1).await;
    desk.write("tick", &slow.replace("by/", "late/"));
    desk.until("it is reloaded", |desk| desk.version("tick") != first).await;
    desk.until("it is done", |desk| desk.counts("tick").done == 1).await;
    assert_eq!(desk.state(&format!("by/{first}")).await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_with_the_content_of_one_that_went_is_a_rename() {
    let desk = Desk::new(&[]).await;
    let config = desk.config();
    let own = "return { on = 'tick', handle = function() end }";
    let build = |before: &Registry, files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| (format!("{name}.luau"), Arc::from(*text)));
        registry::build(before, Arc::new(Sources::new(files)), Vec::new(), &config)
    };
    let before = build(&Registry::default(), &[("a", own), ("b", &script("b"))]);
    assert_eq!(before.renamed, [], "at the start nothing went");
    let after = build(&before, &[("c", own), ("d", &script("b")), ("e", "return function() end")]);
    let renamed = |from: &str, from_group: &str, to: &str, to_group: &str| Renamed {
        from: from.to_owned(),
        from_group: from_group.to_owned(),
        to: to.to_owned(),
        to_group: to_group.to_owned(),
    };
    assert_eq!(after.renamed, [renamed("a", "a", "c", "c"), renamed("b", "ticks", "d", "ticks")]);
    let copied = build(&before, &[("a", own), ("b", &script("b")), ("f", own)]);
    assert_eq!(copied.renamed, [], "a copy is no rename");
    assert_eq!(build(&after, &[("c", own), ("d", &script("b"))]).renamed, [], "it is told once");
}
