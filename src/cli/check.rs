//! `moontide check`: loads the configuration and every handler, runs nothing.

use std::process::ExitCode;

use serde::Serialize;

use super::{FAILED, output, plain};
use crate::config::Config;
use crate::host;
use crate::registry::{Loaded, Registry};
use crate::script::Program;
use crate::units;

const AFTER_HELP: &str = "\
Examples:
  moontide check
  moontide check --handlers build/handlers --json | jq '.[] | select(.problems != [])'

Exit code 1 if a handler has a problem; warnings do not count.";

/// Flags of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct CheckArgs {
    /// One JSON array
    #[arg(long)]
    json: bool,
}

/// One handler, or something in the folder that is none.
#[derive(Debug, Serialize)]
struct Checked {
    /// `null`: no handler, but something beside them that is wrong.
    name: Option<String>,
    version: Option<String>,
    types: Vec<String>,
    group: Option<String>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// Prints what was found.
pub async fn run(args: &CheckArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let registry = host::load_folder(&config.handlers_dir, config)?;
    let found = check(&registry);
    if args.json {
        output::json(&found)?;
    } else {
        print(&found)?;
        output::remark_if_empty(&registry, &config.handlers_dir);
        output::say("")?;
        config.chosen().iter().try_for_each(|line| output::say(&plain::line(line)))?;
        promises(config).await?;
        memory(&registry, config)?;
    }
    for pattern in config.idle_patterns(registry.handlers.keys().map(String::as_str)) {
        output::remark(&format!("warning: [handlers.{pattern:?}] fits no handler"));
    }
    config.in_vain().iter().for_each(|warning| output::remark(&format!("warning: {warning}")));
    let sound = found.iter().all(|checked| checked.problems.is_empty());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What the store promises. That a server cannot be asked is no fault of the handlers.
async fn promises(config: &Config) -> anyhow::Result<()> {
    match host::promises(config).await {
        Ok(promises) => {
            let rows = promises.into_iter().map(|promise| [promise.when.to_owned(), promise.holds.to_owned()]);
            output::say("")?;
            output::table(["WHEN", "THEN"], rows)?;
        }
        Err(error) => output::remark(&format!("warning: what the store promises is not known: {error}")),
    }
    Ok(())
}

/// What idempotency takes in the memory of a server.
fn memory(registry: &Registry, config: &Config) -> anyhow::Result<()> {
    let Some(bytes) = host::record_bytes(config) else { return Ok(()) };
    let windows = registry.handlers.iter().filter_map(|(name, loaded)| {
        let window = loaded.program.as_ref()?.manifest.idempotency.window?;
        // A million events a day, of which those within the window have a record.
        let held = 1e6 * bytes as f64 * window.as_secs_f64() / 86_400.0;
        Some([name.clone(), units::show_duration(window), format!("{:.1} MiB", held / (1u32 << 20) as f64)])
    });
    let rows: Vec<_> = windows.collect();
    if !rows.is_empty() {
        output::say(&format!(
            "\nAn idempotency record takes about {bytes} bytes on the server for as long as its window."
        ))?;
        output::table(["HANDLER", "WINDOW", "PER MILLION EVENTS A DAY"], rows)?;
    }
    Ok(())
}

fn check(registry: &Registry) -> Vec<Checked> {
    let handlers = registry.handlers.iter().map(|(name, loaded)| check_one(name, loaded));
    let skipped = registry.skipped.iter().map(|skipped| Checked {
        name: None,
        version: None,
        types: Vec::new(),
        group: None,
        problems: vec![format!("{}: {}", skipped.path.display(), skipped.reason)],
        warnings: Vec::new(),
    });
    handlers.chain(skipped).collect()
}

fn check_one(name: &str, loaded: &Loaded) -> Checked {
    let program = loaded.program.as_deref();
    Checked {
        name: Some(name.to_owned()),
        version: program.map(|program| program.version.to_string()),
        types: program.map(types).unwrap_or_default(),
        group: program.map(|program| program.manifest.group.clone()),
        problems: loaded.problem.iter().flat_map(|problem| problem.problems.clone()).collect(),
        warnings: program.map(Program::ungranted).unwrap_or_default(),
    }
}

/// The types a handler asks for, as written.
pub fn types(program: &Program) -> Vec<String> {
    program.manifest.types.iter().map(|pattern| pattern.as_str().to_owned()).collect()
}

fn print(found: &[Checked]) -> anyhow::Result<()> {
    let named = found.iter().filter_map(|checked| Some((checked.name.as_deref()?, checked)));
    let rows = named.map(|(name, checked)| {
        let status = if checked.problems.is_empty() { "ok" } else { "broken" };
        let group = output::or_dash(checked.group.as_deref());
        let version = output::or_dash(checked.version.as_deref());
        [name.to_owned(), status.to_owned(), version, output::or_dash(Some(&checked.types.join(", "))), group]
    });
    output::table(["HANDLER", "STATUS", "VERSION", "TYPES", "GROUP"], rows)?;
    for checked in found {
        let name = checked.name.as_deref().unwrap_or_default();
        checked.problems.iter().try_for_each(|problem| output::say(&format!("problem: {}", plain::line(problem))))?;
        checked.warnings.iter().try_for_each(|warning| output::say(&format!("warning: {name} {warning}")))?;
    }
    let broken = found.iter().filter(|checked| !checked.problems.is_empty()).count();
    let sum = match broken {
        0 => format!("{}, no problems", output::counted(found.len(), "handler")),
        broken => format!("{broken} of {} have problems", found.len()),
    };
    Ok(output::say(&sum)?)
}
