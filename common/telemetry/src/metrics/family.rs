//! Handles: all series of one metric.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric, counter, gauge};

use super::declaration::{Declaration, Values};
use super::histogram::RawHistogram;
use super::registry::Names;

/// What stands for all values that a label does not take.
pub const OTHER: &str = "other";

type RawCounter = counter::Counter<f64, AtomicU64>;
type RawGauge = gauge::Gauge<f64, AtomicU64>;

/// A counter.
pub type Counter = Series<RawCounter>;
/// A gauge.
pub type Gauge = Series<RawGauge>;
/// A histogram.
pub type Histogram = Series<RawHistogram>;

/// What a series says at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Distribution {
        /// Of all values.
        sum: f64,
        /// Values up to each of the declared bounds and above the one before; the last one counts those above all bounds.
        counts: Vec<u64>,
    },
}

/// One series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// What it says.
    pub reading: Reading,
}

/// All series of one metric, by the values of its labels. Cheap to clone.
#[derive(Debug)]
pub struct Series<M>(Arc<Family<M>>);

impl<M> Clone for Series<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Family<M> {
    declaration: &'static Declaration,
    names: Names,
    series: Mutex<BTreeMap<Vec<String>, M>>,
}

/// A series' raw metric, made for its declaration.
pub trait Raw: EncodeMetric + TypedMetric + fmt::Debug + Send + Sync + 'static {
    /// A new one.
    fn make(declaration: &'static Declaration) -> Self;
    /// What it says now.
    fn read(&self) -> Reading;
}

impl Raw for RawCounter {
    fn make(_: &'static Declaration) -> Self {
        Self::default()
    }

    fn read(&self) -> Reading {
        Reading::Number(self.get())
    }
}

impl Raw for RawGauge {
    fn make(_: &'static Declaration) -> Self {
        Self::default()
    }

    fn read(&self) -> Reading {
        Reading::Number(self.get())
    }
}

impl Raw for RawHistogram {
    fn make(declaration: &'static Declaration) -> Self {
        Self::new(declaration.buckets)
    }

    fn read(&self) -> Reading {
        Self::read(self)
    }
}

impl<M: Raw> Series<M> {
    /// Series whose labels are all of closed sets are there from the start, so that a rate sees their first step.
    pub(super) fn new(declaration: &'static Declaration, names: Names) -> Self {
        let series = Self(Arc::new(Family { declaration, names, series: Mutex::default() }));
        let sets = declaration.labels.iter().map(|label| match label.values {
            Values::Of(values) => Some(values),
            Values::Jobs | Values::Build => None,
        });
        if let Some(sets) = sets.collect::<Option<Vec<_>>>() {
            let mut all = vec![Vec::new()];
            for set in sets {
                let longer =
                    |known: &Vec<&'static str>| set.iter().map(|v| [known.as_slice(), &[v]].concat()).collect();
                all = all.iter().flat_map::<Vec<_>, _>(longer).collect();
            }
            all.iter().for_each(|values| series.show(values));
        }
        series
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<String>, M>> {
        self.0.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a series before its first value: a rate sees only what is added to something.
    pub fn show(&self, values: &[&str]) {
        self.with(values, |_| ());
    }

    fn with(&self, values: &[&str], use_it: impl FnOnce(&M)) {
        let labels = self.0.declaration.labels;
        debug_assert_eq!(values.len(), labels.len(), "labels of {}", self.0.declaration.name);
        let taken = labels.iter().zip(values).map(|(label, value)| match label.values {
            Values::Of(known) if known.contains(value) => (*value).to_owned(),
            Values::Of(_) => OTHER.to_owned(),
            Values::Jobs => self.0.names.take(value),
            Values::Build => (*value).to_owned(),
        });
        let taken: Vec<String> = taken.collect();
        use_it(self.lock().entry(taken).or_insert_with(|| M::make(self.0.declaration)));
    }

    pub(super) fn declaration(&self) -> &'static Declaration {
        self.0.declaration
    }

    /// All series now.
    pub(super) fn points(&self) -> Vec<Point> {
        let names = || self.0.declaration.labels.iter().map(|label| label.name);
        let point = |(values, metric): (&Vec<String>, &M)| Point {
            labels: names().zip(values.iter().cloned()).collect(),
            reading: metric.read(),
        };
        self.lock().iter().map(point).collect()
    }

    /// Lets all series of a job go.
    pub(super) fn forget(&self, job: &str) {
        let at = self.0.declaration.labels.iter().position(|label| label.values == Values::Jobs);
        if let Some(at) = at {
            self.lock().retain(|values, _| values.get(at).is_none_or(|value| value != job));
        }
    }
}

impl Counter {
    /// Counts one. `values` are those of the labels, in the declaration's order.
    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1.0);
    }

    /// Counts so much; less than nothing and what is no number counts as nothing.
    pub fn add(&self, values: &[&str], by: f64) {
        let by = if by.is_finite() { by.max(0.0) } else { 0.0 };
        self.with(values, |counter| _ = counter.inc_by(by));
    }

    /// Takes over what is counted elsewhere.
    pub fn raise_to(&self, values: &[&str], total: f64) {
        self.with(values, |counter| _ = counter.inc_by((total - counter.get()).max(0.0)));
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, values: &[&str], to: f64) {
        self.with(values, |gauge| _ = gauge.set(to));
    }
}

impl Histogram {
    /// Counts a value; what is no number is passed over.
    pub fn observe(&self, values: &[&str], value: f64) {
        if value.is_finite() {
            self.with(values, |histogram| histogram.observe(value));
        }
    }
}

impl<M: Raw> EncodeMetric for Series<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let labels = self.0.declaration.labels;
        for (values, metric) in self.lock().iter() {
            if labels.is_empty() {
                return metric.encode(encoder);
            }
            let set: Vec<(&str, &str)> =
                labels.iter().zip(values).map(|(label, value)| (label.name, value.as_str())).collect();
            metric.encode(encoder.encode_family(&set)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
