//! `moontide emit`: one event from the command line, or many from a file.

mod lines;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::JsonArray;
use super::{FAILED, UsageError, document, output, refuse_memory};
use crate::bus::Bus;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::draft::{Defaults, Draft};
use crate::event::EntryId;
use crate::host::{self, Backend};
use crate::outcome::Emit;
use crate::units;
use lines::{Line, Lines};

/// What a line may have beside the event's data.
const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

const AFTER_HELP: &str = "\
Examples:
  moontide emit order.created '{\"order_id\": 17}'
  moontide emit reminder.due '{\"user\": \"ada\"}' --delay 24h --subject ada
  moontide emit --file events.ndjson
  generate | moontide emit --file - --skip-bad

A file has one JSON object per line: {\"type\": \"order.created\", \"data\": {…}}. Besides, it may have id, source, subject,
time, dataschema, correlation_id, causation_id and traceparent; all other fields are kept as extension attributes.
At a line that is no event it stops: what stood before is stored, the rest is not, and the message says where. With
--skip-bad it goes on and says which lines it left out. Either way the exit code is 1.
An event without an id gets one; the same file twice is then twice the events.";

/// Flags of `emit`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct EmitArgs {
    /// Letters, digits and . _ - : /
    #[arg(value_name = "TYPE", required_unless_present = "file")]
    kind: Option<String>,
    /// The event's data, a JSON document
    #[arg(value_name = "JSON", required_unless_present = "file", allow_hyphen_values = true)]
    data: Option<String>,
    /// Read events from a file, one JSON object per line; - is standard input
    #[arg(long, value_name = "EVENTS.ndjson", conflicts_with_all = ["kind", "data", "id"])]
    file: Option<PathBuf>,
    /// With --file: leave out lines that are no event, and go on
    #[arg(long, requires = "file")]
    skip_bad: bool,
    /// Id of the event, unique within its source [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// Who made it [default: bus.source]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// What it is about
    #[arg(long)]
    subject: Option<String>,
    /// Joins events that belong together
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Deliver it this long from now
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    delay: Option<Duration>,
    /// One JSON array with id, type, stream and entry of what was stored
    #[arg(long)]
    json: bool,
}

/// An event that was stored.
#[derive(Serialize)]
struct Stored<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    stream: &'a str,
    /// `null`: delayed, not in the stream yet.
    entry: Option<String>,
}

impl<'a> Stored<'a> {
    fn new(emit: &'a Emit, entry: Option<EntryId>) -> Self {
        let entry = entry.map(|entry| entry.to_string());
        Self { id: &emit.event.id, kind: &emit.event.kind, stream: &emit.stream, entry }
    }
}

/// Stores what was given.
pub async fn run(mut args: EmitArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let defaults = Defaults {
        source: args.source.take().unwrap_or_else(|| config.bus.source.clone()),
        subject: args.subject.take(),
        correlation_id: args.correlation_id.take(),
        delay: args.delay,
        payload_bytes_max: config.limits.payload_bytes_max,
        streams: config.streams.clone(),
    };
    match args.file.take() {
        Some(path) => {
            let input = Input::open(&path)?;
            let backend = open(config).await?;
            let batch_max = config.emit.batch;
            let mut feed = Feed::new(backend.bus.as_ref(), &defaults, batch_max, args.json, input.bar(args.json));
            let done = feed.all(input.reader, args.skip_bad).await;
            let finished = feed.finish();
            backend.close().await;
            done.and_then(|code| finished.map(|()| code))
        }
        None => one(args, config, &defaults).await,
    }
}

async fn open(config: &Config) -> anyhow::Result<Backend> {
    refuse_memory(config)?;
    Ok(host::open_to_publish(config).await?)
}

