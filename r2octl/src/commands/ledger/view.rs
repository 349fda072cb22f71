//! What the ledger's commands print. Steps and epochs count from 0, as in the history.

use r2o_storage::ledger::Kept;
use r2o_storage::ledger::proof::{Epoch, Flaw, Plan, Proven};
use serde::Serialize;

use super::{generations, steps};
use crate::format::{count, duration, time};
use crate::table::{finish, table};

/// One range of steps.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RangeView {
    first_step: u64,
    last_step: u64,
    epoch: u64,
    generation: u64,
    lanes: usize,
    stride: u64,
    /// XXH3 over the samples of all steps that were written.
    digest: String,
    /// Steps that were written and then rolled back.
    rolled_back: u64,
    began_at: String,
    ended_at: String,
    #[serde(skip)]
    seconds: f64,
}

impl From<&Kept> for RangeView {
    fn from(kept: &Kept) -> Self {
        let range = &kept.range;
        Self {
            first_step: kept.steps.start,
            last_step: kept.steps.end - 1,
            epoch: range.epoch,
            generation: range.generation,
            lanes: range.lanes.len(),
            stride: range.stride,
            digest: format!("{:016x}", range.digest),
            rolled_back: range.end() - kept.steps.end,
            began_at: time(range.first_unix_ms),
            ended_at: time(range.last_unix_ms),
            seconds: (range.last_unix_ms - range.first_unix_ms) as f64 / 1000.0,
        }
    }
}

/// The ranges, one a line.
pub(super) fn ranges(ranges: &[RangeView]) -> String {
    let header = ["STEPS", "EPOCH", "GENERATION", "LANES", "STRIDE", "ROLLED BACK", "BEGAN", "TOOK", "XXH3"];
    let mut table = table(&header, &header[..6]);
    for r in ranges {
        table.add_row([
            span(r.first_step, r.last_step),
            r.epoch.to_string(),
            r.generation.to_string(),
            r.lanes.to_string(),
            r.stride.to_string(),
            r.rolled_back.to_string(),
            r.began_at.clone(),
            duration(r.seconds),
            r.digest.clone(),
        ]);
    }
    finish(&table)
}

fn span(first: u64, last: u64) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// What verifying a run found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VerifiedView {
    job: String,
    exactly_once: bool,
    /// Steps in the newest checkpoint: so far the ledger must reach.
    checkpoint_step: u64,
    steps_per_epoch: u64,
    /// Steps that the ledger has, each once.
    steps: u64,
    /// Samples of the data set.
    samples: u64,
    /// Samples of all epochs that were trained on.
    samples_seen: u64,
    /// Ranges that were rolled back as a whole.
    ranges_rolled_back: usize,
    epochs: Vec<EpochView>,
    /// The first that is wrong; null: nothing.
    flaw: Option<FlawView>,
}

/// What was shown of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EpochView {
    epoch: u64,
    steps: u64,
    samples: u64,
    left_out: u64,
    generations: Vec<u64>,
}

impl From<&Epoch> for EpochView {
    fn from(e: &Epoch) -> Self {
        let generations = e.generations.clone();
        Self { epoch: e.epoch, steps: e.steps, samples: e.samples, left_out: e.left_out, generations }
    }
}

/// What is wrong first.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlawView {
    step: u64,
    lane: Option<u32>,
    why: String,
}

impl VerifiedView {
    pub(super) fn new(
        job: &str,
        plan: &Plan,
        proven: &Result<Proven, Flaw>,
        checkpoint_step: u64,
        ranges_rolled_back: usize,
    ) -> Self {
        let epochs: Vec<EpochView> = proven.iter().flat_map(|proven| &proven.epochs).map(EpochView::from).collect();
        Self {
            job: job.to_owned(),
            exactly_once: proven.is_ok(),
            checkpoint_step,
            steps_per_epoch: plan.steps_per_epoch(),
            steps: epochs.iter().map(|e| e.steps).sum(),
            samples: plan.samples(),
            samples_seen: epochs.iter().map(|e| e.samples).sum(),
            ranges_rolled_back,
            flaw: proven.as_ref().err().map(|flaw| FlawView {
                step: flaw.step,
                lane: flaw.lane,
                why: flaw.kind.to_string(),
            }),
            epochs,
        }
    }

    /// A line per run of epochs that look the same, and a sentence; nothing when it is not proven.
    pub(super) fn table(&self) -> String {
        if !self.exactly_once {
            return String::new();
        }
        let header = ["EPOCH", "STEPS", "SAMPLES", "LEFT OUT", "GENERATIONS"];
        let mut table = table(&header, &header[..4]);
        let alike = |a: &EpochView, b: &EpochView| *a == EpochView { epoch: a.epoch, ..b.clone() };
        for same in self.epochs.chunk_by(alike) {
            let (first, last) = (&same[0], same[same.len() - 1].epoch);
            table.add_row([
                span(first.epoch, last),
                format!("{}/{}", first.steps, self.steps_per_epoch),
                first.samples.to_string(),
                if first.steps == self.steps_per_epoch { first.left_out.to_string() } else { "-".to_owned() },
                generations(&first.generations),
            ]);
        }
        let until = match self.checkpoint_step {
            0 => "there is no checkpoint yet".to_owned(),
            step => format!("the newest checkpoint is after step {step}"),
        };
        format!(
            "{}\nexactly once: job `{}`, {} over {}, {} of a set of {}; {until}",
            finish(&table),
            self.job,
            steps(self.steps),
            count(self.epochs.len() as u64, "epoch"),
            count(self.samples_seen, "sample"),
            self.samples,
        )
    }
}
