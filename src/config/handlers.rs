//! The operator's word on handlers: which `[handlers."…"]` tables fit a handler, and what they make of its
//! options. Does not know which handlers there are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{LimitsGiven, read_limits};
use super::raw::{Checker, Table};
use super::secrets::Secret;
use crate::nearest::nearest;
use crate::outbound::HostGrant;
use crate::script::{Granted, Limits, LoadOptions, Secrets};

/// Most runs of one handler in flight in one process.
const CONCURRENCY_MAX: usize = 10_000;
/// Consumers of Moontide's begin so; they are taken over by themselves.
const OUR_CONSUMERS: &str = "moontide:";
/// How long a consumer of others is silent before a handler adopts what it holds, where the operator says nothing.
const IDLE: Duration = Duration::from_secs(60);

/// Names of handlers; `*` stands for anything within one part, `**` for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamePattern(String);

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }

    /// Orders patterns: the more of a name is spelled out, the more specific.
    fn specificity(&self) -> (bool, usize, &str) {
        let spelled = self.0.chars().filter(|c| *c != '*').count();
        (!self.0.contains('*'), spelled, &self.0)
    }
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        [b'*', rest @ ..] => {
            let part = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
            (0..=part).any(|at| matches(rest, &name[at..]))
        }
        [byte, rest @ ..] => name.first() == Some(byte) && matches(rest, &name[1..]),
    }
}

/// One `[handlers."…"]` table; what it does not say is `None`.
#[derive(Clone, Debug)]
struct Rule {
    names: NamePattern,
    concurrency: Option<usize>,
    limits: LimitsGiven,
    hosts: Option<Vec<HostGrant>>,
    secrets: Option<Vec<String>>,
    state: Option<Vec<String>>,
    adopt: Option<Adopt>,
}

/// From which consumers of others in its group a handler adopts what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopt {
    /// Patterns of their names; `*` stands for anything.
    pub consumers: Vec<String>,
    /// After they were silent for so long; at least 1 s.
    pub idle: Duration,
}

/// Which handlers adopt; the most specific word on a handler counts.
#[derive(Clone, Debug, Default)]
pub struct Adopting(Vec<(NamePattern, Adopt)>);

impl Adopting {
    /// What the handler `name` adopts.
    pub fn of(&self, name: &str) -> Option<&Adopt> {
        self.0.iter().find(|(names, _)| names.matches(name)).map(|(_, adopt)| adopt)
    }

    /// The `[handlers."…"]` tables that say so.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(names, _)| names.0.as_str())
    }
}

/// All `[handlers."…"]` tables, the most specific first, and what `config.get` can be granted.
#[derive(Clone, Debug, Default)]
pub struct HandlerRules {
    rules: Vec<Rule>,
    values: BTreeMap<String, String>,
    secrets: BTreeMap<String, Secret>,
    /// How state keys begin that no handler may touch.
    reserved_state: Option<String>,
}

impl HandlerRules {
    /// Reads `[handlers]`; grants must name secrets that exist. State keys that begin with `reserved_state` are the host's.
    pub fn read(
        table: &Table<'_>,
        base: &Limits,
        values: BTreeMap<String, String>,
        secrets: BTreeMap<String, Secret>,
        reserved_state: Option<&str>,
    ) -> Self {
        let mut rules: Vec<Rule> = table
            .entries()
            .into_iter()
            .map(|(name, path, value)| read_rule(name, Table::of(table.checker, path, value), base, &secrets))
            .collect();
        rules.sort_by(|a, b| b.names.specificity().cmp(&a.names.specificity()));
        Self { rules, values, secrets, reserved_state: reserved_state.map(str::to_owned) }
    }

    /// The patterns that fit none of `names`.
    pub fn idle_patterns<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Vec<&str> {
        let idle = self.rules.iter().filter(|rule| !names.clone().any(|name| rule.names.matches(name)));
        idle.map(|rule| rule.names.0.as_str()).collect()
    }

    /// Which handlers adopt.
    pub fn adopting(&self) -> Adopting {
        Adopting(self.rules.iter().filter_map(|rule| Some((rule.names.clone(), rule.adopt.clone()?))).collect())
    }

    /// How the handler `name` is to be loaded, where `limits` hold for all.
    pub fn options_for(&self, name: &str, limits: &Limits) -> LoadOptions {
        let fitting = || self.rules.iter().filter(|rule| rule.names.matches(name));
        let mut given = LimitsGiven::default();
        fitting().for_each(|rule| given.fill_from(&rule.limits));
        let secrets = fitting().find_map(|rule| rule.secrets.as_ref()).into_iter().flatten();
        let secrets = secrets.filter_map(|name| Some((name.clone(), self.secrets.get(name)?.reveal().to_owned())));
        LoadOptions {
            limits: given.over(limits),
            concurrency: fitting().find_map(|rule| rule.concurrency),
            granted: Granted {
                values: self.values.clone(),
                secrets: Secrets::new(secrets.collect()),
                hosts: fitting()
                    .find_map(|rule| rule.hosts.as_ref())
                    .map(|hosts| hosts.as_slice().into())
                    .unwrap_or_default(),
                state: fitting().find_map(|rule| rule.state.clone()),
                reserved: self.reserved_state.clone(),
            },
            ..LoadOptions::default()
        }
    }
}

