//! How an event lies on the wire: wire layouts ↔ [`Event`].
//!
//! Owns the layouts of other services (`presets`), those that the configuration describes ([`Spec`]), and which layout an
//! entry has where a stream holds several. A layout is data: where each part of an event lies; reading and writing are the
//! same code for all of them. Knows no store: an entry is a list of fields, a message of a channel is one with the fields
//! [`MESSAGE`] and [`CHANNEL`].

mod document;
mod extensions;
mod layout;
mod presets;
mod read;
mod spec;
mod time;
mod write;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

pub use layout::Layout;
pub use presets::{MESSAGE_PRESETS, STREAM_PRESETS};
pub use spec::{Encoding, Place, Spec, SpecError, TraceSpec};
pub use time::Unit;

use crate::event::{EntryId, Event};

/// Names and values, in their order.
pub type Fields = Vec<(Bytes, Bytes)>;

/// The field that holds a channel's message.
pub const MESSAGE: &str = "";
/// The field that holds the channel's name.
pub const CHANNEL: &str = "channel";

/// Recognise the layout of each entry.
pub const AUTO: &str = "auto";

/// Where an entry lies: what has no id of its own is called after that.
#[derive(Clone, Copy, Debug)]
pub struct Lying<'a> {
    pub stream: &'a str,
    pub entry: EntryId,
}

/// The layouts that entries of one stream can have; what is written has the first one.
#[derive(Clone, Debug, PartialEq)]
pub struct Layouts(Arc<[Layout]>);

static CLOUDEVENTS: LazyLock<Layouts> = LazyLock::new(|| Layouts::of(vec![presets::stream("cloudevents")]));
static ANY: LazyLock<Layouts> =
    LazyLock::new(|| Layouts::of(presets::STREAM_PRESETS.iter().map(|name| presets::stream(name)).collect()));

impl Default for Layouts {
    fn default() -> Self {
        Self::own().clone()
    }
}

impl Layouts {
    /// Tried in this order.
    fn of(layouts: Vec<Layout>) -> Self {
        Self(layouts.into())
    }

    /// The layouts of a stream that are called `names`: presets, `auto`, or one of `own`.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn of_stream<'n>(names: &[&'n str], own: &[Layout]) -> Result<Self, &'n str> {
        Self::named(names, own, presets::stream, presets::STREAM_PRESETS)
    }

    /// The layouts of a channel that are called `names`.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn of_channel<'n>(names: &[&'n str], own: &[Layout]) -> Result<Self, &'n str> {
        Self::named(names, own, presets::message, presets::MESSAGE_PRESETS)
    }

    fn named<'n>(
        names: &[&'n str],
        own: &[Layout],
        preset: fn(&str) -> Layout,
        presets: &[&str],
    ) -> Result<Self, &'n str> {
        let mut layouts = Vec::new();
        for name in names {
            match own.iter().find(|layout| layout.name() == *name) {
                Some(layout) => layouts.push(layout.clone()),
                None if *name == AUTO => layouts.extend(presets.iter().map(|name| preset(name))),
                None if presets.contains(name) => layouts.push(preset(name)),
                None => return Err(name),
            }
        }
        Ok(Self::of(layouts))
    }

    /// `cloudevents`, one field per attribute: how Moontide itself writes events.
    pub fn own() -> &'static Self {
        &CLOUDEVENTS
    }

    /// Every preset of streams' entries: an entry is recognised by its fields.
    pub fn any() -> &'static Self {
        &ANY
    }

    /// The names of the layouts, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Layout::name)
    }

    /// Whether entries are as Moontide itself writes them: nothing of them is lost by reading and writing them.
    pub fn is_own(&self) -> bool {
        *self == *CLOUDEVENTS
    }

    /// The event in an entry. Without an id of its own it is named after the entry, and without a source after the stream.
    ///
    /// # Errors
    /// Why it is none; the text names the field.
    pub fn read(&self, lying: Lying<'_>, fields: &Fields) -> Result<Event, String> {
        if let [layout] = &*self.0 {
            return read::event(layout, lying, fields);
        }
        let mut first = None;
        for layout in self.0.iter().filter(|layout| layout.fits(fields)) {
            match read::event(layout, lying, fields) {
                Ok(event) => return Ok(event),
                Err(reason) => first = first.or_else(|| Some(format!("as {}: {reason}", layout.name()))),
            }
        }
        Err(first.unwrap_or_else(|| self.none_fits(fields)))
    }

    /// The event in an entry that has one of these layouts; others have entries there, too.
    pub fn recognise(&self, lying: Lying<'_>, fields: &Fields) -> Option<Event> {
        self.0.iter().filter(|layout| layout.fits(fields)).find_map(|layout| read::event(layout, lying, fields).ok())
    }

    /// The type of the event in an entry, where a field says it: asked before anything else is looked at.
    pub fn kind<'f>(&self, fields: &'f Fields) -> Option<&'f str> {
        if let [layout] = &*self.0 {
            return layout.kind(fields);
        }
        // Where several fit, only reading shows which one it is.
        let mut fitting = self.0.iter().filter(|layout| layout.fits(fields));
        let kind = fitting.next()?.kind(fields)?;
        fitting.all(|other| other.kind(fields) == Some(kind)).then_some(kind)
    }

    /// The fields of `event`.
    pub fn write(&self, event: &Event) -> Fields {
        write::fields(self.writing(), event)
    }

    /// The message of `event` in a channel.
    pub fn message(&self, event: &Event) -> Bytes {
        let fields = write::fields(self.writing(), event);
        fields.into_iter().find(|(name, _)| name.is_empty()).map(|(_, message)| message).unwrap_or_default()
    }

    /// Why an event with this data cannot be written; nothing: it can.
    ///
    /// # Errors
    /// What the layout needs.
    pub fn check(&self, event: &Event) -> Result<(), String> {
        write::check(self.writing(), event)
    }

    fn writing(&self) -> &Layout {
        self.0.first().unwrap_or_else(|| &CLOUDEVENTS.0[0])
    }

    fn none_fits(&self, fields: &Fields) -> String {
        let layouts: Vec<&str> = self.names().collect();
        let names: Vec<_> = fields.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        format!("it has none of the layouts {}: its fields are {}", layouts.join(", "), names.join(", "))
    }
}
