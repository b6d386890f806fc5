//! The way to the server: one connection that many calls share, made anew after it broke.
//!
//! Repeats nothing: a call that failed has an open outcome, and its caller knows what that means. Blocking reads never go
//! this way; they have connections of their own.

use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, Value};

use super::address::Address;
use super::fault::{self, Fault};
use super::reply;

/// How long a connection, or an answer, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A shared connection.
pub(super) struct Link {
    address: Address,
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Held while a new connection is made, so that one is.
    connecting: tokio::sync::Mutex<()>,
}

impl Link {
    pub fn new(address: Address) -> Self {
        Self { address, connection: Mutex::default(), connecting: tokio::sync::Mutex::default() }
    }

    /// A connection of its own, whose answers are waited for as long as `patience` says.
    pub async fn dedicated(&self, patience: Duration) -> Result<MultiplexedConnection, Fault> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(patience));
        let client = self.address.client().await?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.map_err(|error| fault::of(&error))
    }

    /// One command.
    pub async fn call(&self, command: &Cmd) -> Result<Value, Fault> {
        let mut connection = self.connection().await?;
        let answer = connection.send_packed_command(command).await;
        answer.map_err(|error| self.broken(&error)).and_then(checked)
    }

    /// Several commands in one round trip; each has its own answer, in a transaction too.
    pub async fn send(&self, commands: &Pipeline) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let mut connection = self.connection().await?;
        // A transaction is answered once more for its beginning and for each command, and then by all answers together.
        let (skipped, taken) = if commands.is_transaction() { (commands.len() + 1, 1) } else { (0, commands.len()) };
        let answers = connection.send_packed_commands(commands, skipped, taken).await;
        let answers = answers.map_err(|error| self.broken(&error))?;
        let mut answers = answers.into_iter().map(checked);
        if commands.is_transaction() {
            let all = answers.next().unwrap_or(Ok(Value::Nil))?;
            return Ok(reply::list(all)?.into_iter().map(checked).collect());
        }
        Ok(answers.collect())
    }

    async fn connection(&self) -> Result<MultiplexedConnection, Fault> {
        if let Some(connection) = self.connection.lock().clone() {
            return Ok(connection);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = self.connection.lock().clone() {
            return Ok(connection);
        }
        let connection = self.dedicated(PATIENCE).await?;
        *self.connection.lock() = Some(connection.clone());
        Ok(connection)
    }

    /// After an error of the way, not of the server, the connection is not used again.
    fn broken(&self, error: &redis::RedisError) -> Fault {
        let fault = fault::of(error);
        if error.code().is_none() {
            self.connection.lock().take();
        }
        fault
    }
}

fn checked(value: Value) -> Result<Value, Fault> {
    match value {
        Value::ServerError(error) => Err(fault::of_code(error.code(), error.details().unwrap_or_default())),
        value => Ok(value),
    }
}
