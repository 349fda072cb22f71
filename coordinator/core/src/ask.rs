//! What people ask for: stopping, pausing, resuming and requeueing a job, and checkpoints.

use crate::state::{Blame, Closing, Phase, Wait};
use crate::{Command, Core, Millis, Outcome, Reason, Refusal};

impl Core {
    pub(crate) fn on_cancel(&mut self, name: &str, reason: String) {
        if self.jobs.get(name).is_some_and(|j| !j.has_ended()) {
            self.begin_end(name, Outcome::Cancelled { reason });
        }
    }

    /// The generation, if there is one, saves its state and ends; the job keeps its place in the queue and gets no workers
    /// until it is resumed.
    pub(crate) fn on_pause(&mut self, now: Millis, name: &str, reason: String) {
        let Some(job) = self.jobs.get_mut(name).filter(|j| !j.has_ended() && j.paused.is_none()) else { return };
        let message = if reason.is_empty() { "paused".to_owned() } else { format!("paused: {reason}") };
        job.paused = Some(reason.clone());
        let why = Reason::Paused { reason: reason.clone() };
        self.recorded(name, Command::RecordPaused { job: name.to_owned(), reason });
        self.announce(name, why.word(), why.to_string(), false);
        let closing = Closing { save_first: true, to_queue: true, ..Closing::new(message, Blame::Nobody) };
        self.close(now, name, closing);
    }

    pub(crate) fn on_resume(&mut self, name: &str) {
        let Some(job) = self.jobs.get_mut(name).filter(|j| j.paused.is_some()) else { return };
        job.paused = None;
        if let Phase::Queued { wait, .. } = &mut job.phase {
            *wait = Wait::Workers;
        }
        self.recorded(name, Command::RecordResumed { job: name.to_owned() });
        self.announce(name, "Resumed", "goes on after a pause".to_owned(), false);
    }

    /// The job goes behind all others of its priority, and gives its workers back.
    pub(crate) fn on_requeue(&mut self, now: Millis, name: &str) {
        let last = self.jobs.values().map(|j| j.order).max().unwrap_or(0);
        let Some(job) = self.jobs.get_mut(name).filter(|j| !j.has_ended()) else { return };
        job.order = last + 1;
        self.recorded(name, Command::RecordRequeued { job: name.to_owned() });
        let message = "sent back to the end of the queue".to_owned();
        self.announce(name, "Requeued", message.clone(), false);
        let closing = Closing { save_first: true, to_queue: true, ..Closing::new(message, Blame::Nobody) };
        self.close(now, name, closing);
    }

    /// Whoever waits for the event finds the job changed.
    fn recorded(&mut self, name: &str, record: Command) {
        self.out.push(record);
        self.out.push(Command::JobChanged { job: name.to_owned() });
    }

    pub(crate) fn on_checkpoint_requested(&mut self, now: Millis, name: &str, request: u64) {
        let refusal = match self.jobs.get_mut(name) {
            None => Refusal::NoSuchJob,
            Some(job) if matches!(job.phase, Phase::Active(_)) => {
                job.saving.requests.push(request);
                self.grant(now, name);
                return;
            }
            Some(_) => {
                let reason = self.jobs.get(name).map(|j| self.reason(j).to_string()).unwrap_or_default();
                Refusal::NotTraining { reason }
            }
        };
        self.out.push(Command::AnswerCheckpoint { request, answer: Err(refusal) });
    }
}
