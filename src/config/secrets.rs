//! Secrets: where their text comes from, and that nobody prints it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::raw::Table;
use crate::nearest::nearest;

/// A secret's text. Shows itself as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the handler it is granted to.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Reads `[secrets]`. One that cannot be had is a problem and is kept as an empty text, so that grants can name it.
pub fn read(table: Table<'_>, environment: &BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    let entries = table.entries();
    let one = |(name, path, value): (&str, String, _)| {
        (name.to_owned(), Secret(read_one(Table::of(table.checker, path, value), environment)))
    };
    entries.into_iter().map(one).collect()
}

/// Reads the secret `key`, if there is one: as in `[secrets]`, or the text itself in a variable.
pub fn read_optional(
    table: &mut Table<'_>,
    key: &'static str,
    environment: &BTreeMap<String, String>,
) -> Option<Secret> {
    let by_variable = table.is_variable(key);
    let path = table.path(key);
    let value = table.get(key)?;
    match value.as_str() {
        Some("") => None,
        Some(text) if by_variable => Some(Secret(text.to_owned())),
        Some(text) => {
            table.note(key, "does not belong in this file; write { env = \"NAME\" } or { file = \"PATH\" }");
            Some(Secret(text.to_owned()))
        }
        None => Some(Secret(read_one(Table::of(table.checker, path, value), environment))),
    }
}

fn read_one(mut table: Table<'_>, environment: &BTreeMap<String, String>) -> String {
    let what = "a text";
    let variable = table.optional("env", what, |value| Ok(value.as_str().map(str::to_owned)));
    let file = table.optional("file", what, |value| Ok(value.as_str().map(str::to_owned)));
    let text = match (variable, file) {
        (Some(name), None) => from_variable(&name, environment),
        (None, Some(path)) => from_file(Path::new(&path)),
        _ => Err("must have either env or file: { env = \"NAME\" } or { file = \"PATH\" }".into()),
    };
    let text = text.unwrap_or_else(|message| {
        table.note("", message);
        String::new()
    });
    table.close();
    text
}

fn from_variable(name: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    environment.get(name).cloned().ok_or_else(|| match nearest(name, environment.keys().map(String::as_str)) {
        Some(near) => format!("the variable {name} is not set, but {near} is; set it or name the right one"),
        None => format!("the variable {name} is not set; set it before starting"),
    })
}

fn from_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    check_permissions(path)?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("the file {shown} cannot be read: {error}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(unix)]
fn check_permissions(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;

    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| format!("the file {shown} cannot be read: {error}"))?;
    if about.permissions().mode() & 0o004 != 0 {
        return Err(format!("everybody can read the file {shown}; run: chmod o-rwx {shown}"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_permissions(_path: &Path) -> Result<(), String> {
    Ok(())
}
