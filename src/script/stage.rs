//! What the runs of one thread share: warm VMs, and who runs in which.
//!
//! Owns which VM a run gets, when a VM is dropped, and what its end means for the runs in it: a run that was alone is
//! charged, several are released so that each is repeated alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::Function;
use tokio::sync::OnceCell;

use super::api::Bucket;
use super::lookups::Lookups;
use super::meter::Meter;
use super::run::{Ruin, Run};
use super::vm::{self, Opening, Vm};
use super::{Program, Services};
use crate::outcome::{Failure, FailureKind, Outcome, Release};

/// A VM that nothing ran in for this long is dropped.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// A VM that nothing ran in for this long gives back its garbage.
const REST_AFTER: Duration = Duration::from_secs(10);

/// A VM with its handler, kept between runs.
pub(super) struct Warm {
    pub vm: Vm,
    pub number: u64,
    pub handle: Function,
    /// The function that makes the idempotency key, where the handler has one.
    pub key: Option<Function>,
    used: Cell<Instant>,
    /// Its garbage was collected since it was last used.
    clean: Cell<bool>,
}

/// A handler's place for a warm VM; empty until the first run has made one, for which the others wait.
struct Seat {
    program: Arc<Program>,
    vm: Rc<OnceCell<Rc<Warm>>>,
}

impl Seat {
    /// The VM, and whether nothing is in it.
    fn resting(&self) -> Option<&Rc<Warm>> {
        self.vm.get().filter(|warm| Rc::strong_count(warm) == 1)
    }

    fn is_idle(&self) -> bool {
        match self.vm.get() {
            Some(_) => self.resting().is_some_and(|warm| warm.used.get().elapsed() >= IDLE_AFTER),
            None => Rc::strong_count(&self.vm) == 1,
        }
    }
}

pub(super) struct Stage {
    pub services: Arc<Services>,
    pub lookups: Rc<Lookups>,
    pub meter: Rc<Meter>,
    /// By handler; an older version's VM is replaced, and goes when its last run ends.
    seats: RefCell<HashMap<Arc<str>, Seat>>,
    /// What each handler may log, whichever VM it is in.
    buckets: RefCell<HashMap<Arc<str>, Rc<RefCell<Bucket>>>>,
    live: RefCell<HashMap<u64, Rc<Run>>>,
    last_number: Cell<u64>,
}

impl Stage {
    pub fn new(services: Arc<Services>, meter: Rc<Meter>) -> Rc<Self> {
        Rc::new(Self {
            lookups: Lookups::new(services.ledger.clone()),
            services,
            meter,
            seats: RefCell::default(),
            buckets: RefCell::default(),
            live: RefCell::default(),
            last_number: Cell::default(),
        })
    }

    fn number(&self) -> u64 {
        self.last_number.set(self.last_number.get() + 1);
        self.last_number.get()
    }

    /// The warm VM for a run of `program`, if there is one.
    pub fn warm(&self, program: &Arc<Program>) -> Option<Rc<Warm>> {
        let seats = self.seats.borrow();
        let seat = seats.get(&program.name).filter(|seat| Arc::ptr_eq(&seat.program, program));
        let warm = seat.and_then(|seat| seat.vm.get()).cloned()?;
        warm.used.set(Instant::now());
        warm.clean.set(false);
        Some(warm)
    }

    /// Makes a VM for runs of `program`, or for one that must be alone. Runs that ask while it is made wait for it.
    pub async fn make(&self, program: &Arc<Program>, alone: bool) -> Result<Rc<Warm>, Failure> {
        if alone {
            return self.open(program).await;
        }
        let vm = self.seat(program);
        vm.get_or_try_init(|| self.open(program)).await.cloned()
    }

    fn seat(&self, program: &Arc<Program>) -> Rc<OnceCell<Rc<Warm>>> {
        let mut seats = self.seats.borrow_mut();
        match seats.get(&program.name).filter(|seat| Arc::ptr_eq(&seat.program, program)) {
            Some(seat) => seat.vm.clone(),
            None => {
                let vm = Rc::<OnceCell<_>>::default();
                seats.insert(program.name.clone(), Seat { program: program.clone(), vm: vm.clone() });
                vm
            }
        }
    }

