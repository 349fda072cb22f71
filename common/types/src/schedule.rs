//! The schedules of METHOD: K, tau and the learning rate as pure functions of the step.

use std::f64::consts::PI;

use crate::job::{Curriculum, JobSpec, OptimizerSpec};

/// Above this many clusters K-means is not run and the masks are the prior (the release's rule).
pub const K_MAX: u32 = 128;

/// Where a run stands at one step, and what the schedules say there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// 0-based epoch.
    pub epoch: u64,
    /// 0-based step inside the epoch.
    pub step_in_epoch: u64,
    /// Clusters per lane; above [`K_MAX`] the masks are the prior.
    pub k: u32,
    /// EMA momentum of the target network.
    pub tau: f64,
    /// Learning rate.
    pub learning_rate: f64,
}

/// The schedules of one job on one data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    steps_per_epoch: u64,
    steps: u64,
    curriculum: Curriculum,
    base_tau: f64,
    final_tau: f64,
    peak_learning_rate: f64,
    warmup_steps: f64,
    scale_by_k: Option<f64>,
}

impl Schedule {
    /// The schedules of a job whose epochs have `steps_per_epoch` steps.
    #[must_use]
    pub fn new(job: &JobSpec, steps_per_epoch: u64) -> Self {
        let OptimizerSpec { base_learning_rate, scale_learning_rate_by_k, warmup_epochs, .. } = job.optimizer;
        let batch = f64::from(job.batch.lanes) * f64::from(job.batch.samples_per_lane);
        Self {
            steps_per_epoch: steps_per_epoch.max(1),
            steps: steps_per_epoch.max(1) * job.epochs,
            curriculum: job.method.curriculum.clone(),
            base_tau: job.model.target_momentum.base,
            final_tau: job.model.target_momentum.final_,
            peak_learning_rate: base_learning_rate * batch / 256.0,
            warmup_steps: warmup_epochs * steps_per_epoch as f64,
            scale_by_k: scale_learning_rate_by_k,
        }
    }

    /// Steps of the whole job.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What holds at a 0-based step.
    #[must_use]
    pub fn at(&self, step: u64) -> Clock {
        let epoch = step / self.steps_per_epoch;
        let k = k_at(&self.curriculum, epoch + 1);
        let scale = self.scale_by_k.map_or(1.0, |by| f64::from(k) / by);
        Clock {
            epoch,
            step_in_epoch: step % self.steps_per_epoch,
            k,
            tau: self.tau(step),
            learning_rate: self.base_rate(step) * scale,
        }
    }

    /// 1 - (1 - base) * (cos(pi * step / steps) + 1) / 2 for a final value of 1; in general from base to final.
    fn tau(&self, step: u64) -> f64 {
        let cosine = ((PI * step as f64 / self.steps.max(1) as f64).cos() + 1.0) / 2.0;
        self.final_tau - (self.final_tau - self.base_tau) * cosine
    }

    /// Linear from 0 over the warm-up, then a half cosine to 0.
    fn base_rate(&self, step: u64) -> f64 {
        let step = step as f64;
        if step < self.warmup_steps {
            return self.peak_learning_rate * step / self.warmup_steps;
        }
        let left = (self.steps as f64 - self.warmup_steps).max(1.0);
        let progress = ((step - self.warmup_steps) / left).min(1.0);
        self.peak_learning_rate * ((PI * progress).cos() + 1.0) / 2.0
    }
}

/// K of an epoch counted from 1, truncated to an integer and at least 1 (the release's rule).
#[must_use]
pub fn k_at(curriculum: &Curriculum, epoch: u64) -> u32 {
    let epoch = epoch as f64;
    let value = match curriculum {
        Curriculum::Constant { k } => f64::from(*k),
        Curriculum::Linear { from, to, epochs } => {
            f64::from(*from) + (f64::from(*to) - f64::from(*from)) * progress(*epochs, epoch)
        }
        Curriculum::Cosine { from, to, epochs } => cosine(f64::from(*from), f64::from(*to), progress(*epochs, epoch)),
        Curriculum::Piecewise { steps } => {
            let reached = steps.iter().rev().find(|s| s.epoch as f64 <= epoch).or_else(|| steps.first());
            reached.map_or(1.0, |s| f64::from(s.k))
        }
    };
    // A hair above, so that a value that is an integer on paper is not truncated to the one below.
    (value + 1e-9).max(1.0) as u32
}

