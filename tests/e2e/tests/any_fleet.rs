//! Promise 1, same run on any fleet: order, augmentation, first masks and losses do not depend on the number of workers.

use anyhow::Result;
use r2o_e2e::{Run, demo_job, train};
use tempfile::TempDir;

/// Four steps an epoch: 20 steps.
const EPOCHS: u64 = 5;
const FLEETS: [u32; 3] = [1, 2, 3];

async fn runs(variant: &str, mask_prediction: bool) -> Result<(TempDir, Vec<Run>)> {
    let folder = tempfile::tempdir()?;
    let mut runs = Vec::new();
    for workers in FLEETS {
        let mut job = demo_job(&format!("{variant}-{workers}"), folder.path(), EPOCHS)?;
        job.spec.method.mask_prediction.enabled = mask_prediction;
        runs.push(train(&job, workers).await?);
    }
    Ok((folder, runs))
}

fn assert_same_data(runs: &[Run]) {
    for run in runs {
        assert_eq!(run.steps.len(), 20);
        assert_eq!(run.ledger(), runs[0].ledger(), "another order of samples");
        assert_eq!(run.pixels(), runs[0].pixels(), "other augmented pixels");
        assert!(run.pixels().values().all(|digest| *digest != 0), "the audit is on");
        assert_eq!(run.masks_of_step(0), runs[0].masks_of_step(0), "other masks in the first step");
        assert!(run.masks_of_step(0).values().all(|digest| *digest != 0), "the audit is on");
    }
}

fn assert_losses_within(runs: &[Run], steps: usize, tolerance: f64) {
    for run in &runs[1..] {
        for (step, (a, b)) in runs[0].losses().iter().zip(run.losses()).take(steps).enumerate() {
            assert!((a - b).abs() <= tolerance, "step {step}: loss {a} on one worker, {b} on another fleet");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mask_prediction_losses_agree_over_twenty_steps() -> Result<()> {
    let (_folder, runs) = runs("prior-masks", false).await?;
    assert_same_data(&runs);
    assert_losses_within(&runs, 20, 1e-4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mask_prediction_losses_agree_over_the_first_steps() -> Result<()> {
    let (_folder, runs) = runs("predicted-masks", true).await?;
    assert_same_data(&runs);
    assert_losses_within(&runs, 5, 1e-3);
    Ok(())
}
