//! The command line: one file per command. They call others, show what came back, and decide nothing.
//!
//! Owns the flags, the exit codes and what goes to which output: results to standard output, everything else (messages,
//! questions, progress, logs) to standard error.

mod check;
mod dead;
mod demo;
mod emit;
mod handlers;
mod logging;
mod output;
mod run;
mod state;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::bus::BusError;
use crate::config::{self, BusUrl, Config, ConfigProblems, Flags};
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

Settings come from built-in defaults, moontide.toml, MOONTIDE_* variables and flags; what is named later wins.";

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
    /// Look at dead letters, replay or discard them
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Look at and change what handlers see as ctx.kv
    #[command(subcommand)]
    State(state::StateCommand),
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
    let config = config::load(&cli.flags)?;
    let command = cli.command.unwrap_or_else(|| Command::Run(run::RunArgs::default()));
    let serves = matches!(&command, Command::Run(_) | Command::Demo(demo::DemoArgs { keep: true, .. }));
    logging::start(&config.log, cli.flags.log.is_some(), serves);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(dispatch(command, config))
}

async fn dispatch(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args, config).await,
        Command::Emit(args) => emit::run(args, &config).await,
        Command::Check(args) => check::run(&args, &config),
        Command::Handlers(args) => handlers::run(&args, &config).await,
        Command::Dead(command) => dead::run(command, &config).await,
        Command::State(command) => state::run(command, &config).await,
        Command::Demo(args) => demo::run(args, config).await,
    }
}

/// The store, for a command that looks at it or changes it and ends.
fn open(config: &Config) -> anyhow::Result<Backend> {
    if config.bus.url == BusUrl::Memory {
        let message = "memory: lives within the process that runs the handlers, and no other can see it; \
                       run and ask with --bus sqlite:PATH";
        return Err(UsageError(message.into()).into());
    }
    Ok(host::open(config, None)?)
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
