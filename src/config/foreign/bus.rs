//! Where events are stored, as other services say it: an address, a database, and what kind of bus it is.
//!
//! Decides which of several addresses counts, and that those that contradict each other do not. Addresses may hold passwords:
//! no message shows one.

use super::text::utf8;
use crate::config::bus::{is_server, without_password};

/// The key that they set together.
pub const KEY: &str = "bus.url";

/// Each wins over [`GENERAL`], because only events are meant.
const SPECIFIC: [&str; 2] = ["EVENT_PUBLISHER_REDIS_URL", "REDIS_EVENT_URL"];
const GENERAL: &str = "REDIS_URL";
const DATABASE: &str = "REDIS_DB";
const KINDS: [&str; 2] = ["MESSAGING_BACKEND", "EVENT_BUS_TYPE"];
/// The kind that there is, and where it is where only the kind is said.
const KIND: &str = "redis";
const USUAL: &str = "redis://localhost:6379";

/// What was chosen, and by which variables.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    pub by: Vec<&'static str>,
    pub url: String,
}

/// A variable, and what is wrong with it.
type Wrong = (&'static str, String);

/// What the variables say; `None`: nothing.
pub fn read<'a>(said: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Chosen>, Vec<Wrong>> {
    let find = |name: &'static str| said(name).map(|text| (name, text));
    let kinds: Vec<_> = KINDS.into_iter().filter_map(find).collect();
    let specific: Vec<_> = SPECIFIC.into_iter().filter_map(find).collect();
    let by_kind = kinds.first().map(|(name, _)| (*name, USUAL));
    let Some((name, url)) = specific.first().copied().or_else(|| find(GENERAL)).or(by_kind) else { return Ok(None) };
    let mut wrong = wrong_kinds(&kinds);
    if let Err(message) = utf8(url) {
        wrong.push((name, message));
    }
    if !is_server(url) {
        let shown = without_password(url);
        wrong.push((name, format!("{shown:?} is no address of a Redis server; write one like {USUAL}")));
    }
    let database = match database(find(DATABASE).filter(|_| !names_database(url))) {
        Ok(database) => database,
        Err(problem) => {
            wrong.push(problem);
            None
        }
    };
    if let [(one, a), (other, b)] = specific[..]
        && with_database(a, database.unwrap_or(0)) != with_database(b, database.unwrap_or(0))
    {
        wrong.push((one, format!("leads elsewhere than {other}; let both say the same")));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Some(match database {
        Some(number) => Chosen { by: vec![name, DATABASE], url: with_database(url, number) },
        None => Chosen { by: vec![name], url: url.to_owned() },
    }))
}

/// Kinds that there are not, and two that differ.
fn wrong_kinds(kinds: &[(&'static str, &str)]) -> Vec<Wrong> {
    let other = kinds.iter().filter(|(_, kind)| !kind.eq_ignore_ascii_case(KIND));
    let mut wrong: Vec<_> =
        other.map(|(name, kind)| (*name, format!("{kind:?} is not available in this version; write {KIND}"))).collect();
    if let [(one, a), (other, b)] = kinds
        && !a.eq_ignore_ascii_case(b)
    {
        wrong.push((one, format!("says {a:?}, but {other} says {b:?}; let both say the same")));
    }
    wrong
}

fn database(said: Option<(&'static str, &str)>) -> Result<Option<u32>, Wrong> {
    let Some((name, text)) = said else { return Ok(None) };
    text.parse().map(Some).map_err(|_| (name, format!("{text:?} is no database; write a number like 0")))
}

/// `url` with the database `number`, unless it names one.
fn with_database(url: &str, number: u32) -> String {
    if names_database(url) {
        return url.to_owned();
    }
    let (path, parameters) = url.split_at(parameters_at(url));
    if is_socket(url) {
        let sign = if parameters.is_empty() { '?' } else { '&' };
        return format!("{url}{sign}database={number}");
    }
    format!("{}/{number}{parameters}", path.trim_end_matches('/'))
}

/// Whether `url` says which database is meant: `redis://HOST/0`, `redis+sentinel://HOST/SERVICE/0`, `unix://PATH?database=0`.
fn names_database(url: &str) -> bool {
    let (path, parameters) = url.split_at(parameters_at(url));
    if is_socket(url) {
        return parameters.trim_start_matches('?').split('&').any(|parameter| parameter.starts_with("database="));
    }
    let before = if url.contains("+sentinel://") { 2 } else { 1 };
    path[place_at(url)..].split('/').nth(before).is_some_and(|database| !database.is_empty())
}

fn is_socket(url: &str) -> bool {
    url.starts_with("unix://")
}

/// Where the server's name begins: a password before it may hold any sign.
fn place_at(url: &str) -> usize {
    let scheme = url.find("://").map_or(0, |at| at + 3);
    url.rfind('@').map_or(scheme, |at| (at + 1).max(scheme))
}

fn parameters_at(url: &str) -> usize {
    let place = place_at(url);
    url[place..].find('?').map_or(url.len(), |at| place + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_goes_where_the_address_has_its_place() {
        for (url, completed) in [
            ("redis://h", "redis://h/5"),
            ("redis://h:6379/", "redis://h:6379/5"),
            ("redis://h/0", "redis://h/0"),
            ("redis://:a/b?c@h", "redis://:a/b?c@h/5"),
            ("rediss://u:p@h?ca_file=/a/b", "rediss://u:p@h/5?ca_file=/a/b"),
            ("rediss://h/1?ca_file=/a/b", "rediss://h/1?ca_file=/a/b"),
            ("redis+sentinel://a:1,b/main", "redis+sentinel://a:1,b/main/5"),
            ("redis+sentinel://a/main/2", "redis+sentinel://a/main/2"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock?database=5"),
            ("unix:///r?database=1", "unix:///r?database=1"),
        ] {
            assert_eq!(with_database(url, 5), completed);
        }
    }
}
