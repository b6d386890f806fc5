//! `moontide backup`: a copy of the store, while hosts go on working.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{look, output};
use crate::config::Config;

const AFTER_HELP: &str = "\
Examples:
  moontide backup moontide-$(date +%F).db
  moontide --bus sqlite:moontide-2026-11-21.db dead list    look into a copy

The copy is of one moment: every event in it has all its effects or none. To restore it, stop the hosts and put it in the
place of the store, without the -wal and -shm files of the old one.";

/// Flags of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct BackupArgs {
    /// A file that does not exist yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes the copy.
pub async fn run(args: &BackupArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let backend = look(config).await?;
    let copied = backend.housekeeping.backup(&args.file).await;
    backend.close().await;
    copied?;
    output::say(&format!("{}", args.file.display()))?;
    Ok(ExitCode::SUCCESS)
}
