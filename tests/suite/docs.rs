//! Every handler that the documentation shows loads, and says what the text around it says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use moontide::script::{LoadOptions, Sources, load};

/// The files that the ```lua blocks of `page` are, by path below the handlers folder. The first line of a block names it.
fn shown(page: &str) -> BTreeMap<String, Arc<str>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("the page is there");
    let blocks = text.split("```lua\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let named = blocks.map(|block| {
        let path = block.lines().next().and_then(|line| line.strip_prefix("-- handlers/"));
        (
            path.unwrap_or_else(|| panic!("{page}: a block does not begin with its path: {block}")).to_owned(),
            block.into(),
        )
    });
    named.collect()
}

#[test]
fn handlers_in_the_documentation_load() {
    for (page, handlers_min) in [("README.md", 1), ("docs/handlers.md", 9)] {
        let files = shown(page);
        let sources = Arc::new(Sources::new(files.clone()));
        let handlers: Vec<_> = files.keys().filter(|path| !path.starts_with("lib/")).collect();
        assert!(handlers.len() >= handlers_min, "{page} shows {handlers:?}");
        for path in handlers {
            if let Err(error) = load(path, &sources, &LoadOptions::default()) {
                panic!("{page}: {path}: {error}");
            }
        }
    }
}
