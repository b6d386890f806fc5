//! Where the demo takes place: a folder, the handlers, and a store in which nobody else is.
//!
//! On a server, all that the demo stores begins with one name of its own, so that it meets nobody's keys and can be removed
//! as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::config::{BusUrl, Config, Redis};
use crate::demo::examples;
use crate::envelope::Layouts;
use crate::event::TypePattern;
use crate::host;
use crate::streams::{StreamRule, Streams};

/// `run.handlers` unless it is configured.
const DEFAULT_HANDLERS: &str = "handlers";

/// Where the demo takes place.
pub(super) struct Stage {
    /// Removed when this is dropped, unless the demo is to be kept.
    folder: TempDir,
    /// For whoever is on this stage.
    pub config: Config,
    /// On a server: what all names there begin with.
    prefix: Option<String>,
}

impl Stage {
    /// A new one; of `config` everything counts but the place of the store, and the handlers folder if the example handlers
    /// are not in it. On the configuration's server if `on_server`, otherwise in a file.
    pub fn set(keep: bool, on_server: bool, mut config: Config) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("moontide-demo-").disable_cleanup(keep).tempdir();
        let folder = folder.context("cannot make a temporary folder; TMPDIR names a place for it")?;
        config.handlers_dir = choose_handlers(&config.handlers_dir, folder.path())?;
        if !keep {
            (config.http.listen, config.metrics_listen) = (None, None);
        }
        let prefix = on_server.then(|| format!("moontide-demo-{:08x}:", rand::random::<u32>()));
        match &prefix {
            Some(prefix) => move_to(prefix, &mut config),
            None => config.bus.url = BusUrl::SqliteFile(folder.path().join("moontide.db")),
        }
        let stage = Self { folder, config, prefix };
        std::fs::write(stage.file(), stage.text()).context("cannot write into the temporary folder")?;
        Ok(stage)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A configuration that leads other processes to this stage.
    pub fn file(&self) -> PathBuf {
        self.folder().join("moontide.toml")
    }

    /// The flag that does so.
    pub fn flag(&self) -> String {
        match &self.prefix {
            Some(_) => format!("--config {}", self.file().display()),
            None => format!("--bus {}", self.config.bus.url),
        }
    }

    /// Where what was stored is, for people.
    pub fn place(&self) -> String {
        match &self.prefix {
            Some(prefix) => format!("{}, in keys that begin with {prefix}", self.config.bus.url),
            None => self.folder().display().to_string(),
        }
    }

    /// Removes what was stored; nobody may be on this stage any more.
    pub async fn clear(&self) -> anyhow::Result<()> {
        let Some(prefix) = &self.prefix else { return Ok(()) };
        let erased = host::erase(&self.config, prefix).await;
        erased.with_context(|| format!("what the demo stored is still in {}", self.place()))
    }

    fn text(&self) -> String {
        let Config { bus, redis, handlers_dir, .. } = &self.config;
        let url = match &bus.url {
            BusUrl::Redis(url) => url.secret().to_owned(),
            url => url.to_string(),
        };
        let mut lines = vec![
            "[bus]".to_owned(),
            setting("url", &url),
            "[run]".to_owned(),
            setting("handlers", &absolute(handlers_dir).display().to_string()),
        ];
        if self.prefix.is_some() {
            let (prefix, state_prefix) =
                (setting("prefix", &redis.prefix), setting("state_prefix", &redis.state_prefix));
            lines.extend(["[redis]".to_owned(), prefix, state_prefix]);
            lines.extend(["[retain]".to_owned(), setting("age", "off")]);
            let rules = self.config.streams.rules.iter();
            lines.extend(rules.map(|rule| format!("[[stream]]\ntypes = [\"*\"]\n{}", setting("name", &rule.name))));
        }
        lines.join("\n") + "\n"
    }
}

/// A line of TOML; what JSON makes of a text is one there too.
fn setting(key: &str, value: &str) -> String {
    format!("{key} = {}", serde_json::Value::from(value))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Gives everything on the server a name below `prefix`. Nothing is trimmed, least of all what belongs to others.
fn move_to(prefix: &str, config: &mut Config) {
    config.redis = Redis {
        prefix: format!("{prefix}host:"),
        state_prefix: format!("{prefix}state:"),
        channel_prefix: String::new(),
        ..config.redis.clone()
    };
    let all = TypePattern::parse("*").expect("it is a pattern");
    let rule = StreamRule {
        types: vec![all],
        name: format!("{prefix}events:{{type}}"),
        retain: None,
        layouts: Layouts::default(),
    };
    config.channels.clear();
    config.streams = Arc::new(Streams { rules: vec![rule], ..Streams::default() });
    (config.dead_letters.stream, config.dead_letters.layout) = (None, None);
}

/// The configured folder where the examples are in it; in place of a default folder without them, a copy.
fn choose_handlers(configured: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let Some(missing) = examples::missing_from(configured) else { return Ok(configured.to_owned()) };
    if configured != Path::new(DEFAULT_HANDLERS) {
        bail!("{} has no {missing}, which the demo needs; without --handlers it brings its own", configured.display());
    }
    let copy = folder.join("handlers");
    examples::write_to(&copy).with_context(|| format!("cannot write the example handlers to {}", copy.display()))?;
    Ok(copy)
}
