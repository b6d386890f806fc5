//! The handlers from all sides: what the folder holds, how the groups stand, what the running hosts say.
//!
//! Decides what counts where they disagree: a file that does not load is broken, whatever a host said before.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Loaded, Registry};
use crate::bus::{GroupStatus, HandlerReport};
use crate::clock::rfc3339;
use crate::script::Program;

/// One handler, from all sides.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// What serves; where nothing does, what the file holds.
    pub version: Option<String>,
    /// Since when it serves.
    pub since: Option<String>,
    pub types: Vec<String>,
    pub group: Option<String>,
    /// `live`, `broken`, `missing` or `not running`.
    pub state: String,
    pub lag: u64,
    pub in_flight: u64,
    pub delayed: u64,
    pub dead: u64,
    /// Entries that were trimmed before the group had settled them.
    pub lost: u64,
    pub last_error: Option<String>,
    /// The host that spoke last, and when.
    pub instance: Option<String>,
    pub reported_at: Option<String>,
}

/// One row per handler, by name.
pub fn rows(registry: &Registry, groups: Vec<GroupStatus>, mut reports: Vec<HandlerReport>) -> Vec<Row> {
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
        row(name, registry.handlers.get(name), by_handler.get(name).map_or(&[], Vec::as_slice), reports.get(name))
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
        types: program.map(types).unwrap_or_default(),
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

fn types(program: &Program) -> Vec<String> {
    program.manifest.types.iter().map(|pattern| pattern.as_str().to_owned()).collect()
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
            oldest: None,
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
