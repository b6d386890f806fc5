//! Which stream a type lives in.
//!
//! Owns the rules of `[[stream]]`: the first rule that matches a type names its stream, and the layout of what lies there; a
//! type without a match lives in `events:{type}`, as Moontide writes it. Knows nothing of stores.

use std::time::Duration;

use bytes::Bytes;

use crate::channels::Mirror;
use crate::envelope::Layouts;
use crate::event::{ATTRIBUTE_BYTES_MAX, Event, TypePattern, check_type};

/// Where types live that no rule names.
pub const DEFAULT_STREAM: &str = "events:{type}";

/// Streams whose names begin so belong to the host.
const RESERVED_PREFIX: &str = "moontide:";

/// Whether scripts and configuration may name a stream so; says why not.
///
/// # Errors
/// The reason.
pub fn check_stream(name: &str) -> Result<(), String> {
    if name.len() > ATTRIBUTE_BYTES_MAX {
        return Err(format!("a stream's name has at most {ATTRIBUTE_BYTES_MAX} bytes"));
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(format!("what begins with {RESERVED_PREFIX:?} belongs to the host"));
    }
    check_type(name).map_err(|_| "letters, digits and . _ - : / make a stream's name".to_owned())
}

/// One `[[stream]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRule {
    pub types: Vec<TypePattern>,
    /// May contain `{type}`, once.
    pub name: String,
    /// `None`: the rule says nothing of it.
    pub retain: Option<Retain>,
    /// How entries are laid out; what is emitted has the first one.
    pub layouts: Layouts,
}

/// How much of the past a stream keeps, at least; never less than a living group still needs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Retain {
    pub age: Option<Duration>,
    /// Entries.
    pub length: Option<u64>,
}

/// The rules of all streams, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Streams {
    pub rules: Vec<StreamRule>,
    /// For streams no rule names.
    pub retain: Retain,
    /// Channels to which events are published when they are stored.
    pub mirrors: Vec<Mirror>,
}

/// What a handler's types mean in streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub streams: Vec<String>,
    /// Prefix of a stream's name, and the pattern that the rest of it must match.
    pub discover: Vec<(String, TypePattern)>,
}

impl Streams {
    /// The stream that events of type `kind` live in.
    pub fn of(&self, kind: &str) -> String {
        let rule = self.rules.iter().find(|rule| rule.types.iter().any(|pattern| pattern.matches(kind)));
        rule.map_or(DEFAULT_STREAM, |rule| &rule.name).replace("{type}", kind)
    }

    /// The rule that names `stream`: of streams that are named after a type, the one for that type.
    fn rule_of(&self, stream: &str) -> Option<&StreamRule> {
        self.rules.iter().find(|rule| match rule.name.split_once("{type}") {
            Some((before, after)) => {
                let kind = stream.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                kind.is_some_and(|kind| rule.types.iter().any(|pattern| pattern.matches(kind)))
            }
            None => rule.name == stream,
        })
    }

    /// What a rule says that `stream` keeps.
    pub fn retain_by_rule(&self, stream: &str) -> Option<Retain> {
        self.rule_of(stream)?.retain
    }

    /// How the entries of `stream` are laid out.
    pub fn layouts(&self, stream: &str) -> &Layouts {
        self.rule_of(stream).map_or(Layouts::own(), |rule| &rule.layouts)
    }

