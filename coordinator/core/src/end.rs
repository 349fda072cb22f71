//! Ends: of a worker, of a generation, of a job.

use std::collections::BTreeSet;

use crate::machine::PAUSE_MAX_MS;
use crate::state::{Blame, Closing, Generation, Phase, Wait};
use crate::{Command, Core, Millis, Outcome, Refusal, Session, Start};

/// Generations in a row that may fail to form from what workers say that they hold. With the pauses between them they take
/// longer than a dead peer or a moment's fault of a network lasts, for neither says anything against a state.
const FORMING_FAILURES_MAX: u32 = 8;

impl Core {
    /// A worker is gone: its generation cannot go on. A worker that said goodbye was asked to leave by somebody, which
    /// says nothing against the job.
    pub(crate) fn lose(&mut self, now: Millis, session: Session, reason: &str, goodbye: bool) {
        let Some(worker) = self.workers.remove(&session) else { return };
        self.sessions.remove(&worker.info.name);
        self.waiting_jobs_change();
        if let Some(name) = worker.job {
            let word = if goodbye { "left" } else { "is lost" };
            let reason = format!("worker {} {word}: {reason}", worker.info.name);
            self.announce(&name, if goodbye { "WorkerLeft" } else { "WorkerLost" }, reason.clone(), !goodbye);
            self.end_generation(now, &name, &reason, if goodbye { Blame::Preemption } else { Blame::Infrastructure });
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
        self.close(now, &name, Closing::new(text, Blame::Preemption));
    }

    /// Lets the generation end between two steps; at once while it forms.
    pub(crate) fn close(&mut self, now: Millis, name: &str, closing: Closing) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let least = job.job.spec.fleet.min_workers as usize;
        let Phase::Active(generation) = &mut job.phase else { return };
        // What its members hold is to be saved, or shared before one of them leaves: for that they must meet first.
        let saved = job.checkpoint.unwrap_or(0);
        let holds = |w: &crate::state::Worker| w.held.as_ref().is_some_and(|held| held.step > saved);
        let members = generation.members.iter().filter_map(|m| self.workers.get(&m.session));
        let held = members.filter(|w| holds(w)).count() > 0 && matches!(generation.start, Start::Peers { .. });
        let saves = held || closing.save_first && job.committed > saved;
        if generation.training_since.is_none() && !saves {
            self.end_generation(now, name, &closing.reason, closing.blame);
            self.leave_to_queue(name, closing.to_queue);
            return;
        }
        let stays = |session: &Session| self.workers.get(session).is_some_and(crate::state::Worker::stays);
        let staying = generation.members.iter().filter(|m| stays(&m.session)).count();
        let closing = Closing { save_first: closing.save_first || staying < least, ..closing };
        generation.closing = Some(match generation.closing.take() {
            Some(old) => old.and(closing),
            None => closing,
        });
        self.changed.insert(name.to_owned());
        self.grant(now, name);
    }

    /// Who had the job's workers a moment ago does not matter: it waits for its turn.
    fn leave_to_queue(&mut self, name: &str, to_queue: bool) {
        if let Some(Phase::Queued { at_once, .. }) = self.jobs.get_mut(name).map(|job| &mut job.phase)
            && to_queue
        {
            *at_once = false;
        }
    }

