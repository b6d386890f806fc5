//! The handlers folder as it lies on the disk: which files are scripts, and what they say right now.
//!
//! Nothing in the folder can block or mislead the host: only regular files inside it are opened, never a pipe, a device or a
//! link that leaves it; each is capped in size. A file whose metadata did not change since it was read is not read
//! again, unless it changed so lately that its time stamp cannot tell.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::script::{Source, Sources};

/// Largest script in bytes; compiling more takes seconds.
pub const SOURCE_BYTES_MAX: u64 = 512 << 10;
/// Longest name of a handler or module in bytes: it is a group's name and a label of metrics too.
const NAME_BYTES_MAX: usize = 200;
/// Deepest folder below the root.
const DEPTH_MAX: usize = 16;
/// Time stamps of files that changed within this many seconds are not trusted.
const RACY_SECONDS: i64 = 3;
/// `O_NONBLOCK`: opening a pipe that took a script's place between look and open must not block.
const OPEN_NONBLOCKING: i32 = 0o4000;

/// Something in the folder that is not read, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    pub path: PathBuf,
    /// The same below the folder, with `/`.
    pub file: String,
    pub reason: String,
}

/// Reads the folder again and again.
pub struct Scanner {
    root: PathBuf,
    known: BTreeMap<String, Known>,
}

struct Known {
    stamp: Stamp,
    source: Source,
}

/// What tells that a file changed: size, inode, and the times of content and inode in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64, i64, i64);

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self(meta.len(), meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
    }

    fn is_racy(self, now: i64) -> bool {
        now - self.5 < RACY_SECONDS
    }
}

impl Scanner {
    /// A scanner of `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), known: BTreeMap::new() }
    }

    /// Reads what changed.
    ///
    /// # Errors
    /// When the root itself cannot be listed; then nothing is known to have vanished.
    pub fn scan(&mut self) -> io::Result<(Arc<Sources>, Vec<Skipped>)> {
        let root = fs::canonicalize(&self.root)?;
        let mut walk = Walk { within: vec![root.clone()], root, found: Vec::new(), skipped: Vec::new() };
        walk.folder(&self.root.clone(), "")?;
        let now = now_seconds();
        let mut known = BTreeMap::new();
        for (name, path, meta) in walk.found {
            let stamp = Stamp::of(&meta);
            let unchanged = self.known.remove(&name).filter(|known| known.stamp == stamp && !stamp.is_racy(now));
            match unchanged.map_or_else(|| read(&path), |known| Ok(known.source)) {
                Ok(source) => drop(known.insert(name, Known { stamp, source })),
                Err(Unread::Gone) => {}
                Err(Unread::Because(reason)) => walk.skipped.push(Skipped { path, file: name, reason }),
            }
        }
        self.known = known;
        walk.skipped.sort();
        let files = self.known.iter().map(|(name, known)| (name.clone(), known.source.clone())).collect();
        Ok((Arc::new(Sources::of(files)), walk.skipped))
    }
}

fn now_seconds() -> i64 {
    use crate::clock::Clock;
    crate::clock::SystemClock.now() / 1000
}

struct Walk {
    root: PathBuf,
    /// The real folders that we are in, outermost first.
    within: Vec<PathBuf>,
    found: Vec<(String, PathBuf, Metadata)>,
    skipped: Vec<Skipped>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Err(reason) = self.entry(&entry, prefix) {
                let file = format!("{prefix}{}", entry.file_name().to_string_lossy());
                self.skipped.push(Skipped { path: entry.path(), file, reason });
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &fs::DirEntry, prefix: &str) -> Result<(), String> {
        let file_name = entry.file_name();
        if file_name.as_encoded_bytes().starts_with(b".") || file_name.as_encoded_bytes().starts_with(b"_") {
            return Ok(());
        }
        let path = entry.path();
        let is_script = has_ending(&path);
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let meta = match if is_link { fs::metadata(&path) } else { entry.metadata() } {
            Ok(meta) => meta,
            // Removed since the folder was listed, or a link to nothing that is no script.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !(is_link && is_script) => return Ok(()),
            Err(error) => return Err(unreachable_because(&path, &error)),
        };
        if !meta.is_dir() && !is_script {
            return Ok(());
        }
        let name = file_name.to_str().ok_or("the name is not UTF-8; rename it")?;
        check_part(name)?;
        let target = if is_link { Some(self.inside(&path)?) } else { None };
        let below = format!("{prefix}{name}");
        match meta.is_dir() {
            true if is_script => Err("a folder cannot have the ending of a script; rename it".to_owned()),
            true => self.enter(&path, target, &format!("{below}/")),
            false if !meta.is_file() => Err("not a regular file".to_owned()),
            false => {
                check_length(name_of(&below))?;
                self.found.push((below, path, meta));
                Ok(())
            }
        }
    }

