//! Redis Pub/Sub, in: messages of channels become events.
//!
//! Every process listens to every channel. A message with an id is stored by whoever is first, under a claim on that id; one
//! without, and one that handlers get directly, belongs to the process that leads (`lead`), so that it is taken at most once.
//! What is published while nobody listens is lost: that is counted, and said.

mod bridge;
mod counts;
mod direct;
mod lead;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::counts::Counts;
use self::lead::Leads;
use super::beat::Beat;
use super::fault::Fault;
use super::store::Store;
use crate::bus::{ChannelStatus, backoff};
use crate::channels::{Channel, Deliver};
use crate::envelope::{CHANNEL, Fields, Lying, MESSAGE};
use crate::event::{EntryId, Event};

/// Messages that wait to be stored; what comes beyond that is lost, and counted.
const WAITING_MAX: usize = 10_000;
/// How often the connection is asked whether it lives, and for how long it is waited for.
const PING_EVERY: Duration = Duration::from_secs(1);
const PONG_WITHIN: Duration = Duration::from_secs(2);

/// A channel, or a pattern of channels, that is listened to.
struct Heard {
    channel: Channel,
    counts: Counts,
}

/// How long a bus that is closed waits until what was heard is stored.
const DRAIN: Duration = Duration::from_secs(2);

/// What listens to channels in this process.
pub(super) struct Ears {
    heard: Arc<[Heard]>,
    stop: CancellationToken,
    taking: Option<JoinHandle<()>>,
}

/// A message, or the word that from here on we lead.
enum Said {
    Message(Message),
    Marker(String),
    /// The connection broke: what was led until now may have passed us by.
    Gap,
}

/// A message as it came.
struct Message {
    /// Which of the channels that we listen to brought it.
    heard: usize,
    /// The channel that it was published to.
    channel: String,
    payload: Bytes,
}

/// A message as an event. `named`: it has an id of its own.
struct Decoded {
    event: Result<Event, String>,
    named: bool,
    fields: Fields,
}

impl Ears {
    /// Listens until it is stopped, or the bus is closed.
    pub fn open(store: &Arc<Store>, beat: &Arc<Beat>, channels: Vec<Channel>) -> Self {
        let heard = channels.into_iter().map(|channel| Heard { channel, counts: Counts::default() });
        let (heard, stop) = (heard.collect::<Arc<[_]>>(), store.closed.child_token());
        let taking = (!heard.is_empty()).then(|| {
            let leads = Arc::new(Leads::new(store.clone(), beat.clone()));
            let (say, said) = mpsc::channel(WAITING_MAX);
            let listener = Listener { store: store.clone(), heard: heard.clone(), leads: leads.clone(), say };
            let taker = bridge::Taker { store: store.clone(), heard: heard.clone(), leads };
            let stopped = stop.clone();
            tokio::spawn(async move { stopped.run_until_cancelled(listener.listen()).await });
            let closed = store.closed.clone();
            // Ends when everything is taken that was heard before the listener stopped.
            tokio::spawn(async move { closed.run_until_cancelled(taker.take(said)).await.unwrap_or_default() })
        });
        Self { heard, stop, taking }
    }

    /// Hears nothing more.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// Hears nothing more, and waits until what was heard is stored.
    pub async fn drain(self) {
        self.close();
        if let Some(taking) = self.taking
            && timeout(DRAIN, taking).await.is_err()
        {
            tracing::warn!(
                "messages of channels that were heard at the end are lost: they could not be stored in time"
            );
        }
    }

    /// What became of the messages.
    pub fn status(&self) -> Vec<ChannelStatus> {
        self.heard.iter().map(|heard| heard.counts.status(&heard.channel.name)).collect()
    }
}

impl Message {
    /// The event in it. What has no id gets one that is nobody else's.
    fn decode(&self, heard: &Heard, now: i64) -> Decoded {
        let fields = vec![
            (Bytes::from_static(MESSAGE.as_bytes()), self.payload.clone()),
            (Bytes::from_static(CHANNEL.as_bytes()), Bytes::copy_from_slice(self.channel.as_bytes())),
        ];
        let entry = place(now);
        let event = heard.channel.layouts.read(Lying { stream: &self.channel, entry }, &fields);
        let named = event.as_ref().is_ok_and(|event| event.id != format!("{}/{entry}", self.channel));
        Decoded { event, named, fields }
    }
}

