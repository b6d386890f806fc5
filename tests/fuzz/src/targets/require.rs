//! Names of modules, as a handler's file in a folder requires them.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use moontide::script::{LoadOptions, Sources, load};

const FILES: &[&str] =
    &["a/h.luau", "a/m.luau", "a/b/deep.lua", "m.luau", "lib/m.luau", "lib/b/deep.lua", "lib/both.luau"];
const FROM: &str = "a/h.luau";

pub fn run(input: &[u8]) {
    let Ok(name) = std::str::from_utf8(input) else { return };
    let escaped: String = name.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    let handler = format!("require(\"{escaped}\") return function() end");
    let text = |path: &str| if path == FROM { handler.clone() } else { "return 1".to_owned() };
    let files = FILES.iter().map(|path| ((*path).to_owned(), Arc::from(text(path))));
    let loaded = load(FROM, &Arc::new(Sources::new(files)), &LoadOptions::default());
    match (loaded, meant(name)) {
        (Ok(program), Some(meant)) => assert_eq!(program.modules, [meant]),
        // A file that requires itself is refused for that.
        (Err(_), meant) if meant.as_deref().is_none_or(|path| path == FROM) => {}
        (loaded, meant) => panic!("{name:?} means {meant:?}, and: {loaded:?}"),
    }
}

/// The file that is meant, by the standard library's reading of paths.
fn meant(name: &str) -> Option<String> {
    let path = if name.starts_with("@lib/") {
        PathBuf::from(&name[1..])
    } else if name.starts_with("./") || name.starts_with("../") {
        Path::new(FROM).parent()?.join(name)
    } else {
        return None;
    };
    let mut whole = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => whole.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => drop(whole.pop().then_some(())?),
        }
    }
    let whole = whole.to_str()?.to_owned();
    let candidates = [format!("{whole}.luau"), format!("{whole}.lua")];
    candidates.into_iter().find(|path| FILES.contains(&path.as_str()))
}
