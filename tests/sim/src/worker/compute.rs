//! A formed generation at work: steps and copies. A step is a collective of all members.

use std::sync::Arc;

use r2o_coordinator_core::{LaneReport, StepReport, Tensor};
use r2o_worker_core::{Event, Failure, Ticket};

use crate::course::{TENSORS, next_state, tensor};
use crate::dice::mix;
use crate::group::{Brings, Outcome};
use crate::happening::{Op, Process, Up, Upload};
use crate::options::Plant;
use crate::worker::trainer::{Stage, Task};
use crate::world::World;

impl World {
    /// A stage that takes nothing but time is over.
    pub(crate) fn stage_over(&mut self, id: Process, number: u64) {
        let Some(trainer) = self.workers.get(&id).map(|w| &w.trainer) else { return };
        let Some(current) = trainer.current.as_ref().filter(|c| c.number == number) else { return };
        match (&current.task, &current.stage) {
            (Task::Form { .. } | Task::Prepare { .. }, Stage::Building) => self.built(id),
            (Task::Compute { generation, ticket }, Stage::Computing) => {
                let (generation, ticket) = (*generation, *ticket);
                self.exchange(id, generation, ticket);
            }
            (Task::CopyOut { generation, step }, Stage::Copying) => {
                let (generation, step) = (*generation, *step);
                self.copy_out(id, generation, step);
            }
            _ => {}
        }
    }

    /// A collective is over for this member.
    pub(crate) fn collective_over(&mut self, id: Process, number: u64, outcome: Outcome) {
        let Some(current) = self.workers.get_mut(&id).and_then(|w| w.trainer.current.as_mut()) else { return };
        if current.number != number || current.stage != Stage::Meeting || current.stuck {
            return;
        }
        let generation = match &current.task {
            Task::Form { assignment, .. } => assignment.generation,
            Task::Compute { generation, .. } => *generation,
            _ => return,
        };
        let key = (current.coordinator, generation);
        let all = match outcome {
            Outcome::Failed(reason) => return self.collective_failed(id, reason),
            // Of an earlier collective of the same task.
            Outcome::All(all) => all,
        };
        if let Some(group) = self.groups.get_mut(&key)
            && group.leaving.remove(&id).is_none()
        {
            return;
        }
        let Some(current) = self.workers.get(&id).and_then(|w| w.trainer.current.as_ref()) else { return };
        match &current.task {
            Task::Form { assignment, outbox } => {
                let (assignment, outbox) = ((**assignment).clone(), *outbox);
                self.form_on(id, &assignment, outbox, &all);
            }
            Task::Compute { ticket, .. } => {
                let ticket = *ticket;
                self.apply(id, ticket, &all);
            }
            _ => {}
        }
    }