/// Where a message lies that lies nowhere: at a place of its own.
fn place(now: i64) -> EntryId {
    EntryId(u64::try_from(now).unwrap_or(0), rand::random::<u64>() >> 1)
}

/// Hears, and hands over what was heard without waiting for what becomes of it.
struct Listener {
    store: Arc<Store>,
    heard: Arc<[Heard]>,
    leads: Arc<Leads>,
    say: mpsc::Sender<Said>,
}

impl Listener {
    async fn listen(self) {
        let (mut failures, mut deaf_since, mut told) = (0, None, false);
        loop {
            match self.connect().await {
                Ok(connection) => {
                    (failures, told) = (0, false);
                    self.tell_listening(deaf_since.take());
                    self.hear(connection).await;
                }
                Err(fault) if !told => {
                    told = true;
                    tracing::error!("channels cannot be listened to, trying again: {}", self.store.told(fault));
                }
                Err(_) => {}
            }
            deaf_since = deaf_since.or_else(|| Some(Instant::now()));
            // Nobody waits for this, but for whoever stores.
            let _ = self.say.send(Said::Gap).await;
            failures += 1;
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    fn tell_listening(&self, deaf_since: Option<Instant>) {
        let names: Vec<_> = self.heard.iter().map(|heard| heard.channel.name.as_str()).collect();
        let channels = names.join(", ");
        match deaf_since {
            None => tracing::info!(channels, "listening"),
            Some(since) => {
                self.heard.iter().for_each(|heard| heard.counts.gap());
                let seconds = since.elapsed().as_secs_f64();
                tracing::warn!(channels, "listening again; what was published for {seconds:.1} s is lost");
            }
        }
    }

    async fn connect(&self) -> Result<(PubSubSink, PubSubStream), Fault> {
        let mut connection = self.store.link.listening().await?;
        let (patterns, channels): (Vec<_>, Vec<_>) = self.heard.iter().partition(|heard| heard.channel.is_pattern());
        let names = |heard: &[&Heard]| heard.iter().map(|heard| heard.channel.name.clone()).collect::<Vec<_>>();
        let mut channels = names(&channels);
        channels.push(self.leads.marker());
        let fault = |error| super::fault::of(&error);
        if !patterns.is_empty() {
            connection.psubscribe(names(&patterns)).await.map_err(fault)?;
        }
        connection.subscribe(channels).await.map_err(fault)?;
        Ok(connection.split())
    }

    /// Until the connection breaks.
    async fn hear(&self, (mut sink, mut messages): (PubSubSink, PubSubStream)) {
        let mut ping = interval(PING_EVERY);
        let mut claim = interval(self.leads.period());
        loop {
            tokio::select! {
                biased;
                message = messages.next() => match message {
                    Some(message) => self.heard(&message),
                    None => return,
                },
                _ = claim.tick() => self.leads.claim(&self.heard).await,
                _ = ping.tick() => {
                    if !matches!(timeout(PONG_WITHIN, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }

    fn heard(&self, message: &Msg) {
        let channel = message.get_channel_name();
        let payload: &[u8] = message.get_payload_bytes();
        if channel == self.leads.marker() {
            // Where there is no room for it, it is asked for again.
            let _ = self.say.try_send(Said::Marker(String::from_utf8_lossy(payload).into_owned()));
            return;
        }
        // The host's own words are for no handler, whatever pattern they fit.
        if self.store.keys.is_own(channel) {
            return;
        }
        let pattern: Option<String> = message.get_pattern().unwrap_or_default();
        let name = pattern.as_deref().unwrap_or(channel);
        let Some(at) = self.heard.iter().position(|heard| heard.channel.name == name) else { return };
        self.heard[at].counts.heard();
        let payload = Bytes::copy_from_slice(payload);
        let message = Message { heard: at, channel: channel.to_owned(), payload };
        if self.say.try_send(Said::Message(message)).is_err() && self.heard[at].counts.dropped() {
            tracing::error!(channel, "more messages than can be stored; some are lost");
        }
    }
}

/// The lead over the messages of a channel; for those that are handled directly, over those of one group.
fn lead_of(channel: &Channel, group: &str) -> String {
    match channel.deliver {
        Deliver::Stream => channel.name.clone(),
        Deliver::Direct => format!("{} {group}", channel.name),
    }
}
