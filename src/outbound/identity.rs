//! What tells a service that it is asked the same again.
//!
//! Owns the key of a call and the trace of an event that has none: both are made of the event's own key, so that they are
//! the same in every attempt and in every process. Two calls of one event have two keys.

use std::fmt::Write;

use ring::digest::{Context, SHA256};

/// Bytes of a key: half of what the hash has.
const KEY_BYTES: usize = 16;

/// What makes an event the same, as its idempotency record has it.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    pub group: &'a str,
    /// The event's type.
    pub kind: &'a str,
    /// Its idempotency key.
    pub key: &'a str,
}

impl Identity<'_> {
    /// The key of call `number`, from 1, within `step`, or within the run outside of all steps.
    pub fn call_key(&self, step: Option<&str>, number: u32) -> String {
        let place = if step.is_some() { "step" } else { "run" };
        hex(&self.hash(&["call", place, step.unwrap_or_default()], number)[..KEY_BYTES])
    }

    fn hash(&self, parts: &[&str], number: u32) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in [self.group, self.kind, self.key].iter().chain(parts) {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        context.update(&number.to_le_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

/// The trace of an event's calls: its own, or, where it has none that can be read, one that all its calls share.
pub fn traceparent(own: Option<&str>, identity: Identity<'_>) -> String {
    if let Some(own) = own.filter(|own| is_traceparent(own)) {
        return own.to_owned();
    }
    let hash = identity.hash(&["trace"], 0);
    format!("00-{}-{}-01", hex(&hash[..16]), hex(&hash[16..24]))
}

/// As W3C's Trace Context writes it, in its first version.
fn is_traceparent(text: &str) -> bool {
    let is_id = |part: &str, digits: usize| {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == digits && part.bytes().all(lower_hex) && part.bytes().any(|byte| byte != b'0')
    };
    match text.split('-').collect::<Vec<_>>().as_slice() {
        ["00", trace, parent, flags] => {
            let flags = flags.len() == 2 && flags.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_id(trace, 32) && is_id(parent, 16) && flags
        }
        _ => false,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const EVENT: Identity<'_> = Identity { group: "billing", kind: "order.created", key: "/shop/17" };

    #[test]
    fn a_key_is_stable_and_no_other_call_has_it() {
        assert_eq!(EVENT.call_key(None, 1), EVENT.call_key(None, 1));
        // Services remember keys: another version of Moontide must make the same ones.
        assert_eq!(EVENT.call_key(None, 1), "a0791a16032e78737c9380f41255b9af");
        let identities = [
            EVENT,
            Identity { group: "billin", kind: "gorder.created", ..EVENT },
            Identity { kind: "order.created/", key: "shop/17", ..EVENT },
            Identity { key: "/shop/18", ..EVENT },
        ];
        let steps = [None, Some(""), Some("charge"), Some("run"), Some("refund")];
        let mut keys = Vec::new();
        for identity in identities {
            for step in steps {
                keys.extend((1..=3).map(|number| identity.call_key(step, number)));
            }
        }
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        assert!(keys.iter().all(|key| key.len() == 32));
    }

    #[test]
    fn the_trace_is_the_events_own_or_one_that_its_calls_share() {
        let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert_eq!(traceparent(Some(own), EVENT), own);
        let made = traceparent(None, EVENT);
        assert!(is_traceparent(&made), "{made}");
        assert_eq!(made, traceparent(Some("00-00000000000000000000000000000000-b7ad6b7169203331-00"), EVENT));
        for broken in ["", "00-1-2-3", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-00", "a\r\nb"] {
            assert_eq!(traceparent(Some(broken), EVENT), made, "{broken:?}");
        }
        assert_ne!(made, traceparent(None, Identity { key: "/shop/18", ..EVENT }));
    }
}
