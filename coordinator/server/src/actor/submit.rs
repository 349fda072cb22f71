//! Submissions: one after another, each accepted once its record is in the journal.

use std::sync::Arc;

use r2o_coordinator_core::{Event, NewJob, Record, Resume};
use tokio::sync::oneshot;
use tonic::Status;

use super::{Actor, Lost, Submitted};
use crate::admit::{Admitted, Refused, difference};
use crate::board::{Board, Entry};
use crate::limits;
use crate::scribe::Purpose;

type Reply = oneshot::Sender<Result<Submitted, Status>>;

/// How often the journal may fail before the submitter is told.
const TELL_AFTER: u32 = 3;

/// A job whose record is being written, or waits to be.
pub(crate) struct Submission {
    admitted: Box<Admitted>,
    /// Taken when the submitter was told that it takes long.
    reply: Option<Reply>,
    failures: u32,
}

impl Actor {
    pub(super) fn submit(&mut self, admitted: Box<Admitted>, reply: Reply) {
        self.submissions.push_back(Submission { admitted, reply: Some(reply), failures: 0 });
        if self.submissions.len() == 1 {
            self.next_submission();
        }
    }

    /// Begins to write the record of the first submission that is to be accepted.
    fn next_submission(&mut self) {
        while let Some(submission) = self.submissions.front_mut() {
            let answer = match existing(&self.board, &submission.admitted) {
                Ok(None) => {
                    let admitted = &submission.admitted;
                    let record = Record::JobSubmitted {
                        job: Box::new(admitted.job.clone()),
                        steps_per_epoch: admitted.steps_per_epoch,
                        last_generation: admitted.last_generation,
                        unix_ms: self.clock.now(),
                    };
                    self.scribe.write(record, Purpose::Submission);
                    return;
                }
                Ok(Some(entry)) => Ok(Submitted { entry, created: false }),
                Err(refused) => Err(refused.into()),
            };
            if let Some(reply) = self.submissions.pop_front().and_then(|s| s.reply) {
                let _gone = reply.send(answer);
            }
        }
    }

    /// The first submission is in the journal, as record `number`.
    pub(super) async fn accept(&mut self, number: u64) -> Result<(), Lost> {
        let Some(Submission { admitted, reply, .. }) = self.submissions.pop_front() else { return Ok(()) };
        let name = admitted.job.metadata.name.clone();
        let new = NewJob {
            job: admitted.job,
            steps_per_epoch: admitted.steps_per_epoch,
            order: number,
            submitted_at: self.clock.now(),
            last_generation: admitted.last_generation,
            lineage: 0,
            last_workers: Vec::new(),
            paused: None,
            resume: admitted.resume,
        };
        let message =
            format!("{} steps of {} an epoch", new.steps_per_epoch * new.job.spec.epochs, new.steps_per_epoch);
        let epochs = new.job.spec.epochs;
        let commands = self.core.handle(self.clock.now(), Event::JobSubmitted(Box::new(new)));
        let answer = match self.add_entry(&name, epochs, admitted.store, admitted.past) {
            Some(entry) => {
                entry.announce("Submitted", message, false);
                for warning in admitted.warnings {
                    entry.announce("CheckpointDamaged", warning, true);
                }
                Ok(Submitted { entry, created: true })
            }
            None => Err(Status::internal(format!("job {name} was lost"))),
        };
        for command in commands {
            self.carry_out(command).await?;
        }
        if let Some(reply) = reply {
            let _gone = reply.send(answer);
        }
        self.next_submission();
        Ok(())
    }

    /// A record may be there already though nobody said so: it is tried on, and the submitters need not wait.
    pub(super) fn tell_submitters(&mut self, reason: &str) {
        let Some(submission) = self.submissions.front_mut() else { return };
        submission.failures += 1;
        if submission.failures < TELL_AFTER {
            return;
        }
        for submission in &mut self.submissions {
            if let Some(reply) = submission.reply.take() {
                let name = &submission.admitted.job.metadata.name;
                let message = format!(
                    "job {name} is not accepted yet: the journal cannot be written, which is tried again until it can be: \
                     {reason}"
                );
                let _gone = reply.send(Err(Status::unavailable(message)));
            }
        }
    }
}

/// The job of this name when it is the same one; an error when it is another that has not ended.
fn existing(board: &Board, admitted: &Admitted) -> Result<Option<Arc<Entry>>, Refused> {
    let (name, url) = (&admitted.job.metadata.name, admitted.store.url());
    let busy = |e: &&Arc<Entry>| e.store.url() == url && !e.view().state.has_ended();
    if let Some(other) = board.entries().iter().find(busy).filter(|e| e.view().name != *name) {
        let message = format!("spec.checkpoint.url: {url} is in use by job {}", other.view().name);
        return Err(Refused::InTheWay(message));
    }
    let unended = || board.entries().iter().filter(|e| !e.view().state.has_ended()).count();
    let Some(entry) = board.get(name) else {
        return if unended() < limits::JOBS { Ok(None) } else { Err(Refused::TooMany) };
    };
    let view = entry.view();
    let old: serde_json::Value = serde_json::from_str(&view.spec).unwrap_or_default();
    let new = serde_json::to_value(&admitted.job).unwrap_or_default();
    let succeeded = view.state == r2o_coordinator_core::JobState::Succeeded;
    match (view.state.has_ended(), old == new) {
        (false, true) => Ok(Some(entry)),
        (true, true) if succeeded && matches!(admitted.resume, Resume::Checkpoint(s) if s == view.steps) => {
            Ok(Some(entry))
        }
        (true, _) => Ok(None),
        (false, false) => {
            let field = difference(&old, &new).map_or_else(|| "spec".to_owned(), |(path, _, _)| path);
            Err(Refused::Taken { name: name.clone(), field })
        }
    }
}
