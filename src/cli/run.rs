//! `moontide run`, and what `moontide` alone does.

use std::process::ExitCode;

use super::UsageError;
use crate::config::{Config, check_instance};
use crate::failpoint;
use crate::host::{self, Start};

const AFTER_HELP: &str = "\
Examples:
  moontide run
  moontide run --only stock_reservation,billing/charge
  moontide run --bus memory: --handlers examples --log debug

Handlers that change, appear or vanish are taken up while it runs. The first signal lets running scripts finish
(run.grace), the second ends the process at once; nothing is lost either way.";

/// Flags of `run`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct RunArgs {
    /// Run only these handlers
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Name of this process among those that share the store [default: run.name, or host name and process id]
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name)]
    pub name: Option<String>,
}

/// Runs the host until it is told to stop.
pub async fn run(args: RunArgs, config: Config) -> anyhow::Result<ExitCode> {
    failpoint::arm().map_err(UsageError)?;
    host::run(config, Start { only: args.only, instance: args.name }).await?;
    Ok(ExitCode::SUCCESS)
}

fn instance_name(text: &str) -> Result<String, String> {
    check_instance(text).map(|()| text.to_owned())
}