fn read_rule(name: &str, mut table: Table<'_>, base: &Limits, secrets: &BTreeMap<String, Secret>) -> Rule {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/*".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        table.note("", "can fit no handler; names are letters, digits and . _ - / (and * or ** in patterns)");
    }
    let concurrency = table.optional_count("concurrency", 1..=CONCURRENCY_MAX);
    let limits = read_limits(table.table("limits"), base);
    let adopt = read_adopt(table.table("adopt"));
    let mut grants = table.table("grants");
    let rule = Rule {
        names: NamePattern(name.to_owned()),
        concurrency,
        limits,
        hosts: read_hosts(&mut grants),
        secrets: grants.optional_texts("secrets"),
        state: grants.optional_texts("state"),
        adopt,
    };
    for wanted in rule.secrets.iter().flatten().filter(|wanted| !secrets.contains_key(*wanted)) {
        grants.note("secrets", unknown_secret(wanted, secrets));
    }
    grants.close();
    table.close();
    rule
}

/// Reads `grants.hosts`: texts, or tables for those that may lead into a private network.
fn read_hosts(grants: &mut Table<'_>) -> Option<Vec<HostGrant>> {
    use figment::value::Value;

    let path = grants.path("hosts");
    let checker = grants.checker;
    let list = grants.optional("hosts", "a list of hosts: [\"shop.example\"]", |value| {
        Ok(value.as_array().map(<[Value]>::to_vec))
    })?;
    let one = |(at, value): (usize, &Value)| {
        let mut at = match value {
            Value::String(..) => None,
            table => Some(Table::of(checker, format!("{path} #{}", at + 1), table)),
        };
        let (text, private) = match &mut at {
            None => (value.as_str().unwrap_or_default().to_owned(), false),
            Some(table) => (table.text("host"), table.optional_truth("private").unwrap_or(false)),
        };
        let grant = HostGrant::parse(&text);
        if let Some(table) = at {
            table.close();
        }
        if let Err(message) = &grant {
            grants.note("hosts", format!("{text:?}: {message}"));
        }
        grant.ok().map(|grant| if private { grant.into_private() } else { grant })
    };
    Some(list.iter().enumerate().filter_map(one).collect())
}

fn read_adopt(mut table: Table<'_>) -> Option<Adopt> {
    let consumers = table.need("consumers", |table| {
        let consumers = table.optional_texts("consumers");
        if consumers.as_ref().is_some_and(Vec::is_empty) {
            table.note(
                "consumers",
                "must name at least one: [\"worker-*\"], or [\"*\"] for all that are not Moontide's",
            );
        }
        consumers
    });
    for ours in consumers.iter().filter(|pattern| pattern.starts_with(OUR_CONSUMERS)) {
        table.note("consumers", format!("{ours:?} names consumers of Moontide's, which are taken over by themselves"));
    }
    let idle = table.optional_duration("idle", Duration::from_secs(1)).unwrap_or(IDLE);
    table.close();
    (!consumers.is_empty()).then_some(Adopt { consumers, idle })
}

fn unknown_secret(name: &str, secrets: &BTreeMap<String, Secret>) -> String {
    match nearest(name, secrets.keys().map(String::as_str)) {
        Some(near) => format!("there is no secret {name:?} in [secrets]; did you mean {near:?}?"),
        None => format!("there is no secret {name:?} in [secrets]; add {name} = {{ env = \"…\" }} there"),
    }
}

/// Reads `[values]`; a name that is also a secret's is a contradiction.
pub fn read_values(
    table: &Table<'_>,
    checker: &Checker,
    secrets: &BTreeMap<String, Secret>,
) -> BTreeMap<String, String> {
    use figment::value::Value;

    let mut values = BTreeMap::new();
    for (name, path, value) in table.entries() {
        let origin = || checker.layers.origin(value.tag(), &path);
        let text = match value {
            Value::String(_, text) => text.clone(),
            Value::Bool(..) | Value::Num(..) => super::raw::show(value),
            other => {
                let message = format!("must be a text, a number, true or false, not {}", super::raw::show(other));
                checker.problem(origin(), &path, message);
                continue;
            }
        };
        if secrets.contains_key(name) {
            checker.problem(origin(), &path, "is also the name of a secret; rename one of them");
        }
        values.insert(name.to_owned(), text);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_part_by_part_and_the_most_specific_pattern_comes_first() {
        for (pattern, name, expected) in [
            ("billing/charge", "billing/charge", true),
            ("billing/*", "billing/charge", true),
            ("billing/*", "billing/eu/charge", false),
            ("billing/**", "billing/eu/charge", true),
            ("*", "charge", true),
            ("*", "billing/charge", false),
            ("**", "billing/charge", true),
            ("**/charge", "billing/charge", true),
            ("order_*", "order_created", true),
            ("order_*", "order", false),
        ] {
            assert_eq!(NamePattern(pattern.into()).matches(name), expected, "{pattern} against {name}");
        }
        let mut patterns = ["**", "billing/*", "billing/charge", "billing/ch*"].map(|text| NamePattern(text.into()));
        patterns.sort_by(|a, b| b.specificity().cmp(&a.specificity()));
        assert_eq!(patterns.map(|pattern| pattern.0), ["billing/charge", "billing/ch*", "billing/*", "**"]);
    }
}
