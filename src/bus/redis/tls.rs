//! The cryptography behind `rediss://`.

use std::sync::Once;

/// Chooses it, once in a process; whoever chose before us has chosen for us too.
pub(super) fn install() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
