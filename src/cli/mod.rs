//! The command line: one file per command. They call others, show what came back, and decide nothing.
//!
//! Owns the flags, the exit codes and what goes to which output: results to standard output, everything else (messages,
//! questions, progress, logs) to standard error.

mod backup;
mod check;
mod completions;
mod dead;
mod demo;
mod emit;
mod groups;
mod handlers;
mod logging;
mod new;
mod output;
mod plain;
mod run;
mod state;
mod status;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::bus::BusError;
use crate::config::{self, BusUrl, Config, ConfigProblems, Flags};
use crate::event::Json;
use crate::host::{self, Backend, StartError};

/// Something failed, or problems were found.
const FAILED: u8 = 1;
/// Wrong usage or configuration. clap exits with the same.
const USAGE: u8 = 2;
/// The store is away, full or cannot be used.
const STORE: u8 = 3;

const AFTER_HELP: &str = "\
Examples:
  moontide                                          run every handler in ./handlers
  moontide emit order.created '{\"order_id\": 17}'    store an event
  moontide handlers                                 what is loaded, what waits, what failed
  moontide dead list                                events that were given up, and why

Exit codes:
  0  done
  1  failed, or problems were found
  2  wrong usage or configuration
  3  the store is away, full or cannot be used
  4  too many scripts could not be interrupted (moontide run)
  5  the store's file is gone, or a part of Moontide ended by a defect (moontide run)

Settings come from built-in defaults, variables of other services (REDIS_URL, …), moontide.toml, MOONTIDE_* variables and
flags; what is named later wins.";

/// Runs event handlers written in Luau: a script in a folder is a crash-safe worker.
#[derive(Debug, Parser)]
#[command(name = "moontide", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub flags: Flags,
    /// Without one: run
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the handlers until SIGINT or SIGTERM
    Run(run::RunArgs),
    /// Store events
    Emit(emit::EmitArgs),
    /// Load the configuration and every handler, run nothing; exit code 1 if anything is wrong
    Check(check::CheckArgs),
    /// Show the handlers: what is loaded, what waits, what failed
    Handlers(handlers::HandlersArgs),
    /// Show on one screen how things stand: store, hosts, handlers, what waits, what failed
    Status(status::StatusArgs),
    /// Write a handler to begin with
    New(new::NewArgs),
    /// Look at dead letters, replay or discard them
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Look at and change what handlers see as ctx.kv
    #[command(subcommand)]
    State(state::StateCommand),
    /// Look at consumer groups, hand one over to another, or forget it
    #[command(subcommand)]
    Groups(groups::GroupsCommand),
    /// Copy the store while hosts go on working
    Backup(backup::BackupArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::CompletionsArgs),
    /// Show a checkout choreography at work and prove that its stock adds up
    Demo(demo::DemoArgs),
}

/// Wrong usage that only shows once the configuration is known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Does what the command line says; the code is the process's.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start(cli).unwrap_or_else(|error| report(&error))
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let command = cli.command.unwrap_or_else(|| Command::Run(run::RunArgs::default()));
    let config = match command {
        Command::Run(_) | Command::Check(_) | Command::Demo(_) => config::load(&cli.flags)?,
        _ => config::load_without_secrets(&cli.flags)?,
    };
    let on_server = cli.flags.bus.is_some() && matches!(config.bus.url, BusUrl::Redis(_));
    if matches!(command, Command::Demo(_)) && cli.flags.bus.is_some() && !on_server {
        let message = "the demo brings a file of its own: leave out --bus, or name a server with redis://HOST";
        return Err(UsageError(message.into()).into());
    }
    let serves = matches!(&command, Command::Run(_) | Command::Demo(demo::DemoArgs { keep: true, .. }));
    logging::start(&config.log, cli.flags.log.is_some(), serves);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let done = runtime.block_on(dispatch(command, config, on_server));
    // A load of many handlers that is still under way is nothing to wait for.
    runtime.shutdown_background();
    done
}

