//! Exactly once, from the ledger alone: every range is compared with the plan of its epoch.

use std::ops::Range as Steps;

use r2o_types::{ChunkRef, EpochPlan, PlanError, TrainJob, sample_digest, steps_per_epoch};
use rayon::prelude::*;

use super::{Digest, Kept};
use crate::history::StepRecord;

/// What a job is to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of the data set.
    pub chunks: Vec<ChunkRef>,
    /// Of the job.
    pub seed: u64,
    /// Of the job.
    pub epochs: u64,
    /// Of the job.
    pub lanes: u32,
    /// Of the job.
    pub samples_per_lane: u32,
    /// Chunks whose samples are shuffled together.
    pub window_chunks: u32,
}

impl Plan {
    /// The plan of a job over the chunks of its data set.
    #[must_use]
    pub fn of(job: &TrainJob, chunks: Vec<ChunkRef>) -> Self {
        let (data, batch) = (&job.spec.data, &job.spec.batch);
        Self {
            chunks,
            seed: job.spec.seed,
            epochs: job.spec.epochs,
            lanes: batch.lanes,
            samples_per_lane: batch.samples_per_lane,
            window_chunks: data.shuffle_window_chunks,
        }
    }

    /// Samples of the data set.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.samples)).sum()
    }

    /// Steps of one epoch; 0 when the set has less than one global batch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        steps_per_epoch(self.samples(), self.lanes, self.samples_per_lane)
    }

    /// Samples of one step.
    fn batch(&self) -> u64 {
        u64::from(self.lanes) * u64::from(self.samples_per_lane)
    }

    fn epoch(&self, epoch: u64) -> Result<EpochPlan, PlanError> {
        EpochPlan::new(&self.chunks, self.seed, epoch, self.lanes, self.samples_per_lane, self.window_chunks)
    }
}

/// What was shown of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Steps that the ledger had to cover.
    pub steps: u64,
    /// Those that it covers, in order; the last epoch may be covered in part.
    pub epochs: Vec<Epoch>,
}

/// What was shown of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// 0-based.
    pub epoch: u64,
    /// Steps that are covered, each once.
    pub steps: u64,
    /// Samples that were trained on, each once.
    pub samples: u64,
    /// Samples of the set that were not: fewer than one global batch once the epoch is whole.
    pub left_out: u64,
    /// The generations that computed it, in order.
    pub generations: Vec<u64>,
}

/// Where the ledger and the plan part, or the ledger is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}{}: {kind}", lane.map(|lane| format!(", lane {lane}")).unwrap_or_default())]
pub struct Flaw {
    /// The first step that is wrong; 0-based, over the whole job.
    pub step: u64,
    /// The first lane that is wrong; `None` when it is not one lane, or not known which.
    pub lane: Option<u32>,
    /// What is wrong.
    pub kind: FlawKind,
}

/// What is wrong with a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlawKind {
    /// There is no plan to compare with.
    #[error(transparent)]
    NoPlan(#[from] PlanError),
    /// Nobody wrote that the step was trained.
    #[error("no range of the ledger has it; missing from there on: {missing}")]
    Missing {
        /// Consecutive missing steps.
        missing: u64,
    },
    /// Two ranges have the step.
    #[error("it is in two ranges, of generations {first} and {second}: its samples would count twice")]
    Twice {
        /// The generation of the one.
        first: u64,
        /// The generation of the other; may be the same.
        second: u64,
    },
    /// The job has no such step.
    #[error("the job has only {steps} steps")]
    BeyondEnd {
        /// Steps of the whole job.
        steps: u64,
    },
    /// The range names another epoch.
    #[error("the ledger says epoch {said}, the plan epoch {planned}")]
    OtherEpoch {
        /// In the ledger.
        said: u64,
        /// In the plan.
        planned: u64,
    },
    /// Not all lanes, or not each once and in order.
    #[error("the ledger has {said} where the plan has {planned}")]
    OtherLane {
        /// In the ledger.
        said: String,
        /// In the plan.
        planned: String,
    },
    /// The lane read elsewhere in the epoch's order.
    #[error("its samples began at position {said} of the epoch, the plan says {planned}")]
    OtherPosition {
        /// In the ledger.
        said: u64,
        /// In the plan.
        planned: u64,
    },
    /// The samples are not those of the plan.
    #[error("its samples are not those of the plan (XXH3 {said:016x}, the plan's is {planned:016x})")]
    OtherSamples {
        /// In the history.
        said: u64,
        /// Of the plan.
        planned: u64,
    },
    /// Somewhere in a range the samples are not those of the plan.
    #[error(
        "the samples of steps {step} to {} are not those of the plan (XXH3 over all lanes {said:016x}, the plan's is \
         {planned:016x}); one digest covers them all, so which step and lane it is is not recorded",
        end - 1
    )]
    OtherSamplesInRange {
        /// The first step of the range.
        step: u64,
        /// The step after its last.
        end: u64,
        /// In the ledger.
        said: u64,
        /// Of the plan.
        planned: u64,
    },
    /// The plan itself has the sample twice, or one that the set does not have.
    #[error("sample {sample} was trained on before in this epoch")]
    SampleTwice {
        /// Its ordinal in the set.
        sample: u64,
    },
    /// An epoch is over, and a global batch could have been made of what it left out.
    #[error("the epoch ends with {left_out} samples left out, one global batch has {batch}")]
    LeftOut {
        /// Samples that the epoch left out.
        left_out: u64,
        /// Samples of one step.
        batch: u64,
    },
}