    /// The channels to which `event` is published, each with its message.
    pub fn mirrored(&self, event: &Event) -> Vec<(String, Bytes)> {
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.wants(&event.kind));
        mirrors.map(|mirror| mirror.message(event)).collect()
    }

    /// Whether `event` can lie in `stream`, and be published wherever it is published.
    ///
    /// # Errors
    /// What the layout there needs.
    pub fn check(&self, stream: &str, event: &Event) -> Result<(), String> {
        self.layouts(stream).check(event).map_err(|needs| format!("cannot lie in stream {stream:?}: {needs}"))?;
        for mirror in self.mirrors.iter().filter(|mirror| mirror.wants(&event.kind)) {
            let fits = mirror.layouts.check(event);
            fits.map_err(|needs| format!("cannot be published to channel {:?}: {needs}", mirror.channel))?;
        }
        Ok(())
    }

    /// What `stream` keeps.
    pub fn retain(&self, stream: &str) -> Retain {
        self.retain_by_rule(stream).unwrap_or(self.retain)
    }

    /// The names of streams in which something can lie: a rule for all types leaves nothing to those after it.
    fn names(&self) -> impl Iterator<Item = &str> {
        let takes_all = |rule: &StreamRule| rule.types.iter().any(|pattern| pattern.as_str() == "*");
        let last = self.rules.iter().position(takes_all);
        let rules = self.rules.iter().take(last.map_or(usize::MAX, |last| last + 1));
        rules.map(|rule| rule.name.as_str()).chain(last.is_none().then_some(DEFAULT_STREAM))
    }

    /// Every stream in which events of these types may lie: an exact type lives in one, a pattern in any named stream and
    /// in all that are named after a type that it matches.
    pub fn select(&self, types: &[TypePattern]) -> Selection {
        let mut selection = Selection::default();
        for pattern in types {
            if pattern.is_exact() {
                push(&mut selection.streams, self.of(pattern.as_str()));
                continue;
            }
            for name in self.names() {
                match name.split_once("{type}") {
                    Some((prefix, _)) => push(&mut selection.discover, (prefix.to_owned(), pattern.clone())),
                    None => push(&mut selection.streams, name.to_owned()),
                }
            }
        }
        selection
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TypePattern {
        TypePattern::parse(text).expect("the pattern is valid")
    }

    fn shop() -> Streams {
        let rule = |types: &str, name: &str| StreamRule {
            types: vec![pattern(types)],
            name: name.into(),
            retain: None,
            layouts: Layouts::default(),
        };
        Streams { rules: vec![rule("Checkout*", "shop"), rule("audit.**", "log:{type}")], ..Streams::default() }
    }

    #[test]
    fn first_rule_wins_and_the_rest_lives_by_type() {
        let streams = shop();
        assert_eq!(streams.of("CheckoutInitiated"), "shop");
        assert_eq!(streams.of("audit.login.failed"), "log:audit.login.failed");
        assert_eq!(streams.of("order.created"), "events:order.created");
    }

    #[test]
    fn what_a_rule_says_holds_for_the_streams_of_its_types() {
        let rule = |types: &str, layout: &str, length| StreamRule {
            types: vec![pattern(types)],
            name: DEFAULT_STREAM.into(),
            retain: Some(Retain { age: None, length: Some(length) }),
            layouts: Layouts::of_stream(&[layout], &[]).expect("a preset"),
        };
        let rules = vec![rule("task.*", "aggregate", 1), rule("user.*", "event_data", 2)];
        let streams = Streams { rules, ..Streams::default() };
        let says = |stream| (streams.layouts(stream).names().next(), streams.retain(stream).length);
        assert_eq!(says("events:task.created"), (Some("aggregate"), Some(1)));
        assert_eq!(says("events:user.created"), (Some("event_data"), Some(2)));
        assert_eq!(says("events:order.created"), (Some("cloudevents"), None), "no rule says where its type lives");
    }

    #[test]
    fn a_pattern_reads_shared_streams_and_discovers_the_others() {
        let selection = shop().select(&[pattern("order.*"), pattern("CheckoutInitiated")]);
        assert_eq!(selection.streams, ["shop"]);
        let order = pattern("order.*");
        assert_eq!(selection.discover, [("log:".to_owned(), order.clone()), ("events:".to_owned(), order)]);
    }

    #[test]
    fn behind_a_rule_for_all_types_nothing_is_looked_for() {
        let mut streams = shop();
        let rule =
            |types, name: &str| StreamRule { types: vec![pattern(types)], name: name.into(), ..shop().rules.remove(0) };
        streams.rules.extend([rule("*", "own:{type}"), rule("order.*", "orders")]);
        let selection = streams.select(&[pattern("order.*")]);
        assert_eq!(selection.streams, ["shop"]);
        assert_eq!(
            selection.discover,
            [("log:".to_owned(), pattern("order.*")), ("own:".to_owned(), pattern("order.*"))]
        );
    }
}
