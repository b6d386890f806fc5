//! `moontide state`: what handlers see as `ctx.kv`.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{FAILED, UsageError, document, look, open, open_existing, output};
use crate::bus::{StateAdmin, StateEntry};
use crate::clock::rfc3339;
use crate::config::Config;
use crate::event::Json;
use crate::host::Backend;
use crate::outcome::{Change, STATE_KEY_BYTES_MAX, Write};
use crate::units;

const AFTER_HELP: &str = "\
Examples:
  moontide state get stock/lamp
  moontide state set stock/lamp 40
  moontide state set session/17 '{\"user\": \"ada\"}' --ttl 24h
  moontide state list stock/ --json
  moontide state delete stock/lamp stock/chair";

/// What can be done with state.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum StateCommand {
    /// Print the value of a key; exit code 1 if there is none
    Get {
        /// As handlers name it: stock/lamp
        key: String,
    },
    /// Give a key a value; handlers that read it are repeated
    Set {
        /// As handlers name it: stock/lamp
        key: String,
        /// A JSON document: 40, '"text"', '{"a": 1}'
        #[arg(value_name = "JSON", allow_hyphen_values = true)]
        value: String,
        /// Forget it after this long [default: never]
        #[arg(long, value_name = "DURATION", value_parser = units::duration)]
        ttl: Option<Duration>,
    },
    /// List keys and values, in the order of the keys
    List {
        /// Only keys that begin so
        #[arg(default_value = "")]
        prefix: String,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only keys after this one
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Remove keys
    Delete {
        /// As handlers name them: stock/lamp
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
}

#[derive(Serialize)]
struct Row {
    key: String,
    value: Box<RawValue>,
    expires: Option<String>,
}

/// Does what was asked for.
pub async fn run(command: StateCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let command = checked(command)?;
    let backend = match &command {
        StateCommand::Get { .. } | StateCommand::List { .. } => look(config).await?,
        StateCommand::Set { .. } => open(config).await?,
        StateCommand::Delete { .. } => open_existing(config).await?,
    };
    let done = execute(command, &backend).await;
    backend.close().await;
    done
}

/// Refuses what the store should not be bothered with.
fn checked(command: StateCommand) -> Result<StateCommand, UsageError> {
    if let StateCommand::Set { key, value, .. } = &command {
        if key.is_empty() || key.len() > STATE_KEY_BYTES_MAX {
            let bytes = key.len();
            return Err(UsageError(format!("the key has {bytes} bytes; scripts can name 1 to {STATE_KEY_BYTES_MAX}")));
        }
        document("the value", value.clone())?;
    }
    Ok(command)
}

async fn execute(command: StateCommand, backend: &Backend) -> anyhow::Result<ExitCode> {
    match command {
        StateCommand::Get { key } => get(key, backend).await,
        StateCommand::Set { key, value, ttl } => {
            let change = Change::Set { value: Json::trusted(value), ttl };
            backend.state.write(vec![Write { key, change }]).await?;
            Ok(ExitCode::SUCCESS)
        }
        StateCommand::List { prefix, limit, after, json } => {
            let entries = backend.state.scan(&prefix, after.as_deref(), limit).await?;
            print(entries, limit, json)?;
            Ok(ExitCode::SUCCESS)
        }
        StateCommand::Delete { keys } => delete(keys, backend.state.as_ref()).await,
    }
}

async fn get(key: String, backend: &Backend) -> anyhow::Result<ExitCode> {
    let values = backend.ledger.read(std::slice::from_ref(&key)).await?;
    let Some(value) = values.into_iter().flatten().next() else {
        output::complain(&format!("there is no key {key:?}"));
        return Ok(ExitCode::from(FAILED));
    };
    output::say(&String::from_utf8_lossy(&value))?;
    Ok(ExitCode::SUCCESS)
}

fn print(entries: Vec<StateEntry>, limit: usize, json: bool) -> anyhow::Result<()> {
    let more = entries.last().filter(|_| entries.len() == limit).map(|last| last.key.clone());
    let row = |entry: StateEntry| Row {
        value: Json::trusted(entry.value).document(),
        expires: entry.expires.map(rfc3339),
        key: entry.key,
    };
    let rows: Vec<Row> = entries.into_iter().map(row).collect();
    if json {
        output::json(&rows)?;
    } else {
        let cells = rows.into_iter().map(|row| {
            [output::cell(&row.key), output::cell(row.value.get()), output::or_dash(row.expires.as_deref())]
        });
        output::table(["KEY", "VALUE", "EXPIRES"], cells)?;
    }
    if let Some(last) = more {
        output::remark(&format!("there may be more: --after {last:?}"));
    }
    Ok(())
}

async fn delete(keys: Vec<String>, state: &dyn StateAdmin) -> anyhow::Result<ExitCode> {
    let writes = keys.iter().map(|key| Write { key: key.clone(), change: Change::Delete }).collect();
    let existed = state.write(writes).await?;
    let missing: Vec<_> = keys.iter().zip(&existed).filter(|(_, existed)| !**existed).map(|(key, _)| key).collect();
    for key in &missing {
        output::remark(&format!("there was no key {key:?}"));
    }
    output::say(&format!("deleted {}", keys.len() - missing.len()))?;
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
