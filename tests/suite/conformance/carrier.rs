//! A carrier in memory, for tests: streams, groups, and faults on demand.
//!
//! Outlives the processes that connect to it. Keeps nothing for handlers; what a process had in hand when it died comes
//! again. Entries are counted by two numbers, as Kafka counts them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use moontide::bus::relay::{Carried, Carrier, Channel, Opened, Place};
use moontide::bus::{Began, BusError, Features, Start, Subscription, Undecodable};
use moontide::clock::{Clock, ManualClock, Millis};
use moontide::event::{EntryId, Event};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// First number of every entry.
const PARTITION: u64 = 3;

/// What goes wrong with a call.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// Nothing is taken.
    Away,
    /// It is taken (of a publish: the first event), and the reply is lost.
    Unanswered,
}

#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub publish: Fault,
    pub acknowledge: Fault,
    pub give_back: Fault,
    /// Everything that is handed out is handed out twice.
    pub copies: bool,
    /// Events of this type are refused for ever.
    pub refused: Option<&'static str>,
}

pub struct Cloud {
    clock: ManualClock,
    state: Mutex<State>,
    bell: Notify,
}

/// When it was stored, and what.
type Stored = (Millis, Result<Event, Undecodable>);

#[derive(Default)]
struct State {
    streams: BTreeMap<String, Vec<Stored>>,
    /// Streams in the order in which they appeared.
    names: Vec<String>,
    groups: HashMap<String, Group>,
    processes: u64,
    dead: BTreeSet<u64>,
    faults: Faults,
}

#[derive(Default)]
struct Group {
    positions: BTreeMap<String, usize>,
    discover: Vec<(String, moontide::event::TypePattern)>,
    seen: usize,
    back: VecDeque<Place>,
    in_hand: Vec<(u64, Place)>,
    turn: usize,
}

impl Group {
    /// Whether it reads a stream without naming it.
    fn discovers(&self, name: &str) -> bool {
        let matches = |(prefix, types): &(String, moontide::event::TypePattern)| {
            name.strip_prefix(prefix.as_str()).is_some_and(|rest| types.matches(rest))
        };
        self.discover.iter().any(matches)
    }

    fn take_back(&mut self, process: u64) {
        let (theirs, others) = self.in_hand.drain(..).partition(|(owner, _)| *owner == process);
        self.in_hand = others;
        self.return_all(theirs);
    }

    fn return_all(&mut self, returned: Vec<(u64, Place)>) {
        self.back.extend(returned.into_iter().map(|(_, place)| place));
        self.back.make_contiguous().sort();
    }
}

impl State {
    fn stream(&mut self, name: &str) -> &mut Vec<Stored> {
        if !self.streams.contains_key(name) {
            self.names.push(name.to_owned());
        }
        self.streams.entry(name.to_owned()).or_default()
    }

    fn at(&self, (stream, entry): &Place) -> Carried {
        let event = self.streams[&**stream][entry.1 as usize].1.clone();
        Carried { stream: stream.clone(), entry: *entry, event }
    }

    fn next(&mut self, group: &str, process: u64, max: usize) -> Vec<Carried> {
        let Self { streams, names, groups, faults, .. } = self;
        let group = groups.get_mut(group).expect("it was opened");
        let new: Vec<String> = names[group.seen..].iter().filter(|name| group.discovers(name)).cloned().collect();
        group.seen = names.len();
        for name in new {
            group.positions.entry(name).or_insert(0);
        }
        let mut places: Vec<Place> = group.back.drain(..max.min(group.back.len())).collect();
        group.turn += 1;
        let (count, turn) = (group.positions.len().max(1), group.turn);
        let mut order: Vec<&String> = group.positions.keys().collect();
        order.rotate_left(turn % count);
        let order: Vec<String> = order.into_iter().cloned().collect();
        for name in order {
            let position = group.positions.get_mut(&name).expect("it was just listed");
            while places.len() < max && *position < streams[&name].len() {
                places.push((name.as_str().into(), EntryId(PARTITION, *position as u64)));
                *position += 1;
            }
        }
        for place in &places {
            let is_copy = group.in_hand.iter().any(|(_, held)| held == place);
            if !is_copy {
                group.in_hand.push((process, place.clone()));
                group.back.extend(faults.copies.then(|| place.clone()));
            }
        }
        places.iter().map(|place| self.at(place)).collect()
    }
}

impl Cloud {
    pub fn new(clock: ManualClock) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default(), bell: Notify::new() })
    }

    /// Connects a process.
    pub fn connect(self: &Arc<Self>) -> Arc<Link> {
        let mut state = self.state.lock();
        state.processes += 1;
        Arc::new(Link { cloud: self.clone(), process: state.processes })
    }

    pub fn set(&self, faults: Faults) {
        self.state.lock().faults = faults;
        self.bell.notify_waiters();
    }

    pub fn faults(&self) -> Faults {
        self.state.lock().faults
    }

    pub fn put(&self, stream: &str, entry: Result<Event, Undecodable>) {
        self.state.lock().stream(stream).push((self.clock.now(), entry));
        self.bell.notify_waiters();
    }

    pub fn history(&self, stream: &str) -> Vec<(EntryId, Result<Event, Undecodable>)> {
        let state = self.state.lock();
        let entries = state.streams.get(stream).into_iter().flatten().enumerate();
        entries.map(|(at, (_, event))| (EntryId(PARTITION, at as u64), event.clone())).collect()
    }

    /// Not yet handed out, and in hand.
    pub fn standing(&self, group: &str) -> (u64, u64) {
        let state = self.state.lock();
        let Some(group) = state.groups.get(group) else { return (0, 0) };
        let ahead = group.positions.iter().map(|(name, at)| state.streams[name].len() - at);
        ((ahead.sum::<usize>() + group.back.len()) as u64, group.in_hand.len() as u64)
    }

    /// Hands an entry out once more, whatever became of it: to `group`'s next receive.
    pub fn again(&self, group: &str, stream: &str, entry: EntryId) {
        let mut state = self.state.lock();
        state.groups.get_mut(group).expect("it was opened").back.push_back((stream.into(), entry));
        drop(state);
        self.bell.notify_waiters();
    }
}

