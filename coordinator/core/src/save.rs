//! Checkpoints: when one is due, gathering the workers' parts, and what follows once its manifest is there.
//!
//! A checkpoint is asked for between two tickets: a worker takes its orders one after another, so all members copy out the
//! state after exactly the same step. One checkpoint is written at a time; what falls due meanwhile is taken next.

use crate::machine::PAUSE_MAX_MS;
use crate::state::{Blame, Gathering, Generation, Job, Pending, Phase};
use crate::{Command, Core, Millis, Outcome, Refusal, Session, Tensor};

/// The first pause after a checkpoint that could not be written; it doubles with each further one.
const RETRY_MS: Millis = 1_000;

impl Core {
    /// Asks for a checkpoint at the next step that is not granted, if one is due there.
    pub(crate) fn take_due_checkpoint(&mut self, now: Millis, name: &str) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let Some(generation) = job.active().filter(|g| g.training_since.is_some()) else { return };
        let step = generation.granted;
        if let Some(pending) = &generation.pending {
            // Not twice for the same step: whoever asks for it waits for the one that is being written.
            let same = pending.step == step;
            let due = !same && (falls_on(job, step) || step == job.steps());
            let Phase::Active(generation) = &mut job.phase else { return };
            match &mut generation.pending {
                Some(pending) if same => pending.requests.append(&mut job.saving.requests),
                _ => job.saving.overdue |= due,
            }
            return;
        }
        if job.checkpoint == Some(step) {
            job.saving.overdue = false;
            for request in std::mem::take(&mut job.saving.requests) {
                self.out.push(Command::AnswerCheckpoint { request, answer: Ok(step) });
            }
            return;
        }
        if !is_due(job, now, step) {
            // It falls into the pause after a failure: without a word nobody would come back to it.
            job.saving.overdue |= step > 0 && (falls_on(job, step) || step == job.steps());
            return;
        }
        self.take(now, name, step);
    }

    /// Asks all members for their state after `step` committed steps, the next one not being granted.
    pub(crate) fn take(&mut self, now: Millis, name: &str, step: u64) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.saving.overdue = false;
        job.saving.last_at = now;
        let requests = std::mem::take(&mut job.saving.requests);
        let Phase::Active(generation) = &mut job.phase else { return };
        let parts = Gathering::new(generation.members.len());
        generation.pending = Some(Pending { step, since: now, parts, requests, committing: false });
        let (sessions, number) = (generation.sessions(), generation.number);
        self.out.push(Command::TakeCheckpoint { sessions, job: name.to_owned(), generation: number, step });
    }

    pub(crate) fn on_part(
        &mut self,
        now: Millis,
        session: Session,
        number: u64,
        step: u64,
        part: Result<Vec<Tensor>, String>,
    ) {
        let Some((name, rank)) = self.membership(session, number) else { return };
        let Some(job) = self.jobs.get_mut(&name) else { return };
        let steps_per_epoch = job.steps_per_epoch;
        let Phase::Active(generation) = &mut job.phase else { return };
        let worker = &generation.members[rank].worker;
        let reported = generation.reports.range(..step).all(|(_, ranks)| ranks.has(rank));
        // A part that comes after its checkpoint was given up changes nothing.
        let Some(pending) = generation.pending.as_mut().filter(|p| p.step == step && !p.committing) else { return };
        match part {
            Ok(_) if !reported => {
                let reason = format!("worker {worker} saved the state after step {step} before it reported that step");
                self.end_generation(now, &name, &reason, Blame::Infrastructure);
            }
            Ok(tensors) => {
                pending.parts.add(rank, tensors);
                if pending.parts.missing() == 0 {
                    pending.committing = true;
                    let tensors = merge(pending);
                    let epoch = step / steps_per_epoch;
                    let commit = Command::CommitCheckpoint { job: name, generation: number, step, epoch, tensors };
                    self.out.push(commit);
                }
            }
            Err(reason) => {
                let reason = format!("worker {worker}: {reason}");
                self.give_up(now, &name, step, reason);
            }
        }
    }

    pub(crate) fn on_committed(&mut self, now: Millis, name: &str, number: u64, step: u64) {
        let Some((job, pending)) = self.finish_pending(name, number, step) else { return };
        job.checkpoint = Some(step);
        job.saving.failures = 0;
        job.saving.last_failure = None;
        let done = step >= job.steps();
        let message = format!("checkpoint after step {step}");
        self.out.push(Command::RecordCheckpoint { job: name.to_owned(), generation: number, step });
        self.announce(name, "CheckpointCommitted", message, false);
        for request in pending.requests {
            self.out.push(Command::AnswerCheckpoint { request, answer: Ok(step) });
        }
        self.changed.insert(name.to_owned());
        if done {
            self.begin_end(name, Outcome::Succeeded);
        } else {
            self.grant(now, name);
        }
    }

    pub(crate) fn on_not_committed(&mut self, now: Millis, name: &str, number: u64, step: u64, reason: String) {
        let current = self.jobs.get(name).and_then(Job::active).is_some_and(|g| g.number == number);
        if current {
            self.give_up(now, name, step, reason);
        }
    }

    /// The pending checkpoint, taken out, when it is this one.
    fn finish_pending(&mut self, name: &str, number: u64, step: u64) -> Option<(&mut Job, Pending)> {
        let job = self.jobs.get_mut(name)?;
        let Phase::Active(generation) = &mut job.phase else { return None };
        let this = |g: &Generation| g.number == number && g.pending.as_ref().is_some_and(|p| p.step == step);
        if !this(generation) {
            return None;
        }
        let pending = generation.pending.take()?;
        Some((job, pending))
    }

    /// A checkpoint that cannot be written costs nothing but itself: training goes on and it is tried again.
    fn give_up(&mut self, now: Millis, name: &str, step: u64, reason: String) {
        let Some(number) = self.jobs.get(name).and_then(Job::active).map(|g| g.number) else { return };
        let Some((job, pending)) = self.finish_pending(name, number, step) else { return };
        let pause = RETRY_MS.saturating_mul(1 << job.saving.failures.min(10)).min(PAUSE_MAX_MS);
        job.saving.failures += 1;
        job.saving.overdue = true;
        job.saving.retry_at = now + pause;
        job.saving.last_failure = Some(reason.clone());
        let message = format!("the checkpoint after step {step} was not written, trying again in {pause} ms: {reason}");
        self.announce(name, "CheckpointFailed", message, true);
        for request in pending.requests {
            let answer = Err(Refusal::NotWritten { reason: reason.clone() });
            self.out.push(Command::AnswerCheckpoint { request, answer });
        }
        self.changed.insert(name.to_owned());
        self.grant(now, name);
    }
}

/// Whether the checkpoint interval in epochs ends at this step.
pub(crate) fn falls_on(job: &Job, step: u64) -> bool {
    let every = job.steps_per_epoch.saturating_mul(job.job.spec.checkpoint.every.epochs);
    step > 0 && every > 0 && step.is_multiple_of(every)
}

fn is_due(job: &Job, now: Millis, step: u64) -> bool {
    if !job.saving.requests.is_empty() {
        return true;
    }
    if step == 0 || now < job.saving.retry_at {
        return false;
    }
    let minutes = job.job.spec.checkpoint.every.minutes;
    let long_ago = minutes.is_some_and(|m| (now - job.saving.last_at.min(now)) as f64 >= m * 60_000.0);
    job.saving.overdue || falls_on(job, step) || step == job.steps() || long_ago
}

fn merge(pending: &mut Pending) -> Vec<Tensor> {
    let parts = std::mem::replace(&mut pending.parts, Gathering::new(0));
    let mut tensors: Vec<Tensor> = parts.into_parts().into_iter().flatten().collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}