    /// Ends the generation if it is to end and all granted steps are committed. True: no more steps are to be granted now.
    pub(crate) fn close_when_due(&mut self, now: Millis, name: &str) -> bool {
        let Some(job) = self.jobs.get(name) else { return true };
        let Some(generation) = job.active() else { return true };
        let Some(closing) = &generation.closing else { return false };
        if generation.training_since.is_none() {
            return true;
        }
        if let Some(pending) = generation.pending.as_ref().filter(|pending| !pending.yields(now, closing)) {
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
        let closing = closing.clone();
        self.end_generation(now, name, &closing.reason, closing.blame);
        self.leave_to_queue(name, closing.to_queue);
        true
    }

    pub(crate) fn on_generation_failed(&mut self, now: Millis, session: Session, number: u64, reason: &str) {
        let Some((name, rank)) = self.membership(session, number) else { return };
        let worker = self.jobs.get(&name).and_then(|j| j.active()).map(|g| g.members[rank].worker.clone());
        let reason = format!("worker {}: {reason}", worker.unwrap_or_default());
        self.end_generation(now, &name, &reason, Blame::Infrastructure);
    }

    pub(crate) fn on_job_failed(&mut self, now: Millis, session: Session, number: u64, step: u64, reason: &str) {
        let Some((name, rank)) = self.membership(session, number) else { return };
        let worker = self.jobs.get(&name).and_then(|j| j.active()).map(|g| g.members[rank].worker.clone());
        let sentence = format!("at step {step}, worker {}: {reason}", worker.unwrap_or_default());
        self.fail_step(now, &name, step, reason, sentence);
    }

    /// The job itself failed at a step. It is tried again, because a machine may be at fault after all, until it has failed
    /// often enough in the same way.
    pub(crate) fn fail_step(&mut self, now: Millis, name: &str, step: u64, reason: &str, sentence: String) {
        let most = self.config.budgets.same_failure;
        let Some(job) = self.jobs.get_mut(name) else { return };
        let times = job.failures.again(step, reason);
        if times >= most {
            let reason = format!("{sentence} (the same {times} times, so it is not tried again)");
            self.begin_end(name, Outcome::Failed { reason });
        } else {
            self.end_generation(now, name, &sentence, Blame::Code);
        }
    }

    /// Ends the current generation. The job goes back to the queue, where workers that hold its state go on at once, unless
    /// it failed too often in a row without getting any further.
    pub(crate) fn end_generation(&mut self, now: Millis, name: &str, reason: &str, blame: Blame) {
        let Some(generation) = self.release(name, reason) else { return };
        // A member that is lost says nothing against what the others hold.
        let all_there = generation.members.iter().all(|m| self.workers.contains_key(&m.session));
        if blame >= Blame::Infrastructure
            && all_there
            && generation.training_since.is_none()
            && matches!(generation.start, Start::Peers { .. })
        {
            self.distrust(name);
        }
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
            failures.in_a_row.clear();
        }
        failures.high_water = job.high_water;
        let times = failures.in_a_row.entry(blame).or_default();
        *times += 1;
        let (times, at) = (*times, job.high_water);
        failures.not_before = now + back_off(self.config.pause_ms, times.saturating_sub(free_of_pause(blame)));
        if blame != Blame::Nobody {
            reason.clone_into(&mut failures.last);
        }
        let message = format!("generation {} ended: {reason}", generation.number);
        self.announce(name, "GenerationEnded", message, blame >= Blame::Infrastructure);
        self.changed.insert(name.to_owned());
        if times > self.budget(blame) {
            let reason = format!("{times} generations in a row ended without getting beyond step {at}: {reason}");
            self.begin_end(name, Outcome::Failed { reason });
        }
    }

    /// How often in a row a job may be set back so.
    fn budget(&self, blame: Blame) -> u32 {
        let budgets = &self.config.budgets;
        match blame {
            Blame::Nobody => u32::MAX,
            Blame::Preemption => budgets.preemption,
            Blame::Infrastructure => budgets.infrastructure,
            Blame::Code => budgets.code,
        }
    }

    /// What workers say that they hold could not be put together again and again: the storage has the last word then.
    fn distrust(&mut self, name: &str) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.forming_failures += 1;
        if job.forming_failures >= FORMING_FAILURES_MAX {
            job.forming_failures = 0;
            let message = format!(
                "{FORMING_FAILURES_MAX} generations in a row could not be formed from what workers hold: the newest \
                 checkpoint is gone on from"
            );
            self.announce(name, "StateGivenUp", message, true);
            self.forget_state_of(name);
        }
    }

    /// Nobody's state is to be gone on with: the newest checkpoint is.
    pub(crate) fn forget_state_of(&mut self, name: &str) {
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
        self.unsettled = true;
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
            let goes_on = self.jobs.get(&job).is_some_and(|j| !j.has_ended());
            if let Some(worker) = self.workers.get(&session).filter(|w| w.job.is_none()) {
                let keep = goes_on && worker.quarantine.is_none();
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
        let leaving: BTreeSet<Session> = self.leaving.iter().map(|(session, ..)| *session).collect();
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

/// How often in a row a job goes on at once. One machine takes several workers with it, one after the other.
fn free_of_pause(blame: Blame) -> u32 {
    match blame {
        Blame::Nobody => u32::MAX,
        Blame::Preemption => 10,
        Blame::Infrastructure => 3,
        Blame::Code => 0,
    }
}

/// Nothing the first time, then `first`, doubled each time.
fn back_off(first: Millis, times: u32) -> Millis {
    if times == 0 { 0 } else { first.saturating_mul(1 << (times - 1).min(16)).min(PAUSE_MAX_MS) }
}