/// One process's connection.
pub struct Link {
    cloud: Arc<Cloud>,
    process: u64,
}

impl Link {
    /// The process dies: what it had in hand comes again, and nothing it says counts any more.
    pub fn die(&self) {
        let mut state = self.cloud.state.lock();
        state.dead.insert(self.process);
        state.groups.values_mut().for_each(|group| group.take_back(self.process));
        drop(state);
        self.cloud.bell.notify_waiters();
    }

    fn living(&self) -> Result<parking_lot::MutexGuard<'_, State>, BusError> {
        let state = self.cloud.state.lock();
        if state.dead.contains(&self.process) { Err(BusError::Closed) } else { Ok(state) }
    }
}

fn away() -> BusError {
    BusError::Away { store: "cloud".into(), cause: "a test wants it".into() }
}

#[async_trait]
impl Carrier for Link {
    fn features(&self) -> Features {
        Features { one_store: false, marks: false, durable: true, shared: true, history: true }
    }

    async fn publish(&self, stream: &str, events: &[Event]) -> Result<(), BusError> {
        let mut state = self.living()?;
        let now = self.cloud.clock.now();
        let faults = state.faults;
        if faults.publish == Fault::Away {
            return Err(away());
        }
        if events.iter().any(|event| faults.refused == Some(&*event.kind)) {
            return Err(BusError::Refused("it is too large".into()));
        }
        let taken = if faults.publish == Fault::Unanswered { &events[..1] } else { events };
        state.stream(stream).extend(taken.iter().map(|event| (now, Ok(event.clone()))));
        drop(state);
        self.cloud.bell.notify_waiters();
        if faults.publish == Fault::Unanswered { Err(away()) } else { Ok(()) }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Opened, BusError> {
        let mut state = self.living()?;
        for name in &subscription.streams {
            state.stream(name);
        }
        let State { streams, names, groups, .. } = &mut *state;
        let known = groups.contains_key(&*subscription.group);
        let group = groups.entry(subscription.group.to_string()).or_default();
        let (before, seen) = (std::mem::take(&mut group.discover), group.seen);
        let asked_before = Group { discover: before, ..Group::default() };
        (group.discover, group.seen) = (subscription.discover.clone(), names.len());
        let mut began = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let reads = subscription.streams.contains(name) || group.discovers(name);
            if !reads || group.positions.contains_key(name) {
                continue;
            }
            let entries = &streams[name];
            let missed = known && at >= seen && asked_before.discovers(name);
            let position = match subscription.start {
                _ if missed => 0,
                Start::Earliest => 0,
                Start::Latest => entries.len(),
                Start::At(time) => entries.iter().filter(|(stored, _)| *stored < time).count(),
            };
            group.positions.insert(name.clone(), position);
            if !known || !entries.is_empty() {
                let (skipped, taken_in) = (position as u64, (entries.len() - position) as u64);
                began.push(Began { stream: name.clone(), skipped, taken_in });
            }
        }
        let (link, group) = (Link { cloud: self.cloud.clone(), process: self.process }, subscription.group.to_string());
        Ok(Opened { channel: Arc::new(Door { link, group }), began })
    }
}

struct Door {
    link: Link,
    group: String,
}

impl Door {
    /// Takes `places` out of our hands.
    fn put_down(&self, places: &[Place], fault: impl Fn(&Faults) -> Fault) -> Result<Vec<(u64, Place)>, BusError> {
        let mut state = self.link.living()?;
        if fault(&state.faults) == Fault::Away {
            return Err(away());
        }
        let group = state.groups.get_mut(&self.group).expect("it was opened");
        let (named, others) = group.in_hand.drain(..).partition(|(_, place)| places.contains(place));
        group.in_hand = others;
        Ok(named)
    }

    fn reply(&self, fault: impl Fn(&Faults) -> Fault) -> Result<(), BusError> {
        if fault(&self.link.living()?.faults) == Fault::Unanswered { Err(away()) } else { Ok(()) }
    }
}

#[async_trait]
impl Channel for Door {
    async fn receive(&self, max: usize) -> Result<Vec<Carried>, BusError> {
        loop {
            let mut rung = std::pin::pin!(self.link.cloud.bell.notified());
            rung.as_mut().enable();
            let next = self.link.living()?.next(&self.group, self.link.process, max);
            if !next.is_empty() {
                return Ok(next);
            }
            rung.await;
        }
    }

    async fn acknowledge(&self, places: &[Place]) -> Result<(), BusError> {
        self.put_down(places, |faults| faults.acknowledge)?;
        // What is done is not handed out again either, unless a test asks for copies.
        if let Some(group) = self.link.living()?.groups.get_mut(&self.group) {
            group.back.retain(|place| !places.contains(place));
        }
        self.reply(|faults| faults.acknowledge)
    }

    async fn give_back(&self, places: &[Place]) -> Result<(), BusError> {
        let returned = self.put_down(places, |faults| faults.give_back)?;
        if let Some(group) = self.link.living()?.groups.get_mut(&self.group) {
            group.return_all(returned);
        }
        self.link.cloud.bell.notify_waiters();
        self.reply(|faults| faults.give_back)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut state = self.link.cloud.state.lock();
        state.groups.get_mut(&self.group).expect("it was opened").take_back(self.link.process);
        drop(state);
        self.link.cloud.bell.notify_waiters();
    }
}
