//! The way to the server: one connection that many calls share, made anew after it broke.
//!
//! Repeats nothing: a call that failed has an open outcome, and its caller knows what that means. While the server is away,
//! one task looks for it and every call fails at once. Blocking reads never go this way; they have connections of their own,
//! to the same server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::fault::{self, Fault};
use super::reply;
use super::route::{self, Route};

/// How long an answer is waited for, unless somebody says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long, where somebody else was answered meanwhile.
const PROOF: Duration = Duration::from_millis(500);
/// The longest time between two attempts; chance makes it up to half as short, so that processes do not come together.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// A shared connection.
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    /// What the server calls our connections.
    name: String,
    /// How long an answer is waited for.
    patience: Duration,
    state: watch::Sender<State>,
    /// Where connections are made: scripts read state on threads of their own, whose runtimes do no I/O.
    runtime: Handle,
}

#[derive(Clone)]
enum State {
    /// Nobody has asked yet.
    Unused,
    /// A connection is being made; whoever asks waits for that.
    Connecting,
    Up(Arc<Live>),
    /// Attempts fail, for this reason, and go on.
    Away(Fault),
}

/// A connection, and where it leads.
struct Live {
    route: Route,
    connection: MultiplexedConnection,
    /// Ends every call that is under way.
    broken: CancellationToken,
    /// It was of use: somebody was answered.
    used: AtomicBool,
    /// Attempts up to this one without a connection that was of use.
    failures: u32,
}

/// A connection that is nobody else's.
#[derive(Clone)]
pub(super) struct Dedicated {
    pub connection: MultiplexedConnection,
    /// The shared one broke: what it led to may be another server now.
    pub left: CancellationToken,
}

impl Link {
    /// A way that nobody goes yet, on which an answer is waited for as long as `patience` says; `instance` is for people who
    /// look at the server.
    pub fn new(address: Address, instance: &str, patience: Duration) -> Self {
        let (name, state) = (route::name(instance), watch::Sender::new(State::Unused));
        Self { shared: Arc::new(Shared { address, name, patience, state, runtime: Handle::current() }) }
    }

    /// A connection of its own, whose answers are waited for as long as `patience` says.
    pub async fn dedicated(&self, patience: Duration) -> Result<Dedicated, Fault> {
        let live = self.shared.live().await?;
        let connection = live.route.connect(patience).await;
        let connection = connection.inspect_err(|fault| self.shared.heed(&live, fault))?;
        Ok(Dedicated { connection, left: live.broken.clone() })
    }

    /// A connection that listens to channels.
    pub async fn listening(&self) -> Result<PubSub, Fault> {
        let live = self.shared.live().await?;
        live.route.listen().await.inspect_err(|fault| self.shared.heed(&live, fault))
    }

    /// One command.
    pub async fn call(&self, command: &Cmd) -> Result<Value, Fault> {
        let live = self.shared.live().await?;
        let mut connection = live.connection.clone();
        let answer = self.shared.answered(&live, connection.send_packed_command(command)).await?;
        fault::checked(answer).inspect_err(|fault| self.shared.heed(&live, fault))
    }

    /// Several commands in one round trip; each has its own answer, in a transaction too.
    pub async fn send(&self, commands: &Pipeline) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let live = self.shared.live().await?;
        let mut connection = live.connection.clone();
        // A transaction is answered once more for its beginning and for each command, and then by all answers together.
        let (skipped, taken) = if commands.is_transaction() { (commands.len() + 1, 1) } else { (0, commands.len()) };
        let sent = connection.send_packed_commands(commands, skipped, taken);
        let mut answers = self.shared.answered(&live, sent).await?;
        if commands.is_transaction() {
            answers = reply::list(fault::checked(answers.pop().unwrap_or_default())?)?;
        }
        let answers = answers.into_iter().map(fault::checked);
        Ok(answers.map(|answer| answer.inspect_err(|fault| self.shared.heed(&live, fault))).collect())
    }

    /// Somebody else was answered just now: a shared connection that is not answered soon is dead.
    pub async fn prove(&self) {
        let State::Up(live) = self.shared.state.borrow().clone() else { return };
        let mut connection = live.connection.clone();
        let ping = redis::cmd("PING");
        if timeout(PROOF, connection.send_packed_command(&ping)).await.is_err() {
            self.shared.broke(&live, Fault::Away("the connection was dead".into()));
        }
    }
}

