//! What a store promises, as data: for each thing that can go wrong, what may be lost or repeated.
//!
//! Printed at start and by `moontide check`; the documentation has the same texts, and a test compares them. Says nothing
//! that depends on handlers.

/// One row: what happens, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub when: &'static str,
    pub holds: &'static str,
}

const fn row(when: &'static str, holds: &'static str) -> Promise {
    Promise { when, holds }
}

/// What no store can change.
const OUTSIDE: Promise = row(
    "a handler calls something outside",
    "at least once: the call is repeated when the attempt is, under the same key",
);
/// Settle is one step in every store that keeps state.
const WORKER: Promise =
    row("a worker crashes", "nothing is lost; its events run again, their effects in the store happen once");

/// When a server writes down what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// `appendonly no`: now and then, or never.
    Snapshots,
    /// `appendfsync always`
    Always,
    /// `appendfsync everysec`
    EverySecond,
    /// `appendfsync no`
    WhenTheSystemLikes,
    /// It does not tell us.
    Unknown,
}

impl Written {
    /// All of them, for the documentation.
    pub const ALL: [Self; 5] =
        [Self::Always, Self::EverySecond, Self::WhenTheSystemLikes, Self::Snapshots, Self::Unknown];

    fn crash(self) -> &'static str {
        match self {
            Self::Always | Self::EverySecond | Self::WhenTheSystemLikes => {
                "nothing that was answered is lost, as long as the machine stays up (appendonly yes)"
            }
            Self::Snapshots => {
                "everything since the last snapshot is lost, effects and acknowledgements together (appendonly no)"
            }
            Self::Unknown => "depends on its appendonly, which it does not tell",
        }
    }

    fn power(self) -> &'static str {
        match self {
            Self::Always => "nothing that was answered is lost (appendfsync always)",
            Self::EverySecond => {
                "up to about two seconds are lost, effects and acknowledgements together (appendfsync everysec)"
            }
            Self::WhenTheSystemLikes => {
                "up to half a minute is lost, effects and acknowledgements together (appendfsync no)"
            }
            Self::Snapshots => {
                "everything since the last snapshot is lost, effects and acknowledgements together (appendonly no)"
            }
            Self::Unknown => "depends on its appendfsync, which it does not tell",
        }
    }
}

/// What a Redis server promises; `replicas`: it has some, or is followed by a sentinel.
pub fn of_redis(written: Written, replicas: bool) -> Vec<Promise> {
    let failover = match replicas {
        true => {
            "what the replica had not received is lost, effects and acknowledgements together; accepted events among it"
        }
        false => "there is no replica to fail over to",
    };
    vec![
        WORKER,
        row("the server's process crashes", written.crash()),
        row("the server's machine loses power", written.power()),
        row("a replica takes over", failover),
        row(
            "others trim a stream",
            "what a group had not received is lost, and counted; Moontide itself trims nothing that a group needs",
        ),
        OUTSIDE,
    ]
}

/// What Pub/Sub adds to that: messages that are stored first, messages that handlers get directly, and what is published.
pub fn of_channels(stored: bool, direct: bool, mirrored: bool) -> Vec<Promise> {
    let heard = row(
        "a message is published to a channel while no process listens",
        "it is lost: Pub/Sub keeps nothing. Times in which a process did not listen are counted",
    );
    let bridged = [
        row(
            "a message with an id comes by channel",
            "it is stored once, however many processes listen; from then on it is an event as any other",
        ),
        row("a message without an id comes by channel", "it is stored at most once"),
    ];
    let handed = row(
        "a handler gets a message directly",
        "it is handled at most once; its effects happen together or not at all, and a retry is stored",
    );
    let published = row(
        "an event is mirrored to a channel",
        "it is published in the step that stores it, and only then; whoever does not listen never hears it",
    );
    let mut rows = Vec::new();
    rows.extend((stored || direct).then_some(heard));
    rows.extend(bridged.into_iter().filter(|_| stored));
    rows.extend(direct.then_some(handed));
    rows.extend(mirrored.then_some(published));
    rows
}

/// What a SQLite file promises; `full`: each commit waits for the disk.
pub fn of_sqlite_file(full: bool) -> Vec<Promise> {
    let power = match full {
        true => "nothing that was answered is lost (synchronous full)",
        false => "the last moments may be lost, whole settles and never parts (synchronous normal)",
    };
    vec![WORKER, row("the machine loses power", power), OUTSIDE]
}

/// What a store in memory promises.
pub fn of_memory() -> Vec<Promise> {
    vec![row("the process ends", "everything is gone"), OUTSIDE]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_says_the_same() {
        let says = |page: &str, text: &str, rows: Vec<Promise>| {
            for Promise { when, holds } in rows {
                let told = text.lines().any(|line| line.starts_with(&format!("| {when} |")) && line.contains(holds));
                assert!(told, "{page} does not say of {when:?}: {holds}");
            }
        };
        for written in Written::ALL {
            for replicas in [true, false] {
                says("docs/redis.md", include_str!("../../docs/redis.md"), of_redis(written, replicas));
            }
        }
        says("docs/layouts.md", include_str!("../../docs/layouts.md"), of_channels(true, true, true));
    }
}
