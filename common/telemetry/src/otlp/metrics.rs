//! The table of metrics in the form of OTLP. Names stay as they are declared: dashboards say them, and a Prometheus that takes
//! OTLP leaves ends alone that are there.

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, metric,
    number_data_point,
};

use super::span::{Value, key_value};
use crate::metrics::{Declaration, Kind, Point, Reading, Registry, Unit};

/// All series that have a value, counted from `start` until `now`, both in nanoseconds since 1970.
pub(super) fn metrics(registry: &Registry, start: u64, now: u64) -> Vec<Metric> {
    let seen = registry.readings().filter(|(_, points)| !points.is_empty());
    seen.map(|(declaration, points)| metric(declaration, points, start, now)).collect()
}

fn metric(declaration: &Declaration, points: Vec<Point>, start: u64, now: u64) -> Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = |points: Vec<Point>| points.into_iter().filter_map(|point| number(point, start, now)).collect();
    let data = match declaration.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(points),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge { data_points: numbers(points) }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: points.into_iter().filter_map(|p| distribution(declaration, p, start, now)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    let unit = match declaration.unit {
        Unit::None => "1",
        Unit::Seconds => "s",
        Unit::Bytes => "By",
    };
    Metric {
        name: declaration.name.to_owned(),
        description: declaration.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(point: Point, start: u64, now: u64) -> Option<NumberDataPoint> {
    let Reading::Number(value) = point.reading else { return None };
    Some(NumberDataPoint {
        attributes: attributes(point.labels),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    })
}

fn distribution(declaration: &Declaration, point: Point, start: u64, now: u64) -> Option<HistogramDataPoint> {
    let Reading::Distribution { sum, counts } = point.reading else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(point.labels),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: counts.iter().sum(),
        sum: Some(sum),
        bucket_counts: counts,
        explicit_bounds: declaration.buckets.to_vec(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(labels: Vec<(&'static str, String)>) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    labels.into_iter().map(|(name, value)| key_value(name, Value::Text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table::Coordinator;

    #[test]
    fn what_is_counted_is_sent_as_it_is_declared() {
        let table = Coordinator::default();
        table.steps.add(&["demo"], 3.0);
        table.phase_seconds.observe(&["demo", "masks"], 0.3);
        let sent = metrics(table.registry(), 1, 2);
        let find = |name: &str| sent.iter().find(|m| m.name == name).unwrap();
        let Some(metric::Data::Sum(sum)) = &find("r2o_steps_total").data else { panic!("not a sum") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(3.0)));
        assert_eq!(sum.data_points[0].attributes, [key_value("job", "demo".into())]);
        let phases = find("r2o_step_phase_seconds");
        let Some(metric::Data::Histogram(histogram)) = &phases.data else { panic!("not a histogram") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, phases.unit.as_str()), (1, Some(0.3), "s"));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().position(|count| *count == 1), Some(6), "0.25 < 0.3 <= 0.5");
        assert!(sent.iter().all(|m| m.name != "r2o_job_loss"), "nothing is sent that has no value");
    }
}
