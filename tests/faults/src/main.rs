//! The fault rig's command: plays parts, keeps what they found, writes the report.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use moontide_faults::apart::{self, Apart};
use moontide_faults::bugs;
use moontide_faults::findings::p;
use moontide_faults::parts::{self, Part};
use moontide_faults::place::Bus;
use moontide_faults::record::{self, Record};
use moontide_faults::report;
use moontide_faults::task::Task;
use moontide_faults::trials;

#[derive(Parser)]
#[command(about = "Puts Moontide through faults and counts what was lost or doubled")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play some parts, or all of them
    Run {
        /// Names of parts; none: all of them
        parts: Vec<String>,
        /// Only on this bus
        #[arg(long)]
        bus: Option<Bus>,
        /// Where everything random begins; a failing round prints its own
        #[arg(long)]
        seed: Option<u64>,
        /// How much of a full run: 1 all of it, 0 a single round, of which nothing is kept
        #[arg(long, default_value_t = 1.0)]
        share: f64,
        /// Add what is found to what is kept of these parts, as a further piece of one long run, in place of replacing it
        #[arg(long)]
        add: bool,
    },
    /// Plant bugs in a copy of the sources, one by one, and see whether a test notices; what earlier runs found of bugs
    /// that read the same counts in the report, too
    Bugs {
        /// Only those whose name contains one of these
        names: Vec<String>,
    },
    /// Write docs/reliability.md from what the last runs found
    Report,
    /// Say which parts there are
    List,
}

#[tokio::main]
async fn main() -> ExitCode {
    match play(Cli::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False: something was lost, or doubled, or took too long.
async fn play(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::List => {
            let on_buses = parts::ALL.iter().map(|part| (part.name, part.what));
            let apart = apart::ALL.iter().map(|part| (part.name, part.what));
            on_buses.chain(apart).for_each(|(name, what)| println!("{name:12} {what}"));
            Ok(true)
        }
        Command::Bugs { names } => plant(&names),
        Command::Report => report().map(|()| true),
        Command::Run { parts, bus, seed, share, add } => {
            let seed = seed.unwrap_or_else(rand::random);
            let (on_buses, alone) = chosen(&parts)?;
            let mut clean = true;
            for part in alone {
                clean &= run_apart(part, seed, share, add)?;
            }
            for part in on_buses {
                for bus in part.buses.iter().filter(|candidate| bus.is_none_or(|bus| bus == **candidate)) {
                    clean &= run(part, Task { part: part.name, bus: *bus, seed, share }, add).await?;
                }
            }
            Ok(clean)
        }
    }
}

fn plant(names: &[String]) -> anyhow::Result<bool> {
    let (began, record) = (Instant::now(), Record::begin("bugs", None, 0, 1.0));
    let all_caught = bugs::plant(names)?;
    record.end(began.elapsed(), trials::sum(&bugs::all()?)?).keep()?;
    Ok(all_caught)
}

fn report() -> anyhow::Result<()> {
    let page = report::page(&record::all()?, include_str!("../found.md"));
    let file = record::root().join("docs/reliability.md");
    std::fs::write(&file, page).with_context(|| format!("{} cannot be written", file.display()))
}

/// Those of these names, on buses and apart; without names all of them.
fn chosen(names: &[String]) -> anyhow::Result<(Vec<&'static Part>, Vec<&'static Apart>)> {
    if names.is_empty() {
        return Ok((parts::ALL.iter().collect(), apart::ALL.iter().collect()));
    }
    let (mut on_buses, mut alone) = (Vec::new(), Vec::new());
    for name in names {
        match (parts::named(name), apart::named(name)) {
            (Some(part), _) => on_buses.push(part),
            (None, Some(part)) => alone.push(part),
            (None, None) => bail!("there is no part {name}; see scripts/faults list"),
        }
    }
    Ok((on_buses, alone))
}

fn run_apart(part: &Apart, seed: u64, share: f64, add: bool) -> anyhow::Result<bool> {
    println!("{}, seed {seed}", part.name);
    let (began, record) = (Instant::now(), Record::begin(part.name, None, seed, share));
    let found = (part.run)(seed, share);
    close(record.end(began.elapsed(), found), add)
}

async fn run(part: &Part, task: Task, add: bool) -> anyhow::Result<bool> {
    println!("{} on {}, seed {}", part.name, task.bus, task.seed);
    let (began, record) = (Instant::now(), Record::begin(task.part, Some(task.bus), task.seed, task.share));
    let found = (part.run)(task).await;
    close(record.end(began.elapsed(), found), add)
}

/// Says what was found, and keeps it; false: not everything was as it must be.
fn close(record: Record, add: bool) -> anyhow::Result<bool> {
    let found = &record.found;
    println!("{}", serde_json::to_string(&found.faults)?);
    println!(
        "{}: {} events, {} lost, {} predicted, {} doubled, {} overcharged, {} panics, {} s",
        if found.is_clean() { "clean" } else { "NOT CLEAN" },
        found.events,
        found.lost,
        found.predicted,
        found.doubled,
        found.overcharged,
        found.panics,
        record.seconds
    );
    for (kind, times) in &found.recovery {
        println!("recovered from {kind}: p50 {} ms, p99 {} ms", p(50, times), p(99, times));
    }
    let clean = found.is_clean();
    if record.share == 0.0 {
        return Ok(clean);
    }
    let before = if add { record::of(&record.part, record.bus)? } else { None };
    let record = if let Some(before) = before { record.added_to(before) } else { record };
    record.keep()?;
    Ok(clean)
}