    fn collective_failed(&mut self, id: Process, reason: String) {
        let plants = self.plants(Plant::HalfStep);
        let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer) else { return };
        let computes = trainer.current.as_ref().is_some_and(|c| matches!(c.task, Task::Compute { .. }));
        if let Some(running) = trainer.running.as_mut().filter(|_| plants && computes) {
            running.base.state = mix(running.base.state, 0xbad);
        }
        self.fail_task(id, Failure::Collective(reason));
    }

    /// Has computed its lanes: exchanges with the others what there is to report.
    fn exchange(&mut self, id: Process, generation: u64, ticket: Ticket) {
        let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer) else { return };
        let Some(running) = trainer.running.as_ref().filter(|r| r.assignment.generation == generation) else {
            return self.fail_task(id, Failure::Collective(format!("generation {generation} is not formed here")));
        };
        if running.base.step != ticket.step {
            let reason = format!("the ticket is for step {}, the data for {}", ticket.step, running.base.step);
            return self.fail_task(id, Failure::Job(reason));
        }
        let assignment = running.assignment.clone();
        let coordinator = running.coordinator;
        if let Some(current) = &mut trainer.current {
            current.coordinator = coordinator;
        }
        let lanes = assignment.members.get(assignment.rank).map(|m| m.lanes.clone()).unwrap_or_default();
        let course = self.course(&assignment.job);
        let lanes: Vec<LaneReport> = lanes.iter().map(|lane| course.lane(ticket.step, *lane)).collect();
        if self.plants(Plant::ReportBeforeApply) {
            self.report(id, ticket, lanes.clone());
        }
        self.meet(id, &assignment, Brings::Lanes(ticket.step, lanes));
    }

    /// Applies the update: from here on the step is in this worker's state.
    fn apply(&mut self, id: Process, ticket: Ticket, all: &Arc<Vec<Brings>>) {
        let early = self.plants(Plant::ReportBeforeApply);
        let Some(running) = self.workers.get_mut(&id).and_then(|w| w.trainer.running.as_mut()) else { return };
        let generation = running.assignment.generation;
        let own = |brings: &Brings| if let Brings::Lanes(_, lanes) = brings { lanes.clone() } else { Vec::new() };
        let mut lanes: Vec<LaneReport> = all.iter().flat_map(own).collect();
        lanes.sort_by_key(|lane| lane.lane);
        let before = running.base.state;
        let values = (ticket.k, ticket.tau, ticket.learning_rate);
        running.base.state = next_state(before, ticket.step, values, &lanes);
        running.base.step = ticket.step + 1;
        let report = StepReport { lanes, gradient_norm: 0.5, ..StepReport::default() };
        running.base.reports.push((ticket.step, report));
        let (job, after) = (running.base.job.clone(), running.base.state);
        let mine = all.get(running.assignment.rank).map(own).unwrap_or_default();
        self.complain(id, "applies", [generation, ticket.step]);
        self.applies(&job, ticket.step, before, after);
        if !early {
            self.report(id, ticket, mine);
        }
        self.finish_task(id, Some(Event::WorkDone { generation }));
    }

    fn report(&mut self, id: Process, ticket: Ticket, lanes: Vec<LaneReport>) {
        let Some(running) = self.workers.get(&id).and_then(|w| w.trainer.running.as_ref()) else { return };
        let (generation, outbox, state) = (running.assignment.generation, running.outbox, running.base.state);
        let mut report = StepReport { lanes, gradient_norm: 0.5, ..StepReport::default() };
        if ticket.hash_state {
            report.tensor_digests = (0..TENSORS.len()).map(|at| tensor(state, at)).collect();
            report.tensor_names = TENSORS.iter().map(|name| (*name).to_owned()).collect();
        }
        self.send_up(outbox, Up::Report { generation, step: ticket.step, report: Box::new(report) });
    }

    /// Copies this rank's share of the state; it is uploaded while training goes on.
    fn copy_out(&mut self, id: Process, generation: u64, step: u64) {
        let Some(running) = self.workers.get(&id).and_then(|w| w.trainer.running.as_ref()) else {
            return self.fail_task(id, Failure::Collective(format!("generation {generation} is not formed here")));
        };
        if running.assignment.generation != generation {
            return self.fail_task(id, Failure::Collective(format!("generation {generation} is not formed here")));
        }
        let (rank, world, state) = (running.assignment.rank, running.assignment.members.len(), running.base.state);
        let part = |(at, name): (usize, &&str)| Tensor {
            name: (*name).to_owned(),
            dtype: "F32".to_owned(),
            shape: vec![1],
            blake3: format!("{name}{:016x}", tensor(state, at)),
            bytes: 8,
        };
        let tensors = TENSORS.iter().enumerate().filter(|(at, _)| at % world == rank).map(part).collect();
        let (stream, job) = (running.outbox, running.base.job.clone());
        let upload = Upload { stream, job, generation, step, state, tensors };
        self.store(Op::Upload { process: id, upload: Box::new(upload) });
        self.finish_task(id, Some(Event::WorkDone { generation }));
    }
}
