//! `moontide handlers`: the handlers from all sides.

use std::process::ExitCode;

use super::{is_there, output};
use crate::config::Config;
use crate::host::{self, Backend};
use crate::registry::{Registry, Row, rows};

const AFTER_HELP: &str = "\
Examples:
  moontide handlers
  moontide handlers --json | jq '.[] | select(.dead > 0) | .name'

STATE is `live`; `broken` where the file does not load (an older version may go on serving); `not running` where no
running host has it; `missing` where only the store knows it. VERSION is the one that serves, since SINCE; where none
does, the file's. LAG counts retries and delayed work too; `lost` are events that retention trimmed before the group had
settled them, because no handler of it lived for longer than groups.forget.";

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
    let rows = if is_there(config) { ask(&registry, config).await? } else { rows(&registry, Vec::new(), Vec::new()) };
    if args.json {
        output::json(&rows)?;
    } else {
        print(&rows)?;
        output::remark_if_empty(&registry, &config.handlers_dir);
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(registry: &Registry, config: &Config) -> anyhow::Result<Vec<Row>> {
    let backend = super::look(config).await?;
    let rows = look(registry, &backend).await;
    backend.close().await;
    rows
}

/// The handlers, from all sides.
pub(super) async fn look(registry: &Registry, backend: &Backend) -> anyhow::Result<Vec<Row>> {
    Ok(rows(registry, backend.overview.groups().await?, backend.overview.reports().await?))
}

fn print(rows: &[Row]) -> anyhow::Result<()> {
    let header =
        ["HANDLER", "STATE", "VERSION", "SINCE", "TYPES", "GROUP", "LAG", "IN FLIGHT", "DELAYED", "DEAD", "LAST ERROR"];
    let cells = rows.iter().map(|row| {
        [
            row.name.clone(),
            row.state.clone(),
            output::or_dash(row.version.as_deref()),
            output::or_dash(row.since.as_deref()),
            output::or_dash(Some(&row.types.join(", "))),
            output::or_dash(row.group.as_deref()),
            if row.lost == 0 { row.lag.to_string() } else { format!("{} ({} lost)", row.lag, row.lost) },
            row.in_flight.to_string(),
            row.delayed.to_string(),
            row.dead.to_string(),
            output::or_dash(row.last_error.as_deref()),
        ]
    });
    Ok(output::table(header, cells)?)
}
