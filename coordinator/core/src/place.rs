//! Who trains what: jobs in the order of priority, then of submission, take the free workers that suit them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use r2o_types::deal_lanes;

use crate::reason::listed;
use crate::state::{Gathering, Generation, Job, Phase, Wait, Worker};
use crate::{Assignment, Command, Core, Member, Millis, Session, Start};

/// What placing decided about one queued job.
enum Decision {
    Wait { wait: Wait, enough_since: Option<Millis> },
    Open(Vec<Session>),
}

/// How soon a free worker can go on with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It holds the state.
    Holds,
    /// It has built what it needs.
    Prepared,
    /// It knows nothing of the job.
    Stranger,
}

fn standing(job: &Job, worker: &Worker) -> Standing {
    if job.is_held_by(worker) {
        return Standing::Holds;
    }
    let prepared = worker.prepared.as_ref().is_some_and(|(name, at)| *name == job.job.metadata.name && at.is_some());
    if prepared { Standing::Prepared } else { Standing::Stranger }
}

impl Core {
    /// Looks at every queued job in order. A job that has to wait keeps the free workers that suit it from those behind
    /// it, or large jobs would never start. Those whose workers were at work a moment ago come first, but only to go on at
    /// once: one that cannot waits in its turn.
    pub(crate) fn place(&mut self, now: Millis) {
        let kept = self.kept();
        let mut reserved: BTreeMap<Session, String> = BTreeMap::new();
        let mut later = Vec::new();
        for name in self.queue() {
            let at_once = self.jobs.get(&name).is_some_and(|j| matches!(j.phase, Phase::Queued { at_once: true, .. }));
            let mut first = reserved.clone();
            match at_once.then(|| self.decide(now, &name, &kept, &mut first)).flatten() {
                Some(Decision::Open(sessions)) => self.start(now, &name, &sessions),
                Some(Decision::Wait { wait: wait @ Wait::Pause, enough_since }) => {
                    reserved = first;
                    self.keep_waiting(&name, wait, enough_since);
                }
                _ => later.push((self.rank(&name), name)),
            }
        }
        later.sort();
        for (_, name) in later {
            match self.decide(now, &name, &kept, &mut reserved) {
                Some(Decision::Open(sessions)) => self.start(now, &name, &sessions),
                Some(Decision::Wait { wait, enough_since }) => self.keep_waiting(&name, wait, enough_since),
                None => {}
            }
        }
        for (session, name) in kept {
            if self.workers.get(&session).is_some_and(Worker::is_free) {
                reserved.entry(session).or_insert(name);
            }
        }
        self.reserved = reserved;
    }

    /// For each job that waits, a free worker that holds steps of it which are in no checkpoint: to give it to another job
    /// would lose them. One that nobody has claimed, if there is one; among those the one that holds the most.
    fn kept(&self) -> BTreeMap<Session, String> {
        let waits = |job: &&Job| matches!(job.phase, Phase::Queued { .. } | Phase::Locating) && job.paused.is_none();
        let best = |job: &Job| {
            let saved = job.checkpoint.unwrap_or(0);
            let steps = |w: &Worker| w.held.as_ref().map(|held| held.step).filter(|step| *step > saved);
            let worth = |w: &Worker| Some((w.claimed.is_none(), steps(w)?));
            let holders = self.workers.iter().filter(|(_, w)| w.is_free() && job.is_held_by(w));
            let best = holders.filter_map(|(session, w)| Some((worth(w)?, Reverse(*session)))).max();
            best.map(|(_, Reverse(session))| (session, job.job.metadata.name.clone()))
        };
        self.jobs.values().filter(waits).filter_map(best).collect()
    }

    /// Where a job stands in the queue, whatever its workers did a moment ago.
    fn rank(&self, name: &str) -> Option<(i32, u64)> {
        self.jobs.get(name).map(|job| (-job.job.spec.priority, job.order))
    }

    /// Queued jobs: first those whose workers were at work a moment ago, then by priority, then by age.
    pub(crate) fn queue(&self) -> Vec<String> {
        let place = |(name, job): (&String, &Job)| match job.phase {
            Phase::Queued { at_once, .. } => Some((!at_once, -job.job.spec.priority, job.order, name.clone())),
            _ => None,
        };
        let mut queue: Vec<_> = self.jobs.iter().filter_map(place).collect();
        queue.sort();
        queue.into_iter().map(|(.., name)| name).collect()
    }

