//! Jobs that train take free workers in: those prepare first, and join between two steps.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use crate::reason::listed;
use crate::state::{Blame, Closing, Generation, Job, Phase};
use crate::{Command, Core, Millis, Session};

/// What one job gets of the free workers.
struct Share {
    name: String,
    priority: i32,
    members: usize,
    room: usize,
    candidates: VecDeque<Session>,
    got: Vec<Session>,
}

impl Core {
    pub(crate) fn on_prepared(&mut self, now: Millis, session: Session, job: &str) {
        if let Some(worker) = self.workers.get_mut(&session)
            && let Some((name, since)) = &mut worker.prepared
            && name == job
        {
            since.get_or_insert(now);
        }
    }

    /// Tells free workers to prepare for a job that could use them, and ends generations that prepared ones wait for.
    pub(crate) fn grow(&mut self, now: Millis) {
        self.grows_at = None;
        for (name, suitable) in self.shares() {
            let at = self.joins_at(&name, &suitable);
            let due = at.is_some_and(|at| at <= now);
            // Those that prepared and are kept for somebody else by now are not waited for.
            self.grows_at = self.grows_at.into_iter().chain(at.filter(|_| !due)).min();
            self.prepare(&name, &suitable);
            if due {
                let names: Vec<String> =
                    suitable.iter().filter_map(|s| Some(self.workers.get(s)?.info.name.clone())).collect();
                let reason = format!("makes room for {}", listed(&names));
                self.close(now, &name, Closing::new(reason, Blame::Nobody));
                self.unsettled = true;
            }
        }
    }

    /// Who of the free workers goes to which job that trains: one by one to the job of the highest priority with room, and
    /// among equals to the one that has the fewest.
    fn shares(&self) -> Vec<(String, Vec<Session>)> {
        let mut shares: Vec<Share> = Vec::new();
        for name in self.growing() {
            let Some(job) = self.jobs.get(&name) else { continue };
            let members = job.active().map_or(0, |g| g.members.len());
            let room = job.most_workers().saturating_sub(members);
            let candidates = self.candidates(job).filter(|s| !self.reserved.contains_key(s)).collect();
            let priority = job.job.spec.priority;
            shares.push(Share { name, priority, members, room, candidates, got: Vec::new() });
        }
        let mut taken: BTreeSet<Session> = BTreeSet::new();
        loop {
            for share in &mut shares {
                while share.candidates.front().is_some_and(|s| taken.contains(s)) {
                    share.candidates.pop_front();
                }
            }
            let hungry = shares.iter_mut().filter(|s| s.got.len() < s.room && !s.candidates.is_empty());
            let Some(next) = hungry.min_by_key(|s| (Reverse(s.priority), s.members + s.got.len())) else { break };
            if let Some(session) = next.candidates.pop_front() {
                taken.insert(session);
                next.got.push(session);
            }
        }
        shares.into_iter().map(|s| (s.name, s.got)).collect()
    }

    /// Jobs that train with fewer workers than they can use, in the order of the queue.
    fn growing(&self) -> Vec<String> {
        let room = |job: &Job, g: &Generation| {
            g.training_since.is_some()
                && g.closing.is_none()
                && g.granted < job.steps()
                && g.members.len() < job.most_workers()
        };
        let place = |(name, job): (&String, &Job)| match &job.phase {
            Phase::Active(g) if room(job, g) => Some((-job.job.spec.priority, job.order, name.clone())),
            _ => None,
        };
        let mut jobs: Vec<_> = self.jobs.iter().filter_map(place).collect();
        jobs.sort();
        jobs.into_iter().map(|(.., name)| name).collect()
    }

    /// Free workers that a job could use; those that prepare for it first.
    fn candidates(&self, job: &Job) -> impl Iterator<Item = Session> {
        let name = &job.job.metadata.name;
        let version = job.active().and_then(|generation| self.version_of(job, generation));
        let mut found: Vec<(bool, &str, Session)> = self
            .workers
            .iter()
            .filter(|(_, w)| w.is_free() && w.claimed.is_none() && w.has_device(job.job.spec.fleet.device))
            .filter(|(_, w)| w.prepared.as_ref().is_none_or(|(job, _)| job == name))
            .filter(|(_, w)| version.is_none_or(|version| w.info.version == version))
            // What it holds of a job that waits for others is worth more.
            .filter(|(_, w)| w.held.as_ref().is_none_or(|held| held.job == *name))
            .map(|(session, w)| (w.prepared.is_none(), w.info.name.as_str(), *session))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(.., session)| session).collect::<Vec<_>>().into_iter()
    }

    /// When those that are prepared should join: at once when nobody is still preparing, after a window otherwise.
    fn joins_at(&self, name: &str, suitable: &[Session]) -> Option<Millis> {
        let since = |session: &Session| {
            let (job, since) = self.workers.get(session)?.prepared.as_ref()?;
            since.filter(|_| job == name)
        };
        let first = suitable.iter().filter_map(since).min()?;
        let all = suitable.iter().all(|session| since(session).is_some());
        Some(if all { first } else { first + self.config.grow_window_ms })
    }

    fn prepare(&mut self, name: &str, sessions: &[Session]) {
        let Some(spec) = self.jobs.get(name).map(|job| job.spec.clone()) else { return };
        for session in sessions {
            let Some(worker) = self.workers.get_mut(session).filter(|w| w.prepared.is_none()) else { continue };
            worker.prepared = Some((name.to_owned(), None));
            self.unsettled = true;
            self.out.push(Command::Prepare { session: *session, job: name.to_owned(), spec: spec.clone() });
        }
    }
}
