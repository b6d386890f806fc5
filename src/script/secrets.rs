//! The secrets that a handler was granted, and their absence from whatever is printed or kept.
//!
//! Owns that neither a secret nor the beginning of one that was cut off stands in a message. It knows the text as it is and
//! as JSON, quotes and URLs write it; what a script makes of it otherwise (a hash, base64) is the script's own.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::outcome::{Failure, Outcome};

/// As much of a secret's beginning gives it away, where a message was cut within it.
const TELLTALE: usize = 8;
/// What stands where a message was cut.
const CUT: &str = "…";

/// Secrets by name. Shows no more than the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    values: BTreeMap<String, String>,
    /// What is looked for, the longest first, and what stands for it.
    patterns: Vec<(String, String)>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Secrets {
    /// These secrets, by name.
    pub fn new(values: BTreeMap<String, String>) -> Self {
        let forms = |(name, value): (&String, &String)| {
            let shown = format!("[secret {name}]");
            written(value).into_iter().map(move |form| (form, shown.clone())).collect::<Vec<_>>()
        };
        let mut patterns: Vec<(String, String)> = values.iter().flat_map(forms).collect();
        patterns.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        Self { values, patterns }
    }

    /// The secret `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// `text` without them.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (form, shown) in &self.patterns {
            if let Some(without) = replaced(&text, form, shown) {
                text = Cow::Owned(without);
            }
        }
        text
    }

    /// `outcome` without them, in all that is said about it.
    pub(super) fn redacted(&self, outcome: Outcome) -> Outcome {
        if self.patterns.is_empty() {
            return outcome;
        }
        let clean = |text: String| self.redact(&text).into_owned();
        match outcome {
            Outcome::Retry { after, reason } => Outcome::Retry { after, reason: clean(reason) },
            Outcome::Snooze { after, reason } => Outcome::Snooze { after, reason: clean(reason) },
            Outcome::Reject { reason } => Outcome::Reject { reason: clean(reason) },
            Outcome::Undecodable { reason } => Outcome::Undecodable { reason: clean(reason) },
            Outcome::Invalid { reason } => Outcome::Invalid { reason: clean(reason) },
            Outcome::Cycle { reason } => Outcome::Cycle { reason: clean(reason) },
            Outcome::Failed(failure) => {
                Outcome::Failed(Failure { message: clean(failure.message), trace: failure.trace.map(clean), ..failure })
            }
            // Their texts are the host's.
            Outcome::Done(_) | Outcome::Duplicate { .. } | Outcome::Contested { .. } | Outcome::Released(_) => outcome,
        }
    }
}

/// The ways in which `value` may stand in a message.
fn written(value: &str) -> BTreeSet<String> {
    let inside = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
    let json = serde_json::Value::from(value).to_string();
    let url = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    let forms = [value.to_owned(), inside(json), inside(format!("{value:?}")), url];
    forms.into_iter().filter(|form| !form.is_empty()).collect()
}

/// `text` with `shown` for every `form`, and for every beginning of it that was cut; `None`: there is none.
fn replaced(text: &str, form: &str, shown: &str) -> Option<String> {
    let telltale = &form[..form.floor_char_boundary(TELLTALE.min(form.len())).max(first_char(form))];
    let (mut out, mut from, mut at) = (String::new(), 0, 0);
    while let Some(found) = memmem::find(&text.as_bytes()[at..], telltale.as_bytes()) {
        let start = at + found;
        let same = text[start..].bytes().zip(form.bytes()).take_while(|(a, b)| a == b).count();
        let is_cut = || text.get(start + same..).is_some_and(|rest| rest.starts_with(CUT));
        if same == form.len() || is_cut() {
            out.push_str(&text[from..start]);
            out.push_str(shown);
            from = start + same;
            at = from;
        } else {
            at = start + first_char(form);
        }
    }
    (from > 0).then(|| out + &text[from..])
}

fn first_char(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let values = [
            ("key", "sk_live_0123456789abcdefghijklmnopqrstuvwxyz0123456789"),
            ("long", "sk_live_0123456789"),
            ("odd", "a\"b\\c\nd&é"),
            ("none", ""),
            ("pin", "42"),
        ];
        Secrets::new(values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn no_form_of_a_secret_stays() {
        let secrets = secrets();
        for (text, expected) in [
            ("nothing to hide", "nothing to hide"),
            ("Bearer sk_live_0123456789abcdefghijklmnopqrstuvwxyz0123456789.", "Bearer [secret key]."),
            ("sk_live_0123456789sk_live_0123456789", "[secret long][secret long]"),
            ("got text \"sk_live_0123456789abcdefghijkl…\"", "got text \"[secret key]…\""),
            ("sk_live_01…", "[secret key]…"),
            ("sk_live_ is how it begins", "sk_live_ is how it begins"),
            ("raw a\"b\\c\nd&é", "raw [secret odd]"),
            (r#"{"k":"a\"b\\c\nd&é"}"#, r#"{"k":"[secret odd]"}"#),
            ("?k=a%22b%5Cc%0Ad%26%C3%A9&x=1", "?k=[secret odd]&x=1"),
            ("pin 42, 4242", "pin [secret pin], [secret pin][secret pin]"),
            ("é…", "é…"),
        ] {
            assert_eq!(secrets.redact(text), expected, "{text}");
        }
        assert!(!format!("{secrets:?}").contains("sk_live"), "{secrets:?}");
    }

    #[test]
    fn what_is_said_of_an_outcome_is_without_them() {
        let failure = Failure { trace: Some("42".into()), ..Failure::new(crate::outcome::FailureKind::Error, "is 42") };
        let Outcome::Failed(failure) = secrets().redacted(Outcome::Failed(failure)) else { panic!("it failed") };
        assert_eq!((&*failure.message, failure.trace.as_deref()), ("is [secret pin]", Some("[secret pin]")));
        let reject = secrets().redacted(Outcome::Reject { reason: "42".into() });
        assert_eq!(reject, Outcome::Reject { reason: "[secret pin]".into() });
    }
}
