//! `moontide handlers`: what the folder holds, how the groups stand, what the running hosts say.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde::Serialize;

use super::{check, is_there, open, output};
use crate::bus::{GroupStatus, HandlerReport};
use crate::clock::rfc3339;
use crate::config::Config;
use crate::host::{self, Backend};
use crate::registry::{Loaded, Registry};

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

/// One handler, from all sides.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// What serves; where nothing does, what the file holds.
    version: Option<String>,
    /// Since when it serves.
    since: Option<String>,
    types: Vec<String>,
    group: Option<String>,
    pub(super) state: String,
    pub(super) lag: u64,
    pub(super) in_flight: u64,
    pub(super) delayed: u64,
    pub(super) dead: u64,
    /// Entries that were trimmed before the group had settled them.
    lost: u64,
    pub(super) last_error: Option<String>,
    /// The host that spoke last, and when.
    instance: Option<String>,
    reported_at: Option<String>,
}

/// Prints the handlers.
pub async fn run(args: &HandlersArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let registry = host::load_folder(&config.handlers_dir, config)?;
    let rows = if is_there(config) { ask(&registry, config).await? } else { rows(&registry, Vec::new(), Vec::new()) };
    if args.json {
        output::json(&rows)?;
    } else {
        print(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(registry: &Registry, config: &Config) -> anyhow::Result<Vec<Row>> {
    let backend = open(config)?;
    let rows = look(registry, &backend).await;
    backend.close().await;
    rows
}

/// The handlers, from all sides.
pub(super) async fn look(registry: &Registry, backend: &Backend) -> anyhow::Result<Vec<Row>> {
    Ok(rows(registry, backend.overview.groups().await?, backend.overview.reports().await?))
}

fn rows(registry: &Registry, groups: Vec<GroupStatus>, mut reports: Vec<HandlerReport>) -> Vec<Row> {
    // The last one counts: of a host that runs, if there is one, and of those the one that spoke last.
    reports.sort_by_key(|report| (report.state != HandlerReport::NOT_RUNNING, report.at));
    let reports: BTreeMap<String, HandlerReport> =
        reports.into_iter().map(|report| (report.handler.clone(), report)).collect();
    let mut by_handler: BTreeMap<String, Vec<GroupStatus>> = BTreeMap::new();
    for group in groups {
        by_handler.entry(group.handler.clone()).or_default().push(group);
    }
    let names: BTreeSet<&String> = registry.handlers.keys().chain(reports.keys()).chain(by_handler.keys()).collect();
    let row = |name: &String| {
        let groups = by_handler.get(name).map_or(&[][..], Vec::as_slice);
        row(name, registry.handlers.get(name), groups, reports.get(name))
    };
    names.into_iter().map(row).collect()
}

fn row(name: &str, loaded: Option<&Loaded>, groups: &[GroupStatus], report: Option<&HandlerReport>) -> Row {
    let serving = report.filter(|report| report.state != HandlerReport::NOT_RUNNING);
    let program = loaded.and_then(|loaded| loaded.program.as_deref());
    let problem = loaded.and_then(|loaded| loaded.problem.as_ref());
    let state = match (problem, serving, loaded) {
        (Some(_), ..) => "broken",
        (None, Some(report), _) => &report.state,
        (None, None, Some(_)) => HandlerReport::NOT_RUNNING,
        (None, None, None) => "missing",
    };
    let sum = |count: fn(&GroupStatus) -> u64| groups.iter().map(count).sum();
    let group = program.map(|program| program.manifest.group.clone());
    Row {
        name: name.to_owned(),
        version: serving
            .map(|report| report.version.clone())
            .filter(|version| !version.is_empty())
            .or(program.map(|program| program.version.to_string())),
        since: serving.filter(|report| report.since > 0).map(|report| rfc3339(report.since)),
        types: program.map(check::types).unwrap_or_default(),
        group: group.or(report.map(|report| report.group.clone())).or(groups.first().map(|group| group.group.clone())),
        state: state.to_owned(),
        lag: sum(|group| group.lag),
        in_flight: sum(|group| group.in_flight),
        delayed: sum(|group| group.delayed),
        dead: sum(|group| group.dead),
        lost: sum(|group| group.lost),
        last_error: problem.map(ToString::to_string).or(report.and_then(|report| report.last_error.clone())),
        instance: report.map(|report| report.instance.clone()),
        reported_at: report.map(|report| rfc3339(report.at)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(handler: &str, state: &str, at: i64) -> HandlerReport {
        HandlerReport {
            handler: handler.into(),
            group: "g".into(),
            version: format!("v{at}"),
            since: at,
            state: state.into(),
            last_error: None,
            instance: "here".into(),
            at,
        }
    }

    #[test]
    fn the_report_that_came_last_counts_and_groups_add_up() {
        let group = |name: &str, lag, dead| GroupStatus {
            group: name.into(),
            handler: "mail".into(),
            lag,
            in_flight: 1,
            delayed: 0,
            dead,
            lost: dead,
        };
        let reports = vec![
            report("mail", "live", 2),
            report("mail", "broken", 1),
            report("mail", HandlerReport::NOT_RUNNING, 3),
            report("gone", HandlerReport::NOT_RUNNING, 1),
        ];
        let rows = rows(&Registry::default(), vec![group("a", 3, 1), group("b", 4, 0)], reports);
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["gone", "mail"]);
        let mail = &rows[1];
        assert_eq!((mail.state.as_str(), mail.version.as_deref()), ("live", Some("v2")));
        assert_eq!((mail.lag, mail.in_flight, mail.dead), (7, 2, 1));
    }
}
