//! Forms a generation: group, state, and the proof that all replicas are equal. See worker/agent/src/trainer/form.rs.

use std::sync::Arc;

use r2o_worker_core::{Assignment, Event, Failure, Start};

use crate::dice::mix;
use crate::group::Brings;
use crate::happening::{Answer, Op, Process, Up};
use crate::worker::trainer::{Running, Stage, Task};
use crate::world::World;

impl World {
    /// The engine is built: the members meet.
    pub(super) fn built(&mut self, id: Process) {
        let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer) else { return };
        let Some(current) = &mut trainer.current else { return };
        match &current.task {
            Task::Prepare { job, .. } => {
                let job = job.clone();
                trainer.parked = current.base.take();
                self.finish_task(id, Some(Event::Prepared { job }));
            }
            Task::Form { assignment, .. } => {
                let assignment = (**assignment).clone();
                let seed = self.course(&assignment.job).states[0];
                if let Some(base) = self.forming(id)
                    && assignment.start == Start::Seed
                    && !base.fresh
                {
                    (base.fresh, base.since, base.step, base.state) = (true, None, 0, seed);
                    base.reports.clear();
                }
                if assignment.members.len() == 1 {
                    return self.have_met(id, &assignment);
                }
                let coordinator = self.workers.get(&id).and_then(|w| w.trainer.current.as_ref()).map(|c| c.coordinator);
                let room = coordinator.and_then(|c| self.coordinators.get(&c)?.rooms.get(&assignment.job).copied());
                if room != Some(assignment.generation) {
                    return self.fail_task(id, Failure::Collective("the rendezvous is closed".to_owned()));
                }
                if self.dice.chance(self.scenario.form_fails) && !self.healing {
                    return self.fail_task(id, Failure::Collective("cannot connect to a peer".to_owned()));
                }
                self.meet(id, &assignment, Brings::Itself);
            }
            _ => {}
        }
    }

    pub(super) fn forming(&mut self, id: Process) -> Option<&mut super::Base> {
        self.workers.get_mut(&id)?.trainer.current.as_mut()?.base.as_mut()
    }

    /// The group stands: the state comes from where the assignment says.
    pub(super) fn have_met(&mut self, id: Process, assignment: &Assignment) {
        let Some(base) = self.forming(id) else { return };
        match assignment.start {
            Start::Peers { since } => {
                let mine = base.since.filter(|at| *at >= since).map(|_| base.step);
                self.meet(id, assignment, Brings::Steps(mine));
            }
            Start::Checkpoint { .. } => {
                (base.since, base.fresh) = (None, false);
                let Some(current) = self.workers.get_mut(&id).and_then(|w| w.trainer.current.as_mut()) else { return };
                current.stage = Stage::Loading;
                let (number, job, step) = (current.number, assignment.job.clone(), assignment.step);
                self.store(Op::Load { process: id, number, job, step });
            }
            Start::Seed => self.settle(id, assignment),
        }
    }

    /// A state that every member made for itself.
    fn settle(&mut self, id: Process, assignment: &Assignment) {
        let Some(base) = self.forming(id) else { return };
        base.reports.clear();
        base.step = assignment.step;
        self.prove(id, assignment);
    }

    fn prove(&mut self, id: Process, assignment: &Assignment) {
        let Some(base) = self.forming(id) else { return };
        let digest = base.state;
        if assignment.members.len() == 1 {
            return self.formed(id, assignment);
        }
        self.meet(id, assignment, Brings::Digest(digest));
    }

    /// A checkpoint is read, every tensor checked against its hash.
    pub(crate) fn loaded(&mut self, id: Process, number: u64, answer: Result<Answer, String>) {
        let Some(current) = self.workers.get(&id).and_then(|w| w.trainer.current.as_ref()) else { return };
        let Task::Form { assignment, .. } = &current.task else { return };
        if current.number != number {
            return;
        }
        let assignment = (**assignment).clone();
        match answer {
            Ok(Answer::Whole(states)) => {
                let first = states.first().copied().unwrap_or_default();
                let same = states.iter().all(|state| *state == first);
                let state = if same { first } else { states.iter().fold(0, |all, state| mix(all, *state)) };
                self.loads(&assignment.job, assignment.step, &states, state);
                if let Some(base) = self.forming(id) {
                    base.state = state;
                }
                self.settle(id, &assignment);
            }
            Ok(_) => self.fail_task(id, Failure::Job("a tensor of the checkpoint is damaged".to_owned())),
            Err(reason) => self.fail_task(id, self.scenario.load_failure(reason)),
        }
    }

    /// All that members brought to a collective of forming.
    pub(super) fn form_on(&mut self, id: Process, assignment: &Assignment, outbox: u64, all: &Arc<Vec<Brings>>) {
        let rank = assignment.rank;
        match all.get(rank) {
            Some(Brings::Itself) => self.have_met(id, assignment),
            Some(Brings::Steps(mine)) => self.take_over(id, assignment, outbox, *mine, all),
            Some(Brings::State(..)) => {
                let states =
                    all.iter().filter_map(|b| if let Brings::State(s, state) = b { Some((*s, *state)) } else { None });
                // The first of those that hold the most.
                let newest = states.clone().map(|(steps, _)| steps).max().flatten();
                let Some((Some(step), state)) = states.into_iter().find(|(steps, _)| *steps == newest) else { return };
                if let Some(base) = self.forming(id) {
                    (base.step, base.state) = (step, state);
                }
                self.prove(id, assignment);
            }
            Some(Brings::Digest(mine)) => {
                if all.iter().all(|b| *b == Brings::Digest(*mine)) {
                    self.formed(id, assignment);
                } else {
                    let reason = "a worker starts from another state than its peers".to_owned();
                    self.fail_task(id, Failure::Job(reason));
                }
            }
            _ => {}
        }
    }

    /// Goes on with the state of the member that holds the most steps.
    fn take_over(
        &mut self,
        id: Process,
        assignment: &Assignment,
        outbox: u64,
        mine: Option<u64>,
        all: &Arc<Vec<Brings>>,
    ) {
        let steps = || all.iter().map(|b| if let Brings::Steps(steps) = b { *steps } else { None });
        let Some(newest) = steps().flatten().max() else {
            let reason = "none of the members holds the state that they were to go on with".to_owned();
            return self.fail_task(id, Failure::Collective(reason));
        };
        let Some(base) = self.forming(id) else { return };
        let known: Vec<_> =
            base.reports.iter().filter(|(step, _)| mine.is_some() && *step >= assignment.step).cloned().collect();
        if !known.is_empty() {
            self.send_up(outbox, Up::Recovered { generation: assignment.generation, reports: known });
        }
        if steps().all(|step| step == Some(newest)) {
            return self.formed(id, assignment);
        }
        let Some(base) = self.forming(id) else { return };
        let state = base.state;
        if mine != Some(newest) {
            (base.since, base.fresh) = (None, false);
            base.reports.clear();
        }
        self.meet(id, assignment, Brings::State(mine, state));
    }

    fn formed(&mut self, id: Process, assignment: &Assignment) {
        let Some(current) = self.workers.get_mut(&id).and_then(|w| w.trainer.current.as_mut()) else { return };
        let Some(mut base) = current.base.take() else { return };
        let Task::Form { outbox, .. } = &current.task else { return };
        let (outbox, coordinator) = (*outbox, current.coordinator);
        let generation = assignment.generation;
        (base.fresh, base.since) = (false, Some(generation));
        let (step, state, job) = (base.step, base.state, base.job.clone());
        if let Some(worker) = self.workers.get_mut(&id) {
            let assignment = assignment.clone();
            worker.trainer.running = Some(Running { assignment, base, outbox, coordinator });
        }
        self.complain(id, "formed", [generation, step]);
        self.holds(&job, step, state, "formed");
        self.finish_task(id, Some(Event::Formed { generation, step }));
    }
}