/// `on_server`: the command line names a server, which the demo then takes.
async fn dispatch(command: Command, config: Config, on_server: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args, config).await,
        Command::Emit(args) => emit::run(args, &config).await,
        Command::Check(args) => check::run(&args, &config).await,
        Command::Handlers(args) => handlers::run(&args, &config).await,
        Command::Dead(command) => dead::run(command, &config).await,
        Command::State(command) => state::run(command, &config).await,
        Command::Status(args) => status::run(&args, &config).await,
        Command::New(args) => new::run(&args, &config),
        Command::Groups(command) => groups::run(command, &config).await,
        Command::Backup(args) => backup::run(&args, &config).await,
        Command::Completions(args) => completions::run(&args),
        Command::Demo(args) => demo::run(args, config, on_server).await,
    }
}

/// The store, for a command that changes it and ends.
async fn open(config: &Config) -> anyhow::Result<Backend> {
    refuse_memory(config)?;
    Ok(host::open(config, None).await?)
}

/// [`open`] for a command that has nothing to change where there is no store yet, and must not make one.
async fn open_existing(config: &Config) -> anyhow::Result<Backend> {
    refuse_missing(config)?;
    open(config).await
}

/// The store for a command that only looks at it: nothing is written.
async fn look(config: &Config) -> anyhow::Result<Backend> {
    refuse_memory(config)?;
    refuse_missing(config)?;
    Ok(host::look(config).await?)
}

fn refuse_memory(config: &Config) -> Result<(), UsageError> {
    if config.bus.url != BusUrl::Memory {
        return Ok(());
    }
    let message = "memory: lives within the process that runs the handlers, and no other can see it; \
                   run and ask with --bus sqlite:PATH or redis://HOST";
    Err(UsageError(message.into()))
}

fn refuse_missing(config: &Config) -> Result<(), BusError> {
    if is_there(config) {
        return Ok(());
    }
    let cause = "there is no such file; `moontide run` and `emit` make it, --bus names another".into();
    Err(BusError::Away { store: config.bus.url.to_string(), cause })
}

fn is_there(config: &Config) -> bool {
    !matches!(&config.bus.url, BusUrl::SqliteFile(path) if !path.exists())
}

/// A JSON document that was given on the command line as `what`.
fn document(what: &str, text: String) -> Result<Json, UsageError> {
    let hint = if text.trim_start().starts_with(['{', '[', '"']) {
        ""
    } else {
        "; a text needs quotes of its own: '\"text\"'"
    };
    Json::parse(text).map_err(|error| match error.is_data() {
        true => UsageError(format!("{what} cannot be taken: {error}")),
        false => UsageError(format!("{what} is not JSON: {error}{hint}")),
    })
}

fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever read our output has seen enough: `moontide dead list | head`.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    output::complain(&format!("{error:#}"));
    ExitCode::from(exit_code(error))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let store = match error.downcast_ref::<StartError>() {
        Some(StartError::Store(store)) => Some(store),
        Some(StartError::Folder { .. } | StartError::Only(..) | StartError::Listen(_)) => return USAGE,
        _ => error.downcast_ref::<BusError>(),
    };
    match store {
        Some(BusError::Refused(_)) => FAILED,
        Some(_) => STORE,
        None if error.is::<ConfigProblems>() || error.is::<UsageError>() => USAGE,
        None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_usage_store_and_failure_apart() {
        let away = || BusError::Away { store: "x.db".into(), cause: "busy".into() };
        for (error, code) in [
            (anyhow::Error::from(UsageError("no".into())), USAGE),
            (ConfigProblems(Vec::new()).into(), USAGE),
            (StartError::Only("a".into(), "b".into()).into(), USAGE),
            (StartError::Store(away()).into(), STORE),
            (anyhow::Error::from(away()).context("line 7"), STORE),
            (BusError::Refused("no".into()).into(), FAILED),
            (anyhow::anyhow!("no"), FAILED),
        ] {
            assert_eq!(exit_code(&error), code, "{error:#}");
        }
    }
}
