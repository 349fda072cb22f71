//! Ends: of a worker, of a generation, of a job.

use crate::machine::PAUSE_MAX_MS;
use crate::state::{Generation, Phase};
use crate::{Command, Core, Millis, Outcome, Refusal, Session};

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
            self.end_generation(now, &name, &reason, !goodbye);
        }
    }

    pub(crate) fn on_generation_failed(&mut self, now: Millis, session: Session, number: u64, reason: &str) {
        let Some((name, rank)) = self.membership(session, number) else { return };
        let worker = self.jobs.get(&name).and_then(|j| j.active()).map(|g| g.members[rank].worker.clone());
        let reason = format!("worker {}: {reason}", worker.unwrap_or_default());
        self.end_generation(now, &name, &reason, true);
    }

    pub(crate) fn on_job_failed(&mut self, session: Session, number: u64, step: u64, reason: &str) {
        let Some((name, rank)) = self.membership(session, number) else { return };
        let worker = self.jobs.get(&name).and_then(|j| j.active()).map(|g| g.members[rank].worker.clone());
        let reason = format!("at step {step}, worker {}: {reason}", worker.unwrap_or_default());
        self.begin_end(&name, Outcome::Failed { reason });
    }

    /// Ends the current generation. The job goes back to the queue and resumes from its newest checkpoint, unless it
    /// failed too often in a row without getting any further. (Survivors that keep the state in memory would be
    /// consulted here, before the storage is.)
    pub(crate) fn end_generation(&mut self, now: Millis, name: &str, reason: &str, counts: bool) {
        let Some(generation) = self.release(name, reason) else { return };
        let (limit, first_pause) = (self.config.failures_max, self.config.pause_ms);
        let Some(job) = self.jobs.get_mut(name) else { return };
        if let Some(mut pending) = generation.pending {
            // Asked again in the next generation.
            job.saving.requests.append(&mut pending.requests);
        }
        job.phase = Phase::Locating;
        job.committed = job.checkpoint.unwrap_or(0);
        job.saving.overdue = false;
        if counts {
            let failures = &mut job.failures;
            if job.high_water > failures.high_water {
                failures.in_a_row = 0;
            }
            failures.high_water = job.high_water;
            let pause = first_pause.saturating_mul(1 << failures.in_a_row.min(16)).min(PAUSE_MAX_MS);
            failures.in_a_row += 1;
            failures.not_before = now + pause;
            reason.clone_into(&mut failures.last);
        }
        let (in_a_row, at) = (job.failures.in_a_row, job.high_water);
        let message = format!("generation {} ended: {reason}", generation.number);
        self.announce(name, "GenerationEnded", message, counts);
        self.changed.insert(name.to_owned());
        if counts && in_a_row >= limit {
            let reason = format!("{in_a_row} generations in a row failed without getting beyond step {at}: {reason}");
            self.begin_end(name, Outcome::Failed { reason });
        } else {
            self.out.push(Command::LocateCheckpoint { job: name.to_owned() });
        }
    }

    /// Takes the generation out of a job and lets its workers go; the phase must be set by the caller.
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
                self.out.push(Command::Release {
                    session: member.session,
                    job: name.to_owned(),
                    generation: generation.number,
                    reason: reason.to_owned(),
                });
            }
        }
        self.waiting_jobs_change();
        Some(*generation)
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
        self.out.push(Command::Finalize { job: name.to_owned(), outcome });
        self.changed.insert(name.to_owned());
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
