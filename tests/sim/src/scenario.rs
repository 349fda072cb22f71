//! What a seed is about: the fleet, the jobs, the network's and the storage's manners, and what may go wrong.

use r2o_coordinator_core::{Budgets, Config};
use r2o_worker_core::Failure;

use crate::course::{Course, Shape};
use crate::dice::Dice;
use crate::fault::Kind;

/// What a seed lets happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Nothing.
    Calm,
    /// Workers are killed one at a time; others live.
    KillWorkers,
    /// Only coordinators are killed.
    KillCoordinators,
    /// All workers are killed at once.
    KillFleets,
    /// Everything, and streams keep their order.
    Everything,
    /// Everything, and messages of one stream come twice and in another order.
    Unruly,
    /// Replicas are damaged, and workers killed.
    Replicas,
}

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) profile: Profile,
    pub(crate) workers: usize,
    pub(crate) seats: usize,
    pub(crate) jobs: usize,
    /// The longest usual way of a message, in milliseconds.
    pub(crate) delay: u64,
    /// Messages that take much longer, in a thousand.
    pub(crate) late: u64,
    /// Messages of a stream that are out of order or come twice, in a thousand.
    pub(crate) unruly: u64,
    /// Aborts that do not wake a thread, in a thousand.
    pub(crate) stuck: u64,
    /// Groups that do not form, in a thousand.
    pub(crate) form_fails: u64,
    pub(crate) flaky: u64,
    pub(crate) mute: u64,
    pub(crate) config: Config,
    /// In milliseconds.
    pub(crate) leader_lease: u64,
    pub(crate) compact_after: u64,
    /// Seconds in which things go wrong.
    pub(crate) span: u64,
    pub(crate) faults: usize,
    pub(crate) wishes: usize,
    /// Whether workers that start again may be of another version.
    pub(crate) upgrades: bool,
    pub(crate) kinds: &'static [(Kind, u64)],
}

impl Scenario {
    pub(crate) fn draw(seed: u64, dice: &mut Dice) -> Self {
        let profile = match seed % 16 {
            0 => Profile::Calm,
            1 | 2 => Profile::KillWorkers,
            3 => Profile::KillCoordinators,
            4 => Profile::KillFleets,
            5 | 6 => Profile::Unruly,
            7 => Profile::Replicas,
            _ => Profile::Everything,
        };
        let wild = matches!(profile, Profile::Everything | Profile::Unruly);
        let many = wild && dice.chance(20);
        let workers = if many { dice.between(20, 40) } else { dice.between(2, 9) };
        let parity = matches!(profile, Profile::Replicas) || dice.chance(300);
        let config = Config {
            join_window_ms: 2_000,
            form_timeout_ms: 20_000,
            stall_ms: 20_000,
            window: dice.between(2, 9),
            parity_steps: if parity { dice.between(1, 5) } else { 0 },
            quarantine_ms: 3_000,
            budgets: Budgets { preemption: 10_000, infrastructure: 10_000, code: 10_000, ..Budgets::default() },
            ..Config::default()
        };
        let wildly = |dice: &mut Dice, most: u64| if wild && dice.chance(500) { dice.between(1, most) } else { 0 };
        Self {
            profile,
            workers: workers as usize,
            seats: if wild { 2 } else { 1 },
            jobs: if many { 6 } else { dice.between(1, 5) as usize },
            delay: dice.between(2, 40),
            late: wildly(dice, 30),
            unruly: if profile == Profile::Unruly { dice.between(5, 100) } else { 0 },
            stuck: wildly(dice, 100),
            form_fails: wildly(dice, 80),
            flaky: wildly(dice, 80),
            mute: wildly(dice, 80),
            config,
            leader_lease: 6_000,
            compact_after: dice.between(8, 60),
            span: if profile == Profile::Calm { 10 } else { dice.between(20, 60) },
            faults: if wild { dice.between(4, 24) as usize } else { 6 },
            wishes: if wild { dice.between(0, 12) as usize } else { 0 },
            upgrades: wild && dice.chance(400),
            kinds: kinds(profile),
        }
    }

    pub(crate) fn courses(&self, seed: u64, dice: &mut Dice) -> Vec<Course> {
        let one = |at: usize, dice: &mut Dice| {
            let mut shape = Shape::draw(dice, self.workers as u64);
            if self.is_strict() {
                // Workers enough for everybody, so that nobody waits for anybody.
                (shape.least, shape.epochs) = (1, shape.epochs + 6);
            }
            Course::new(&format!("j{at}"), seed.wrapping_mul(31).wrapping_add(at as u64), shape)
        };
        (0..self.jobs).map(|at| one(at, dice)).collect()
    }

    /// Whether so little goes wrong that no committed step may be lost while a process that holds it lives.
    pub(crate) fn is_strict(&self) -> bool {
        matches!(self.profile, Profile::Calm | Profile::KillWorkers | Profile::KillCoordinators)
    }

    /// Storage that does not answer says nothing against the job.
    pub(crate) fn load_failure(&self, reason: String) -> Failure {
        Failure::Collective(reason)
    }
}

fn kinds(profile: Profile) -> &'static [(Kind, u64)] {
    match profile {
        Profile::Calm => &[],
        Profile::KillWorkers => &[(Kind::KillOfSeveral, 1)],
        Profile::KillCoordinators => &[(Kind::KillCoordinator, 1)],
        Profile::KillFleets => &[(Kind::KillFleet, 2), (Kind::DamageCheckpoint, 1)],
        Profile::Replicas => &[(Kind::FlipBit, 3), (Kind::KillOfSeveral, 2)],
        Profile::Everything | Profile::Unruly => &[
            (Kind::KillWorker, 8),
            (Kind::LoseWorker, 3),
            (Kind::StopWorker, 4),
            (Kind::SlowWorker, 2),
            (Kind::Drain, 4),
            (Kind::DrainTwice, 2),
            (Kind::RemoveWorker, 2),
            (Kind::Partition, 4),
            (Kind::BreakStream, 4),
            (Kind::BreakSilently, 3),
            (Kind::KillCoordinator, 4),
            (Kind::StopCoordinator, 3),
            (Kind::RivalCoordinator, 4),
            (Kind::ClockJump, 2),
            (Kind::KillFleet, 1),
            (Kind::DamageCheckpoint, 2),
            (Kind::StorageAway, 4),
            (Kind::StorageSlow, 2),
        ],
    }
}
