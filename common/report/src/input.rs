//! What a report is made of.

use std::collections::BTreeMap;

use r2o_storage::gallery::GalleryPage;
use r2o_storage::history::StepRecord;
use r2o_storage::run::EventRecord;
use serde_json::Value;

/// All facts of a run that its report shows. Empty parts are left out of the page.
#[derive(Debug, Clone, Default)]
pub struct ReportInput {
    /// Where the run lies.
    pub url: String,
    /// The resolved TrainJob; null when it is unknown.
    pub job: Value,
    /// Committed steps in order.
    pub records: Vec<StepRecord>,
    /// Gallery pages in the order of their epochs.
    pub pages: Vec<GalleryPage>,
    /// Events in order.
    pub events: Vec<EventRecord>,
    /// Checkpoints, oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// Versions of the programs that took part.
    pub versions: BTreeMap<String, String>,
}

/// A checkpoint as the report lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Committed steps.
    pub step: u64,
    /// Whole epochs.
    pub epoch: u64,
    /// Tensors of the state.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong with its manifest; `None`: nothing.
    pub damage: Option<String>,
}

impl ReportInput {
    /// The job's name, or the run's URL when the job is unknown.
    pub fn name(&self) -> &str {
        self.job.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(&self.url)
    }
}