    /// What the warm VM of `handler` holds; 0: there is none.
    pub fn memory_bytes(&self, handler: &str) -> usize {
        let seats = self.seats.borrow();
        seats.get(handler).and_then(|seat| seat.vm.get()).map_or(0, |warm| warm.vm.memory_bytes())
    }

    async fn open(&self, program: &Arc<Program>) -> Result<Rc<Warm>, Failure> {
        let (instance, clock) = (self.services.instance.clone(), self.services.clock.clone());
        let bucket = self.bucket(&program.name);
        let vm = Vm::open(Opening::of(program, instance, clock, self.meter.clone(), bucket)).await?;
        let (handle, key) = vm.handle()?;
        let (number, used) = (self.number(), Cell::new(Instant::now()));
        Ok(Rc::new(Warm { vm, number, handle, key, used, clean: Cell::new(false) }))
    }

    fn bucket(&self, handler: &Arc<str>) -> Rc<RefCell<Bucket>> {
        let mut buckets = self.buckets.borrow_mut();
        buckets.entry(handler.clone()).or_insert_with(|| Rc::new(RefCell::new(Bucket::full()))).clone()
    }

    /// Takes `run` in; it is known until the returned number is given to [`Stage::leave`].
    pub fn enter(&self, run: Rc<Run>) -> u64 {
        let number = self.number();
        self.live.borrow_mut().insert(number, run);
        number
    }

    pub fn leave(&self, number: u64) {
        self.live.borrow_mut().remove(&number);
    }

    /// Ends every run as released.
    pub fn release_all(&self) {
        self.live.borrow().values().for_each(|run| run.end(Outcome::Released(Release::Stopping)));
    }

    /// Applies what `run` did to its VM, and says how it ended; `outcome` is what came out where nothing had ended it.
    pub fn conclude(&self, run: &Rc<Run>, outcome: Option<Outcome>) -> Outcome {
        let alone = !self.neighbours(run).any(|_| true);
        match run.ruins() {
            Ruin::None => {}
            Ruin::Retired => self.retire(run),
            Ruin::Dead => {
                self.retire(run);
                self.neighbours(run).for_each(|other| other.end(Outcome::Released(Release::Neighbour)));
            }
        }
        match (run.take_end(), run.is_out_of_memory(), outcome) {
            (Some(Outcome::Failed(failure)), ..) => Outcome::Failed(run.located(failure)),
            (Some(end), ..) => end,
            (None, true, _) if alone => Outcome::Failed(vm::out_of_memory(&run.limits)),
            (None, true, _) => Outcome::Released(Release::Neighbour),
            (None, false, Some(outcome)) => outcome,
            (None, false, None) => Outcome::Failed(Failure::new(FailureKind::Host, "the run ended without an outcome")),
        }
    }

    /// The other runs in the VM of `run`.
    fn neighbours(&self, run: &Rc<Run>) -> impl Iterator<Item = Rc<Run>> {
        let inside = |other: &&Rc<Run>| run.vm.get() != 0 && other.vm.get() == run.vm.get() && !Rc::ptr_eq(other, run);
        self.live.borrow().values().filter(inside).cloned().collect::<Vec<_>>().into_iter()
    }

    /// No new run enters the VM of `run`.
    fn retire(&self, run: &Run) {
        let is_it = |seat: &Seat| seat.vm.get().is_some_and(|warm| warm.number == run.vm.get());
        self.seats.borrow_mut().retain(|_, seat| !is_it(seat));
    }

    /// Drops VMs that nothing ran in for a while, and collects the garbage of those that may be next.
    pub fn drop_idle(&self) {
        self.seats.borrow_mut().retain(|_, seat| !seat.is_idle());
        self.buckets.borrow_mut().retain(|_, bucket| Rc::strong_count(bucket) > 1 || bucket.borrow().counts());
        let seats = self.seats.borrow();
        let resting = seats.values().filter_map(Seat::resting).filter(|warm| warm.used.get().elapsed() > REST_AFTER);
        resting.filter(|warm| !warm.clean.replace(true)).for_each(|warm| warm.vm.collect());
    }
}