    fn decide(
        &self,
        now: Millis,
        name: &str,
        kept: &BTreeMap<Session, String>,
        reserved: &mut BTreeMap<Session, String>,
    ) -> Option<Decision> {
        let job = self.jobs.get(name)?;
        let Phase::Queued { enough_since, at_once, .. } = job.phase else { return None };
        if job.paused.is_some() {
            return Some(Decision::Wait { wait: Wait::Paused, enough_since: None });
        }
        if job.failures.not_before > now {
            let holders = self.workers.iter().filter(|(_, w)| w.is_free() && job.is_held_by(w));
            reserved.extend(holders.map(|(session, _)| (*session, name.to_owned())));
            return Some(Decision::Wait { wait: Wait::Pause, enough_since: None });
        }
        let mut free: Vec<(Standing, &str, Session)> = Vec::new();
        // Claimed by jobs behind this one.
        let mut lent: Vec<(Standing, &str, Session)> = Vec::new();
        let (mut ahead, mut blocked) = (None, false);
        let at_risk = kept.values().any(|other| other == name);
        for (session, worker) in &self.workers {
            if !worker.is_free() || !worker.has_device(job.job.spec.fleet.device) {
                continue;
            }
            let entry = (standing(job, worker), worker.info.name.as_str(), *session);
            let not_mine = |other: &&String| *other != name;
            if let Some(other) = kept.get(session).filter(not_mine) {
                (ahead, blocked) = (Some(other.clone()), true);
                continue;
            }
            match (reserved.get(session).filter(not_mine), worker.claimed.as_ref().filter(not_mine)) {
                (None, None) => free.push(entry),
                // It holds what this job must not lose: whoever claimed it waits until that is saved.
                (None, Some(_)) if kept.contains_key(session) => free.push(entry),
                (None, Some(other)) if at_risk || self.rank(name) < self.rank(other) => lent.push(entry),
                (Some(other), _) | (None, Some(other)) => ahead = Some(other.clone()),
            }
        }
        let (least, most) = (job.job.spec.fleet.min_workers as usize, job.most_workers());
        // Two jobs that each have claimed a part of what both need would wait for each other.
        if free.len() < least {
            free.append(&mut lent);
        }
        let worker = |(.., session): &(Standing, &str, Session)| self.workers.get(session);
        let version = self.version_among(job, free.iter().filter_map(worker));
        let all = free.len();
        if let Some(version) = &version {
            free.retain(|entry| worker(entry).is_some_and(|w| w.info.version == *version));
        }
        // By standing; then by name, so that the same workers get the same ranks again.
        free.sort_unstable();
        let share = if at_once { most } else { self.share_of(job, free.len()) };
        free.truncate(most.min(share));
        let mut sessions: Vec<Session> = free.iter().map(|(.., s)| *s).collect();
        if sessions.len() < least {
            // Those whose steps it must not lose go first, and may need whom it would keep from them.
            if !blocked {
                reserved.extend(sessions.iter().map(|s| (*s, name.to_owned())));
            }
            let coming =
                self.workers.values().filter(|w| w.job.is_some() && w.claimed.as_deref() == Some(name)).count();
            let wait = match ahead {
                _ if coming > 0 => Wait::Claimed(coming),
                Some(ahead) => Wait::Behind(ahead),
                None if all >= least => Wait::Version(version.unwrap_or_default()),
                None => Wait::Workers,
            };
            return Some(Decision::Wait { wait, enough_since: None });
        }
        let holders = free.iter().filter(|(standing, ..)| *standing == Standing::Holds).count();
        let at_hand = free.iter().filter(|(standing, ..)| *standing != Standing::Stranger).count();
        let at_work = at_once && holders > 0;
        // After a restart of the coordinator the workers, which may hold the state, come back one by one.
        let back = job.last_workers.iter().all(|n| free.iter().any(|(_, name, _)| name == n));
        let complete = if job.last_workers.is_empty() { sessions.len() >= most } else { back };
        let since = enough_since.unwrap_or(now);
        // Others gave up what it needs: they did not do so to see it wait.
        // But for a state that somebody may still come back with.
        let given = (holders > 0 || job.lineage == 0)
            && sessions.iter().any(|s| self.workers.get(s).is_some_and(|w| w.claimed.is_some()));
        if at_work || complete || given || since + self.config.join_window_ms <= now {
            if at_work && at_hand >= least {
                // Strangers have engines to build: they join later, without holding anybody.
                sessions.truncate(at_hand);
            }
            return Some(Decision::Open(sessions));
        }
        reserved.extend(sessions.iter().map(|s| (*s, name.to_owned())));
        Some(Decision::Wait { wait: Wait::Joining { free: sessions.len() }, enough_since: Some(since) })
    }

