//! Who trains what: jobs in the order of priority, then of submission, take the free workers that suit them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use r2o_types::deal_lanes;

use crate::state::{Generation, Job, Phase, Wait};
use crate::{Assignment, Command, Core, Member, Millis, Session};

/// What placing decided about one queued job.
enum Decision {
    Wait { wait: Wait, enough_since: Option<Millis> },
    Open(Vec<Session>),
}

impl Core {
    /// Looks at every queued job in order. A job that has to wait keeps the free workers that suit it from those behind
    /// it, or large jobs would never start.
    pub(crate) fn place(&mut self, now: Millis) {
        let mut queue: Vec<(i32, u64, String)> = self
            .jobs
            .iter()
            .filter(|(_, j)| matches!(j.phase, Phase::Queued { .. }))
            .map(|(name, j)| (-j.job.spec.priority, j.order, name.clone()))
            .collect();
        queue.sort();
        let mut reserved: BTreeMap<Session, String> = BTreeMap::new();
        for (_, _, name) in queue {
            match self.decide(now, &name, &mut reserved) {
                Some(Decision::Open(sessions)) => self.open(now, &name, &sessions),
                Some(Decision::Wait { wait, enough_since }) => self.keep_waiting(&name, wait, enough_since),
                None => {}
            }
        }
    }

    fn decide(&self, now: Millis, name: &str, reserved: &mut BTreeMap<Session, String>) -> Option<Decision> {
        let job = self.jobs.get(name)?;
        let Phase::Queued { enough_since, .. } = job.phase else { return None };
        if job.failures.not_before > now {
            return Some(Decision::Wait { wait: Wait::Pause, enough_since: None });
        }
        let mut free: Vec<(&str, Session)> = Vec::new();
        let mut ahead = None;
        for (session, worker) in &self.workers {
            if worker.job.is_some() || !worker.has_device(job.job.spec.fleet.device) {
                continue;
            }
            match reserved.get(session) {
                Some(other) => ahead = Some(other.clone()),
                None => free.push((&worker.info.name, *session)),
            }
        }
        // By name, so that the same workers get the same ranks again.
        free.sort_unstable();
        let (least, most) = (job.job.spec.fleet.min_workers as usize, job.most_workers());
        let sessions: Vec<Session> = free.iter().take(most).map(|(_, s)| *s).collect();
        if sessions.len() < least {
            reserved.extend(sessions.iter().map(|s| (*s, name.to_owned())));
            let wait = ahead.map_or(Wait::Workers, Wait::Behind);
            return Some(Decision::Wait { wait, enough_since: None });
        }
        let since = enough_since.unwrap_or(now);
        if sessions.len() >= most || since + self.config.join_window_ms <= now {
            return Some(Decision::Open(sessions));
        }
        reserved.extend(sessions.iter().map(|s| (*s, name.to_owned())));
        Some(Decision::Wait { wait: Wait::Joining { free: sessions.len() }, enough_since: Some(since) })
    }

    fn keep_waiting(&mut self, name: &str, new: Wait, since: Option<Millis>) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let Phase::Queued { enough_since, wait } = &mut job.phase else { return };
        if *wait != new {
            self.changed.insert(name.to_owned());
        }
        (*enough_since, *wait) = (since, new);
    }

    /// Opens a new generation of a queued job with these workers.
    fn open(&mut self, now: Millis, name: &str, sessions: &[Session]) {
        self.last_generation += 1;
        let number = self.last_generation;
        let Some(job) = self.jobs.get_mut(name) else { return };
        let batch = &job.job.spec.batch;
        let dealt = deal_lanes(batch.lanes, sessions.len(), batch.norm_group_lanes);
        let members: Vec<Member> = sessions
            .iter()
            .zip(dealt)
            .filter_map(|(session, lanes)| {
                let worker = self.workers.get_mut(session)?;
                worker.job = Some(name.to_owned());
                let info = &worker.info;
                Some(Member { session: *session, worker: info.name.clone(), address: info.address.clone(), lanes })
            })
            .collect();
        let members = Arc::new(members);
        job.generation = number;
        job.started_at.get_or_insert(now);
        job.phase = Phase::Active(Box::new(generation(now, number, &members, job)));
        let names: Vec<String> = members.iter().map(|m| m.worker.clone()).collect();
        let message = format!("generation {number} from step {}: {}", job.committed, names.join(", "));
        let (spec, step, from_checkpoint) = (Arc::clone(&job.spec), job.committed, job.checkpoint.is_some());

        let owned = || name.to_owned();
        self.out.push(Command::RecordGeneration { job: owned(), generation: number, workers: names });
        self.out.push(Command::OpenRendezvous { job: owned(), generation: number });
        for (rank, member) in members.iter().enumerate() {
            let assignment = Assignment {
                job: owned(),
                generation: number,
                spec: Arc::clone(&spec),
                rank: rank as u32,
                members: Arc::clone(&members),
                step,
                from_checkpoint,
            };
            self.out.push(Command::Assign { session: member.session, assignment });
        }
        self.announce(name, "GenerationOpened", message, false);
        self.changed.insert(owned());
    }

    /// Jobs that the free workers' state concerns: their reasons name counts of workers.
    pub(crate) fn waiting_jobs_change(&mut self) {
        let waiting: BTreeSet<String> = self
            .jobs
            .iter()
            .filter(|(_, j)| matches!(j.phase, Phase::Queued { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        self.changed.extend(waiting);
    }
}

fn generation(now: Millis, number: u64, members: &Arc<Vec<Member>>, job: &Job) -> Generation {
    Generation {
        number,
        members: Arc::clone(members),
        opened_at: now,
        ready: vec![false; members.len()],
        training_since: None,
        granted: job.committed,
        reports: BTreeMap::new(),
        last_commit_at: now,
        pending: None,
    }
}
