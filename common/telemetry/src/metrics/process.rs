//! What the process takes of its machine; from /proc, where there is one.

use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a page on all machines that R2O runs on.
const PAGE: u64 = 4096;
/// Ticks of a second in /proc, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// What a process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Memory, in bytes.
    pub resident_bytes: f64,
    /// Processor time since the process started.
    pub cpu_seconds: f64,
}

impl Process {
    /// Looks now; zeros where the system does not say.
    #[must_use]
    pub fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let resident = read("/proc/self/statm").split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        let stat = read("/proc/self/stat");
        // The program's name, in brackets, may hold spaces.
        let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = numbers.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        Self { resident_bytes: (resident.unwrap_or_default() * PAGE) as f64, cpu_seconds: ticks.sum::<f64>() / TICKS }
    }
}

/// A moment as Prometheus has it.
#[must_use]
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
