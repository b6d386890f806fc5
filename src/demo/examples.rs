//! The example handlers, carried inside the binary so that the demo works from anywhere.
//!
//! Owns the list of files; a test holds it against the folder. Loading them is the host's business.

use std::io;
use std::path::Path;

macro_rules! examples {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../handlers/", $path)))),*]
    };
}

/// Path below the handlers folder, and text.
pub const FILES: &[(&str, &str)] = examples![
    "README.md",
    "audit.luau",
    "cqrs_projection.luau",
    "lib/basket.luau",
    "notification.luau",
    "order_creation.luau",
    "stock_compensation.luau",
    "stock_received.luau",
    "stock_reservation.luau",
];

/// Writes the examples into `folder`, which is created.
pub fn write_to(folder: &Path) -> io::Result<()> {
    for (path, text) in FILES {
        let path = folder.join(path);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// The first of the handlers the demo cannot do without that `folder` lacks.
pub fn missing_from(folder: &Path) -> Option<&'static str> {
    let scripts = FILES.iter().map(|(path, _)| *path).filter(|path| path.ends_with(".luau") && !path.contains('/'));
    scripts.into_iter().find(|path| !folder.join(path).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_below(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                files_below(&path, root, found);
            } else {
                let below = path.strip_prefix(root).expect("it lies below the root");
                found.push(below.to_string_lossy().into_owned());
            }
        }
    }

    #[test]
    fn the_binary_carries_the_whole_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("handlers");
        let mut found = Vec::new();
        files_below(&root, &root, &mut found);
        found.sort();
        assert_eq!(FILES.iter().map(|(path, _)| *path).collect::<Vec<_>>(), found);
    }

    #[test]
    fn what_is_written_lacks_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(missing_from(folder.path()), Some("audit.luau"));
        write_to(folder.path()).expect("the folder is writable");
        assert_eq!(missing_from(folder.path()), None);
        let read = std::fs::read_to_string(folder.path().join("lib/basket.luau")).expect("the module is there");
        assert!(read.contains("return basket"));
    }
}
