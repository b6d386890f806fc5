//! The right word for a wrong one: what unknown keys and names are answered with.
//!
//! Knows nobody.

/// The candidate that `word` probably meant, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let distance = |candidate: &str| strsim::osa_distance(&word.to_lowercase(), &candidate.to_lowercase());
    let best = candidates.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (best.0 <= allowed).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["memory", "payload", "cpu"];
        assert_eq!(nearest("memmory", keys), Some("memory"));
        assert_eq!(nearest("CPU", keys), Some("cpu"));
        assert_eq!(nearest("disk", keys), None);
        assert_eq!(nearest("cpu", []), None);
    }
}
