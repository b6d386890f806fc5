//! `moontide groups`: where each group stands, and what to do when a handler got another name or will not come back.

use std::process::ExitCode;

use serde::Serialize;

use super::{FAILED, UsageError, look, open_existing, output};
use crate::bus::GroupDetail;
use crate::clock::rfc3339;
use crate::config::Config;
use crate::host::Backend;
use crate::script::check_group;

const AFTER_HELP: &str = "\
Examples:
  moontide groups list
  moontide groups move stock_reservation stock/reservation    a handler's file got another name
  moontide groups forget audit                                a handler will not come back

A group that a host serves is neither moved nor forgotten: stop the host, or take the handler's file away.";

/// What can be done with groups.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum GroupsCommand {
    /// List groups: what they read, where they stand, what waits
    List {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Hand positions, pending and delayed work and dead letters of a group over to another one
    Move {
        /// The group whose place is taken
        #[arg(value_name = "OLD")]
        from: String,
        /// Created where it is missing; what it has handled already is not handled again
        #[arg(value_name = "NEW", value_parser = group_name)]
        to: String,
    },
    /// Forget where a group stands, and what waits for it; its dead letters stay
    Forget {
        /// As `moontide groups list` names it
        #[arg(value_name = "GROUP")]
        group: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

fn group_name(text: &str) -> Result<String, String> {
    check_group(text).map(|()| text.to_owned())
}

#[derive(Serialize)]
struct Row {
    group: String,
    handler: String,
    live: bool,
    streams: Vec<Position>,
    lag: u64,
    in_flight: u64,
    delayed: u64,
    dead: u64,
    lost: u64,
    foreign_consumers: u64,
    foreign_pending: u64,
    seen_at: String,
}

#[derive(Serialize)]
struct Position {
    stream: String,
    position: String,
    lag: u64,
}

/// Does what was asked for.
pub async fn run(command: GroupsCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let backend = match &command {
        GroupsCommand::List { .. } => look(config).await?,
        GroupsCommand::Move { .. } | GroupsCommand::Forget { .. } => open_existing(config).await?,
    };
    let done = execute(command, &backend).await;
    backend.close().await;
    done
}

async fn execute(command: GroupsCommand, backend: &Backend) -> anyhow::Result<ExitCode> {
    match command {
        GroupsCommand::List { json } => list(backend.groups.all().await?, json),
        GroupsCommand::Move { from, to } => {
            let moved = backend.groups.hand_over(&from, &to).await?;
            output::say(&format!(
                "{to} goes on where {from} stood: {}, {} that it had skipped, {} of retries and delayed work, {}",
                output::counted(moved.streams as usize, "stream"),
                output::counted(moved.taken_in as usize, "event"),
                output::counted(moved.delayed as usize, "piece"),
                output::counted(moved.dead as usize, "dead letter"),
            ))?;
            output::remark(&format!("idempotency records stay with {from}: what it handled is no duplicate for {to}"));
            Ok(ExitCode::SUCCESS)
        }
        GroupsCommand::Forget { group, yes } => forget(&group, yes, backend).await,
    }
}

fn list(groups: Vec<GroupDetail>, json: bool) -> anyhow::Result<ExitCode> {
    let rows: Vec<Row> = groups.into_iter().map(row).collect();
    if json {
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells = rows.iter().map(|row| {
        let streams: Vec<String> = row.streams.iter().map(|at| format!("{}@{}", at.stream, at.position)).collect();
        [
            row.group.clone(),
            row.handler.clone(),
            if row.live { "yes" } else { "no" }.to_owned(),
            row.lag.to_string(),
            row.in_flight.to_string(),
            row.delayed.to_string(),
            row.dead.to_string(),
            row.lost.to_string(),
            foreign(row),
            row.seen_at.clone(),
            output::or_dash(Some(&streams.join(", "))),
        ]
    });
    let header = [
        "GROUP",
        "HANDLER",
        "LIVE",
        "LAG",
        "IN FLIGHT",
        "DELAYED",
        "DEAD",
        "LOST",
        "FOREIGN",
        "LAST SEEN",
        "POSITIONS",
    ];
    output::table(header, cells)?;
    Ok(ExitCode::SUCCESS)
}

/// What consumers of others hold, and how many these are.
fn foreign(row: &Row) -> String {
    match row.foreign_consumers {
        0 => "0".into(),
        some => format!("{} ({})", row.foreign_pending, output::counted(some as usize, "consumer")),
    }
}

fn row(group: GroupDetail) -> Row {
    let position =
        |at: crate::bus::GroupPosition| Position { stream: at.stream, position: at.position.to_string(), lag: at.lag };
    Row {
        streams: group.positions.into_iter().map(position).collect(),
        seen_at: rfc3339(group.seen_at),
        group: group.group,
        handler: group.handler,
        live: group.live,
        lag: group.lag,
        in_flight: group.in_flight,
        delayed: group.delayed,
        dead: group.dead,
        lost: group.lost,
        foreign_consumers: group.foreign_consumers,
        foreign_pending: group.foreign_pending,
    }
}

async fn forget(name: &str, yes: bool, backend: &Backend) -> anyhow::Result<ExitCode> {
    let Some(group) = backend.groups.all().await?.into_iter().find(|group| group.group == name) else {
        output::complain(&format!("there is no group {name}; `moontide groups list` shows those that there are"));
        return Ok(ExitCode::from(FAILED));
    };
    let waits = group.lag + group.in_flight;
    let lost = format!("{waits} events that wait for {name} ({} retries and delayed ones)", group.delayed);
    if !yes {
        match output::ask(&format!("forget {lost} for good?")) {
            Some(true) => {}
            Some(false) => {
                output::remark("nothing was forgotten");
                return Ok(ExitCode::from(FAILED));
            }
            None => return Err(UsageError(format!("{lost} would be gone for good; say --yes")).into()),
        }
    }
    backend.groups.forget(name).await?;
    output::say(&format!("forgot {lost}; {} dead letters stay", group.dead))?;
    Ok(ExitCode::SUCCESS)
}
