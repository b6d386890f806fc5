//! The layers of a configuration, each over the one before: embedded defaults, variables of other services (`foreign`), file,
//! our own variables, flags.
//!
//! Owns which variable of ours sets which key, and remembers where each value was set. Does not know what the values mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::foreign::{self, Borrowed};
use super::problem::{Origin, Problem};
use super::raw::show;
use crate::failpoint;
use crate::nearest::nearest;

/// `config/default.toml`.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");
/// Read from the current directory unless `--config` names another file.
pub const FILE: &str = "moontide.toml";
const PREFIX: &str = "MOONTIDE_";
/// The one variable that is no key: the file to read, as `--config`.
pub const FILE_VARIABLE: &str = "MOONTIDE_CONFIG";

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Shared options")]
pub struct Flags {
    /// Configuration file [default: moontide.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true, env = FILE_VARIABLE, hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Where events are stored: sqlite:PATH, redis://HOST or memory:
    #[arg(long, value_name = "URL", global = true)]
    pub bus: Option<String>,
    /// Folder with the handlers
    #[arg(long, value_name = "DIR", global = true)]
    pub handlers: Option<PathBuf>,
    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log: Option<String>,
}

/// What a configuration is read from besides the flags.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The process's environment.
    pub environment: BTreeMap<String, String>,
    /// The file that is read if it exists and no other is named.
    pub file: PathBuf,
}

impl Surroundings {
    /// The process's own. What is not UTF-8 is replaced, and refused where it would set something.
    pub fn of_process() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self { environment, file: FILE.into() }
    }
}

/// The merged values, and where each came from.
pub struct Layers {
    pub root: Dict,
    /// Which variables of others count.
    pub borrowed: Borrowed,
    figment: Figment,
    file: PathBuf,
}

impl Layers {
    /// Reads and merges all layers. What cannot be read becomes a problem, and the layer is left out.
    pub fn read(flags: &Flags, around: &Surroundings, problems: &mut Vec<Problem>) -> Self {
        let defaults = Toml::from_str::<Dict>(DEFAULT_TOML).expect("default.toml is embedded, and a test parses it");
        let variables = Variables::of(&defaults);
        let file = flags.config.clone().unwrap_or_else(|| around.file.clone());
        let mut from_file = read_file(&file, flags.config.is_some(), problems);
        // Before the next layer covers them up.
        from_file.retain(|key, value| {
            let wrong = defaults.contains_key(key) && value.as_dict().is_none();
            if wrong {
                let message = format!("must be a table, not {}", show(value));
                problems.push(Problem { origin: Origin::File(file.clone()), key: key.clone(), message });
            }
            !wrong
        });
        let secrets = secret_variables(&from_file);
        let from_variables = variables.read(&around.environment, &secrets, problems);
        let from_flags = flag_values(flags);
        let is_said =
            |key: &str| [&from_file, &from_variables, &from_flags].into_iter().any(|values| says(values, key));
        let foreign::Layer { values: from_others, borrowed } = foreign::read(&around.environment, is_said, problems);
        let figment = Figment::new()
            .merge(Layer { name: "default", values: defaults })
            .merge(Layer { name: "foreign", values: from_others })
            .merge(Layer { name: "file", values: from_file })
            .merge(Layer { name: "variable", values: from_variables })
            .merge(Layer { name: "flag", values: from_flags });
        let root = figment.data().ok().and_then(|mut by_profile| by_profile.remove(&Profile::Default));
        Self { root: root.unwrap_or_default(), borrowed, figment, file }
    }

    /// Where the value with this tag was set; `key` is its dotted key.
    pub fn origin(&self, tag: Tag, key: &str) -> Origin {
        match self.figment.get_metadata(tag).map(|layer| layer.name.as_ref()) {
            Some("file") => Origin::File(self.file.clone()),
            Some("foreign") => Origin::Variable(self.borrowed.who_set(key).unwrap_or(key).to_owned()),
            Some("variable") => Origin::Variable(variable(key)),
            Some("flag") => Origin::Flag(flag(key)),
            _ => Origin::Default,
        }
    }

    /// The file that was read, or would have been: for what is missing there.
    pub fn file(&self) -> Origin {
        Origin::File(self.file.clone())
    }
}

