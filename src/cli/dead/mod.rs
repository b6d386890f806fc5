//! `moontide dead`: events that were given up.

mod view;

use std::process::ExitCode;

use super::{FAILED, UsageError, look, open_existing, output};
use crate::bus::{BusError, DeadFilter, DeadId, DeadLetters, DeadReason, NoDeadId, Replayed};
use crate::clock::rfc3339;
use crate::config::Config;
use view::View;

/// Dead letters looked at in one go where all are meant.
const PAGE: usize = 500;

const AFTER_HELP: &str = "\
Examples:
  moontide dead list --handler billing/charge
  moontide dead show 17
  moontide dead replay 17 18
  moontide dead replay --all --handler billing/charge
  moontide dead discard --all --reason undecodable --yes

A replay gives the event to its handler once more, with all its attempts and the same idempotency key. What was
discarded is gone; its idempotency record stays.

A stream of dead letters on Redis can be shared with other services: what they put there has the reason `foreign`, and is
meant by --all, too. Its replay puts the event back into the stream that it came from, for everybody who reads that.";

/// What can be done with dead letters.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum DeadCommand {
    /// List dead letters, oldest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only numbers above this one
        #[arg(long, value_name = "ID", value_parser = dead_id)]
        after: Option<DeadId>,
        /// One JSON array, with all that is known
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known about one
    Show {
        /// Its number, as `moontide dead list` shows it
        #[arg(value_name = "ID", value_parser = dead_id)]
        id: DeadId,
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Give events to their handlers once more
    Replay {
        #[command(flatten)]
        which: Which,
    },
    /// Remove dead letters for good
    Discard {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters.
#[derive(Debug, Default, clap::Args)]
pub struct Filter {
    /// Only of this handler
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Only those given up for this reason
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<DeadReason>,
}

/// Some by number, or all that a filter lets through.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Their numbers, as `moontide dead list` shows them
    #[arg(value_name = "ID", value_parser = dead_id, required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<DeadId>,
    /// All, or all of --handler and --reason
    #[arg(long)]
    all: bool,
    /// With --all: only of this handler
    #[arg(long, value_name = "NAME", requires = "all", conflicts_with = "ids")]
    handler: Option<String>,
    /// With --all: only those given up for this reason
    #[arg(long, value_name = "REASON", value_parser = reason, requires = "all", conflicts_with = "ids")]
    reason: Option<DeadReason>,
}

fn dead_id(text: &str) -> Result<DeadId, String> {
    text.parse().map_err(|error: NoDeadId| format!("{error}; see: moontide dead list"))
}

fn reason(text: &str) -> Result<DeadReason, String> {
    let all = || DeadReason::names().collect::<Vec<_>>().join(", ");
    DeadReason::parse(text).ok_or_else(|| format!("reasons are {}", all()))
}

/// Does what was asked for.
pub async fn run(command: DeadCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let backend = match &command {
        DeadCommand::List { .. } | DeadCommand::Show { .. } => look(config).await?,
        DeadCommand::Replay { .. } | DeadCommand::Discard { .. } => open_existing(config).await?,
    };
    let done = execute(command, backend.dead.as_ref()).await;
    backend.close().await;
    done
}

async fn execute(command: DeadCommand, dead: &dyn DeadLetters) -> anyhow::Result<ExitCode> {
    match command {
        DeadCommand::List { filter, limit, after, json } => {
            let Filter { handler, reason } = filter;
            list(dead, DeadFilter { handler, reason, after, limit }, json).await
        }
        DeadCommand::Show { id, json } => show(dead, id, json).await,
        DeadCommand::Replay { which } => replay(dead, &which.resolve(dead).await?).await,
        DeadCommand::Discard { which, yes } => discard(dead, which, yes).await,
    }
}

async fn list(dead: &dyn DeadLetters, filter: DeadFilter, json: bool) -> anyhow::Result<ExitCode> {
    let limit = filter.limit;
    let letters = dead.list(filter).await?;
    let views: Vec<View> = letters.iter().map(View::of).collect();
    if json {
        output::json(&views)?;
    } else {
        let header = ["ID", "HANDLER", "REASON", "TYPE", "EVENT", "ATTEMPTS", "FAILED AT", "ERROR"];
        output::table(header, views.iter().map(View::row))?;
    }
    if let Some(last) = letters.last().filter(|_| letters.len() == limit) {
        output::remark(&format!("there may be more: --after {}", last.id));
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(dead: &dyn DeadLetters, id: DeadId, json: bool) -> anyhow::Result<ExitCode> {
    let Some(letter) = dead.get(id).await? else {
        output::complain(&format!("there is no dead letter {id}"));
        return Ok(ExitCode::from(FAILED));
    };
    let view = View::of(&letter);
    if json {
        output::json(&[view])?;
    } else {
        output::say(view.text().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn replay(dead: &dyn DeadLetters, ids: &[DeadId]) -> anyhow::Result<ExitCode> {
    let mut missing = false;
    let mut printed = Ok(());
    for id in ids {
        let told = match dead.replay(*id).await? {
            Replayed::Queued => format!("{id}: queued, its handler gets it once more"),
            Replayed::PutBack { stream } => format!("{id}: back in {stream}, for everybody who reads it"),
            Replayed::Underway(since) => format!("{id}: is on its way already, since {}", rfc3339(since)),
            Replayed::Missing => {
                missing = true;
                format!("{id}: there is no such dead letter")
            }
        };
        // That nobody reads it is no reason to leave the others out.
        printed = printed.and(output::say(&told));
    }
    printed?;
    if ids.is_empty() {
        output::say("there is nothing to replay")?;
    }
    Ok(if missing { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

async fn discard(dead: &dyn DeadLetters, which: Which, yes: bool) -> anyhow::Result<ExitCode> {
    let all = which.all;
    let ids = which.resolve(dead).await?;
    if all && !yes && !ids.is_empty() {
        match output::ask(&format!("discard {} for good?", output::counted(ids.len(), "dead letter"))) {
            Some(true) => {}
            Some(false) => {
                output::remark("nothing was discarded");
                return Ok(ExitCode::from(FAILED));
            }
            None => {
                let letters = output::counted(ids.len(), "dead letter");
                let message = format!("{letters} would be gone for good; say --yes, or name them");
                return Err(UsageError(message).into());
            }
        }
    }
    let mut discarded = 0;
    for page in ids.chunks(PAGE) {
        discarded += dead.discard(page).await? as usize;
    }
    let complete = all || discarded == ids.len();
    let missing = if complete { String::new() } else { format!("; {} were not there", ids.len() - discarded) };
    output::say(&format!("discarded {}{missing}", output::counted(discarded, "dead letter")))?;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

impl Which {
    /// The numbers that are meant, as they are now: what dies meanwhile is not among them.
    async fn resolve(self, dead: &dyn DeadLetters) -> Result<Vec<DeadId>, BusError> {
        if !self.all {
            return Ok(self.ids);
        }
        let mut ids = Vec::new();
        let mut filter = DeadFilter { handler: self.handler, reason: self.reason, after: None, limit: PAGE };
        loop {
            let page = dead.list(filter.clone()).await?;
            let Some(last) = page.last() else { return Ok(ids) };
            filter.after = Some(last.id);
            ids.extend(page.iter().map(|letter| letter.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::bus::{DeadLetter, Undecodable};
    use crate::event::EntryId;
    use crate::judge::DeathReason;

    /// As many dead letters as it says, numbered from 1; the even ones are `mail`'s.
    struct Many(u64);

    fn letter(id: u64) -> DeadLetter {
        let even = id.is_multiple_of(2);
        DeadLetter {
            id: DeadId(id),
            handler: if even { "mail" } else { "audit" }.into(),
            group: String::new(),
            version: String::new(),
            reason: DeathReason::Rejected.into(),
            stream: String::new(),
            entry: Some(EntryId(id, 0)),
            event: Err(Undecodable { reason: String::new(), fields: Vec::new() }),
            attempts: 1,
            failed_at: 0,
            failures: Vec::new(),
            foreign_error: None,
            idempotency_key: None,
            replayed_at: None,
        }
    }

    #[async_trait]
    impl DeadLetters for Many {
        async fn list(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, BusError> {
            let from = filter.after.map_or(0, |after| after.0) + 1;
            let wanted = |letter: &DeadLetter| filter.handler.as_ref().is_none_or(|name| *name == letter.handler);
            Ok((from..=self.0).map(letter).filter(wanted).take(filter.limit).collect())
        }

        async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>, BusError> {
            Ok((id.0 <= self.0).then(|| letter(id.0)))
        }

        async fn replay(&self, _id: DeadId) -> Result<Replayed, BusError> {
            Ok(Replayed::Queued)
        }

        async fn discard(&self, ids: &[DeadId]) -> Result<u64, BusError> {
            Ok(ids.len() as u64)
        }
    }

    #[tokio::test]
    async fn all_means_every_page_and_only_what_the_filter_lets_through() {
        let which = |all, handler: Option<&str>| Which {
            ids: vec![DeadId(3)],
            all,
            handler: handler.map(str::to_owned),
            reason: None,
        };
        let many = Many(2 * PAGE as u64 + 3);
        let some = which(false, None).resolve(&many).await.expect("the list is there");
        assert_eq!(some, [DeadId(3)]);
        let every = which(true, None).resolve(&many).await.expect("the list is there");
        assert_eq!(every, (1..=many.0).map(DeadId).collect::<Vec<_>>());
        let mails = which(true, Some("mail")).resolve(&many).await.expect("the list is there");
        assert_eq!(mails.len(), PAGE + 1);
        assert!(mails.iter().all(|id| id.0.is_multiple_of(2)));
    }
}
