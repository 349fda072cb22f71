//! Versions of the workers' program. Another build may compute other bits: a reproducible job never mixes them in one
//! generation, and a fast one says once that it does.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::{Generation, Job, Worker};
use crate::{Core, Session};

impl Core {
    /// The version that a reproducible job takes of these workers: that of those who hold its state, else the most frequent
    /// one. `None`: any will do.
    pub(crate) fn version_among<'a>(&self, job: &Job, workers: impl Iterator<Item = &'a Worker>) -> Option<String> {
        if !job.job.spec.reproducible {
            return None;
        }
        let mut versions: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for worker in workers {
            let (holders, all) = versions.entry(&worker.info.version).or_default();
            *holders += usize::from(job.is_held_by(worker));
            *all += 1;
        }
        let chosen = versions.into_iter().max_by_key(|(version, counts)| (*counts, *version));
        chosen.map(|(version, _)| version.to_owned())
    }

    /// The version with which the members of a generation of a reproducible job began; `None`: any will do.
    pub(crate) fn version_of(&self, job: &Job, generation: &Generation) -> Option<&str> {
        let first = generation.members.first().filter(|_| job.job.spec.reproducible)?;
        self.workers.get(&first.session).map(|w| w.info.version.as_str())
    }

    /// Says once that a fast job has workers of several versions.
    pub(crate) fn announce_versions(&mut self, name: &str, sessions: &[Session]) {
        let workers = sessions.iter().filter_map(|session| self.workers.get(session));
        let versions: BTreeSet<&str> = workers.map(|w| w.info.version.as_str()).collect();
        if versions.len() < 2 {
            return;
        }
        let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
        let Some(job) = self.jobs.get_mut(name) else { return };
        if !std::mem::replace(&mut job.mixed_versions, true) {
            let message =
                format!("its workers are of versions {versions}, which may differ in the last bits of a number");
            self.announce(name, "MixedVersions", message, true);
        }
    }
}
