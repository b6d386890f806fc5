//! `moontide new`: a handler to begin with.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;

use super::{FAILED, UsageError, output};
use crate::config::Config;
use crate::event::TypePattern;
use crate::registry;

const AFTER_HELP: &str = "\
Examples:
  moontide new order.created
  moontide new billing/charge --on order.paid

Writes NAME.luau into the handlers folder, with comments on what can be said in it. A running host takes it up at once.";

const TEMPLATE: &str = include_str!("handler.luau");

/// Flags of `new`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct NewArgs {
    /// Path below the handlers folder without its ending
    #[arg(value_name = "NAME")]
    name: String,
    /// The event type, or a pattern of types [default: the last part of NAME]
    #[arg(long, value_name = "TYPE")]
    on: Option<String>,
}

/// Writes the file; never over one that is there.
pub fn run(args: &NewArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let name = &args.name;
    registry::check_name(name).map_err(|reason| UsageError(format!("{name:?} is no handler's name: {reason}")))?;
    let on = args.on.as_deref().unwrap_or_else(|| name.rsplit('/').next().unwrap_or(name));
    TypePattern::parse(on).map_err(|error| UsageError(format!("{on:?} is no event type: {error}; say --on TYPE")))?;
    let path = config.handlers_dir.join(format!("{name}.luau"));
    let other = path.with_file_name(format!("{}.lua", name.rsplit('/').next().unwrap_or(name)));
    if other.exists() {
        output::complain(&format!("{} exists already", other.display()));
        return Ok(ExitCode::from(FAILED));
    }
    let folder = path.parent().unwrap_or(&config.handlers_dir);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let text = TEMPLATE.replace("NAME", name).replace("TYPE", on);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            output::complain(&format!("{} exists already", path.display()));
            return Ok(ExitCode::from(FAILED));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
    output::say(&format!("{}", path.display()))?;
    output::remark(&format!("try it: moontide emit {on} '{{}}'"));
    Ok(ExitCode::SUCCESS)
}
