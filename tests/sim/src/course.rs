//! A job and the states of its undisturbed run, against which every disturbed one is held.

use r2o_coordinator_core::{LaneReport, Ticket};
use r2o_types::plan::{ChunkRef, EpochPlan};
use r2o_types::{Schedule, TrainJob, sample_digest, steps_per_epoch};

use crate::dice::{Dice, mix};

/// The tensors of a state.
pub(crate) const TENSORS: [&str; 3] = ["a", "b", "c"];

/// One lane's samples at one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneSamples {
    pub(crate) first: u64,
    pub(crate) digest: u64,
}

/// A job, its data and its undisturbed run.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) job: TrainJob,
    pub(crate) schedule: Schedule,
    pub(crate) steps_per_epoch: u64,
    pub(crate) lanes: u32,
    samples: Vec<Vec<LaneSamples>>,
    /// The state after so many steps.
    pub(crate) states: Vec<u64>,
}

/// The numbers of a job that a seed draws.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) lanes: u64,
    pub(crate) least: u64,
    pub(crate) most: u64,
    pub(crate) epochs: u64,
    pub(crate) per_epoch: u64,
    pub(crate) every: u64,
    pub(crate) keep: u64,
    pub(crate) priority: u64,
    pub(crate) reproducible: bool,
}

impl Shape {
    pub(crate) fn draw(dice: &mut Dice, workers: u64) -> Self {
        let lanes = dice.between(2, 7);
        let least = dice.between(1, 4).min(lanes).min(workers);
        Self {
            lanes,
            least,
            most: dice.between(least, 8),
            epochs: dice.between(2, 14),
            per_epoch: dice.between(2, 6),
            every: dice.between(1, 4),
            keep: dice.between(1, 4),
            priority: dice.between(0, 3),
            reproducible: dice.chance(500),
        }
    }
}

const SAMPLES_PER_LANE: u64 = 2;

impl Course {
    /// Panics when the job is impossible: the simulation itself wrote it.
    pub(crate) fn new(name: &str, seed: u64, shape: Shape) -> Self {
        let Shape { lanes, least, most, epochs, per_epoch, every, keep, priority, reproducible } = shape;
        let text = format!(
            "{{apiVersion: r2o.dev/v1, kind: TrainJob, metadata: {{name: {name}}}, spec: {{seed: {}, epochs: {epochs}, \
             priority: {priority}, reproducible: {reproducible}, data: {{url: /set}}, batch: {{lanes: {lanes}, \
             samplesPerLane: {SAMPLES_PER_LANE}}}, optimizer: {{warmupEpochs: 1}}, fleet: {{minWorkers: {least}, \
             maxWorkers: {most}}}, checkpoint: {{every: {{epochs: {every}}}, keep: {{last: {keep}}}}}}}}}",
            seed % 1_000
        );
        let job = TrainJob::parse(&text).expect("the simulation's own job is valid");
        let samples = lanes * SAMPLES_PER_LANE * per_epoch + seed % 3;
        let samples_of = |first: u64| ChunkRef { shard: 0, first, samples: (samples - first).min(5) as u32 };
        let chunks: Vec<ChunkRef> = (0..samples).step_by(5).map(samples_of).collect();
        let (lanes, per_lane) = (job.spec.batch.lanes, job.spec.batch.samples_per_lane);
        let per_epoch = steps_per_epoch(samples, lanes, per_lane);
        let schedule = Schedule::new(&job.spec, per_epoch);
        let mut course = Self {
            schedule,
            steps_per_epoch: per_epoch,
            lanes,
            samples: Vec::new(),
            states: vec![mix(0x5eed, job.spec.seed)],
            job,
        };
        for epoch in 0..epochs {
            let plan =
                EpochPlan::new(&chunks, course.job.spec.seed, epoch, lanes, per_lane, 2).expect("enough samples");
            for step in 0..per_epoch {
                let lane = |lane| LaneSamples {
                    first: plan.first_position(step, lane),
                    digest: sample_digest(&plan.samples(step, lane)),
                };
                course.samples.push((0..lanes).map(lane).collect());
            }
        }
        for step in 0..course.schedule.steps() {
            let lanes: Vec<LaneReport> = (0..course.lanes).map(|lane| course.lane(step, lane)).collect();
            let clock = course.schedule.at(step);
            let before = course.states[step as usize];
            let after = next_state(before, step, (clock.k, clock.tau, clock.learning_rate), &lanes);
            course.states.push(after);
        }
        course
    }

    pub(crate) fn steps(&self) -> u64 {
        self.schedule.steps()
    }

    /// What an honest worker reports of one of its lanes.
    pub(crate) fn lane(&self, step: u64, lane: u32) -> LaneReport {
        let samples = self.samples.get(step as usize).and_then(|lanes| lanes.get(lane as usize));
        LaneReport {
            lane,
            loss: 1.0 + f64::from(lane),
            valid_regions: 2.0,
            first_position: samples.map_or(0, |s| s.first),
            sample_digest: samples.map_or(0, |s| s.digest),
            ..LaneReport::default()
        }
    }

    /// Whether a ticket says what the schedules say.
    pub(crate) fn agrees(&self, ticket: &Ticket) -> bool {
        let clock = self.schedule.at(ticket.step);
        (clock.epoch, clock.step_in_epoch, clock.k) == (ticket.epoch, ticket.step_in_epoch, ticket.k)
            && clock.tau.to_bits() == ticket.tau.to_bits()
            && clock.learning_rate.to_bits() == ticket.learning_rate.to_bits()
    }
}

/// The state after a step: a hash over the one before, the ticket's values, and the samples of every lane.
pub(crate) fn next_state(before: u64, step: u64, (k, tau, rate): (u32, f64, f64), lanes: &[LaneReport]) -> u64 {
    let mut state = mix(before, step);
    for word in [u64::from(k), tau.to_bits(), rate.to_bits()] {
        state = mix(state, word);
    }
    lanes.iter().fold(state, |state, lane| mix(mix(state, u64::from(lane.lane)), lane.sample_digest))
}

/// The hash of one tensor of a state.
pub(crate) fn tensor(state: u64, at: usize) -> u64 {
    mix(state, at as u64 + 1)
}
