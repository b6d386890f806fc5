//! Single parts of the bus on real servers, where the conformance suite cannot look.

mod adopt;
mod beat;
mod due;
mod fitness;
mod groups;
mod intake;
mod link;
mod named;
mod takeover;

use std::sync::Arc;
use std::time::Duration;

use super::store::Store;
use super::{Address, Options};
use moontide_stage::server::{Kind, Server};

const KINDS: [Kind; 2] = [Kind::Redis, Kind::Valkey];

fn options(server: &Server) -> Options {
    let address = Address::parse(&server.url()).expect("it is an address");
    Options { upkeep_every: Duration::from_millis(5), ..Options::at(address) }
}

/// A process that says and does nothing by itself.
fn store(server: &Server) -> Arc<Store> {
    Arc::new(Store::new(options(server)))
}

fn strings(server: &Server, words: &[&str]) -> Vec<String> {
    server.get(words)
}

/// Asks again until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