    /// How many of `free` workers a job may start with, so that those of the same priority behind it can start, too, and
    /// what is left is shared out.
    fn share_of(&self, job: &Job, free: usize) -> usize {
        let least = job.job.spec.fleet.min_workers as usize;
        let mut left = free.saturating_sub(least);
        let mut others = 0;
        for name in self.queue() {
            let Some(other) = self.jobs.get(&name) else { continue };
            let behind = other.job.spec.priority == job.job.spec.priority && other.order > job.order;
            let needs = other.job.spec.fleet.min_workers as usize;
            if behind && other.paused.is_none() && needs <= left {
                left -= needs;
                others += 1;
            }
        }
        least + left.div_ceil(1 + others)
    }

    fn keep_waiting(&mut self, name: &str, new: Wait, since: Option<Millis>) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let Phase::Queued { enough_since, wait, .. } = &mut job.phase else { return };
        if *wait != new {
            self.changed.insert(name.to_owned());
        }
        (*enough_since, *wait) = (since, new);
    }

    /// Opens a generation, provided it is known where its state comes from.
    fn start(&mut self, now: Millis, name: &str, sessions: &[Session]) {
        // One fewer in the queue: those that were looked at before it may get more.
        self.unsettled = true;
        let Some(job) = self.jobs.get_mut(name) else { return };
        let held = sessions.iter().filter_map(|s| self.workers.get(s)).any(|worker| job.is_held_by(worker));
        if held {
            let since = job.lineage;
            self.open(now, name, sessions, Start::Peers { since });
        } else if job.located {
            job.committed = job.checkpoint.unwrap_or(0);
            let start = if job.checkpoint.is_some() { Start::Checkpoint } else { Start::Seed };
            self.open(now, name, sessions, start);
        } else {
            job.phase = Phase::Locating;
            self.changed.insert(name.to_owned());
            self.out.push(Command::LocateCheckpoint { job: name.to_owned() });
        }
    }

    /// Opens a new generation of a queued job with these workers.
    fn open(&mut self, now: Millis, name: &str, sessions: &[Session], start: Start) {
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
                // It has room for one state only.
                worker.held.take_if(|held| held.job != name);
                worker.prepared = None;
                worker.claimed = None;
                let info = &worker.info;
                Some(Member { session: *session, worker: info.name.clone(), address: info.address.clone(), lanes })
            })
            .collect();
        let members = Arc::new(members);
        let names: Vec<String> = members.iter().map(|m| m.worker.clone()).collect();
        job.generation = number;
        job.last_workers.clone_from(&names);
        if !matches!(start, Start::Peers { .. }) {
            job.lineage = number;
        }
        job.started_at.get_or_insert(now);
        job.phase = Phase::Active(Box::new(generation(now, number, start, &members, job)));
        let message = format!("generation {number} from step {}: {}", job.committed, listed(&names));
        let (spec, step, lineage) = (Arc::clone(&job.spec), job.committed, job.lineage);

        let owned = || name.to_owned();
        self.out.push(Command::RecordGeneration { job: owned(), generation: number, workers: names, lineage });
        self.out.push(Command::OpenRendezvous { job: owned(), generation: number });
        for (rank, member) in members.iter().enumerate() {
            let assignment = Assignment {
                job: owned(),
                generation: number,
                spec: Arc::clone(&spec),
                rank: rank as u32,
                members: Arc::clone(&members),
                step,
                start,
            };
            self.out.push(Command::Assign { session: member.session, assignment });
        }
        self.announce(name, "GenerationOpened", message, false);
        self.announce_versions(name, sessions);
        self.changed.insert(owned());
    }

    /// Workers came, left or became free. Jobs that wait are looked at soon, and their reasons, which name counts of
    /// workers, change.
    pub(crate) fn waiting_jobs_change(&mut self) {
        self.counts_changed = true;
    }

    /// Shows the new counts, once for all workers that came or left at the same time.
    pub(crate) fn show_counts(&mut self) {
        if !std::mem::take(&mut self.counts_changed) {
            return;
        }
        let waiting: BTreeSet<String> = self
            .jobs
            .iter()
            .filter(|(_, j)| matches!(j.phase, Phase::Queued { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        self.changed.extend(waiting);
    }
}

fn generation(now: Millis, number: u64, start: Start, members: &Arc<Vec<Member>>, job: &Job) -> Generation {
    Generation {
        number,
        members: Arc::clone(members),
        start,
        opened_at: now,
        ranks: members.iter().enumerate().map(|(rank, member)| (member.session, rank)).collect(),
        ready: Gathering::new(members.len()),
        ready_with: None,
        recovered: BTreeMap::new(),
        closing: None,
        training_since: None,
        granted: job.committed,
        grants_at: None,
        reports: BTreeMap::new(),
        last_commit_at: now,
        pending: None,
    }
}
