//! Who on this machine is still alive, as the kernel knows it.
//!
//! Each process keeps a socket with a name of its own that the kernel takes back when the process ends, however it ends.
//! Whoever runs under the same kernel, in the same network namespace, can look whether it is there, without waiting for a
//! heartbeat to stand still. Says nothing about processes elsewhere.

use serde::{Deserialize, Serialize};

/// Where a process can be looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Which kernel since when, and which of its networks.
    machine: String,
    /// Name of its socket.
    socket: String,
}

impl Place {
    /// Whether the process there was on this machine and is gone for ever.
    pub fn is_deserted(&self) -> bool {
        system::machine().as_ref() == Some(&self.machine) && system::is_gone(&self.socket)
    }
}

/// Shows that this process lives, until it is dropped.
pub(super) struct Lifeline {
    pub place: Place,
    _socket: system::Socket,
}

impl Lifeline {
    /// `None` where the system has no such sockets.
    pub fn show() -> Option<Self> {
        let socket = format!("moontide-{:032x}", rand::random::<u128>());
        let machine = system::machine()?;
        Some(Self { _socket: system::bind(&socket)?, place: Place { machine, socket } })
    }

    /// Whether the process at `place` was on this machine and is gone for ever.
    pub fn misses(&self, place: &Place) -> bool {
        self.is_near(place) && system::is_gone(&place.socket)
    }

    /// Whether `place` is on this machine.
    pub fn is_near(&self, place: &Place) -> bool {
        place.machine == self.place.machine
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io::ErrorKind;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    pub type Socket = UnixDatagram;

    pub fn machine() -> Option<String> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let network = std::fs::read_link("/proc/self/ns/net").ok()?;
        Some(format!("{} {}", boot.trim(), network.display()))
    }

    pub fn bind(name: &str) -> Option<Socket> {
        UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).ok()?).ok()
    }

    /// Only what the kernel says for certain counts: not that we may not look.
    pub fn is_gone(name: &str) -> bool {
        let looked = SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixDatagram::unbound().and_then(|socket| socket.connect_addr(&address)));
        looked.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub type Socket = std::convert::Infallible;

    pub fn machine() -> Option<String> {
        None
    }

    pub fn bind(_: &str) -> Option<Socket> {
        None
    }

    pub fn is_gone(_: &str) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_who_is_gone() {
        let (one, other) = (Lifeline::show().expect("it is Linux"), Lifeline::show().expect("it is Linux"));
        let place = other.place.clone();
        assert!(one.is_near(&place) && !one.misses(&place), "two in one process are two");
        drop(other);
        assert!(one.misses(&place) && !one.misses(&one.place));
        let elsewhere = Place { machine: "another".into(), ..place };
        assert!(!one.misses(&elsewhere), "nothing is known about other machines");
    }
}
