//! The question for more deliveries: one at a time, and after a pause where the store is away.

use std::future::pending;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::bus::{BusError, Delivery, Inbox, backoff};
use crate::failpoint;

pub(super) type Received = Result<Vec<Delivery>, BusError>;

#[derive(Default)]
pub(super) struct Receiving {
    asked: Option<BoxFuture<'static, Received>>,
    /// Failures in a row.
    failures: u32,
}

impl Receiving {
    pub fn is_under_way(&self) -> bool {
        self.asked.is_some()
    }

    /// Asks `inbox` for at most `max` deliveries.
    pub fn ask(&mut self, inbox: Arc<dyn Inbox>, max: usize) {
        let failures = self.failures;
        self.asked = Some(Box::pin(async move {
            if failures > 0 {
                tokio::time::sleep(backoff(failures)).await;
            }
            failpoint::reached("receive.before");
            inbox.receive(max).await
        }));
    }

    /// Waits for the answer, for ever where nothing was asked. Whoever stops waiting can go on later.
    pub async fn answer(&mut self) -> Received {
        let Some(asked) = &mut self.asked else { return pending().await };
        let received = asked.await;
        self.asked = None;
        self.failures = if received.is_ok() { 0 } else { self.failures + 1 };
        failpoint::after("receive.after", received)
    }

    /// Nobody waits for the answer any more.
    pub fn forget(&mut self) {
        self.asked = None;
    }
}
