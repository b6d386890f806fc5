//! A configuration file, below variables (`NAME=VALUE` each, ended by a line `---`) if there are some.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use moontide::config::{Config, Flags, Origin, Surroundings, load_in};

/// A folder for as long as the process lives.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder").keep());

pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (variables, file) = text.split_once("\n---\n").unwrap_or(("", &text));
    // Nothing may be read but the file: no secrets, no certificates.
    if text.contains("file") || text.contains("FILE") {
        return;
    }
    let path = FOLDER.join(format!("{}.toml", std::process::id()));
    std::fs::write(&path, file).expect("a file");
    let environment = variables.lines().filter_map(|line| line.split_once('='));
    let environment: BTreeMap<_, _> = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let around = Surroundings { environment: environment.clone(), file: path.clone() };
    match load_in(&Flags::default(), &around) {
        Ok(config) => is_in_range(&config),
        Err(problems) => {
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                let is_placed = match &problem.origin {
                    Origin::File(file) => *file == path,
                    Origin::Variable(name) => environment.contains_key(name),
                    // Two keys that contradict each other may both be as they were delivered, but not alone.
                    Origin::Default => !problem.key.is_empty(),
                    Origin::Flag(_) => false,
                };
                assert!(is_placed && !problem.message.is_empty(), "{problem:?}");
            }
        }
    }
}

/// As `config/default.toml` says it.
fn is_in_range(config: &Config) {
    assert!(config.recovery_time.as_secs() >= 1, "{:?}", config.recovery_time);
    assert!(config.scan.as_millis() >= 100, "{:?}", config.scan);
    assert!((1..=10_000).contains(&config.emit.batch), "{}", config.emit.batch);
    assert!((1..=1000).contains(&config.retry.attempts), "{:?}", config.retry);
    assert!((1.0..=1000.0).contains(&config.retry.factor), "{:?}", config.retry);
    assert!((0.0..=1.0).contains(&config.retry.jitter), "{:?}", config.retry);
    assert!(config.limits.memory_bytes >= 1 << 20, "{:?}", config.limits);
    assert!(config.script_threads() >= 1);
}
