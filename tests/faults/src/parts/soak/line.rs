//! The straight line through samples: how much something grows in an hour.

/// The slope of the line through `(hours, value)` that outliers do not move: the median of the slopes between all pairs
/// (Theil and Sen). 0 of fewer than two.
pub fn slope(samples: &[(f64, f64)]) -> f64 {
    let pairs =
        samples.iter().enumerate().flat_map(|(at, first)| samples[at + 1..].iter().map(move |last| (first, last)));
    let mut slopes: Vec<f64> = pairs
        .filter(|(first, last)| last.0 > first.0)
        .map(|(first, last)| (last.1 - first.1) / (last.0 - first.0))
        .collect();
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

/// The lowest value of each minute: what is in use when nothing is under way.
pub fn low_water(samples: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let minute = |hours: f64| (hours * 60.0) as u64;
    samples
        .chunk_by(|a, b| minute(a.0) == minute(b.0))
        .filter_map(|minute| minute.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of samples, one each 5 s.
    fn hour(value: impl Fn(u32) -> f64) -> Vec<(f64, f64)> {
        (0..720).map(|n| (f64::from(n) / 720.0, value(n))).collect()
    }

    #[test]
    fn bursts_do_not_tilt_the_line() {
        let bursts = low_water(&hour(|n| 100.0 + if n % 7 == 0 { f64::from(n % 5) * 20.0 } else { 0.0 }));
        assert_eq!(bursts.len(), 60);
        assert!(slope(&bursts).abs() < 1e-9);
    }

    #[test]
    fn a_leak_under_bursts_is_seen() {
        let leak = slope(&low_water(&hour(|n| 100.0 + f64::from(n) / 100.0 + f64::from(n % 11) * 8.0)));
        assert!((6.5..8.0).contains(&leak), "{leak}");
    }
}
