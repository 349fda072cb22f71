//! Jobs that train take free workers in: those prepare first, and join between two steps.

use crate::state::{Generation, Job, Phase, Worker};
use crate::{Command, Core, Millis, Session};

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
        let mut taken: Vec<Session> = self.reserved.iter().copied().collect();
        for name in self.growing() {
            let Some(job) = self.jobs.get(&name) else { continue };
            let room = job.active().map_or(0, |g| job.most_workers().saturating_sub(g.members.len()));
            let suitable: Vec<Session> = self.candidates(job).filter(|s| !taken.contains(s)).take(room).collect();
            taken.extend(&suitable);
            let due = self.joins_at(&name, &suitable).is_some_and(|at| at <= now);
            self.prepare(&name, &suitable);
            if due {
                let names: Vec<&str> =
                    suitable.iter().filter_map(|s| Some(self.workers.get(s)?.info.name.as_str())).collect();
                let reason = format!("makes room for {}", names.join(", "));
                self.close(now, &name, &reason);
            }
        }
    }

    /// When the next generation ends to let workers in.
    pub(crate) fn grows_at(&self) -> Option<Millis> {
        let waiting = |name: &String| {
            let prepared = |w: &&Worker| w.prepared.as_ref().is_some_and(|(job, _)| job == name);
            let first = self.workers.values().filter(prepared).filter_map(|w| w.prepared.as_ref()?.1).min()?;
            Some(first + self.config.grow_window_ms)
        };
        self.growing().iter().filter_map(waiting).min()
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
        let mut found: Vec<(bool, &str, Session)> = self
            .workers
            .iter()
            .filter(|(_, w)| w.is_free() && w.has_device(job.job.spec.fleet.device))
            .filter(|(_, w)| w.prepared.as_ref().is_none_or(|(job, _)| job == name))
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
            self.out.push(Command::Prepare { session: *session, job: name.to_owned(), spec: spec.clone() });
        }
    }
}
