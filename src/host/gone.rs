//! Handlers whose files are gone, in the order in which they left.
//!
//! Owns how many of them are remembered: names come and go as long as a process lives, and what it keeps must not grow
//! with them.

use std::collections::VecDeque;

use crate::registry::Registry;

/// Handlers that are gone and whose metrics are still shown.
const SHOWN_MAX: usize = 100;

/// Those that are remembered.
#[derive(Default)]
pub(super) struct Gone(VecDeque<String>);

impl Gone {
    /// Takes up who left and who came back; answers whom to forget.
    pub fn take_up(&mut self, before: &Registry, now: &Registry) -> Vec<String> {
        self.0.retain(|name| !now.handlers.contains_key(name));
        let left = before.handlers.keys().filter(|name| !now.handlers.contains_key(*name));
        self.0.extend(left.cloned());
        self.0.drain(..self.0.len().saturating_sub(SHOWN_MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{self, Flags};
    use crate::registry::build;
    use crate::script::Sources;

    #[test]
    fn those_that_left_last_are_remembered_and_whoever_comes_back_is_not_gone() {
        let config = config::load(&Flags::default()).expect("the defaults are right");
        let registry = |before: &Registry, names: &[String]| {
            let text = Arc::from("return { on = 'tick', handle = function() end }");
            let files = names.iter().map(|name| (format!("{name}.luau"), Arc::clone(&text)));
            build(before, Arc::new(Sources::new(files)), Vec::new(), &config)
        };
        let mut gone = Gone::default();
        let names: Vec<String> = (0..SHOWN_MAX + 20).map(|n| format!("h{n:03}")).collect();
        let (none, all) = (Registry::default(), registry(&Registry::default(), &names));
        assert_eq!(gone.take_up(&none, &all), [""; 0]);
        assert_eq!(gone.take_up(&all, &none), names[..20], "no more than so many are remembered");
        let last = registry(&none, &names[SHOWN_MAX..]);
        assert_eq!(gone.take_up(&none, &last), [""; 0]);
        assert_eq!(gone.0.len(), SHOWN_MAX - 20, "they are back");
        assert_eq!(gone.take_up(&last, &none), [""; 0]);
        assert_eq!(gone.0.back(), names.last());
    }
}