/// Shows that steps `0..steps` were trained exactly once and on the samples of the plan, and the same of those later ones
/// that the ledger has. Epochs are compared in parallel; 40 ms each for a million samples.
///
/// # Errors
/// The [`Flaw`] of the lowest step.
pub fn prove(plan: &Plan, kept: &[Kept], steps: u64) -> Result<Proven, Flaw> {
    let flaw = |step, kind| Flaw { step, lane: None, kind };
    let per_epoch = plan.steps_per_epoch();
    if per_epoch == 0 {
        let none = plan.epoch(0).err().map(FlawKind::NoPlan);
        return Err(flaw(0, none.unwrap_or(FlawKind::BeyondEnd { steps: 0 })));
    }
    let end = kept.iter().map(|one| one.steps.end).max().unwrap_or(0).max(steps);
    let all = per_epoch.saturating_mul(plan.epochs);
    if end > all {
        return Err(flaw(all, FlawKind::BeyondEnd { steps: all }));
    }
    let epochs: Vec<Result<Epoch, Flaw>> =
        (0..end.div_ceil(per_epoch)).into_par_iter().map(|epoch| prove_epoch(plan, epoch, kept, steps)).collect();
    Ok(Proven { steps, epochs: epochs.into_iter().collect::<Result<_, _>>()? })
}

fn prove_epoch(plan: &Plan, number: u64, kept: &[Kept], needed: u64) -> Result<Epoch, Flaw> {
    let per_epoch = plan.steps_per_epoch();
    let steps = number * per_epoch..(number + 1) * per_epoch;
    let order = Order::new(plan, number, &steps)?;
    let needed = needed.clamp(steps.start, steps.end);
    let mut epoch = Epoch { epoch: number, steps: 0, samples: 0, left_out: plan.samples(), generations: Vec::new() };
    let mut seen = vec![false; order.samples.len()];
    let (mut next, mut before) = (steps.start, None);
    let missing = |next, until| Flaw { step: next, lane: None, kind: FlawKind::Missing { missing: until - next } };
    for one in kept.iter().filter(|one| steps.contains(&one.steps.start)) {
        if one.steps.start > next && next < needed {
            return Err(missing(next, one.steps.start.min(needed)));
        }
        if let Some(first) = before.filter(|_| one.steps.start < next) {
            let kind = FlawKind::Twice { first, second: one.range.generation };
            return Err(Flaw { step: one.steps.start, lane: None, kind });
        }
        order.compare(one)?;
        for step in one.steps.clone() {
            order.mark(step, &mut seen)?;
        }
        (next, before) = (one.steps.end, Some(one.range.generation));
        epoch.steps += one.steps.end - one.steps.start;
        if epoch.generations.last() != Some(&one.range.generation) {
            epoch.generations.push(one.range.generation);
        }
    }
    if next < needed {
        return Err(missing(next, needed));
    }
    epoch.samples = epoch.steps * plan.batch();
    epoch.left_out -= epoch.samples;
    if epoch.steps == per_epoch && epoch.left_out >= plan.batch() {
        let kind = FlawKind::LeftOut { left_out: epoch.left_out, batch: plan.batch() };
        return Err(Flaw { step: steps.end - 1, lane: None, kind });
    }
    Ok(epoch)
}

/// An epoch's plan with the samples of all its positions.
struct Order<'a> {
    plan: &'a Plan,
    steps: &'a Steps<u64>,
    epoch: u64,
    positions: EpochPlan,
    samples: Vec<u64>,
}

