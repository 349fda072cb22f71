//! A histogram that can be read: the one of prometheus-client only shows itself as text.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::family::Reading;

/// Counts values in buckets.
#[derive(Debug)]
pub struct RawHistogram {
    bounds: &'static [f64],
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    sum: f64,
    /// By bucket; the last one is above all bounds.
    counts: Vec<u64>,
}

impl RawHistogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counted = Counted { sum: 0.0, counts: vec![0; bounds.len() + 1] };
        Self { bounds, counted: Mutex::new(counted) }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut counted = self.lock();
        counted.sum += value;
        counted.counts[bucket] += 1;
    }

    pub(super) fn read(&self) -> Reading {
        let counted = self.lock();
        Reading::Distribution { sum: counted.sum, counts: counted.counts.clone() }
    }
}

impl EncodeMetric for RawHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let counted = self.lock();
        // The encoder's word for "above all bounds".
        let bounds = self.bounds.iter().copied().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counted.counts.iter().copied()).collect();
        encoder.encode_histogram::<NoLabelSet>(counted.sum, counted.counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for RawHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_below_it() {
        let histogram = RawHistogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 2.0, 9.0].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.read(), Reading::Distribution { sum: 14.0, counts: vec![2, 2, 1] });
    }
}
