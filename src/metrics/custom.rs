//! Metrics that scripts make (`metrics.count` and its siblings).
//!
//! A name keeps the kind and labels of its first use; what does not fit is dropped and said once. Series per handler, and
//! names that are said, are bounded, whatever a script invents.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry};

use crate::outcome::{Measure, MeasureKind};

use super::Metrics;

/// Series that the script metrics of one handler may have.
const SERIES_MAX: usize = 1000;
/// Names of one handler that are said not to be counted; no more is said after them.
const REFUSED_MAX: usize = 100;

/// The families that scripts made, of all handlers.
pub(super) struct CustomFamilies {
    registry: Registry,
    families: Mutex<HashMap<String, Family>>,
}

#[derive(Clone)]
enum Family {
    Count(CounterVec, Vec<String>),
    Gauge(GaugeVec, Vec<String>),
    Observe(HistogramVec, Vec<String>),
}

/// One handler's share of them.
pub(super) struct Custom {
    handler: String,
    seen: Mutex<HashSet<Vec<String>>>,
    refused: Mutex<HashSet<String>>,
}

impl CustomFamilies {
    pub fn new(registry: Registry) -> Self {
        Self { registry, families: Mutex::default() }
    }

    fn family(&self, measure: &Measure) -> Result<Family, String> {
        let mut families = self.families.lock();
        if let Some(family) = families.get(&measure.name) {
            return fits(family, measure).map(|()| family.clone());
        }
        let family = self.make(measure).map_err(|error| error.to_string())?;
        families.insert(measure.name.clone(), family.clone());
        Ok(family)
    }

    fn make(&self, measure: &Measure) -> prometheus::Result<Family> {
        let labels = names(measure);
        let label_names: Vec<&str> = labels.iter().map(String::as_str).collect();
        let help = "Made by a handler.";
        Ok(match measure.kind {
            MeasureKind::Count => {
                let family = CounterVec::new(Opts::new(&measure.name, help), &label_names)?;
                self.registry.register(Box::new(family.clone()))?;
                Family::Count(family, labels)
            }
            MeasureKind::Gauge => {
                let family = GaugeVec::new(Opts::new(&measure.name, help), &label_names)?;
                self.registry.register(Box::new(family.clone()))?;
                Family::Gauge(family, labels)
            }
            MeasureKind::Observe => {
                let family = HistogramVec::new(HistogramOpts::new(&measure.name, help), &label_names)?;
                self.registry.register(Box::new(family.clone()))?;
                Family::Observe(family, labels)
            }
        })
    }
}

impl Custom {
    pub fn new(handler: &str) -> Self {
        Self { handler: handler.to_owned(), seen: Mutex::default(), refused: Mutex::default() }
    }

    /// Counts `measure`, or says once why it cannot be counted.
    pub fn take(&self, metrics: &Metrics, measure: &Measure) {
        let taken = self.bounded(measure).and_then(|()| record(&metrics.custom.family(measure)?, measure));
        if let Err(reason) = taken
            && self.is_news(&measure.name)
        {
            tracing::warn!(handler = self.handler, metric = measure.name, "the metric is not counted: {reason}");
        }
    }

    /// Whether nobody has said yet that `name` is refused.
    fn is_news(&self, name: &str) -> bool {
        let mut refused = self.refused.lock();
        refused.len() < REFUSED_MAX && refused.insert(name.to_owned())
    }

    fn bounded(&self, measure: &Measure) -> Result<(), String> {
        let mut seen = self.seen.lock();
        let mut series: Vec<String> = measure.labels.iter().map(|(_, value)| value.clone()).collect();
        series.push(measure.name.clone());
        if seen.len() >= SERIES_MAX && !seen.contains(&series) {
            return Err(format!("this handler has {SERIES_MAX} series already; use fewer label values"));
        }
        seen.insert(series);
        Ok(())
    }
}

fn names(measure: &Measure) -> Vec<String> {
    let mut names: Vec<String> = measure.labels.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

fn fits(family: &Family, measure: &Measure) -> Result<(), String> {
    let (kind, labels) = match family {
        Family::Count(_, labels) => (MeasureKind::Count, labels),
        Family::Gauge(_, labels) => (MeasureKind::Gauge, labels),
        Family::Observe(_, labels) => (MeasureKind::Observe, labels),
    };
    if kind != measure.kind {
        return Err(format!("it is a {kind:?} already, and cannot be a {:?} too", measure.kind));
    }
    if *labels != names(measure) {
        return Err(format!("its labels were {labels:?} before, and now they are {:?}", names(measure)));
    }
    Ok(())
}

fn record(family: &Family, measure: &Measure) -> Result<(), String> {
    let mut labels: Vec<&(String, String)> = measure.labels.iter().collect();
    labels.sort();
    let values: Vec<&str> = labels.iter().map(|(_, value)| value.as_str()).collect();
    let text = |error: prometheus::Error| error.to_string();
    match family {
        Family::Count(family, _) if measure.value < 0.0 => {
            let _ = family;
            return Err("a count cannot go down; use metrics.gauge".to_owned());
        }
        Family::Count(family, _) => family.get_metric_with_label_values(&values).map_err(text)?.inc_by(measure.value),
        Family::Gauge(family, _) => family.get_metric_with_label_values(&values).map_err(text)?.set(measure.value),
        Family::Observe(family, _) => {
            family.get_metric_with_label_values(&values).map_err(text)?.observe(measure.value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, value: f64, labels: &[(&str, &str)]) -> Measure {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Measure { kind: MeasureKind::Count, name: name.to_owned(), value, labels }
    }

    #[test]
    fn script_metrics_are_counted_and_misfits_are_left_out() {
        let metrics = Metrics::new();
        let custom = Custom::new("orders");
        custom.take(&metrics, &count("sales", 2.0, &[("b", "1"), ("a", "2")]));
        custom.take(&metrics, &count("sales", 3.0, &[("a", "2"), ("b", "1")]));
        custom.take(&metrics, &count("sales", 9.0, &[("other", "x")]));
        custom.take(&metrics, &count("sales", -1.0, &[("a", "2"), ("b", "1")]));
        let text = metrics.text().expect("metrics can be written");
        assert!(text.contains(r#"sales{a="2",b="1"} 5"#), "{text}");
        assert!(!text.contains("other"), "{text}");
    }

    #[test]
    fn series_of_a_handler_are_bounded() {
        let metrics = Metrics::new();
        let custom = Custom::new("orders");
        for i in 0..2 * SERIES_MAX {
            custom.take(&metrics, &count("sales", 1.0, &[("id", &i.to_string())]));
        }
        let series = metrics.text().expect("metrics can be written").matches("sales{").count();
        assert_eq!(series, SERIES_MAX);
    }

    #[test]
    fn names_that_a_script_invents_without_end_are_not_kept() {
        let metrics = Metrics::new();
        let custom = Custom::new("orders");
        for i in 0..2 * SERIES_MAX {
            custom.take(&metrics, &count(&format!("sales_{i}"), 1.0, &[]));
        }
        assert_eq!((custom.seen.lock().len(), custom.refused.lock().len()), (SERIES_MAX, REFUSED_MAX));
        assert_eq!(metrics.custom.families.lock().len(), SERIES_MAX);
    }
}
