//! One arm per command.

use r2o_coordinator_core::{Command, Record, Session, Start};

use crate::coordinator::Purpose;
use crate::happening::{Commit, Down, Op, Process};
use crate::trace::Actor;
use crate::world::World;

impl World {
    /// Does what the core decided, or keeps it until the journal has what it follows from.
    pub(super) fn carry_out(&mut self, id: Process, command: Command) {
        let gated = self.is_gated();
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let command = if gated {
            let Some(command) = coordinator.gate.pass(command) else { return };
            command
        } else {
            command
        };
        if let Some(record) = Record::of(&command, coordinator.clock(self.now)) {
            let gate = command.job().filter(|_| command.is_gate());
            let purpose = gate.map_or(Purpose::Note, |job| Purpose::Gate(job.to_owned()));
            coordinator.records.push_back((record, purpose));
            self.write_next(id);
        }
        self.perform(id, command);
    }

    fn perform(&mut self, id: Process, command: Command) {
        let actor = Actor::Coordinator(id);
        match command {
            Command::RecordGeneration { job, generation, lineage, workers } => {
                self.say(actor, "opens generation", [generation, lineage], || {
                    format!("{generation} of {job}, lineage {lineage}: {}", workers.join(", "))
                });
                self.count("generations");
            }
            Command::RecordEnd { job, outcome } => self.job_ends(id, &job, &outcome),
            Command::RecordPaused { .. }
            | Command::RecordResumed { .. }
            | Command::RecordRequeued { .. }
            | Command::RecordCheckpoint { .. } => {}
            Command::OpenRendezvous { job, generation } => {
                self.opens(id, &job, generation);
                self.fail_rooms(id, Some(&job));
                if let Some(coordinator) = self.coordinators.get_mut(&id) {
                    coordinator.rooms.insert(job, generation);
                }
            }
            Command::CloseRendezvous { job } => {
                self.fail_rooms(id, Some(&job));
                if let Some(coordinator) = self.coordinators.get_mut(&id) {
                    coordinator.rooms.remove(&job);
                }
            }
            Command::Assign { session, assignment } => {
                if assignment.rank == 0 {
                    self.assigned_first(id, &assignment);
                }
                self.send(id, session, Down::Assignment(Box::new(assignment)));
            }
            Command::Grant { sessions, ticket } => {
                self.granted(id, &ticket);
                for session in sessions {
                    self.send(id, session, Down::Ticket(Box::new(ticket.clone())));
                }
            }
            Command::TakeCheckpoint { sessions, generation, step, .. } => {
                sessions.into_iter().for_each(|s| self.send(id, s, Down::TakeCheckpoint { generation, step }));
            }
            Command::Release { session, job, generation, reason, keep } => {
                self.say(actor, "releases", [session, generation], || format!("session {session} of {job}: {reason}"));
                self.send(id, session, Down::Release { job, generation, keep });
            }
            Command::Prepare { session, job, spec } => self.send(id, session, Down::Prepare { job, spec }),
            Command::Disconnect { session, reason, refuse } => {
                self.say(actor, "disconnects", [session, u64::from(refuse)], || format!("session {session}: {reason}"));
                if refuse {
                    self.send(id, session, Down::Refused { reason });
                }
                if let Some(stream) = self.coordinators.get_mut(&id).and_then(|c| c.lines.remove(&session)) {
                    self.close_by_coordinator(stream);
                }
            }
            Command::CommitStep(step) => self.committed(id, &step),
            Command::CommitCheckpoint { job, generation, step, tensors, .. } => {
                let commit = Box::new(Commit { job, generation, step, tensors });
                self.store(Op::Check { coordinator: id, commit });
            }
            Command::LocateCheckpoint { job } => {
                if let Some(coordinator) = self.coordinators.get_mut(&id) {
                    coordinator.locating.insert(job.clone(), self.now);
                }
                self.store(Op::Locate { coordinator: id, job, pause: 1_000 });
            }
            Command::Finalize { job, .. } => self.store(Op::Finalize { coordinator: id, job }),
            Command::AnswerCheckpoint { request, answer } => self.request_answered(id, request, &answer),
            Command::Announce { job, notice } => {
                self.count(notice.reason);
                self.say(actor, notice.reason, [0, 0], || format!("{job}: {}", notice.message));
                self.announced(id, &job, notice.reason);
            }
            Command::JobChanged { .. } => {}
        }
    }

    fn send(&mut self, id: Process, session: Session, message: Down) {
        if let Some(stream) = self.coordinators.get(&id).and_then(|c| c.lines.get(&session)).copied() {
            self.send_down(stream, message);
        }
    }

    /// A generation's members are told of it.
    fn assigned_first(&mut self, id: Process, assignment: &r2o_coordinator_core::Assignment) {
        let from = match assignment.start {
            Start::Seed => "the seed".to_owned(),
            Start::Checkpoint => format!("the checkpoint after {}", assignment.step),
            Start::Peers { since } => format!("peers since {since}"),
        };
        let number = assignment.generation;
        self.takes_effect(id, assignment);
        self.say(Actor::Coordinator(id), "assigns", [number, assignment.step], || {
            format!("generation {number} of {} from {from}", assignment.job)
        });
    }
}
