//! From names to addresses, each of which is checked before anything connects to it.
//!
//! Owns that a connection goes to the very addresses that were checked: the client asks nobody else. A name with one address
//! that it must not lead to leads nowhere. Addresses in URLs do not come by here; they are granted as they stand.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::address::{Special, special};

/// The addresses of a name, when they are known.
pub type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Whoever knows the addresses of names.
pub trait Names: Send + Sync {
    /// The addresses of `name`.
    fn look_up(&self, name: &str) -> Looking;
}

/// Questions to the operating system that are open at a time: each holds a thread of the runtime until it is answered, whoever
/// has given up meanwhile.
const LOOK_UPS_MAX: usize = 64;

/// As the operating system has it.
pub struct SystemNames(Arc<Semaphore>);

impl Default for SystemNames {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOK_UPS_MAX)))
    }
}

impl Names for SystemNames {
    fn look_up(&self, name: &str) -> Looking {
        let (name, places) = (name.to_owned(), self.0.clone());
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let ask = move || {
                let found =
                    (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
                drop(place);
                found
            };
            tokio::task::spawn_blocking(ask).await.map_err(io::Error::other)?
        })
    }
}

/// A name that leads where it must not.
#[derive(Debug)]
pub struct Misled {
    ip: IpAddr,
    special: Special,
}

impl fmt::Display for Misled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its name leads to {}, {}", self.ip, self.special.what())
    }
}

impl std::error::Error for Misled {}

impl Misled {
    /// Whether a grant with `private = true` would let it pass.
    pub fn is_private(&self) -> bool {
        !matches!(self.special, Special::Forbidden(_))
    }
}

/// Checks what `names` says.
pub struct Checked {
    pub names: Arc<dyn Names>,
    /// Private networks and this machine are in order.
    pub private: bool,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let looking = look_up(&*self.names, name.as_str());
        let private = self.private || name.as_str() == LOCALHOST;
        Box::pin(async move {
            let found = looking.await?;
            if found.is_empty() {
                return Err(io::Error::other("its name has no address").into());
            }
            check(&found, private)?;
            Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

const LOCALHOST: &str = "localhost";

/// Nobody is asked what this machine is.
fn look_up(names: &dyn Names, name: &str) -> Looking {
    match name {
        LOCALHOST => Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]) }),
        name => names.look_up(name),
    }
}

fn check(found: &[IpAddr], private: bool) -> Result<(), Misled> {
    let misled = |ip: &IpAddr| {
        let special = special(*ip)?;
        let allowed = private && !matches!(special, Special::Forbidden(_));
        (!allowed).then_some(Misled { ip: *ip, special })
    };
    found.iter().find_map(misled).map_or(Ok(()), Err)
}