    /// Goes into a folder; `target`: where a link to it leads.
    fn enter(&mut self, path: &Path, target: Option<PathBuf>, prefix: &str) -> Result<(), String> {
        if self.within.len() > DEPTH_MAX {
            return Err(format!("folders are read to a depth of {DEPTH_MAX}"));
        }
        let name = path.file_name().unwrap_or_default();
        let real = target.unwrap_or_else(|| self.within.last().unwrap_or(&self.root).join(name));
        if self.within.contains(&real) {
            return Err("links lead in a circle; remove one of them".to_owned());
        }
        self.within.push(real);
        let walked = self.folder(path, prefix);
        self.within.pop();
        walked.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error.to_string()) })
    }

    /// Where a link leads, if that is inside the root.
    fn inside(&self, path: &Path) -> Result<PathBuf, String> {
        let real = fs::canonicalize(path).map_err(|error| error.to_string())?;
        match real.starts_with(&self.root) {
            true => Ok(real),
            false => Err(format!("a link that leaves the folder, to {}", real.display())),
        }
    }
}

/// Why a file was not read.
enum Unread {
    /// It was removed since the folder was listed.
    Gone,
    Because(String),
}

fn unreachable_because(path: &Path, error: &io::Error) -> String {
    match fs::read_link(path) {
        Ok(target) => format!("a link to {}: {error}", target.display()),
        Err(_) => error.to_string(),
    }
}

fn read(path: &Path) -> Result<Source, Unread> {
    let because = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unread::Gone,
        _ => Unread::Because(format!("cannot be read: {error}")),
    };
    let open = |path: &Path| OpenOptions::new().read(true).custom_flags(OPEN_NONBLOCKING).open(path);
    let file: File = open(path).map_err(because)?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(Unread::Because("not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(SOURCE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(because)?;
    if bytes.len() as u64 > SOURCE_BYTES_MAX {
        return Err(Unread::Because(format!("larger than {} KiB; split it into modules", SOURCE_BYTES_MAX >> 10)));
    }
    let hash = xxh3_128(&bytes);
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Unread::Because(format!("not UTF-8 from byte {at} on; save it as UTF-8"))
    })?;
    Ok(Source { text: text.into(), hash })
}

/// Each part of a handler's name: letters, digits, `.`, `_`, `-`.
fn check_part(name: &str) -> Result<(), String> {
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        Some(c) => Err(format!("{c:?} cannot stand in a name; letters, digits, `.`, `_` and `-` can")),
        None => Ok(()),
    }
}

fn check_length(name: &str) -> Result<(), String> {
    match name.len() {
        len if len > NAME_BYTES_MAX => {
            Err(format!("its name has {len} bytes with its folders, and at most {NAME_BYTES_MAX} are possible"))
        }
        _ => Ok(()),
    }
}

/// Whether a file of this name is a script.
pub fn has_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "luau" || ending == "lua")
}

/// Whether a handler can be called `name`; says why not.
pub fn check_name(name: &str) -> Result<(), String> {
    check_length(name)?;
    for part in name.split('/') {
        check_part(part)?;
        if part.is_empty() {
            return Err("a part of it is empty".to_owned());
        }
        if part.starts_with(['.', '_']) {
            return Err("what begins with `.` or `_` is not loaded".to_owned());
        }
    }
    match name {
        name if has_ending(Path::new(name)) => Err("the ending of the file is not part of it".to_owned()),
        name if !is_handler(name) => Err("lib/ is for modules, and what ends in _test is a test".to_owned()),
        _ => Ok(()),
    }
}

/// The handler's name for a path below the folder: without its ending.
pub fn name_of(path: &str) -> &str {
    path.strip_suffix(".luau").or_else(|| path.strip_suffix(".lua")).unwrap_or(path)
}

