//! What is measured, and how it is printed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Figures of all workers.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// From a worker's own report to the next ticket.
    own: Vec<Duration>,
    /// From the last report of a step, of whichever worker, to the next ticket.
    fleet: Vec<Duration>,
    /// How long a worker had nothing to do after a step.
    waits: Vec<Duration>,
    /// When assignments of the newest generation came.
    assigned: Vec<Instant>,
}

impl Figures {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    pub(crate) fn ticket(&self, own: Duration, fleet: Duration) {
        let mut inner = self.lock();
        inner.own.push(own);
        inner.fleet.push(fleet);
    }

    pub(crate) fn waited(&self, wait: Duration) {
        self.lock().waits.push(wait);
    }

    pub(crate) fn assigned(&self) {
        self.lock().assigned.push(Instant::now());
    }

    /// Prints what a steady fleet showed.
    pub(crate) fn report(&self, fleet: &str) {
        let mut inner = self.lock();
        percentiles(&format!("{fleet}: report to ticket"), &mut inner.own);
        percentiles(&format!("{fleet}: last report to ticket"), &mut inner.fleet);
        let waits = &mut inner.waits;
        let idle = waits.iter().filter(|wait| !wait.is_zero()).count();
        eprintln!("{fleet}: {idle} of {} steps began with a wait for a ticket", waits.len());
        percentiles(&format!("{fleet}: wait for a ticket"), waits);
        let longest = waits.last().copied().unwrap_or_default();
        print(&format!("{fleet}: wait for a ticket, longest"), longest.as_secs_f64() * 1e3, "ms");
    }

    /// Prints when a new generation's assignments came.
    pub(crate) fn report_assignments(&self, fleet: &str, since: Instant) {
        let mut after: Vec<Duration> =
            self.lock().assigned.iter().map(|at| at.saturating_duration_since(since)).collect();
        percentiles(&format!("{fleet}: kill to assignment"), &mut after);
        let last = after.last().copied().unwrap_or_default();
        print(&format!("{fleet}: kill to assignment, last"), last.as_secs_f64() * 1e3, "ms");
    }
}

/// Sorts the values and prints their median and 99th percentile.
fn percentiles(name: &str, values: &mut [Duration]) {
    values.sort_unstable();
    for percent in [50, 99] {
        let value = values.get(values.len() * percent / 100).copied().unwrap_or_default();
        print(&format!("{name}, p{percent}"), value.as_secs_f64() * 1e3, "ms");
    }
}

/// Prints one measure for programs.
pub(crate) fn print(name: &str, value: f64, unit: &str) {
    println!("{}", serde_json::json!({"name": name, "value": value, "unit": unit}));
}
