//! The coordinator's work on storage: asks, and takes the answers.

use r2o_coordinator_core::{Event, NewJob, Record, Resume};

use crate::coordinator::{Purpose, Submission};
use crate::happening::{Answer, Commit, Happening, Op, Process};
use crate::options::Plant;
use crate::trace::Actor;
use crate::world::{MS, World};

impl World {
    /// The journal's task: one record after another, however long the storage fails.
    pub(crate) fn write_next(&mut self, id: Process) {
        let Some(coordinator) = self.coordinators.get_mut(&id).filter(|c| c.serving && !c.writing) else { return };
        let Some((record, _)) = coordinator.records.front() else { return };
        let record = serde_json::to_vec(record).expect("a record has a text");
        coordinator.writing = true;
        let number = coordinator.next_record;
        self.store(Op::Append { coordinator: id, number, record });
    }

    /// The task has slept.
    pub(crate) fn write_again(&mut self, id: Process) {
        if let Some(coordinator) = self.coordinators.get_mut(&id) {
            coordinator.writing = false;
            self.write_next(id);
        }
    }

    pub(crate) fn appended(&mut self, id: Process, answer: Result<Answer, String>) {
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        coordinator.writing = false;
        match answer {
            Ok(Answer::Done) => {}
            Ok(_) => return self.end_coordinator(id, "another coordinator wrote to the journal"),
            Err(_) => {
                let pause = coordinator.pause_ms;
                coordinator.pause_ms = (pause * 2).min(10_000);
                coordinator.writing = true;
                // The flag keeps others from writing until the task has slept.
                return self.after(pause * MS, Happening::Scribe { coordinator: id });
            }
        }
        coordinator.pause_ms = 500;
        let Some((record, purpose)) = coordinator.records.pop_front() else { return };
        let number = coordinator.next_record;
        coordinator.next_record += 1;
        coordinator.fold.add(number, record);
        let compact = coordinator.fold.since_snapshot >= self.scenario.compact_after;
        if compact && !coordinator.records.iter().any(|(_, purpose)| *purpose == Purpose::Snapshot) {
            let snapshot = coordinator.fold.snapshot(coordinator.clock(self.now));
            coordinator.records.push_front((snapshot, Purpose::Snapshot));
        }
        match purpose {
            Purpose::Note => {}
            Purpose::Snapshot => self.store(Op::Trim { below: number }),
            Purpose::Submission => self.accept(id, number),
            Purpose::Gate(job) => {
                let waiting = self.coordinators.get_mut(&id).map(|c| c.gate.open(&job)).unwrap_or_default();
                for command in waiting {
                    self.carry_out(id, command);
                }
                self.watch_reasons(id);
            }
        }
        self.write_next(id);
    }

    pub(crate) fn admitted(&mut self, id: Process, job: usize, answer: Result<Answer, String>) {
        let Ok(Answer::Newest(newest)) = answer else {
            // Refused; the person tries again.
            return self.after(1_000 * MS, Happening::Wish { wish: crate::happening::Wish::Submit, job });
        };
        let Some(coordinator) = self.coordinators.get_mut(&id).filter(|c| c.serving) else {
            return self.after(1_000 * MS, Happening::Wish { wish: crate::happening::Wish::Submit, job });
        };
        coordinator.submissions.push_back(Submission { job, newest });
        if coordinator.submissions.len() == 1 {
            self.next_submission(id);
        }
    }

    fn next_submission(&mut self, id: Process) {
        loop {
            let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
            let Some(Submission { job, newest }) = coordinator.submissions.front() else { return };
            let name = format!("j{job}");
            let there = coordinator.core.job(&name).is_some_and(|view| !view.state.has_ended());
            if there {
                coordinator.submissions.pop_front();
                continue;
            }
            let course = &self.courses[*job];
            let record = Record::JobSubmitted {
                job: Box::new(course.job.clone()),
                steps_per_epoch: course.steps_per_epoch,
                last_generation: newest.map_or(0, |(_, generation)| generation),
                unix_ms: coordinator.clock(self.now),
            };
            coordinator.records.push_back((record, Purpose::Submission));
            return self.write_next(id);
        }
    }

    /// The first submission is in the journal.
    fn accept(&mut self, id: Process, number: u64) {
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let Some(Submission { job, newest }) = coordinator.submissions.pop_front() else { return };
        let course = &self.courses[job];
        let new = NewJob {
            job: course.job.clone(),
            steps_per_epoch: course.steps_per_epoch,
            order: number,
            submitted_at: coordinator.clock(self.now),
            last_generation: newest.map_or(0, |(_, generation)| generation),
            lineage: 0,
            last_workers: Vec::new(),
            paused: None,
            resume: newest.map_or(Resume::Fresh, |(step, _)| Resume::Checkpoint(step)),
        };
        self.accepted(job);
        self.feed(id, Event::JobSubmitted(Box::new(new)));
        self.next_submission(id);
    }

    pub(crate) fn located(&mut self, id: Process, job: String, pause: u64, answer: Result<Answer, String>) {
        self.notice_away(id);
        let event = match answer {
            Ok(Answer::Newest(newest)) => {
                self.searched(id, &job, newest.map(|(step, _)| step));
                Event::CheckpointLocated { job: job.clone(), step: newest.map(|(step, _)| step) }
            }
            Ok(_) => Event::CheckpointsUnreadable { job: job.clone(), reason: "none is whole".to_owned() },
            Err(_) if self.plants(Plant::StartFromScratch) => Event::CheckpointLocated { job: job.clone(), step: None },
            Err(_) => {
                let pause_next = (pause * 2).min(60_000);
                let op = Op::Locate { coordinator: id, job, pause: pause_next };
                return self.after(pause * MS, Happening::Effect { op: Box::new(op) });
            }
        };
        if let Some(coordinator) = self.coordinators.get_mut(&id) {
            coordinator.locating.remove(&job);
        }
        self.feed(id, event);
    }

    /// All objects are there: the manifest is put, unless one of that step is there.
    pub(crate) fn checked(&mut self, id: Process, commit: Box<Commit>, answer: Result<Answer, String>) {
        match answer {
            Ok(Answer::Done) => self.store(Op::Put { coordinator: id, commit }),
            Ok(_) => self.not_committed(id, *commit, "some objects are missing".to_owned()),
            Err(reason) => self.not_committed(id, *commit, reason),
        }
    }

    pub(crate) fn put(&mut self, id: Process, commit: Commit, answer: Result<Answer, String>) {
        match answer {
            Ok(Answer::Done) => {
                let Commit { job, generation, step, .. } = commit;
                self.count("checkpoints");
                self.say(Actor::Coordinator(id), "manifest is put", [generation, step], || {
                    format!("of {job} after step {step}")
                });
                self.checkpoint_exists(&job, step);
                self.feed(id, Event::CheckpointCommitted { job, generation, step });
            }
            Ok(_) => self.not_committed(id, commit, "a damaged checkpoint is in the way".to_owned()),
            Err(reason) => self.not_committed(id, commit, reason),
        }
    }

    fn not_committed(&mut self, id: Process, commit: Commit, reason: String) {
        let Commit { job, generation, step, .. } = commit;
        self.feed(id, Event::CheckpointNotCommitted { job, generation, step, reason });
    }
}
