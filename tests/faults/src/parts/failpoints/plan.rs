//! What brings a process to a place, and how often it may pass before it dies there.

use std::ops::RangeInclusive;

/// What has to go on around a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Events come.
    Work,
    /// Scripts change.
    Reload,
    /// It is asked to stop while it works.
    Stop,
    /// Clients send events to it, with a key or without.
    Ingest { keyed: bool },
    /// Another one died with events in hand, and nobody else takes them over.
    Recovery,
    /// Two died with the same events in hand.
    Suspicion,
    /// What one of all processes does is left to it.
    Upkeep,
}

/// What brings a process to `point`.
pub fn way(point: &str) -> Way {
    match step(point) {
        "reload" => Way::Reload,
        "stop" | "release" | "give_back" | "farewell" => Way::Stop,
        "ingest" | "publish" => Way::Ingest { keyed: false },
        "intake" => Way::Ingest { keyed: true },
        "takeover" | "recovery" => Way::Recovery,
        "mark" => Way::Suspicion,
        "upkeep" => Way::Upkeep,
        _ => Way::Work,
    }
}

/// At which pass a process dies: places that are passed seldom are not waited for.
pub fn passes(point: &str) -> RangeInclusive<u64> {
    match step(point) {
        "give_back" | "farewell" | "reload" | "mark" | "takeover" => 1..=1,
        "upkeep" => 1..=2,
        "beat" | "stop" | "release" => 1..=3,
        "open" | "due" | "ingest" | "publish" | "intake" => 1..=4,
        "conflict" | "dead" | "retry" | "recovery" => 1..=5,
        "run" | "judge" | "commit" => 1..=60,
        _ => 1..=10,
    }
}

fn step(point: &str) -> &str {
    point.split('.').next().unwrap_or(point)
}

#[cfg(test)]
mod tests {
    use moontide::failpoint::ALL;

    use super::*;

    #[test]
    fn every_way_leads_somewhere() {
        let ways = [
            Way::Work,
            Way::Reload,
            Way::Stop,
            Way::Ingest { keyed: false },
            Way::Ingest { keyed: true },
            Way::Recovery,
            Way::Suspicion,
            Way::Upkeep,
        ];
        for wanted in ways {
            assert!(ALL.iter().any(|point| way(point.name) == wanted), "{wanted:?}");
        }
    }
}
