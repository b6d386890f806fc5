//! Calls to services outside, by handlers of a host in this process, to small services on loopback.

mod bounds;
mod calls;
mod granting;
mod server;
mod trust;

use moontide::bus::DeadLetter;
use moontide::outcome::Emit;

use crate::support::{Desk, event};
use server::Server;

/// A host whose handlers may call `server`, and find its URL under `config.get("service")`. A handler that fails is not tried
/// again, unless it says so itself.
async fn desk(server: &Server, settings: &str, handlers: &[(&str, &str)]) -> Desk {
    let address = server.address;
    let grants = format!("[handlers.\"**\"]\ngrants = {{ hosts = [\"{address}\"], secrets = [\"key\"] }}\n");
    Desk::with(&(grants + &given(server, settings)), handlers).await
}

/// The same without grants.
fn given(server: &Server, settings: &str) -> String {
    let url = server.url();
    format!(
        "[http]\nlisten = \"\"\n[retry]\nattempts = 1\n[values]\nservice = \"{url}\"\n[secrets]\nkey = {{ env = \"PATH\" }}\n{settings}"
    )
}

fn go(id: u32) -> Vec<Emit> {
    vec![event("go", id, "{}")]
}

/// Why an event was given up.
fn error_of(letter: &DeadLetter) -> String {
    letter.failures.last().map(|failure| failure.failure.message.clone()).unwrap_or_default()
}
