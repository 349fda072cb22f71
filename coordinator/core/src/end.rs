//! Ends: of a worker, of a generation, of a job.

use crate::machine::PAUSE_MAX_MS;
use crate::state::{Blame, Closing, Generation, Phase, Wait};
use crate::{Command, Core, Millis, Outcome, Refusal, Session, Start};

/// Generations in a row that may fail to form from what workers say that they hold.
const FORMING_FAILURES_MAX: u32 = 3;

impl Core {
    /// A worker is gone: its generation cannot go on. A worker that said goodbye was asked to leave by somebody, which
    /// says nothing against the job.
    pub(crate) fn lose(&mut self, now: Millis, session: Session, reason: &str, goodbye: bool) {
        let Some(worker) = self.workers.remove(&session) else { return };
        self.waiting_jobs_change();
        if let Some(name) = worker.job {
            let word = if goodbye { "left" } else { "is lost" };
            let reason = format!("worker {} {word}: {reason}", worker.info.name);
            self.announce(&name, if goodbye { "WorkerLeft" } else { "WorkerLost" }, reason.clone(), !goodbye);
            self.end_generation(now, &name, &reason, if goodbye { Blame::Nobody } else { Blame::Loss });
        }
    }

    /// A worker was asked to leave. Its generation ends between two steps, and the others go on without it.
    pub(crate) fn on_draining(&mut self, now: Millis, session: Session, reason: String) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        let text = format!("worker {} drains: {reason}", worker.info.name);
        worker.draining = Some(reason);
        self.waiting_jobs_change();
        let Some(name) = self.workers.get(&session).and_then(|w| w.job.clone()) else { return };
        self.announce(&name, "WorkerDraining", text.clone(), false);
        self.close(now, &name, &text);
    }

    /// Lets the generation end between two steps; at once while it forms.
    pub(crate) fn close(&mut self, now: Millis, name: &str, reason: &str) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let least = job.job.spec.fleet.min_workers as usize;
        let Phase::Active(generation) = &mut job.phase else { return };
        if generation.training_since.is_none() {
            self.end_generation(now, name, reason, Blame::Nobody);
            return;
        }
        let stays = |session: &Session| self.workers.get(session).is_some_and(|w| w.draining.is_none());
        let staying = generation.members.iter().filter(|m| stays(&m.session)).count();
        let reason =
            generation.closing.take().map_or_else(|| reason.to_owned(), |old| format!("{}; {reason}", old.reason));
        generation.closing = Some(Closing { reason, save_first: staying < least });
        self.grant(now, name);
    }

    /// Ends the generation if it is to end and all granted steps are committed. True: no more steps are to be granted now.
    pub(crate) fn close_when_due(&mut self, now: Millis, name: &str) -> bool {
        let Some(job) = self.jobs.get(name) else { return true };
        let Some(generation) = job.active() else { return true };
        let Some(closing) = &generation.closing else { return false };
        if let Some(pending) = &generation.pending {
            // A checkpoint that is being written is not given up; training goes on meanwhile, unless the end waits for it.
            return closing.save_first && pending.step == generation.granted;
        }
        if job.committed < generation.granted {
            return true;
        }
        if closing.save_first && job.checkpoint != Some(job.committed) && job.committed > 0 {
            let (step, due) = (job.committed, job.saving.retry_at <= now);
            if due {
                self.take(now, name, step);
            }
            return true;
        }
        let reason = closing.reason.clone();
        self.end_generation(now, name, &reason, Blame::Nobody);
        true
    }

    pub(crate) fn on_generation_failed(&mut self, now: Millis, session: Session, number: u64, reason: &str) {
        let Some((name, rank)) = self.membership(session, number) else { return };
        let worker = self.jobs.get(&name).and_then(|j| j.active()).map(|g| g.members[rank].worker.clone());
        let reason = format!("worker {}: {reason}", worker.unwrap_or_default());
        self.end_generation(now, &name, &reason, Blame::Failure);
    }

    pub(crate) fn on_job_failed(&mut self, session: Session, number: u64, step: u64, reason: &str) {
        let Some((name, rank)) = self.membership(session, number) else { return };
        let worker = self.jobs.get(&name).and_then(|j| j.active()).map(|g| g.members[rank].worker.clone());
        let reason = format!("at step {step}, worker {}: {reason}", worker.unwrap_or_default());
        self.begin_end(&name, Outcome::Failed { reason });
    }

    /// Ends the current generation. The job goes back to the queue, where workers that hold its state go on at once, unless
    /// it failed too often in a row without getting any further.
    pub(crate) fn end_generation(&mut self, now: Millis, name: &str, reason: &str, blame: Blame) {
        let Some(generation) = self.release(name, reason) else { return };
        if blame == Blame::Failure
            && generation.training_since.is_none()
            && matches!(generation.start, Start::Peers { .. })
        {
            self.distrust(name);
        }
        let (failures_max, losses_max, first_pause) =
            (self.config.failures_max, self.config.losses_max, self.config.pause_ms);
        let Some(job) = self.jobs.get_mut(name) else { return };
        if let Some(mut pending) = generation.pending {
            // Asked again in the next generation.
            job.saving.requests.append(&mut pending.requests);
            job.saving.overdue |= pending.step <= job.committed;
        }
        job.phase = Phase::Queued { enough_since: None, wait: Wait::Workers, at_once: true };
        job.located = false;
        let failures = &mut job.failures;
        if job.high_water > failures.high_water {
            (failures.in_a_row, failures.losses_in_a_row) = (0, 0);
        }
        failures.high_water = job.high_water;
        let pause = match blame {
            Blame::Nobody => 0,
            Blame::Loss => {
                failures.losses_in_a_row += 1;
                back_off(first_pause, failures.losses_in_a_row.saturating_sub(3))
            }
            Blame::Failure => {
                failures.in_a_row += 1;
                back_off(first_pause, failures.in_a_row.saturating_sub(1))
            }
        };
        failures.not_before = now + pause;
        if blame != Blame::Nobody {
            reason.clone_into(&mut failures.last);
        }
        let (in_a_row, losses, at) = (failures.in_a_row, failures.losses_in_a_row, job.high_water);
        let message = format!("generation {} ended: {reason}", generation.number);
        self.announce(name, "GenerationEnded", message, blame == Blame::Failure);
        self.changed.insert(name.to_owned());
        if blame == Blame::Failure && in_a_row >= failures_max {
            let reason = format!("{in_a_row} generations in a row failed without getting beyond step {at}: {reason}");
            self.begin_end(name, Outcome::Failed { reason });
        } else if blame == Blame::Loss && losses >= losses_max {
            let reason =
                format!("{losses} times in a row a worker was lost before there was a step beyond {at}: {reason}");
            self.begin_end(name, Outcome::Failed { reason });
        }
    }

    /// What workers say that they hold could not be put together again and again: the storage has the last word then.
    fn distrust(&mut self, name: &str) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.forming_failures += 1;
        if job.forming_failures >= FORMING_FAILURES_MAX {
            job.forming_failures = 0;
            self.forget_state_of(name);
        }
    }

    fn forget_state_of(&mut self, name: &str) {
        for worker in self.workers.values_mut().filter(|w| w.held.as_ref().is_some_and(|h| h.job == name)) {
            worker.held = None;
        }
    }

    /// Takes the generation out of a job and frees its workers; the phase must be set by the caller.
    fn release(&mut self, name: &str, reason: &str) -> Option<Generation> {
        let job = self.jobs.get_mut(name)?;
        if !matches!(job.phase, Phase::Active(_)) {
            return None;
        }
        let Phase::Active(generation) = std::mem::replace(&mut job.phase, Phase::Locating) else { return None };
        self.out.push(Command::CloseRendezvous { job: name.to_owned() });
        for member in generation.members.iter() {
            if let Some(worker) = self.workers.get_mut(&member.session) {
                worker.job = None;
                self.leaving.push((member.session, name.to_owned(), generation.number, reason.to_owned()));
            }
        }
        self.waiting_jobs_change();
        Some(*generation)
    }

    /// Releases those whose generation ended and who were not placed anew; a new place says it to the others.
    pub(crate) fn release_leaving(&mut self) {
        for (session, job, generation, reason) in std::mem::take(&mut self.leaving) {
            let keep = self.jobs.get(&job).is_some_and(|j| !j.has_ended());
            if self.workers.get(&session).is_some_and(|w| w.job.is_none()) {
                self.out.push(Command::Release { session, job, generation, reason, keep });
            }
        }
    }

    /// The job will end: its workers are free, its history and report are to be written.
    pub(crate) fn begin_end(&mut self, name: &str, outcome: Outcome) {
        let generation = self.release(name, &outcome.to_string());
        let Some(job) = self.jobs.get_mut(name) else { return };
        let mut requests = std::mem::take(&mut job.saving.requests);
        requests.extend(generation.and_then(|g| g.pending).map(|p| p.requests).unwrap_or_default());
        job.phase = Phase::Ending { outcome: outcome.clone() };
        for request in requests {
            self.out.push(Command::AnswerCheckpoint { request, answer: Err(Refusal::Ended) });
        }
        let (word, warning) = match &outcome {
            Outcome::Succeeded => ("Succeeded", false),
            Outcome::Failed { .. } => ("Failed", true),
            Outcome::Cancelled { .. } => ("Cancelled", false),
        };
        self.announce(name, word, outcome.to_string(), warning);
        self.forget_prepared(name);
        self.out.push(Command::Finalize { job: name.to_owned(), outcome });
        self.changed.insert(name.to_owned());
    }

    /// Workers outside of generations let go of what they keep of a job that ends.
    fn forget_prepared(&mut self, name: &str) {
        let leaving: Vec<Session> = self.leaving.iter().map(|(session, ..)| *session).collect();
        for (session, worker) in &mut self.workers {
            let prepared = worker.prepared.take_if(|(job, _)| job == name).is_some();
            let held = worker.held.take_if(|held| held.job == name);
            if worker.job.is_none() && !leaving.contains(session) && (prepared || held.is_some()) {
                let generation = held.map_or(0, |h| h.generation);
                let (job, reason) = (name.to_owned(), "the job has ended".to_owned());
                self.out.push(Command::Release { session: *session, job, generation, reason, keep: false });
            }
        }
    }

    pub(crate) fn on_finalized(&mut self, now: Millis, name: &str) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let Phase::Ending { outcome } = &job.phase else { return };
        let outcome = outcome.clone();
        job.phase = Phase::Ended { outcome: outcome.clone() };
        job.ended_at = Some(now);
        self.out.push(Command::RecordEnd { job: name.to_owned(), outcome });
        self.changed.insert(name.to_owned());
    }
}

/// Nothing the first time, then `first`, doubled each time.
fn back_off(first: Millis, times: u32) -> Millis {
    if times == 0 { 0 } else { first.saturating_mul(1 << (times - 1).min(16)).min(PAUSE_MAX_MS) }
}
