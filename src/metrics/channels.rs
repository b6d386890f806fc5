//! What became of messages of channels; asked for when somebody scrapes.

use prometheus::{IntCounterVec, Opts, Registry};

use super::families::register;
use crate::bus::ChannelStatus;

/// Counters about channels.
#[derive(Clone)]
pub(super) struct Channels {
    messages: IntCounterVec,
    gaps: IntCounterVec,
}

impl Channels {
    pub fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Self {
            messages: counter(
                "moontide_channel_messages_total",
                "What became of messages of channels in this process.",
                &["channel", "outcome"],
            ),
            gaps: counter("moontide_channel_gaps_total", "Times in which this process did not listen.", &["channel"]),
        }
    }

    /// Shows what was counted elsewhere.
    pub fn set(&self, channels: &[ChannelStatus]) {
        for status in channels {
            let channel = status.channel.as_str();
            for (outcome, count) in [
                ("taken", status.taken),
                ("duplicate", status.duplicates),
                ("undecodable", status.undecodable),
                ("dropped", status.dropped),
            ] {
                let counter = self.messages.with_label_values(&[channel, outcome]);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
            let gaps = self.gaps.with_label_values(&[channel]);
            gaps.inc_by(status.gaps.saturating_sub(gaps.get()));
        }
    }
}
