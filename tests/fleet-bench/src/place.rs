//! A folder with a data set that has only an index, and the job on it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use r2o_proto::v1::SubmitRequest;
use r2o_storage::shard::{ChunkEntry, FORMAT, INDEX, PackedPrior, SetIndex, ShardEntry};
use r2o_test_kit::Coordinator;
use tempfile::TempDir;

use crate::JOB;

/// Steps of an epoch.
const STEPS: u32 = 1_000;

pub(crate) struct Place(TempDir);

impl Place {
    /// A set of so many samples that an epoch of one sample per lane has [`STEPS`] steps.
    pub(crate) fn new(lanes: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("r2o-fleet-bench-").tempdir()?;
        let samples = u32::try_from(lanes)?.checked_mul(STEPS).context("too many lanes")?;
        let shard = ShardEntry {
            file: "shard-000000.tar".to_owned(),
            bytes: 3,
            blake3: "00".repeat(32),
            index: "shard-000000.json".to_owned(),
            index_blake3: "00".repeat(32),
            chunks: vec![ChunkEntry { offset: 0, bytes: 3, samples, blake3: "00".repeat(32) }],
        };
        let prior = PackedPrior { segments: 100, size: 224, definition: "slic".to_owned() };
        let set = SetIndex { format: FORMAT, prior, classes: Vec::new(), shards: vec![shard] };
        let path = folder.path().join("set");
        fs::create_dir(&path)?;
        fs::write(path.join(INDEX), serde_json::to_string(&set)?)?;
        fs::write(path.join("shard-000000.tar"), "tar")?;
        Ok(Self(folder))
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn state(&self) -> String {
        self.0.path().join("state").display().to_string()
    }

    /// Submits a job of one lane per worker, which goes on without one in a hundred of them.
    pub(crate) async fn submit(&self, coordinator: &Coordinator, workers: usize) -> Result<()> {
        let job = serde_json::json!({
            "apiVersion": "r2o.dev/v1", "kind": "TrainJob", "metadata": {"name": JOB},
            "spec": {
                "epochs": 1_000,
                "data": {"url": self.folder().join("set")},
                "batch": {"lanes": workers, "samplesPerLane": 1},
                "method": {"curriculum": {"kind": "constant", "k": 4}},
                "optimizer": {"warmupEpochs": 0},
                "fleet": {"minWorkers": workers - workers / 100, "maxWorkers": workers},
                "checkpoint": {"url": self.folder().join("run"), "every": {"epochs": 1_000}},
            }
        });
        let request = SubmitRequest { spec: job.to_string(), dry_run: false };
        coordinator.jobs().await?.submit(request).await.context("the job is refused")?;
        Ok(())
    }
}