impl<'a> Order<'a> {
    fn new(plan: &'a Plan, epoch: u64, steps: &'a Steps<u64>) -> Result<Self, Flaw> {
        let none = |e| Flaw { step: steps.start, lane: None, kind: FlawKind::NoPlan(e) };
        let positions = plan.epoch(epoch).map_err(none)?;
        Ok(Self { plan, steps, epoch, samples: positions.order(), positions })
    }

    fn first_position(&self, step: u64, lane: u32) -> u64 {
        self.positions.first_position(step - self.steps.start, lane)
    }

    fn samples(&self, step: u64, lane: u32) -> &[u64] {
        let first = self.first_position(step, lane) as usize;
        &self.samples[first..first + self.plan.samples_per_lane as usize]
    }

    /// Whether a range says what the plan says, also of the steps that were rolled back.
    fn compare(&self, one: &Kept) -> Result<(), Flaw> {
        let range = &one.range;
        let flaw = |step, lane, kind| Err(Flaw { step, lane, kind });
        if range.epoch != self.epoch {
            return flaw(one.steps.start, None, FlawKind::OtherEpoch { said: range.epoch, planned: self.epoch });
        }
        if range.end() > self.steps.end {
            let kind = FlawKind::OtherEpoch { said: range.epoch, planned: self.epoch + 1 };
            return flaw(self.steps.end, None, kind);
        }
        let word = |lane: Option<u32>| lane.map_or_else(|| "no more lanes".to_owned(), |lane| format!("lane {lane}"));
        for at in 0..range.lanes.len().max(self.plan.lanes as usize) {
            let planned = u32::try_from(at).ok().filter(|lane| *lane < self.plan.lanes);
            let said = range.lanes.get(at).copied();
            let (Some(lane), Some((said_lane, position))) = (planned, said.filter(|(lane, _)| Some(*lane) == planned))
            else {
                let kind = FlawKind::OtherLane { said: word(said.map(|(lane, _)| lane)), planned: word(planned) };
                return flaw(range.step, planned.or(said.map(|(lane, _)| lane)), kind);
            };
            let right = self.first_position(range.step, lane);
            if position != right {
                let kind = FlawKind::OtherPosition { said: position, planned: right };
                return flaw(range.step, Some(said_lane), kind);
            }
        }
        if range.steps > 1 && range.stride != u64::from(self.plan.samples_per_lane) {
            let (lane, position) = range.lanes[0];
            let (said, planned) = (position.saturating_add(range.stride), self.first_position(range.step + 1, lane));
            return flaw(range.step + 1, Some(lane), FlawKind::OtherPosition { said, planned });
        }
        let mut digest = Digest::default();
        for step in range.step..range.end() {
            (0..self.plan.lanes).for_each(|lane| digest.add(sample_digest(self.samples(step, lane))));
        }
        let planned = digest.value();
        if planned == range.digest {
            return Ok(());
        }
        let (step, end, said) = (range.step, range.end(), range.digest);
        flaw(step, None, FlawKind::OtherSamplesInRange { step, end, said, planned })
    }

    fn mark(&self, step: u64, seen: &mut [bool]) -> Result<(), Flaw> {
        for lane in 0..self.plan.lanes {
            for &sample in self.samples(step, lane) {
                let again = seen.get_mut(sample as usize).is_none_or(|seen| std::mem::replace(seen, true));
                if again {
                    return Err(Flaw { step, lane: Some(lane), kind: FlawKind::SampleTwice { sample } });
                }
            }
        }
        Ok(())
    }
}

/// The first step and lane whose samples are not those of the plan, where workers audited and the history so has each
/// lane's digest: it says more than the one digest of a range.
#[must_use]
pub fn first_differing(plan: &Plan, history: &[StepRecord], steps: Steps<u64>) -> Option<Flaw> {
    let per_epoch = plan.steps_per_epoch();
    let audited = history.iter().filter(|record| steps.contains(&record.step) && !record.lanes.is_empty());
    for record in audited {
        let number = record.step.checked_div(per_epoch)?;
        let positions = plan.epoch(number).ok()?;
        for lane in record.lanes.iter().filter(|lane| lane.lane < plan.lanes) {
            let planned = sample_digest(&positions.samples(record.step - number * per_epoch, lane.lane));
            if lane.sample_digest != planned {
                let kind = FlawKind::OtherSamples { said: lane.sample_digest, planned };
                return Some(Flaw { step: record.step, lane: Some(lane.lane), kind });
            }
        }
    }
    None
}