impl Shared {
    /// The connection; waits for the first attempt after there was one, and for no other.
    async fn live(self: &Arc<Self>) -> Result<Arc<Live>, Fault> {
        if let State::Up(live) = &*self.state.borrow() {
            return Ok(live.clone());
        }
        self.begin();
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| !matches!(state, State::Connecting)).await;
        match state.as_deref() {
            Ok(State::Up(live)) => Ok(live.clone()),
            Ok(State::Away(fault)) => Err(fault.clone()),
            Ok(State::Unused | State::Connecting) | Err(_) => Err(Fault::Closed),
        }
    }

    fn begin(self: &Arc<Self>) {
        let first = self.state.send_if_modified(|state| {
            let unused = matches!(state, State::Unused);
            if unused {
                *state = State::Connecting;
            }
            unused
        });
        if first {
            self.runtime.spawn(look(Arc::downgrade(self), 0));
        }
    }

    /// What comes back, or that the connection broke meanwhile.
    async fn answered<T>(
        self: &Arc<Self>,
        live: &Arc<Live>,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Fault> {
        let error = tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(answer) => {
                    live.used.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => error,
            },
            () = live.broken.cancelled() => return Err(Fault::Away("the connection broke".into())),
        };
        let fault = match error.is_timeout() {
            true => Fault::Away(format!("it does not answer within {:?}", self.patience)),
            false => fault::of(&error),
        };
        // An error of the way, not of the server: nobody knows what comes next on this connection.
        if error.code().is_none() {
            self.broke(live, fault.clone());
        }
        Err(fault)
    }

    fn heed(self: &Arc<Self>, live: &Arc<Live>, fault: &Fault) {
        if fault.ends_connection() {
            self.broke(live, fault.clone());
        }
    }

    /// `live` is not used again, by nobody. What was sent over it has an open outcome.
    fn broke(self: &Arc<Self>, live: &Arc<Live>, fault: Fault) {
        let of_use = live.used.load(Ordering::Relaxed) && !fault.ends_connection();
        let failures = if of_use { 0 } else { live.failures + 1 };
        let was_up = self.state.send_if_modified(|state| {
            let same = matches!(state, State::Up(up) if Arc::ptr_eq(up, live));
            if same {
                *state = if failures == 0 { State::Connecting } else { State::Away(fault) };
            }
            same
        });
        if was_up {
            live.broken.cancel();
            self.runtime.spawn(look(Arc::downgrade(self), failures));
        }
    }

    async fn connect(&self, failures: u32) -> Result<Live, Fault> {
        let route = Route::find(&self.address, &self.name).await?;
        let connection = route.connect(self.patience).await?;
        Ok(Live { route, connection, broken: CancellationToken::new(), used: AtomicBool::default(), failures })
    }
}

/// Looks for the server until it is there, or nobody wants it any more. There is one of these at a time.
async fn look(shared: Weak<Shared>, mut failures: u32) {
    loop {
        if failures > 0 {
            sleep(pause(failures, rand::random())).await;
        }
        let Some(shared) = shared.upgrade() else { return };
        match shared.connect(failures).await {
            Ok(live) => return drop(shared.state.send_replace(State::Up(Arc::new(live)))),
            Err(fault) => drop(shared.state.send_replace(State::Away(fault))),
        }
        failures = failures.saturating_add(1);
    }
}

/// The time before the attempt after `failures` failed ones; `chance` between 0 and 1.
fn pause(failures: u32, chance: f64) -> Duration {
    let longest = Duration::from_millis(25 << failures.min(10)).min(PAUSE_MAX);
    longest.mul_f64(1.0 - chance / 2.0)
}
