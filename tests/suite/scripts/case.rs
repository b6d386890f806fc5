//! One section of a script file: what is given, what is expected, and what came out as JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moontide::bus::{BusError, DeadId, Past, Recorded, StepAnswer, Undecodable};
use moontide::event::{EntryId, Event, Json};
use moontide::outcome::{Change, Effects, Outcome, RecordKey};
use moontide::script::{Finished, Granted, Limits, LoadOptions, Secrets, Sources, load};
use moontide::units;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::rig::{MemoryLedger, NOW, Rig, delivery, event};
use super::steps::{MemorySteps, unplugged};

pub struct Case {
    pub name: String,
    text: String,
    given: Value,
    pub expected: Value,
}

impl Case {
    /// Every section of a file.
    pub fn read_all(path: &Path) -> Vec<Self> {
        let text = std::fs::read_to_string(path).expect("the file can be read");
        let file = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let sections = text.split("\n--- ").enumerate().filter(|(at, _)| *at > 0);
        sections.map(|(_, section)| Self::read(&file, section)).collect()
    }

    fn read(file: &str, section: &str) -> Self {
        let (title, text) = section.split_once('\n').expect("a section has a title and a body");
        let name = format!("{file}: {title}");
        let header: String = text.lines().filter_map(|line| line.strip_prefix("--:")).collect();
        let mut given: Value = serde_json::from_str(&header).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = given["expect"].take();
        assert!(expected.is_object(), "{name}: expect is missing");
        Self { name, text: text.to_owned(), given, expected }
    }

    /// Loads and runs it; answers what came out.
    pub fn run(&self) -> Value {
        let file = self.given["file"].as_str().unwrap_or("work.luau");
        let mut files: Vec<(String, Arc<str>)> = vec![(file.to_owned(), Arc::from(self.text.as_str()))];
        for (path, text) in self.given["modules"].as_object().into_iter().flatten() {
            files.push((path.clone(), Arc::from(text.as_str().expect("a module is text"))));
        }
        let sources = Arc::new(Sources::new(files));
        match load(file, &sources, &self.options()) {
            Err(error) => json!({ "load": error.problems }),
            Ok(program) => {
                let mut rig = Rig::new(1, self.ledger(&program.manifest.group));
                rig.steps = Arc::new(self.steps());
                let manifest = format!("{:?}", program.manifest);
                rig.submit(&Arc::new(program), vec![self.delivery()], self.given["alone"] == true);
                let finished = rig.finished(1).pop().expect("one was submitted");
                let mut came = outcome(&finished);
                let text = |result: &Bytes| String::from_utf8_lossy(result).into_owned();
                let recorded = rig.steps.recorded.lock();
                came["recorded"] = recorded.iter().map(|(name, result)| format!("{name} = {}", text(result))).collect();
                came["manifest"] = manifest.into();
                came
            }
        }
    }

    fn options(&self) -> LoadOptions {
        let granted = &self.given["granted"];
        let texts =
            |value: &Value| -> BTreeMap<String, String> { serde_json::from_value(value.clone()).unwrap_or_default() };
        let state = serde_json::from_value(granted["state"].clone()).ok();
        let mut limits = Limits::default();
        let given = &self.given["limits"];
        let number = |key: &str, default: usize| given[key].as_u64().map_or(default, |n| n as usize);
        limits.cpu = Duration::from_millis(number("cpu_ms", 1000) as u64);
        limits.memory_bytes = number("memory", limits.memory_bytes);
        limits.payload_bytes_max = number("payload", limits.payload_bytes_max);
        limits.depth_max = number("depth", limits.depth_max);
        let reserved = granted["reserved"].as_str().map(str::to_owned);
        let granted = Granted {
            values: texts(&granted["values"]),
            secrets: Secrets::new(texts(&granted["secrets"])),
            state,
            reserved,
            ..Granted::default()
        };
        LoadOptions { limits, granted, ..LoadOptions::default() }
    }

    fn ledger(&self, group: &str) -> MemoryLedger {
        let mut ledger = MemoryLedger { away: self.given["away"] == true, ..MemoryLedger::default() };
        for (key, value) in self.given["state"].as_object().into_iter().flatten() {
            let text = value.as_str().and_then(|text| text.strip_prefix("raw:")).map(str::to_owned);
            ledger.state.insert(key.clone(), Bytes::from(text.unwrap_or_else(|| value.to_string())));
        }
        for (key, value) in self.given["moves"].as_object().into_iter().flatten() {
            ledger.moves.insert(key.clone(), Bytes::from(value.to_string()));
        }
        for (key, by) in self.given["recorded"].as_object().into_iter().flatten() {
            let dead = by["dead"].as_u64().map(DeadId);
            let contested = by["contested"] == true;
            let recorded = Recorded { by: by["by"].as_str().expect("by is text").to_owned(), dead, contested };
            ledger.records.insert(RecordKey::new(group, "order.created", key), recorded);
        }
        ledger
    }

    fn steps(&self) -> MemorySteps {
        let answers: Vec<Result<StepAnswer, BusError>> = match self.given["steps_answer"].as_str() {
            Some("fenced") => vec![Ok(StepAnswer::Fenced)],
            Some("known") => vec![Ok(StepAnswer::Known(Bytes::from("\"theirs\"")))],
            Some("away twice") => vec![Err(unplugged()), Err(unplugged())],
            _ => Vec::new(),
        };
        let recorded = self.given["steps"].as_object().into_iter().flatten();
        let recorded = recorded.map(|(name, result)| {
            let text = result.as_str().expect("a result is JSON text");
            (name.clone(), Bytes::from(text.to_owned()))
        });
        let away = self.given["steps_answer"] == "away";
        MemorySteps { recorded: Mutex::new(recorded.collect()), away, answers: Mutex::new(answers.into()) }
    }

