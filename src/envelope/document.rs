//! JSON documents within fields: looked into without parsing more than a path needs, and built member by member.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object, as they were written and in that order.
#[derive(Clone, Debug, Default)]
pub(super) struct Members<'t>(pub Vec<(String, &'t RawValue)>);

impl<'t> Members<'t> {
    pub fn get(&self, name: &str) -> Option<&'t RawValue> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| *value)
    }
}

impl<'de: 't, 't> Deserialize<'de> for Members<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// The members of the object in `text`; `None`: it is no object.
pub(super) fn members(text: &[u8]) -> Option<Members<'_>> {
    serde_json::from_slice(text).ok()
}

/// What lies at `path` in the JSON `text`; `None`: nothing does.
pub(super) fn find<'t>(text: &'t [u8], path: &[String]) -> Option<&'t str> {
    let Some((first, rest)) = path.split_first() else { return std::str::from_utf8(text).ok() };
    let found = match text.trim_ascii_start().first()? {
        b'{' => members(text)?.get(first)?,
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_slice(text).ok()?;
            *elements.get(first.parse::<usize>().ok()?)?
        }
        _ => return None,
    };
    find(found.get().as_bytes(), rest)
}

/// A document that is being written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    members: Vec<(String, Node)>,
}

#[derive(Debug)]
enum Node {
    /// JSON text.
    Raw(String),
    Object(Draft),
}

impl Draft {
    /// Whether nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Puts the JSON `value` at `path`; what lies there already stays, unless both are objects.
    pub fn put(&mut self, path: &[String], value: &str) {
        let Some((first, rest)) = path.split_first() else {
            for (name, value) in members(value.as_bytes()).unwrap_or_default().0 {
                self.put(&[name], value.get());
            }
            return;
        };
        match self.members.iter_mut().find(|(name, _)| name == first) {
            Some((_, node)) => node.put(rest, value),
            None => {
                let node = match rest {
                    [] => Node::Raw(value.to_owned()),
                    rest => {
                        let mut below = Self::default();
                        below.put(rest, value);
                        Node::Object(below)
                    }
                };
                self.members.push((first.clone(), node));
            }
        }
    }

    /// The document as text.
    pub fn text(&self) -> String {
        let mut text = String::from("{");
        for (name, node) in &self.members {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&quoted(name));
            text.push(':');
            match node {
                Node::Raw(value) => text.push_str(value),
                Node::Object(draft) => text.push_str(&draft.text()),
            }
        }
        text.push('}');
        text
    }
}

impl Node {
    fn put(&mut self, rest: &[String], value: &str) {
        if let Self::Raw(text) = self {
            let Some(members) = members(text.as_bytes()) else { return };
            let members = members.0.into_iter().map(|(name, value)| (name, Self::Raw(value.get().to_owned())));
            let members = members.collect();
            *self = Self::Object(Draft { members });
        }
        if let Self::Object(draft) = self {
            draft.put(rest, value);
        }
    }
}

/// `text` as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always JSON")
}