/// Falling: the quarter cosine `to + (from - to) * cos(pi/2 * p)`, which stays high for long. Rising (object to region):
/// the same curve mirrored in time, so that both spend the same number of epochs at each K.
fn cosine(from: f64, to: f64, progress: f64) -> f64 {
    if from >= to {
        to + (from - to) * (PI / 2.0 * progress).cos()
    } else {
        from + (to - from) * (PI / 2.0 * (1.0 - progress)).cos()
    }
}

fn progress(epochs: [u64; 2], epoch: f64) -> f64 {
    let (start, end) = (epochs[0] as f64, epochs[1] as f64);
    if end <= start { 1.0 } else { ((epoch - start) / (end - start)).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{CurriculumStep, TrainJob};

    fn imagenet() -> JobSpec {
        let text = "{apiVersion: r2o.dev/v1, kind: TrainJob, metadata: {name: a}, spec: {data: {url: /set}}}";
        TrainJob::parse(text).unwrap().spec
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn k_follows_the_quarter_cosine_with_epochs_counted_from_one() {
        let schedule = Schedule::new(&imagenet(), 312);
        assert_eq!(schedule.steps(), 300 * 312);
        for epoch in [0_u64, 1, 99, 149, 298] {
            let expected = (4.0 + 124.0 * (PI / 2.0 * (epoch + 1) as f64 / 300.0).cos()) as u32;
            assert_eq!(schedule.at(epoch * 312).k, expected, "epoch {epoch}");
        }
        assert_eq!(schedule.at(0).k, 127);
        assert_eq!(schedule.at(299 * 312).k, 4);
    }

    #[test]
    fn the_learning_rate_warms_up_from_zero_then_falls_and_follows_k() {
        let mut job = imagenet();
        job.optimizer.scale_learning_rate_by_k = None;
        let schedule = Schedule::new(&job, 312);
        let peak = 0.3 * 4096.0 / 256.0;
        close(schedule.at(0).learning_rate, 0.0);
        close(schedule.at(468).learning_rate, peak / 2.0);
        close(schedule.at(936).learning_rate, peak);
        assert!(schedule.at(300 * 312 - 1).learning_rate < 1e-6 * peak);

        let scaled = Schedule::new(&imagenet(), 312);
        let (plain, clock) = (schedule.at(2000).learning_rate, scaled.at(2000));
        close(clock.learning_rate, plain * f64::from(clock.k) / 16.0);
    }

    #[test]
    fn tau_goes_from_base_to_one() {
        let schedule = Schedule::new(&imagenet(), 10);
        close(schedule.at(0).tau, 0.99);
        close(schedule.at(1500).tau, 0.995);
        assert!(schedule.at(2999).tau < 1.0 && schedule.at(2999).tau > 0.999_999);
    }

    #[test]
    fn the_other_curricula() {
        let linear = Curriculum::Linear { from: 10, to: 20, epochs: [0, 10] };
        assert_eq!((k_at(&linear, 1), k_at(&linear, 10), k_at(&linear, 50)), (11, 20, 20));
        let rising = Curriculum::Cosine { from: 4, to: 16, epochs: [0, 100] };
        let falling = Curriculum::Cosine { from: 16, to: 4, epochs: [0, 100] };
        for epoch in 0..=100 {
            assert_eq!(k_at(&rising, epoch), k_at(&falling, 100 - epoch), "mirrored at {epoch}");
        }
        let at = |epoch, k| CurriculumStep { epoch, k };
        let piecewise = Curriculum::Piecewise { steps: vec![at(0, 1), at(150, 64), at(300, 32)] };
        let ks: Vec<u32> = [1, 149, 150, 299, 300, 900].map(|epoch| k_at(&piecewise, epoch)).to_vec();
        assert_eq!(ks, [1, 1, 64, 64, 32, 32]);
        assert_eq!(k_at(&Curriculum::Constant { k: 160 }, 3), 160, "above 128 the masks are the prior");
    }
}
