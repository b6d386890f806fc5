//! The chain of emits that led to an event: how deep it is, and which handlers it came through.
//!
//! Owns the text in which a chain travels, as one extension attribute, so that it lies wherever an event can lie. It is bounded: the
//! first and the last links are kept. A text that is not as it was written here, forged or cut, is no chain; it is never an
//! error.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Event;

/// The extension attribute.
pub const TRAIL: &str = "handlerchain";

/// Links kept from the beginning of a chain.
const FIRST: usize = 2;
/// Links kept in all.
const KEPT: usize = 8;
/// Bytes kept of a handler's name, and of a type.
const NAME_BYTES_MAX: usize = 80;
/// What no text of a chain is longer than.
const TEXT_BYTES_MAX: usize = KEPT * (2 * NAME_BYTES_MAX + 8) + 32;

/// What an event's chain is known to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    depth: u32,
    /// `handler(type)`: who emitted, and over what.
    links: Vec<String>,
}

impl Trail {
    /// The chain of `event`; an event that no handler emitted begins one.
    pub fn of(event: &Event) -> Self {
        #[derive(Deserialize)]
        struct Ext<'a> {
            #[serde(borrow)]
            handlerchain: Cow<'a, str>,
        }
        let Some(ext) = &event.ext else { return Self::default() };
        if memmem::find(ext.bytes(), TRAIL.as_bytes()).is_none() {
            return Self::default();
        }
        let found = serde_json::from_slice::<Ext<'_>>(ext.bytes()).ok();
        found.and_then(|found| Self::parse(&found.handlerchain)).unwrap_or_default()
    }

    /// How many emits led here.
    pub fn depth(&self) -> usize {
        self.depth as usize
    }

    /// The chain of what `handler` emits over an event of type `kind` whose chain this is.
    pub fn next(mut self, handler: &str, kind: &str) -> Self {
        if self.links.len() == KEPT {
            self.links.remove(FIRST);
        }
        self.links.push(format!("{}({})", cut(handler), cut(kind)));
        Self { depth: self.depth.saturating_add(1), links: self.links }
    }

    /// The attribute's value.
    pub fn text(&self) -> String {
        let body = format!("{} {}", self.depth, self.links.join(">"));
        let seal = seal(&body);
        format!("{body} {seal}")
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sealed) = text.rsplit_once(' ').filter(|_| text.len() <= TEXT_BYTES_MAX)?;
        let (depth, links) = body.split_once(' ').filter(|_| seal(body) == sealed)?;
        let (depth, links): (u32, Vec<String>) = (depth.parse().ok()?, links.split('>').map(str::to_owned).collect());
        (links.len() == KEPT.min(depth as usize)).then_some(Self { depth, links })
    }
}

/// For people: the first links, how many are left out, and the last ones.
impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = self.depth() - self.links.len();
        for (at, link) in self.links.iter().enumerate() {
            if at > 0 {
                f.write_str(" -> ")?;
            }
            if at == FIRST && left_out > 0 {
                write!(f, "({left_out} more) -> ")?;
            }
            f.write_str(link)?;
        }
        Ok(())
    }
}

/// Tells a text that was written here from any other. Not a secret: it keeps out mistakes, and nothing worse can come of it than
/// a dead letter of the forger's own event.
fn seal(body: &str) -> String {
    format!("{:08x}", xxh3_64(body.as_bytes()) as u32)
}

fn cut(name: &str) -> Cow<'_, str> {
    match name.len() > NAME_BYTES_MAX {
        true => format!("{}~", &name[..name.floor_char_boundary(NAME_BYTES_MAX - 1)]).into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Json;

    fn event(ext: &str) -> Event {
        Event { ext: Some(Json::trusted(ext.to_owned())), ..Event::new("1", "test", "a") }
    }

    fn chain(links: usize) -> Trail {
        (1..=links).fold(Trail::default(), |trail, n| trail.next(&format!("h{n}"), "t"))
    }

    #[test]
    fn a_chain_keeps_its_first_and_its_last_links() {
        for (links, shown) in [
            (0, ""),
            (1, "h1(t)"),
            (3, "h1(t) -> h2(t) -> h3(t)"),
            (8, "h1(t) -> h2(t) -> h3(t) -> h4(t) -> h5(t) -> h6(t) -> h7(t) -> h8(t)"),
            (65, "h1(t) -> h2(t) -> (57 more) -> h60(t) -> h61(t) -> h62(t) -> h63(t) -> h64(t) -> h65(t)"),
        ] {
            let trail = chain(links);
            assert_eq!((trail.depth(), trail.to_string().as_str()), (links, shown));
            let back = Trail::of(&event(&serde_json::json!({ "x": 1, TRAIL: trail.text() }).to_string()));
            assert_eq!(back, trail, "{}", trail.text());
        }
    }

    #[test]
    fn its_text_is_bounded_whatever_the_names_are() {
        let long = "é".repeat(600);
        let trail = (0..2000).fold(Trail::default(), |trail, _| trail.next(&long, &long));
        assert!(trail.text().len() <= TEXT_BYTES_MAX);
        assert_eq!(Trail::parse(&trail.text()), Some(trail));
    }

    #[test]
    fn what_was_not_written_here_is_no_chain() {
        let real = chain(5).text();
        let deeper = real.replacen('5', "9", 1);
        let other = real.replacen("h1", "h9", 1);
        let few = format!("900 h(t) {}", seal("900 h(t)"));
        for text in ["", " ", "5", "-1 a b", "4294967296 a b", "1 a(b) 00000000", &deeper, &other, &real[1..], &few] {
            assert_eq!(Trail::of(&event(&serde_json::json!({ TRAIL: text }).to_string())), Trail::default(), "{text}");
        }
        for ext in [
            r#"{"handlerchain":7}"#.to_owned(),
            r#"{"handlerchain":null,"handlerchain":1}"#.to_owned(),
            format!(r#"{{"other":{{"handlerchain":"{real}"}}}}"#),
            "[\"handlerchain\"]".to_owned(),
            "handlerchain".to_owned(),
        ] {
            assert_eq!(Trail::of(&event(&ext)), Trail::default(), "{ext}");
        }
        assert_eq!(Trail::of(&Event::new("1", "test", "a")), Trail::default());
    }
}
