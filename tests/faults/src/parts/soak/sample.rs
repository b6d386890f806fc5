//! What a process and its store take up, looked at from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use moontide_stage::process::Process;

use super::line::{low_water, slope};
use crate::place::{FILE, Place};
use crate::stage::Stage;

/// Consumers of all groups, and keys.
const COUNTS: &str = r#"
local p, consumers = ARGV[1], 0
for _, stream in ipairs(redis.call('SMEMBERS', p .. 'streams')) do
  if redis.call('EXISTS', stream) == 1 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do consumers = math.max(consumers, group[4]) end
  end
end
return { redis.call('DBSIZE'), consumers }
"#;

type Series = Vec<(f64, f64)>;

pub struct Sampler {
    process: PathBuf,
    store: Store,
    series: BTreeMap<&'static str, Series>,
}

enum Store {
    Server(String),
    File(PathBuf),
}

impl Sampler {
    pub fn new(stage: &Stage, process: &Process) -> Self {
        let store = match &stage.place {
            Place::Server(server) => Store::Server(server.url()),
            Place::File => Store::File(stage.folder.path().join(FILE)),
        };
        Self { process: PathBuf::from(format!("/proc/{}", process.id())), store, series: BTreeMap::new() }
    }

    pub fn sample(&mut self, at: Duration) {
        let hours = at.as_secs_f64() / 3600.0;
        let status = std::fs::read_to_string(self.process.join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let descriptors = std::fs::read_dir(self.process.join("fd")).map(|entries| entries.count() as f64);
        let mut note = |name, value: Option<f64>| {
            if let Some(value) = value {
                self.series.entry(name).or_default().push((hours, value));
            }
        };
        note("memory KiB", field("VmRSS:"));
        note("threads", field("Threads:"));
        note("descriptors", descriptors.ok());
        match &self.store {
            Store::Server(url) => {
                let (keys, consumers) = counts(url).unzip();
                note("keys", keys);
                note("consumers", consumers);
            }
            Store::File(file) => note("file KiB", file.metadata().ok().map(|file| file.len() as f64 / 1024.0)),
        }
    }

    /// Writes down slopes and the last values, the first `warm_up` left aside; answers the slopes that must be flat.
    pub fn figures(&self, warm_up: Duration, figures: &mut BTreeMap<String, f64>) -> Vec<(&'static str, f64)> {
        let mut slopes = Vec::new();
        for (name, series) in &self.series {
            let warm = series.partition_point(|(hours, _)| *hours < warm_up.as_secs_f64() / 3600.0);
            let low = low_water(&series[warm..]);
            let slope = slope(&low);
            figures.insert(format!("{name} more in an hour"), slope);
            figures.insert(format!("{name} at the end"), low.last().map_or(0.0, |(_, value)| *value));
            figures.insert("hours".into(), series.last().map_or(0.0, |(hours, _)| *hours));
            if ["memory KiB", "threads", "descriptors", "consumers"].contains(name) {
                slopes.push((*name, slope));
            }
        }
        slopes
    }
}

fn counts(url: &str) -> Option<(f64, f64)> {
    let mut connection = redis::Client::open(url).ok()?.get_connection().ok()?;
    redis::cmd("EVAL").arg(COUNTS).arg(0).arg("moontide:").query(&mut connection).ok()
}
