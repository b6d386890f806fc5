//! Removes a store that was made for a while, with everything that lies beside it under one name.

use super::address::Address;
use super::discovery::page;
use super::fault::Fault;
use super::link::{Link, PATIENCE};
use crate::bus::BusError;

/// Keys that the server looks at in one step.
const STEP: usize = 1000;

/// Removes every key whose name begins with `prefix`. Nobody may be at work there any more.
///
/// # Errors
/// Where the server cannot be reached; some keys may be left then.
pub async fn erase(address: &Address, prefix: &str) -> Result<(), BusError> {
    let removed = remove(&Link::new(address.clone(), "eraser", PATIENCE), prefix).await;
    removed.map_err(|fault| fault.told(&address.to_string()))
}

async fn remove(link: &Link, prefix: &str) -> Result<(), Fault> {
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("COUNT").arg(STEP);
        let (next, names) = page(link.call(&scan).await?)?;
        let ours: Vec<_> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        if !ours.is_empty() {
            link.call(redis::cmd("UNLINK").arg(ours)).await?;
        }
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}