async fn one(args: EmitArgs, config: &Config, defaults: &Defaults) -> anyhow::Result<ExitCode> {
    let data = document("the data", args.data.unwrap_or_default())?;
    let draft = Draft { kind: args.kind.unwrap_or_default(), id: args.id, data: Some(data), ..Draft::default() };
    let emit = draft.finish(defaults, SystemClock.now()).map_err(UsageError)?;
    let backend = open(config).await?;
    let published = backend.bus.publish(vec![emit.clone()]).await;
    backend.close().await;
    let entry = published?.into_iter().flatten().next();
    if args.json {
        output::json(&[Stored::new(&emit, entry)])?;
    } else {
        output::say(&emit.event.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Input {
    reader: Box<dyn Read>,
    /// Bytes, where it is known.
    length: Option<u64>,
}

impl Input {
    fn open(path: &PathBuf) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self { reader: Box::new(io::stdin()), length: None });
        }
        let cannot = || UsageError(format!("cannot read {}", path.display()));
        let file = File::open(path).with_context(cannot)?;
        let about = file.metadata().with_context(cannot)?;
        if about.is_dir() {
            return Err(UsageError(format!("cannot read {}: it is a folder", path.display())).into());
        }
        Ok(Self { reader: Box::new(file), length: about.is_file().then_some(about.len()) })
    }

    /// A progress bar, on a terminal that has nothing else to show.
    fn bar(&self, json: bool) -> ProgressBar {
        if json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let (bar, template) = match self.length {
            Some(bytes) => (ProgressBar::new(bytes), "{bar:32} {percent:>3} %  {msg} events  {elapsed}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg} events  {elapsed}"),
        };
        bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

/// Events on their way from lines to the store.
struct Feed<'a> {
    bus: &'a dyn Bus,
    defaults: &'a Defaults,
    bar: ProgressBar,
    /// Events in one publish.
    batch_max: usize,
    array: Option<JsonArray>,
    batch: Vec<Emit>,
    /// Line of the batch's first event.
    batch_line: u64,
    stored: usize,
    skipped: usize,
}

impl<'a> Feed<'a> {
    fn new(bus: &'a dyn Bus, defaults: &'a Defaults, batch_max: usize, json: bool, bar: ProgressBar) -> Self {
        let array = json.then(JsonArray::default);
        Self { bus, defaults, bar, batch_max, array, batch: Vec::new(), batch_line: 0, stored: 0, skipped: 0 }
    }

    /// Stores every line. Whatever was read before a wait for more input is stored first, so that a slow producer's
    /// events do not lie about.
    async fn all(&mut self, input: impl Read, skip_bad: bool) -> anyhow::Result<ExitCode> {
        let mut lines = Lines::new(input, self.defaults.payload_bytes_max + ATTRIBUTES_BYTES_MAX);
        loop {
            if self.batch.len() >= self.batch_max || (!self.batch.is_empty() && !lines.has_more()) {
                self.publish(lines.number()).await?;
                self.bar.set_position(lines.bytes());
            }
            let line = lines.next().with_context(|| {
                format!(
                    "cannot read on after line {} ({} stored)",
                    lines.number(),
                    output::counted(self.stored, "event")
                )
            })?;
            let problem = match line {
                Line::End => break,
                Line::Text(text) => match Draft::parse(&text).and_then(|draft| self.push(draft, lines.number())) {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
                Line::TooLong(bytes) => {
                    format!("is longer than {bytes} bytes: limits.payload, and 64 KiB for what is not data")
                }
            };
            self.refuse(lines.number(), &problem, skip_bad).await?;
        }
        self.publish(lines.number()).await?;
        Ok(if self.skipped == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    fn push(&mut self, draft: Draft, line: u64) -> Result<(), String> {
        let emit = draft.finish(self.defaults, SystemClock.now())?;
        if self.batch.is_empty() {
            self.batch_line = line;
        }
        self.batch.push(emit);
        Ok(())
    }

    async fn refuse(&mut self, line: u64, problem: &str, skip_bad: bool) -> anyhow::Result<()> {
        if skip_bad {
            self.skipped += 1;
            self.bar.suspend(|| output::remark(&format!("line {line} {problem}; left out")));
            return Ok(());
        }
        self.publish(line - 1).await?;
        let stored = output::counted(self.stored, "event");
        anyhow::bail!("line {line} {problem}; stored {stored} before it, and nothing from line {line} on")
    }

    async fn publish(&mut self, last_line: u64) -> anyhow::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let emits = std::mem::take(&mut self.batch);
        let entries = self.bus.publish(emits.clone()).await.with_context(|| {
            let (stored, first) = (output::counted(self.stored, "event"), self.batch_line);
            format!("stored {stored}; lines {first} to {last_line} were not confirmed")
        })?;
        self.stored += emits.len();
        self.bar.set_message(self.stored.to_string());
        self.show(&emits, entries);
        Ok(())
    }

    /// Lists what was stored. That nobody reads the list is no reason to stop storing; the end says what went wrong.
    fn show(&mut self, emits: &[Emit], entries: Vec<Option<EntryId>>) {
        let Some(array) = &mut self.array else { return };
        let mut stored = emits.iter().zip(entries).map(|(emit, entry)| Stored::new(emit, entry));
        if stored.try_for_each(|stored| array.push(&stored)).is_err() {
            self.array = None;
        }
    }

    /// Says how much was stored.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        let left_out = match self.skipped {
            0 => String::new(),
            skipped => format!(", left out {}", output::counted(skipped, "line")),
        };
        match self.array.take() {
            Some(array) => array.close(),
            None => Ok(output::say(&format!("stored {}{left_out}", output::counted(self.stored, "event")))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::bus::{BusError, Features, Subscribed, Subscription};

    /// Remembers the sizes of what was published; away from the publish of this number on.
    struct Batches(Mutex<Vec<usize>>, usize);

    #[async_trait]
    impl Bus for Batches {
        fn features(&self) -> Features {
            Features { one_store: true, marks: false, durable: false, shared: false, history: false }
        }

        async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
            let mut batches = self.0.lock();
            if batches.len() >= self.1 {
                return Err(BusError::Away { store: "x.db".into(), cause: "locked".into() });
            }
            batches.push(emits.len());
            Ok(vec![None; emits.len()])
        }

        async fn subscribe(&self, _subscription: Subscription) -> Result<Subscribed, BusError> {
            Err(BusError::Closed)
        }
    }

    async fn feed(bus: &Batches, batch_max: usize, input: impl Read) -> anyhow::Result<ExitCode> {
        let defaults = Defaults {
            source: "test".into(),
            subject: None,
            correlation_id: None,
            delay: None,
            payload_bytes_max: 1024,
            streams: Arc::default(),
        };
        Feed::new(bus, &defaults, batch_max, false, ProgressBar::hidden()).all(input, false).await
    }

    #[tokio::test]
    async fn batches_are_full_unless_the_input_makes_one_wait() {
        let bus = Batches(Mutex::default(), usize::MAX);
        feed(&bus, 500, "{\"type\":\"a\"}\n".repeat(1201).as_bytes()).await.expect("all lines are events");
        assert_eq!(*bus.0.lock(), [500, 500, 201]);
        let bus = Batches(Mutex::default(), usize::MAX);
        feed(&bus, 2, "{\"type\":\"a\"}\n".repeat(3).as_bytes()).await.expect("all lines are events");
        assert_eq!(*bus.0.lock(), [2, 1]);

        let slow = b"{\"type\":\"a\"}\n{\"type\":\"b\"}\n{\"ty".chain(&b"pe\":\"c\"}"[..]);
        let bus = Batches(Mutex::default(), usize::MAX);
        feed(&bus, 500, slow).await.expect("all lines are events");
        assert_eq!(*bus.0.lock(), [2, 1], "what was read is stored before waiting for the rest of a line");
    }

    #[tokio::test]
    async fn what_was_not_confirmed_is_named() {
        let bus = Batches(Mutex::default(), 1);
        let error = feed(&bus, 500, "{\"type\":\"a\"}\n".repeat(900).as_bytes()).await.expect_err("the store is away");
        let says = "stored 500 events; lines 501 to 900 were not confirmed: x.db is away: locked";
        assert_eq!(format!("{error:#}"), says);
        assert!(error.is::<BusError>(), "the exit code tells that it was the store");
    }
}
