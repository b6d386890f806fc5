//! `moontide status`: one screen on how things stand.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::{FAILED, handlers, output};
use crate::clock::rfc3339;
use crate::config::Config;
use crate::host::{self, Backend};
use crate::registry::Row;

const AFTER_HELP: &str = "\
Examples:
  moontide status
  moontide status --json | jq .lag
  moontide status --alive        exit code 1 if no host is alive (for health checks)";

/// Flags of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct StatusArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Exit code 1 if no host is alive
    #[arg(long)]
    alive: bool,
}

#[derive(Serialize)]
struct Status {
    store: String,
    size_bytes: u64,
    processes: Vec<Alive>,
    handlers: usize,
    /// By state: `live`, `broken`, `not running`, `missing`.
    states: Vec<(String, usize)>,
    lag: u64,
    in_flight: u64,
    delayed: u64,
    dead: u64,
    last_errors: Vec<LastError>,
}

#[derive(Serialize)]
struct Alive {
    instance: String,
    started_at: String,
}

#[derive(Serialize)]
struct LastError {
    handler: String,
    state: String,
    error: String,
}

/// Prints the screen.
pub async fn run(args: &StatusArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let backend = super::look(config).await?;
    let status = look(&backend, config).await;
    backend.close().await;
    let status = status?;
    if args.json {
        output::say(&serde_json::to_string(&status)?)?;
    } else {
        print(&status)?;
    }
    Ok(if args.alive && status.processes.is_empty() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

async fn look(backend: &Backend, config: &Config) -> anyhow::Result<Status> {
    let registry = host::load_folder(&config.handlers_dir, config)?;
    let rows = handlers::look(&registry, backend).await?;
    let alive = backend.housekeeping.processes().await?;
    let states: BTreeSet<&String> = rows.iter().map(|row| &row.state).collect();
    let count = |state: &String| (state.clone(), rows.iter().filter(|row| row.state == *state).count());
    let error = |row: &Row| {
        let (handler, state) = (row.name.clone(), row.state.clone());
        row.last_error.clone().map(|error| LastError { handler, state, error })
    };
    Ok(Status {
        store: config.bus.url.to_string(),
        size_bytes: backend.housekeeping.size_bytes().await?,
        processes: alive
            .into_iter()
            .map(|process| Alive { instance: process.instance, started_at: rfc3339(process.started_at) })
            .collect(),
        handlers: rows.len(),
        states: states.into_iter().map(count).collect(),
        lag: rows.iter().map(|row| row.lag).sum(),
        in_flight: rows.iter().map(|row| row.in_flight).sum(),
        delayed: rows.iter().map(|row| row.delayed).sum(),
        dead: rows.iter().map(|row| row.dead).sum(),
        last_errors: rows.iter().filter_map(error).collect(),
    })
}

fn print(status: &Status) -> anyhow::Result<()> {
    let kib = status.size_bytes.div_ceil(1024);
    output::say(&format!("store      {}, {kib} KiB", status.store))?;
    match status.processes.as_slice() {
        [] => output::say("hosts      none is alive")?,
        alive => alive.iter().try_for_each(|process| {
            output::say(&format!("host       {}, since {}", process.instance, process.started_at))
        })?,
    }
    let states: Vec<String> = status.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let states = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    output::say(&format!("handlers   {states}"))?;
    let delayed = if status.delayed > 0 { format!(", {} of them delayed", status.delayed) } else { String::new() };
    output::say(&format!("waiting    {}{delayed}; {} in flight", status.lag, status.in_flight))?;
    output::say(&format!("dead       {}", status.dead))?;
    for LastError { handler, state, error } in &status.last_errors {
        output::say(&output::cell(&format!("error      {handler} ({state}): {error}")))?;
    }
    Ok(())
}
