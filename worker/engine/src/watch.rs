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
