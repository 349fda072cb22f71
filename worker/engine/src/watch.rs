//! How long the parts of a step take.

use std::time::Instant;

use r2o_aten::Mark;
use tch::Device;

use crate::error::StepError;

/// Seconds by phase: of the host's clock on a CPU, of the device's own on a GPU, where the host only queues.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    device: Device,
    phases: Vec<(&'static str, f64)>,
    /// Beginning and end of phases on a GPU, by the phase's place in the list.
    marks: Vec<(usize, Mark, Mark)>,
}

impl Stopwatch {
    pub(crate) fn new(device: Device) -> Self {
        Self { device, phases: Vec::new(), marks: Vec::new() }
    }

    /// Does a phase.
    pub(crate) fn time<T>(
        &mut self,
        phase: &'static str,
        body: impl FnOnce() -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let began = Mark::now(self.device)?;
        let started = Instant::now();
        let result = body()?;
        let ended = Mark::now(self.device)?;
        self.marks.extend(began.zip(ended).map(|(began, ended)| (self.phases.len(), began, ended)));
        self.took(phase, started.elapsed().as_secs_f64());
        Ok(result)
    }

    /// A phase whose time is known.
    pub(crate) fn took(&mut self, phase: &'static str, seconds: f64) {
        self.phases.push((phase, seconds));
    }

    /// Waits for the device, and tells what it took.
    pub(crate) fn finish(mut self) -> Result<Vec<(&'static str, f64)>, StepError> {
        if let Some((_, _, last)) = self.marks.last() {
            last.wait()?;
        }
        for (at, began, ended) in &self.marks {
            self.phases[*at].1 = ended.seconds_since(began)?;
        }
        Ok(self.phases)
    }
}

/// Takes seconds of one phase for those of another; no phase gets less than none.
pub(crate) fn shift(timings: &mut [(&'static str, f64)], from: &str, to: &str, seconds: f64) {
    let mut moved = 0.0;
    for (_, of) in timings.iter_mut().filter(|(phase, _)| *phase == from) {
        moved = seconds.min(*of);
        *of -= moved;
    }
    for (_, of) in timings.iter_mut().filter(|(phase, _)| *phase == to) {
        *of += moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_is_made_or_lost() {
        let mut timings = [("loss", 1.0), ("backward", 3.0), ("all_reduce_wait", 0.5)];
        shift(&mut timings, "backward", "all_reduce_wait", 2.0);
        assert_eq!(timings, [("loss", 1.0), ("backward", 1.0), ("all_reduce_wait", 2.5)]);
        shift(&mut timings, "backward", "all_reduce_wait", 9.0);
        assert_eq!(timings, [("loss", 1.0), ("backward", 0.0), ("all_reduce_wait", 3.5)]);
    }
}
