//! Who works on the stage: a host in this process, or hosts in processes of their own, which can be killed.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use rand::Rng;

use super::super::logging;
use super::stage::Stage;
use crate::demo::live::Counts;
use crate::host::{self, Backend, Host, Start};

/// Variables that would lead a host away from the stage.
const MISLEADING: [&str; 8] = [
    "METRICS_PORT",
    "MOONTIDE_BUS_URL",
    "MOONTIDE_HTTP_LISTEN",
    "MOONTIDE_METRICS_LISTEN",
    "MOONTIDE_REDIS_PREFIX",
    "MOONTIDE_REDIS_STATE_PREFIX",
    "MOONTIDE_RETAIN_AGE",
    "MOONTIDE_RUN_HANDLERS",
];

/// Who works on the stage.
pub(super) enum Crew {
    Within(Box<Host>),
    Beside(Box<Processes>),
}

/// A handler, as far as this process knows.
pub(super) struct Known {
    pub name: String,
    pub problem: Option<String>,
    pub counts: Option<Counts>,
}

impl Crew {
    /// Starts so many hosts in processes of their own, or one in this process.
    pub async fn start(stage: &Stage, processes: Option<u32>) -> anyhow::Result<Self> {
        Ok(match processes {
            Some(processes) => Self::Beside(Box::new(Processes::start(stage, processes).await?)),
            None => Self::Within(Box::new(Host::start(stage.config.clone(), Start::default()).await?)),
        })
    }

    pub fn backend(&self) -> &Backend {
        match self {
            Self::Within(host) => host.backend(),
            Self::Beside(processes) => &processes.backend,
        }
    }

    /// The handlers that are to work.
    pub fn handlers(&self) -> Vec<Known> {
        match self {
            Self::Within(host) => host.snapshot().into_iter().map(known).collect(),
            Self::Beside(processes) => processes.handlers(),
        }
    }

    /// Fails if a host ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Within(_) => Ok(()),
            Self::Beside(processes) => processes.check(),
        }
    }

    /// Kills one of the hosts, and starts another in its place.
    pub fn kill_one(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Within(_) => Ok(()),
            Self::Beside(processes) => processes.kill_one(),
        }
    }

    /// Ends all of them.
    pub async fn stop(self) {
        match self {
            Self::Within(host) => host.stop().await,
            Self::Beside(mut processes) => {
                processes.hosts.iter_mut().for_each(end);
                processes.backend.close().await;
            }
        }
    }
}

/// Hosts in processes of their own.
pub(super) struct Processes {
    backend: Backend,
    /// Of the handlers, with what is wrong with each.
    names: Vec<(String, Option<String>)>,
    file: std::path::PathBuf,
    hosts: Vec<Child>,
}

impl Processes {
    async fn start(stage: &Stage, processes: u32) -> anyhow::Result<Self> {
        let registry = host::load_folder(&stage.config.handlers_dir, &stage.config)?;
        let names = registry.handlers.iter();
        let names = names.map(|(name, it)| (name.clone(), it.problem.as_ref().map(ToString::to_string))).collect();
        let backend = host::open(&stage.config, Some("demo")).await?;
        let mut all = Self { backend, names, file: stage.file(), hosts: Vec::new() };
        for number in 1..=processes {
            let host = all.host(number)?;
            all.hosts.push(host);
        }
        Ok(all)
    }

    fn host(&self, number: u32) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&self.file).args(["--name", &format!("host-{number}")]);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command.env("MOONTIDE_HTTP_LISTEN", "").stdin(Stdio::null()).stdout(Stdio::null());
        if !logging::is_asked_for() {
            command.stderr(Stdio::null());
        }
        command.spawn().context("cannot start a host")
    }

    fn handlers(&self) -> Vec<Known> {
        let known = |(name, problem): &(String, Option<String>)| Known {
            name: name.clone(),
            problem: problem.clone(),
            counts: None,
        };
        self.names.iter().map(known).collect()
    }

    fn check(&mut self) -> anyhow::Result<()> {
        for (at, host) in self.hosts.iter_mut().enumerate() {
            if let Some(status) = host.try_wait().context("cannot ask for a host")? {
                bail!("host-{} ended by itself, {status}; --log info says why", at + 1);
            }
        }
        Ok(())
    }

    fn kill_one(&mut self) -> anyhow::Result<()> {
        let at = rand::rng().random_range(0..self.hosts.len());
        end(&mut self.hosts[at]);
        self.hosts[at] = self.host(at as u32 + 1)?;
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.hosts.iter_mut().for_each(end);
    }
}

/// Kills a host: nothing that is stored is harmed by that.
fn end(host: &mut Child) {
    // It has ended already, and there is nothing else that could be done.
    let _ = host.kill();
    let _ = host.wait();
}

fn known(it: host::HandlerSnapshot) -> Known {
    let counts = Counts { done: it.counts.done, retried: it.counts.retried, duplicates: it.counts.duplicates };
    Known { name: it.name, problem: it.problem, counts: Some(counts) }
}
