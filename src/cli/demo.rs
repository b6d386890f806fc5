//! `moontide demo`: the checkout choreography at work.

use std::process::ExitCode;

use crate::config::Config;

/// Flags of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Go on serving afterwards
    #[arg(long)]
    pub keep: bool,
    /// Checkouts to feed
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub checkouts: u32,
    /// Makes the same checkouts again
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Shows the choreography.
pub async fn run(_args: DemoArgs, _config: Config) -> anyhow::Result<ExitCode> {
    anyhow::bail!("stand-in")
}
