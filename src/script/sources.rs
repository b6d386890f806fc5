//! The snapshot that programs are built from, and what a module's name means in it.
//!
//! Owns the rule of `require`: `@lib/…` and paths relative to the requiring file, never outside the handlers folder. Never
//! touches the file system: what is not in the snapshot does not exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::{Source, Sources};
use crate::nearest::nearest;

const ENDINGS: [&str; 2] = [".luau", ".lua"];

/// Why a module's name leads nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequireError {
    #[error(
        "{0:?} is no module's name; write \"@lib/name\" for lib/name.luau, or \"./name\" for a file beside this one"
    )]
    Form(String),
    #[error("{0:?} leads outside the handlers folder")]
    Outside(String),
    #[error("there is no {path}.luau{}", .near.as_ref().map(|near| format!("; {near} is near")).unwrap_or_default())]
    Missing { path: String, near: Option<String> },
}

impl Sources {
    /// A snapshot of `files`: paths below the handlers folder with `/`, and their text.
    pub fn new(files: impl IntoIterator<Item = (String, Arc<str>)>) -> Self {
        let source = |text: Arc<str>| Source { hash: xxh3_128(text.as_bytes()), text };
        Self::of(files.into_iter().map(|(path, text)| (path, source(text))).collect())
    }

    /// A snapshot of files that were hashed already.
    pub fn of(files: BTreeMap<String, Source>) -> Self {
        Self { files, ..Self::default() }
    }

    /// The file that `require(request)` means in the file `from`.
    pub(super) fn resolve(&self, from: &str, request: &str) -> Result<&str, RequireError> {
        let base = if request.starts_with("@lib/") {
            ""
        } else if request.starts_with("./") || request.starts_with("../") {
            from.rsplit_once('/').map_or("", |(folder, _)| folder)
        } else {
            return Err(RequireError::Form(request.to_owned()));
        };
        let path = join(base, request.trim_start_matches('@')).ok_or(RequireError::Outside(request.to_owned()))?;
        let found = ENDINGS.iter().find_map(|ending| self.files.get_key_value(&format!("{path}{ending}")));
        found.map(|(path, _)| path.as_str()).ok_or_else(|| self.missing(path))
    }

    fn missing(&self, path: String) -> RequireError {
        let near = nearest(&format!("{path}.luau"), self.files.keys().map(String::as_str)).map(str::to_owned);
        RequireError::Missing { path, near }
    }

    /// Line `line` (from 1) of `file`.
    pub(super) fn line(&self, file: &str, line: u32) -> Option<&str> {
        self.files.get(file)?.text.lines().nth(line.checked_sub(1)? as usize)
    }
}

/// `base/relative` without `.` and `..`; `None` where that climbs above the root.
fn join(base: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(relative.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_name_means_a_file_of_the_snapshot_or_nothing() {
        let files = ["lib/money.luau", "billing/rounding.lua", "billing/deep/x.luau"];
        let sources = Sources::new(files.map(|path| (path.to_owned(), Arc::from(""))));
        let resolve = |from, request| sources.resolve(from, request);
        assert_eq!(resolve("a.luau", "@lib/money"), Ok("lib/money.luau"));
        assert_eq!(resolve("billing/charge.luau", "./rounding"), Ok("billing/rounding.lua"));
        assert_eq!(resolve("billing/deep/x.luau", "../rounding"), Ok("billing/rounding.lua"));
        for outside in ["../money", "./../../etc/passwd", "@lib/../../x"] {
            assert_eq!(resolve("a.luau", outside), Err(RequireError::Outside(outside.into())));
        }
        for form in ["money", "/etc/passwd", "@other/x", "", "lib/money"] {
            assert_eq!(resolve("a.luau", form), Err(RequireError::Form(form.into())));
        }
        let near = Some("lib/money.luau".to_owned());
        assert_eq!(resolve("a.luau", "@lib/mony"), Err(RequireError::Missing { path: "lib/mony".into(), near }));
    }
}
