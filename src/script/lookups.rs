//! What the runs of one thread ask the ledger, gathered into few questions.
//!
//! Whatever was asked while the last question was under way goes into the next one; nobody waits for a timer. Knows no
//! scripts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::bus::{BusError, Ledger, Recorded};
use crate::outcome::RecordKey;

/// Keys after which a question is full; a single asker may have more.
const KEYS_ENOUGH: usize = 512;

/// The questions of one script thread.
pub(super) struct Lookups {
    ledger: Arc<dyn Ledger>,
    values: Lane<String, Option<Bytes>>,
    records: Lane<RecordKey, Option<Recorded>>,
    answered: Cell<bool>,
}

impl Lookups {
    pub fn new(ledger: Arc<dyn Ledger>) -> Rc<Self> {
        Rc::new(Self { ledger, values: Lane::default(), records: Lane::default(), answered: Cell::default() })
    }

    /// The values of `keys`, in their order, of one moment.
    pub async fn read(&self, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, BusError> {
        self.values.ask(keys).await
    }

    /// Who holds the record of `key`.
    pub async fn recorded(&self, key: RecordKey) -> Result<Option<Recorded>, BusError> {
        Ok(self.records.ask(vec![key]).await?.pop().flatten())
    }

    /// Whether anything was answered since this was last asked.
    pub fn take_answered(&self) -> bool {
        self.answered.take()
    }

    /// Answers questions for values as long as it is polled.
    pub async fn serve_values(self: Rc<Self>) {
        loop {
            let (keys, askers) = self.values.gather().await;
            Lane::<String, _>::answer(askers, self.ledger.read(&keys).await);
            self.answered.set(true);
        }
    }

    /// Answers questions for records as long as it is polled.
    pub async fn serve_records(self: Rc<Self>) {
        loop {
            let (keys, askers) = self.records.gather().await;
            Lane::<RecordKey, _>::answer(askers, self.ledger.recorded(&keys).await);
            self.answered.set(true);
        }
    }
}

/// How many keys somebody asked for, and where the answer goes.
type Asker<V> = (usize, oneshot::Sender<Result<Vec<V>, BusError>>);

/// Questions of one kind that wait to be asked together.
struct Lane<K, V> {
    waiting: RefCell<(Vec<K>, Vec<Asker<V>>)>,
    bell: Notify,
}

impl<K, V> Default for Lane<K, V> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), bell: Notify::new() }
    }
}

impl<K, V> Lane<K, V> {
    async fn ask(&self, keys: Vec<K>) -> Result<Vec<V>, BusError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting.borrow_mut();
            waiting.1.push((keys.len(), answer));
            waiting.0.extend(keys);
        }
        self.bell.notify_one();
        answered.await.unwrap_or(Err(BusError::Closed))
    }

    /// Waits for questions and takes them all, or as many as make a full one.
    async fn gather(&self) -> (Vec<K>, Vec<Asker<V>>) {
        while self.waiting.borrow().1.is_empty() {
            self.bell.notified().await;
        }
        let mut waiting = self.waiting.borrow_mut();
        let (mut askers, mut keys) = (0, 0);
        while askers < waiting.1.len() && (askers == 0 || keys < KEYS_ENOUGH) {
            keys += waiting.1[askers].0;
            askers += 1;
        }
        (waiting.0.drain(..keys).collect(), waiting.1.drain(..askers).collect())
    }

    /// Gives each asker its part; one that is gone is skipped.
    fn answer(askers: Vec<Asker<V>>, answer: Result<Vec<V>, BusError>) {
        let mut values = match answer {
            Ok(values) => values.into_iter(),
            Err(error) => {
                askers.into_iter().for_each(|(_, asker)| drop(asker.send(Err(error.clone()))));
                return;
            }
        };
        for (count, asker) in askers {
            drop(asker.send(Ok(values.by_ref().take(count).collect())));
        }
    }
}
