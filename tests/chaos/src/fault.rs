//! What can happen, and when: a function of the seed.

use std::fmt;

use r2o_types::random::Keyed;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// SIGKILL of one of several workers.
    KillWorker,
    /// SIGSTOP of one of several workers until it has lost its place, then SIGCONT.
    StopWorker,
    /// SIGSTOP of a worker for less than its lease, several times.
    SlowWorker,
    /// SIGTERM of one of several workers.
    DrainWorker,
    /// One more worker.
    AddWorker,
    /// SIGKILL of the coordinator, and a new one in its place.
    KillCoordinator,
    /// SIGSTOP of the coordinator for longer than the workers' lease, then SIGCONT.
    StopCoordinator,
    /// SIGKILL of all workers at once, and new ones.
    KillFleet,
    /// A flipped bit in the newest checkpoint, then [`Kind::KillFleet`].
    DamageAndKillFleet,
    /// The checkpoints' storage is away for some steps.
    StorageAway,
    /// SIGTERM of all workers at once, and new ones.
    DrainFleet,
    /// SIGTERM of the coordinator, and a new one in its place.
    StopCoordinatorInOrder,
    /// The disk of the checkpoints is full for some steps.
    FullDisk,
    /// SIGKILL of the S3 server with journal and checkpoints, which comes back some steps later.
    KillStorage,
    /// One of several workers is cut off from everybody until it has lost its place.
    CutWorker,
    /// Two workers are cut off from each other, and from nobody else, until it is noticed.
    CutPair,
}

impl Kind {
    /// All kinds, and how often each is drawn.
    const WEIGHTS: [(Self, u64); 16] = [
        (Self::KillWorker, 5),
        (Self::StopWorker, 2),
        (Self::SlowWorker, 1),
        (Self::DrainWorker, 2),
        (Self::AddWorker, 3),
        (Self::KillCoordinator, 2),
        (Self::StopCoordinator, 1),
        (Self::KillFleet, 1),
        (Self::DamageAndKillFleet, 1),
        (Self::StorageAway, 1),
        (Self::DrainFleet, 1),
        (Self::StopCoordinatorInOrder, 1),
        (Self::FullDisk, 1),
        (Self::KillStorage, 2),
        (Self::CutWorker, 3),
        (Self::CutPair, 2),
    ];

    /// Whether it makes sense for so many workers.
    #[must_use]
    pub fn suits(self, workers: usize) -> bool {
        match self {
            Self::KillWorker | Self::StopWorker | Self::DrainWorker | Self::CutWorker | Self::CutPair => workers >= 2,
            Self::AddWorker => workers < 4,
            _ => true,
        }
    }

    /// Whether the fleet goes back to a checkpoint.
    #[must_use]
    pub fn loses_steps(self) -> bool {
        matches!(self, Self::KillFleet | Self::DamageAndKillFleet)
    }

    /// Whether nobody is left who holds the state.
    #[must_use]
    pub fn takes_all_workers(self) -> bool {
        self.loses_steps() || self == Self::DrainFleet
    }

    /// Whether a new generation follows.
    #[must_use]
    pub fn ends_generation(self) -> bool {
        !matches!(
            self,
            Self::SlowWorker | Self::StopCoordinator | Self::StorageAway | Self::FullDisk | Self::KillStorage
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillWorker => "kill -9 of a worker",
            Self::StopWorker => "SIGSTOP of a worker",
            Self::SlowWorker => "a slow worker",
            Self::DrainWorker => "SIGTERM of a worker",
            Self::AddWorker => "one more worker",
            Self::KillCoordinator => "kill -9 of the coordinator",
            Self::StopCoordinator => "SIGSTOP of the coordinator for 3 s",
            Self::KillFleet => "kill -9 of all workers",
            Self::DamageAndKillFleet => "a flipped bit in the newest checkpoint, then kill -9 of all workers",
            Self::StorageAway => "checkpoint storage away",
            Self::DrainFleet => "SIGTERM of all workers",
            Self::StopCoordinatorInOrder => "SIGTERM of the coordinator",
            Self::FullDisk => "a full disk for checkpoints",
            Self::KillStorage => "kill -9 of the S3 server",
            Self::CutWorker => "a worker cut off from the network",
            Self::CutPair => "two workers cut off from each other",
        })
    }
}

/// A fault: what, after how many more steps and which part of the next one, and to whom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// Committed steps since the fleet had recovered from the fault before.
    pub steps: u64,
    /// How long after that step's commit, in milliseconds.
    pub delay_ms: u64,
    /// Which worker, modulo the number of those that are there.
    pub target: usize,
}

/// The faults of the `run`th run of a seed, of kinds that can happen there.
#[must_use]
pub fn draw(seed: u64, run: u64, faults: usize, can_happen: impl Fn(Kind) -> bool) -> Vec<Fault> {
    let mut random = Keyed::new("chaos", &[seed, run]);
    let kinds: Vec<(Kind, u64)> = Kind::WEIGHTS.into_iter().filter(|(kind, _)| can_happen(*kind)).collect();
    let total: u64 = kinds.iter().map(|(_, weight)| weight).sum();
    let mut one = || {
        let mut ticket = random.below(total);
        let kind = kinds.iter().find(|(_, weight)| {
            let hit = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            hit
        });
        Fault {
            kind: kind.map_or(Kind::KillWorker, |(kind, _)| *kind),
            steps: 1 + random.below(4),
            delay_ms: random.below(400),
            target: usize::try_from(random.below(12)).unwrap_or(0),
        }
    };
    (0..faults).map(|_| one()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults_and_all_kinds_come() {
        let any = |_| true;
        assert_eq!(draw(3, 0, 40, any), draw(3, 0, 40, any));
        assert_ne!(draw(3, 0, 40, any), draw(4, 0, 40, any));
        assert_ne!(draw(3, 0, 40, any), draw(3, 1, 40, any));
        let drawn = draw(1, 0, 400, any);
        assert!(Kind::WEIGHTS.iter().all(|(kind, _)| drawn.iter().any(|fault| fault.kind == *kind)));
        assert!(draw(1, 0, 40, |kind| kind == Kind::CutPair).iter().all(|fault| fault.kind == Kind::CutPair));
    }
}