    fn delivery(&self) -> moontide::bus::Delivery {
        let mut delivery = delivery(7, self.event());
        if let Some(reason) = self.given["undecodable"].as_str() {
            delivery.event = Err(Undecodable { reason: reason.to_owned(), fields: Vec::new() });
        }
        let (attempt, replay) = (self.given["attempt"].as_u64(), self.given["replay_of"].as_u64());
        if attempt.is_some() || replay.is_some() {
            delivery.past = Some(Box::new(Past {
                attempts: attempt.unwrap_or(1) as u32 - 1,
                snoozes: 0,
                stream: "orders".into(),
                entry: EntryId(3, 1),
                first_received: NOW,
                failures: Vec::new(),
                replay_of: replay.map(DeadId),
                steps: None,
            }));
        }
        delivery
    }

    fn event(&self) -> Event {
        let data = self.given["raw"].as_str().map_or_else(|| self.given["data"].to_string(), str::to_owned);
        let mut event = event("e1", &data);
        if self.given["data"].is_null() && self.given["raw"].is_null() {
            event.data = None;
        }
        let given = &self.given["event"];
        let text = |key: &str| given[key].as_str().map(str::to_owned);
        event.id = text("id").unwrap_or(event.id);
        event.subject = text("subject");
        event.time = text("time");
        event.dataschema = text("dataschema");
        event.correlation_id = text("correlation_id");
        event.causation_id = text("causation_id");
        event.traceparent = text("traceparent");
        event.ext = given["ext"].as_object().map(|ext| Json::trusted(Value::from(ext.clone()).to_string()));
        event
    }
}

/// What came out, as the sections write it.
fn outcome(finished: &Finished) -> Value {
    let mut came = match &finished.outcome {
        Outcome::Done(effects) => json!({ "done": effects_json(effects) }),
        Outcome::Retry { after, reason } => json!({ "retry": { "after": after.as_secs_f64(), "reason": reason } }),
        Outcome::Snooze { after, reason } => json!({ "snooze": { "after": after.as_secs_f64(), "reason": reason } }),
        Outcome::Reject { reason } => json!({ "reject": reason }),
        Outcome::Failed(failure) => json!({ "failed": {
            "kind": failure.kind.as_str(), "message": failure.message, "file": failure.file, "line": failure.line,
            "trace": failure.trace,
        } }),
        Outcome::Undecodable { reason } => json!({ "undecodable": reason }),
        Outcome::Invalid { reason } => json!({ "invalid": reason }),
        Outcome::Cycle { reason } => json!({ "cycle": reason }),
        Outcome::Duplicate { by } => json!({ "duplicate": by }),
        Outcome::Contested { by } => json!({ "contested": by }),
        Outcome::Released(release) => json!({ "released": format!("{release:?}") }),
    };
    came["reads"] = finished.reads.iter().map(|read| format!("{} {:?}", read.key, read.seen)).collect();
    came["record"] = finished
        .record
        .as_ref()
        .map_or(Value::Null, |record| json!({ "text": record.text, "window": units::show_duration(record.window) }));
    came
}

fn effects_json(effects: &Effects) -> Value {
    let events = effects.events.iter().map(|emit| {
        let event = &emit.event;
        json!({
            "type": event.kind, "data": event.data.as_ref().map(|data| data.text()), "id": event.id,
            "source": event.source, "subject": event.subject, "time": event.time, "stream": emit.stream,
            "correlation_id": event.correlation_id, "causation_id": event.causation_id,
            "traceparent": event.traceparent, "ext": event.ext.as_ref().map(|ext| ext.text()),
            "delay": emit.delay.map(units::show_duration),
        })
    });
    let writes = effects.writes.iter().map(|write| match &write.change {
        Change::Set { value, ttl } => {
            json!({ "key": write.key, "set": value.text(), "ttl": ttl.map(units::show_duration) })
        }
        Change::Delete => json!({ "key": write.key, "delete": true }),
        Change::Add(n) => json!({ "key": write.key, "add": n }),
    });
    let measures = effects.measures.iter().map(|measure| {
        let labels: Map<String, Value> = measure.labels.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        json!({ "kind": format!("{:?}", measure.kind), "name": measure.name, "value": measure.value, "labels": labels })
    });
    json!({
        "events": events.collect::<Vec<_>>(), "writes": writes.collect::<Vec<_>>(),
        "measures": measures.collect::<Vec<_>>(), "cancels": effects.cancels,
    })
}

/// Whether `came` has everything that is `expected`; an error names the first place that differs.
pub fn compare(expected: &Value, came: &Value, place: &str) -> Result<(), String> {
    let differs = || Err(format!("{place}: expected {expected}, got {came}"));
    match (expected, came) {
        (Value::Object(expected), Value::Object(came)) => expected.iter().try_for_each(|(key, expected)| {
            compare(expected, came.get(key).unwrap_or(&Value::Null), &format!("{place}.{key}"))
        }),
        (Value::Array(expected), Value::Array(came)) if expected.len() == came.len() => {
            let pairs = expected.iter().zip(came).enumerate();
            pairs.into_iter().try_for_each(|(at, (expected, came))| compare(expected, came, &format!("{place}[{at}]")))
        }
        (Value::String(expected), Value::String(came)) if expected.starts_with('~') => {
            if came.contains(&expected[1..]) { Ok(()) } else { differs() }
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => Ok(()),
        (expected, came) if expected == came => Ok(()),
        _ => differs(),
    }
}
