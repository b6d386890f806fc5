//! The show: feed, wait until nothing is left to do, audit.

use std::io::{IsTerminal, Stdout};
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::Rng;

use super::super::output;
use super::DemoArgs;
use super::crew::Crew;
use super::stage::Stage;
use crate::bus::{BusError, GroupStatus};
use crate::clock::{Clock, SystemClock};
use crate::demo::audit::Audit;
use crate::demo::feed::Plan;
use crate::demo::live::{Live, Row};
use crate::demo::observe::Doors;
use crate::demo::report;
use crate::event::Event;
use crate::outcome::Emit;

/// How often the table is redrawn and the store is asked whether it has come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Nothing moved for so long: something is wrong with a handler, and waiting on would tell nobody.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Events per publish.
const BATCH: usize = 500;
/// Where hosts are killed, the checkouts come in so many parts, each of which costs one of them its life.
const KILLS: usize = 10;
const KILL_EVERY: Duration = Duration::from_secs(1);
/// How long after a part came in, at most; ms.
const KILL_AFTER_MAX: u64 = 150;

pub(super) struct Show<'a> {
    crew: &'a mut Crew,
    stage: &'a Stage,
    live: Live<Stdout>,
}

impl<'a> Show<'a> {
    pub fn new(crew: &'a mut Crew, stage: &'a Stage) -> Self {
        let out = std::io::stdout();
        let terminal: Option<fn() -> (u16, u16)> = if out.is_terminal() { Some(output::terminal_size) } else { None };
        Self { crew, stage, live: Live::new(out, terminal) }
    }

    /// True: it adds up.
    pub async fn play(mut self, args: &DemoArgs) -> anyhow::Result<bool> {
        let plan = Plan::new(args.seed, args.checkouts as usize, SystemClock.now());
        let (checkouts, handlers) = (plan.cases.len(), self.stage.config.handlers_dir.display());
        output::say(&format!("{checkouts} checkouts (seed {}) for the handlers in {handlers}\n", args.seed))?;
        self.wait_until_open().await?;
        self.feed(&plan.deliveries).await?;
        self.wait_for_quiet().await?;
        match args.kill {
            true => self.feed_and_kill(&plan.checkouts).await?,
            false => self.feed(&plan.checkouts).await?,
        }
        self.wait_for_quiet().await?;
        self.live.finish(&self.rows(&self.groups().await?))?;
        if let (true, Some(processes)) = (args.kill, args.processes) {
            output::say(&format!("\n{KILLS} times, one of {processes} hosts was killed and started again."))?;
        }
        let backend = self.crew.backend();
        let doors =
            Doors { state: backend.state.clone(), dead: backend.dead.clone(), overview: backend.overview.clone() };
        let audit = Audit::new(&plan, &doors.observe(&self.stage.config.streams).await?);
        output::say(&format!("\n{}", report::render(&plan, &audit)))?;
        Ok(audit.holds())
    }

    async fn groups(&self) -> Result<Vec<GroupStatus>, BusError> {
        self.crew.backend().overview.groups().await
    }

    /// Waits until every handler's group is open: what is published before that, a new group does not see.
    async fn wait_until_open(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            self.crew.check()?;
            let handlers = self.crew.handlers();
            if let Some((name, problem)) = handlers.iter().find_map(|it| Some((&it.name, it.problem.as_ref()?))) {
                bail!("handler {name} does not load: {problem}");
            }
            let groups = self.groups().await?;
            let missing = handlers.iter().find(|it| groups.iter().all(|group| group.handler != it.name));
            let Some(missing) = missing else { return Ok(()) };
            if since.elapsed() > STALLED_AFTER {
                bail!("handler {} does not start; --log info says more", missing.name);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn feed(&self, events: &[Event]) -> anyhow::Result<()> {
        let streams = &self.stage.config.streams;
        for batch in events.chunks(BATCH) {
            let emit = |event: &Event| Emit { stream: streams.of(&event.kind), event: event.clone(), delay: None };
            self.crew.backend().bus.publish(batch.iter().map(emit).collect()).await?;
        }
        Ok(())
    }

    async fn feed_and_kill(&mut self, events: &[Event]) -> anyhow::Result<()> {
        for part in events.chunks(events.len().div_ceil(KILLS)) {
            let next = Instant::now() + KILL_EVERY;
            self.feed(part).await?;
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..KILL_AFTER_MAX))).await;
            self.crew.kill_one()?;
            while Instant::now() < next {
                self.live.draw(&self.rows(&self.groups().await?))?;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Quiet is: nothing to do, seen twice with nothing done in between. Groups are not all looked at in one moment, so what
    /// passes from one to the next can slip through a single look.
    async fn wait_for_quiet(&mut self) -> anyhow::Result<()> {
        let (mut last, mut since) = (Vec::new(), Instant::now());
        loop {
            self.crew.check()?;
            let rows = self.rows(&self.groups().await?);
            self.live.draw(&rows)?;
            if rows == last {
                if rows.iter().all(|row| row.lag + row.in_flight == 0) {
                    return Ok(());
                }
                if since.elapsed() > STALLED_AFTER {
                    let waiting = rows.iter().filter(|row| row.lag + row.in_flight > 0).map(|row| row.name.as_str());
                    let waiting: Vec<_> = waiting.collect();
                    bail!("nothing moves any more, but events wait for {}; --log info says more", waiting.join(", "));
                }
            } else {
                (last, since) = (rows, Instant::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What the process counted, and what waits in the store. Lag includes delayed work.
    fn rows(&self, groups: &[GroupStatus]) -> Vec<Row> {
        let handlers = self.crew.handlers().into_iter();
        let rows = handlers.map(|it| {
            let group = groups.iter().find(|group| group.handler == it.name);
            Row {
                counts: it.counts,
                dead: group.map_or(0, |group| group.dead),
                in_flight: group.map_or(0, |group| group.in_flight),
                lag: group.map_or(0, |group| group.lag),
                name: it.name,
            }
        });
        rows.collect()
    }
}
