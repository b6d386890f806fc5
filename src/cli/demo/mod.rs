//! `moontide demo`: the example handlers at work on made-up checkouts, and the proof that it adds up.
//!
//! Owns the order of things: set the stage, start who works there, show it, clear up. What is fed and what must come of it
//! is `demo`'s; nothing here judges.

mod crew;
mod show;
mod stage;

use std::process::ExitCode;

use anyhow::anyhow;

use super::{FAILED, logging, output};
use crate::config::Config;
use crate::demo::report;
use crate::host;
use crew::Crew;
use show::Show;
use stage::Stage;

/// Arguments of `moontide demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  moontide demo                      shows it and proves that it adds up, then cleans up after itself
  moontide demo --keep               goes on serving: edit a handler, emit more events
  moontide demo --checkouts 20000    more of them
  moontide demo --bus redis://localhost --processes 3 --kill
                                     three hosts on one server, one of which is killed every second

Uses ./handlers if the example handlers are there, otherwise its own copy of them. Events go to a temporary file, or to the
server that --bus names: in keys of their own there, which are removed at the end.
Exit code 1 if a sum does not hold.")]
pub struct DemoArgs {
    /// Go on serving, so that you can edit handlers and emit events
    #[arg(long)]
    pub keep: bool,
    /// How many checkouts to feed
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub checkouts: u32,
    /// What the checkouts are made of: the same number gives the same ones
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Share the work among so many hosts, each a process of its own [default: one host, within this process]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub processes: Option<u32>,
    /// Kill one of them every second while the checkouts come in, and start it again
    #[arg(long, requires = "processes")]
    pub kill: bool,
}

/// Runs the demo in a store of its own: on the configuration's server if `on_server`, otherwise in a file.
///
/// # Errors
/// When the host does not start, a handler does not load, the store fails, nothing moves any more, or it is interrupted.
pub async fn run(args: DemoArgs, config: Config, on_server: bool) -> anyhow::Result<ExitCode> {
    let stage = Stage::set(args.keep, on_server, config)?;
    let result = perform(&args, &stage).await;
    if !args.keep {
        stage.clear().await?;
    }
    Ok(if result? { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// True: it adds up.
async fn perform(args: &DemoArgs, stage: &Stage) -> anyhow::Result<bool> {
    let quiet = logging::hush();
    let mut signals = host::Signals::listen();
    let mut crew = Crew::start(stage, args.processes).await?;
    let result = tokio::select! {
        result = Show::new(&mut crew, stage).play(args) => result,
        () = signals.told(1) => Err(anyhow!("interrupted: nothing was checked")),
    };
    drop(quiet);
    let shown = match result {
        Ok(_) if args.keep => serve(stage, signals).await,
        _ => Ok(()),
    };
    crew.stop().await;
    shown?;
    result
}

/// Says what can be done with hosts that go on, and waits until they shall stop.
async fn serve(stage: &Stage, mut signals: host::Signals) -> anyhow::Result<()> {
    let called = std::env::args().next().unwrap_or_else(|| "moontide".to_owned());
    output::say(&format!("\n{}", report::invitation(&called, &stage.flag(), &stage.config.handlers_dir)))?;
    signals.told(1).await;
    output::say(&format!("\nWhat it stored stays in {}", stage.place()))?;
    Ok(())
}
