//! Queued jobs that lack workers take them from others: the surplus of jobs that are not ahead of them, and whole jobs of
//! lower priority. Whoever gives workers up finishes its step first, and goes on with what it keeps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::state::{Blame, Closing, Job, Phase, Wait, Worker};
use crate::{Core, Millis, Session};

impl Core {
    /// Claims workers for queued jobs, in the order of the queue, where that lets them start.
    pub(crate) fn claim(&mut self, now: Millis) {
        self.drop_claims();
        for name in self.queue() {
            if let Some(taken) = self.taken_for(&name) {
                self.take_workers(now, &name, &taken);
            }
        }
    }

    /// Nobody is kept for a job that does not wait for workers any more.
    fn drop_claims(&mut self) {
        let waits = |job: &Job| matches!(job.phase, Phase::Queued { .. } | Phase::Locating) && job.paused.is_none();
        let waiting: BTreeSet<&String> = self.jobs.iter().filter(|(_, j)| waits(j)).map(|(name, _)| name).collect();
        for worker in self.workers.values_mut() {
            self.unsettled |= worker.claimed.take_if(|name| !waiting.contains(name)).is_some();
        }
    }

    /// The workers that a queued job needs and may take, by the job that has them; `None`: it needs none, or they would
    /// not do.
    fn taken_for(&self, name: &str) -> Option<BTreeMap<String, Vec<Session>>> {
        let job = self.jobs.get(name)?;
        let Phase::Queued { wait: Wait::Workers | Wait::Behind(_) | Wait::Claimed(_), .. } = job.phase else {
            return None;
        };
        let least = job.job.spec.fleet.min_workers as usize;
        let device = job.job.spec.fleet.device;
        let able = self.workers.values().filter(|w| w.has_device(device) && w.draining.is_none());
        let version = self.version_among(job, able);
        let fits = |w: &Worker| version.as_ref().is_none_or(|version| w.info.version == *version);
        let theirs = |session: &Session| self.reserved.get(session).is_some_and(|other| other != name);
        let mine = |w: &Worker| w.claimed.as_ref().is_none_or(|other| other == name);
        let free = self
            .workers
            .iter()
            .filter(|(s, w)| w.is_free() && w.has_device(device) && fits(w) && mine(w) && !theirs(s));
        let coming = self.workers.values().filter(|w| w.job.is_some() && w.claimed.as_deref() == Some(name) && fits(w));
        let mut lacks = least.checked_sub(free.count() + coming.count()).filter(|lacks| *lacks > 0)?;
        let mut taken: BTreeMap<String, Vec<Session>> = BTreeMap::new();
        for whole in [false, true] {
            for (other, given) in self.donors(job, whole, &fits) {
                let more: Vec<Session> =
                    given.into_iter().filter(|s| !taken.get(&other).is_some_and(|t| t.contains(s))).collect();
                let count = more.len().min(lacks);
                taken.entry(other).or_default().extend(&more[..count]);
                lacks -= count;
                if lacks == 0 {
                    taken.retain(|_, sessions| !sessions.is_empty());
                    return Some(taken);
                }
            }
        }
        None
    }

    /// Jobs that train and the workers that each may lose to `job`: what it has beyond its minimum, or, of lower
    /// priority, all. The lowest priority and the youngest first.
    fn donors(&self, job: &Job, whole: bool, fits: &impl Fn(&Worker) -> bool) -> Vec<(String, Vec<Session>)> {
        let (priority, device) = (job.job.spec.priority, job.job.spec.fleet.device);
        let mut donors: Vec<(i32, Reverse<u64>, String, Vec<Session>)> = Vec::new();
        for (name, other) in &self.jobs {
            let theirs = other.job.spec.priority;
            if theirs > priority || whole && theirs == priority {
                continue;
            }
            let Some(generation) = other.active().filter(|g| g.training_since.is_some()) else { continue };
            if generation.granted >= other.steps() {
                // It is about to end by itself.
                continue;
            }
            let staying: Vec<Session> = generation
                .members
                .iter()
                .map(|m| m.session)
                .filter(|s| self.workers.get(s).is_some_and(|w| w.stays()))
                .collect();
            let keeps = if whole { 0 } else { other.job.spec.fleet.min_workers as usize };
            let spare = staying.len().saturating_sub(keeps);
            let suits = |s: &&Session| self.workers.get(s).is_some_and(|w| w.has_device(device) && fits(w));
            let given: Vec<Session> = staying.iter().rev().filter(suits).take(spare).copied().collect();
            donors.push((theirs, Reverse(other.order), name.clone(), given));
        }
        donors.sort();
        donors.into_iter().map(|(_, _, name, given)| (name, given)).collect()
    }

    fn take_workers(&mut self, now: Millis, name: &str, taken: &BTreeMap<String, Vec<Session>>) {
        for (other, sessions) in taken {
            for session in sessions {
                if let Some(worker) = self.workers.get_mut(session) {
                    worker.claimed = Some(name.to_owned());
                }
            }
            let reason = format!("gives {} of its workers to job {name}, which waits for them", sessions.len());
            self.announce(other, "Preempted", reason.clone(), false);
            self.close(now, other, Closing::new(reason, Blame::Preemption));
        }
        self.unsettled = true;
        let count = taken.values().map(Vec::len).sum();
        if let Some(Phase::Queued { wait, .. }) = self.jobs.get_mut(name).map(|job| &mut job.phase) {
            *wait = Wait::Claimed(count);
            self.changed.insert(name.to_owned());
        }
    }
}
