//! Measures as the benchmark programs print them.

use anyhow::{Context, Result};
use serde::Deserialize;

/// One line of a benchmark program.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) value: f64,
    /// A unit of time (`s`, `ms/image`): less is better. Anything else (`images/s`) is a rate: more is better.
    pub(super) unit: String,
}

impl Measure {
    /// How many times as fast as `other`.
    pub(super) fn speed_over(&self, other: &Self) -> f64 {
        let unit = self.unit.split('/').next().unwrap_or_default();
        let time = ["s", "ms", "us", "ns"].contains(&unit);
        if time { other.value / self.value } else { self.value / other.value }
    }
}

/// Reads the JSON lines among what a program printed.
pub(super) fn read(printed: &str) -> Result<Vec<Measure>> {
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("no measure: {line}"))).collect()
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(value: f64, unit: &str) -> Measure {
        Measure { name: "x".to_owned(), value, unit: unit.to_owned() }
    }

    #[test]
    fn less_time_and_more_images_are_faster() {
        assert_eq!(measure(1.0, "s").speed_over(&measure(2.0, "s")), 2.0);
        assert_eq!(measure(1.0, "ms/image").speed_over(&measure(6.0, "ms/image")), 6.0);
        assert_eq!(measure(10.0, "images/s").speed_over(&measure(5.0, "images/s")), 2.0);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn other_lines_are_passed_over() {
        let read = read("warming up\n{\"name\":\"a\",\"value\":2,\"unit\":\"s\"}\n").unwrap();
        assert_eq!(read[0].value, 2.0);
        assert!(super::read("{broken\n").is_err());
    }
}
