//! `moontide handlers`: the handlers from all sides.

use std::process::ExitCode;

use super::{open, output};
use crate::config::Config;
use crate::host;
use crate::registry::{self, Row};

const AFTER_HELP: &str = "\
Examples:
  moontide handlers
  moontide handlers --json | jq '.[] | select(.dead > 0) | .name'

STATE is what the host that spoke last says (live, broken, missing), `broken` where the file does not load, and
`not running` where no host has spoken of the handler. LAG counts retries and delayed work too.";

/// Flags of `handlers`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct HandlersArgs {
    /// One JSON array
    #[arg(long)]
    json: bool,
}

/// Prints the handlers.
pub async fn run(args: &HandlersArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let registry = host::load_folder(&config.handlers_dir, config)?;
    let backend = open(config)?;
    let rows = registry::rows(&registry, backend.overview.groups().await?, backend.overview.reports().await?);
    backend.close().await;
    if args.json {
        output::json(&rows)?;
    } else {
        print(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(rows: &[Row]) -> anyhow::Result<()> {
    let header = ["HANDLER", "STATE", "VERSION", "TYPES", "GROUP", "LAG", "IN FLIGHT", "DELAYED", "DEAD", "LAST ERROR"];
    let cells = rows.iter().map(|row| {
        [
            row.name.clone(),
            row.state.clone(),
            output::or_dash(row.version.as_deref()),
            output::or_dash(Some(&row.types.join(", "))),
            output::or_dash(row.group.as_deref()),
            row.lag.to_string(),
            row.in_flight.to_string(),
            row.delayed.to_string(),
            row.dead.to_string(),
            output::or_dash(row.last_error.as_deref()),
        ]
    });
    Ok(output::table(header, cells)?)
}