/// Whether the file at `path` below the folder is a handler: neither a module nor a test.
pub fn is_handler(path: &str) -> bool {
    !path.starts_with("lib/") && !name_of(path).ends_with("_test")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn reasons(skipped: &[Skipped]) -> String {
        let lines = skipped.iter().map(|skipped| format!("{}: {}", skipped.path.display(), skipped.reason));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn finds_scripts_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for file in ["a.luau", "b/c.lua", "lib/money.luau", "_off.luau", ".hidden.luau", "readme.md", "x_test.luau"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("a folder");
            fs::write(path, "return function() end").expect("a file");
        }
        let (sources, skipped) = Scanner::new(dir.path()).scan().expect("the folder is there");
        let files: Vec<_> = sources.files.keys().map(String::as_str).collect();
        assert_eq!(files, ["a.luau", "b/c.lua", "lib/money.luau", "x_test.luau"]);
        assert_eq!(skipped, []);
        let handlers: Vec<_> = files.into_iter().filter(|path| is_handler(path)).map(name_of).collect();
        assert_eq!(handlers, ["a", "b/c"]);
    }

    #[test]
    fn what_is_no_script_is_skipped_with_a_reason_and_never_blocks() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outside = tempfile::tempdir().expect("a temporary folder");
        fs::write(outside.path().join("secret.luau"), "return 1").expect("a file");
        symlink(outside.path().join("secret.luau"), dir.path().join("link.luau")).expect("a link");
        symlink("/dev/zero", dir.path().join("zero.luau")).expect("a link");
        fs::create_dir(dir.path().join("folder.luau")).expect("a folder");
        fs::write(dir.path().join("big.luau"), vec![b' '; (SOURCE_BYTES_MAX + 1) as usize]).expect("a file");
        fs::write(dir.path().join("latin.luau"), b"return '\xff'").expect("a file");
        fs::write(dir.path().join("a b.luau"), "return 1").expect("a file");
        fs::write(dir.path().join("a\nb.luau"), "return 1").expect("a file");
        fs::write(dir.path().join(format!("{}.luau", "n".repeat(NAME_BYTES_MAX + 1))), "return 1").expect("a file");
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe.luau")).status();
        assert!(made.expect("mkfifo is there").success());

        let (sources, skipped) = Scanner::new(dir.path()).scan().expect("the folder is there");
        assert_eq!(sources.files.len(), 0);
        let reasons = reasons(&skipped);
        for part in [
            "link.luau: a link that",
            "zero.luau: ",
            "folder.luau: a folder",
            "big.luau: larger",
            "latin.luau: not UTF-8 from byte 8",
            "a b.luau: ' ' cannot",
            "b.luau: '\\n' cannot",
            "nnn.luau: its name has 201 bytes",
            "pipe.luau: not a regular file",
        ] {
            assert!(reasons.contains(part), "{part} in\n{reasons}");
        }
    }

    #[test]
    fn links_inside_the_folder_are_followed_and_never_in_a_circle() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("..data/deep")).expect("a folder");
        fs::write(at("..data/a.luau"), "return 1").expect("a file");
        fs::write(at("..data/deep/b.luau"), "return 1").expect("a file");
        symlink("..data/a.luau", at("a.luau")).expect("a link");
        symlink("..data/deep", at("linked")).expect("a link");
        symlink("..", at("..data/deep/up")).expect("a link");
        symlink(".", at("here")).expect("a link");
        symlink("nothing", at("no script")).expect("a link");
        symlink("nothing", at("script.luau")).expect("a link");
        let (sources, skipped) = Scanner::new(dir.path()).scan().expect("the folder is there");
        let files: Vec<_> = sources.files.keys().map(String::as_str).collect();
        assert_eq!(files, ["a.luau", "linked/b.luau", "linked/up/a.luau"]);
        let skipped: Vec<_> = skipped.iter().map(|skipped| skipped.file.as_str()).collect();
        assert_eq!(skipped, ["here", "linked/up/deep", "script.luau"]);
    }

    #[test]
    fn a_change_within_the_same_time_stamp_is_seen() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut scanner = Scanner::new(dir.path());
        for text in ["return 1", "return 2", "return 3"] {
            fs::write(dir.path().join("a.luau"), text).expect("a file");
            let (sources, _) = scanner.scan().expect("the folder is there");
            assert_eq!(&*sources.files["a.luau"].text, text);
        }
    }
}