struct Layer {
    name: &'static str,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn read_file(path: &Path, must_exist: bool, problems: &mut Vec<Problem>) -> Dict {
    let mut problem =
        |message| problems.push(Problem { origin: Origin::File(path.into()), key: String::new(), message });
    match std::fs::read_to_string(path) {
        Ok(text) => Toml::from_str::<Dict>(&text).unwrap_or_else(|error| {
            problem(format!("is not TOML: {}", error.to_string().trim_end()));
            Dict::new()
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Dict::new(),
        Err(error) => {
            problem(format!("cannot be read: {error}"));
            Dict::new()
        }
    }
}

/// The names of variables that hold secrets: every `env = "NAME"`, however deep.
fn secret_variables(values: &Dict) -> Vec<String> {
    let names = values.iter().flat_map(|(key, value)| match value {
        Value::Dict(_, below) => secret_variables(below),
        Value::String(_, name) if key == "env" => vec![name.clone()],
        _ => Vec::new(),
    });
    names.collect()
}

fn flag_values(flags: &Flags) -> Dict {
    let mut values = Dict::new();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            insert(&mut values, key, value.into());
        }
    };
    set("bus.url", flags.bus.clone());
    set("run.handlers", flags.handlers.as_ref().map(|path| path.display().to_string()));
    set("log.level", flags.log.clone());
    values
}

fn flag(key: &str) -> &'static str {
    match key {
        "bus.url" => "--bus",
        "run.handlers" => "--handlers",
        _ => "--log",
    }
}

/// Which variables there are: one for every key that has a default.
struct Variables(BTreeMap<String, String>);

impl Variables {
    fn of(defaults: &Dict) -> Self {
        let keys = defaults.iter().flat_map(|(table, value)| {
            let keys = value.as_dict().into_iter().flat_map(Dict::keys);
            keys.map(move |key| format!("{table}.{key}"))
        });
        Self(keys.map(|key| (variable(&key), key)).collect())
    }

    /// `secrets`: names that the file gives to variables; they may look like ours.
    fn read(&self, environment: &BTreeMap<String, String>, secrets: &[String], problems: &mut Vec<Problem>) -> Dict {
        let mut values = Dict::new();
        let is_other = |name: &String| name == FILE_VARIABLE || failpoint::is_switch(name) || secrets.contains(name);
        let is_ours = |name: &String| name.starts_with(PREFIX) && !is_other(name);
        let ours = environment.iter().filter(|(name, _)| is_ours(name));
        for (name, value) in ours {
            match self.0.get(name) {
                Some(_) if value.contains(char::REPLACEMENT_CHARACTER) => {
                    let message = "is not UTF-8; write it in plain text".into();
                    problems.push(Problem { origin: Origin::Variable(name.clone()), key: String::new(), message });
                }
                Some(key) => insert(&mut values, key, value.as_str().into()),
                None => problems.push(self.unknown(name)),
            }
        }
        values
    }

    fn unknown(&self, name: &str) -> Problem {
        let known = self.0.keys().map(String::as_str).chain([FILE_VARIABLE]);
        let longer: Vec<_> = self.0.keys().filter(|known| known.starts_with(&format!("{name}_"))).cloned().collect();
        let message = match nearest(name, known) {
            _ if !longer.is_empty() => format!("sets nothing; did you mean {}?", longer.join(" or ")),
            Some(near) => format!("sets nothing; did you mean {near}?"),
            None => "sets nothing; variables are named after the keys of config/default.toml: MOONTIDE_BUS_URL".into(),
        };
        Problem { origin: Origin::Variable(name.into()), key: String::new(), message }
    }
}

/// `limits.cpu` → `MOONTIDE_LIMITS_CPU`.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "_"))
}

/// Whether `values` have one for the dotted `key`.
fn says(values: &Dict, key: &str) -> bool {
    let table = key.split_once('.').and_then(|(table, key)| Some((values.get(table)?.as_dict()?, key)));
    table.is_some_and(|(table, key)| table.contains_key(key))
}

/// Sets the dotted `key`.
pub(super) fn insert(values: &mut Dict, key: &str, value: Value) {
    let Some((table, key)) = key.split_once('.') else { return };
    let table = values.entry(table.to_owned()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, keys) = table {
        keys.insert(key.to_owned(), value);
    }
}
