//! The promises, checked as things happen.

use std::collections::{BTreeMap, BTreeSet};

use r2o_coordinator_core::{Assignment, CommittedStep, LaneReport, Outcome, Record, Refusal, Start, Ticket};

use crate::course::Course;
use crate::dice::mix;
use crate::happening::Process;
use crate::options::Promise;
use crate::world::World;

/// What is known of a job, whoever coordinates it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Committed steps of the course that goes on.
    pub(crate) committed: u64,
    /// The oldest generation of that course.
    pub(crate) lineage: u64,
    /// The most steps that any worker ever applied.
    pub(crate) applied: u64,
    pub(crate) accepted: bool,
    pub(crate) cancelled: bool,
    /// Nobody could say which replica is right: all go back.
    pub(crate) forgiven: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) lines: BTreeMap<String, Line>,
    /// Generations in the journal: who recorded them.
    recorded: BTreeMap<u64, (Process, u64)>,
    /// The coordinator whose word counts in a generation.
    rules: BTreeMap<u64, Process>,
    /// The next step that a generation may commit.
    next: BTreeMap<u64, u64>,
    /// States of replicas that were damaged, and what became of them.
    pub(crate) wrong: BTreeSet<u64>,
    pub(crate) healed_at: Option<u64>,
    /// What is wrong with decisions that have not taken effect yet, by coordinator and generation.
    decisions: BTreeMap<(Process, u64), (Promise, String)>,
    /// The job in which a coordinator has placed a worker last, whether the worker knows of it or not.
    placed: BTreeMap<(Process, Process), String>,
    /// Since when a job is in the same situation, by coordinator.
    pub(crate) situations: BTreeMap<(Process, String), (crate::reasons::Situation, u64)>,
}

impl Oracle {
    pub(crate) fn new(courses: &[Course]) -> Self {
        let line = |course: &Course| (course.job.metadata.name.clone(), Line::default());
        Self { lines: courses.iter().map(line).collect(), ..Self::default() }
    }

    pub(crate) fn line(&mut self, job: &str) -> &mut Line {
        self.lines.entry(job.to_owned()).or_default()
    }
}

impl World {
    /// A record is durable.
    pub(crate) fn recorded(&mut self, id: Process, number: u64, record: &[u8]) {
        let Ok(record) = serde_json::from_slice::<Record>(record) else { return };
        match record {
            Record::GenerationOpened { generation, .. } => {
                let highest = self.oracle.recorded.last_key_value();
                let highest = highest.map_or((0, id), |(highest, (by, _))| (*highest, *by));
                let other = self.oracle.recorded.insert(generation, (id, number));
                // Its answer was lost, and it is put again.
                if other == Some((id, number)) {
                    return;
                }
                let again = other.is_some_and(|other| other != (id, number));
                // Of one coordinator the records of two jobs may change places: each job waits for its own.
                if again || highest.0 > generation && highest.1 != id {
                    let what = format!("generation {generation} is recorded after {highest:?}, by {other:?} before");
                    self.violate(Promise::OneWriter, what);
                }
            }
            Record::JobEnded { job, outcome, .. } => {
                let _how = outcome;
                self.oracle.line(&job).committed = 0;
            }
            _ => {}
        }
    }

    /// A coordinator lets members of a generation meet.
    pub(crate) fn opens(&mut self, id: Process, job: &str, generation: u64) {
        if self.oracle.recorded.get(&generation).is_none_or(|(by, _)| *by != id) {
            let what = format!("coordinator {id} opens generation {generation} of {job} before it is in the journal");
            self.violate(Promise::OneWriter, what);
        }
        self.rules(id, generation);
    }

    fn rules(&mut self, id: Process, generation: u64) {
        let other = *self.oracle.rules.entry(generation).or_insert(id);
        if other != id {
            let what = format!("coordinators {other} and {id} both rule generation {generation}");
            self.violate(Promise::OneWriter, what);
        }
    }

    pub(crate) fn granted(&mut self, id: Process, ticket: &Ticket) {
        self.rules(id, ticket.generation);
        if !self.course(&ticket.job).agrees(ticket) {
            self.violate(Promise::SameRun, format!("a ticket says something else than the schedules: {ticket:?}"));
        }
    }

    pub(crate) fn committed(&mut self, id: Process, step: &CommittedStep) {
        let (job, number, generation) = (&step.ticket.job, step.ticket.step, step.ticket.generation);
        self.rules(id, generation);
        self.count("steps");
        let course = self.course(job);
        let lanes: Vec<LaneReport> = (0..course.lanes).map(|lane| course.lane(number, lane)).collect();
        if !course.agrees(&step.ticket) || lanes != step.lanes {
            let what = format!("step {number} of {job} was committed with other samples or values than the run's own");
            self.violate(Promise::SameRun, what);
        }
        let next = self.oracle.next.entry(generation).or_insert(number);
        let twice = number < *next;
        *next = number + 1;
        if twice {
            self.violate(Promise::ExactlyOnce, format!("step {number} of {job} was committed twice in {generation}"));
        }
        if self.oracle.line(job).applied <= number {
            let what = format!("step {number} of {job} is committed, and no worker has applied it");
            self.violate(Promise::NoHalfState, what);
        }
        let line = self.oracle.line(job);
        line.committed = line.committed.max(number + 1);
    }

    /// What a coordinator has decided takes effect.
    pub(crate) fn takes_effect(&mut self, id: Process, a: &Assignment) {
        if let Some((promise, what)) = self.oracle.decisions.remove(&(id, a.generation)) {
            self.violate(promise, what);
        }
        if !matches!(a.start, Start::Peers { .. }) {
            self.oracle.line(&a.job).lineage = a.generation;
        }
        let members = self.members(id, a);
        let workers = members.iter().filter_map(|process| self.workers.get(process));
        let versions: BTreeSet<&str> = workers.map(|w| w.info.version.as_str()).collect();
        if versions.len() > 1 && self.course(&a.job).job.spec.reproducible {
            let what = format!("generation {} of {}, which is reproducible, mixes versions", a.generation, a.job);
            self.violate(Promise::SameRun, what);
        }
    }

    fn object(&mut self, id: Process, generation: u64, promise: Promise, what: String) {
        self.oracle.decisions.entry((id, generation)).or_insert((promise, what));
    }

    /// A coordinator has decided who goes on with a job, and from where.
    pub(crate) fn decided(&mut self, id: Process, a: &Assignment) {
        self.judge(id, a);
        self.members(id, a).iter().for_each(|p| _ = self.oracle.placed.insert((id, *p), a.job.clone()));
    }

    /// The processes behind the members of a generation, as far as their streams are there.
    fn members(&self, id: Process, a: &Assignment) -> Vec<Process> {
        let lines = self.coordinators.get(&id).map(|c| &c.lines);
        let stream = |m: &r2o_coordinator_core::Member| self.streams.get(lines?.get(&m.session)?);
        a.members.iter().filter_map(stream).map(|s| s.worker).collect()
    }

    /// What is wrong with a decision. It counts once it takes effect: until then another coordinator may have become the
    /// one that decides.
    fn judge(&mut self, id: Process, a: &Assignment) {
        let (job, number) = (a.job.as_str(), a.generation);
        let streams: Vec<u64> =
            self.coordinators.get(&id).map(|c| c.lines.values().copied().collect()).unwrap_or_default();
        let before = self.oracle.line(job).lineage;
        let held = |world: &Self, process: Process, since: u64| {
            let worker = world.workers.get(&process)?;
            let elsewhere = world.oracle.placed.get(&(id, process)).is_some_and(|placed| placed != job);
            if elsewhere {
                return None;
            }
            // A worker that was placed in another job has let go of it, though its engine may be there a while longer.
            worker.core.held().filter(|held| held.job == job)?;
            let base = worker.trainer.base_of(job)?;
            base.since.filter(|at| *at >= since).map(|_| (base.step, base.state))
        };
        let members = self.members(id, a);
        let from = match a.start {
            Start::Seed | Start::Checkpoint => Some(a.step),
            Start::Peers { since } => members.iter().filter_map(|p| held(self, *p, since)).map(|(step, _)| step).max(),
        };
        // It cannot know yet that one of them is gone.
        let unknown = matches!(a.start, Start::Peers { .. }) && members.iter().any(|p| !self.workers.contains_key(p));
        let (committed, forgiven) = (self.oracle.line(job).committed, self.oracle.line(job).forgiven);
        // Nobody holds anything any more, which forming will show: the next decision is the one that counts.
        let chosen = from;
        let Some(from) = chosen.filter(|_| !unknown) else { return };
        if from < committed && !forgiven {
            let strict = self.scenario.is_strict();
            let connected: Vec<Process> =
                streams.iter().filter_map(|s| self.streams.get(s)).filter(|s| s.worker_end).map(|s| s.worker).collect();
            let able = |process: &&Process| {
                let Some(worker) = self.workers.get(process) else { return false };
                let views = self.coordinators.get(&id).map(|c| c.core.workers()).unwrap_or_default();
                let here = views.iter().find(|v| v.info.name == worker.info.name);
                let lost = here.is_none() && !strict;
                let elsewhere = here.and_then(|v| v.job.as_deref()).is_some_and(|other| other != job);
                !worker.drains && !elsewhere && !lost
            };
            let all: Vec<Process> = if strict { self.workers.keys().copied().collect() } else { connected };
            let better = all.iter().filter(able).find_map(|process| {
                let (step, state) = held(self, *process, before)?;
                (step > from && !self.oracle.wrong.contains(&state)).then_some((*process, step))
            });
            if let Some((process, step)) = better {
                let name = self.actor_of(process);
                let what = format!(
                    "generation {number} of {job} goes on from step {from} ({:?}), {committed} were committed, and {name} holds {step}",
                    a.start
                );
                self.object(id, number, Promise::StepInFlight, what);
            }
        }
        if a.start == Start::Seed {
            let searched = self.storage.searched.get(&(id, job.to_owned())).copied();
            let manifests = &self.storage.place(job).manifests;
            if manifests.values().any(|m| searched.is_none_or(|at| m.put_at < at)) {
                let what = format!("generation {number} of {job} starts from the seed, and there are checkpoints");
                self.object(id, number, Promise::NeverSilentlyWrong, what);
            }
        }
        if !matches!(a.start, Start::Peers { .. }) {
            // What another coordinator wrote after this one had looked, it cannot know of.
            let searched = self.storage.searched.get(&(id, job.to_owned())).copied().unwrap_or(0);
            let place = self.storage.place(job);
            let known =
                place.manifests.iter().filter(|(step, m)| m.put_at <= searched && place.whole(**step, false).is_some());
            let newest = known.map(|(step, _)| *step).max().unwrap_or(0);
            if from < newest {
                let what = format!("generation {number} of {job} starts from step {from}, a checkpoint has {newest}");
                self.object(id, number, Promise::StepInFlight, what);
            }
        }
    }

    /// A notice that tells of a change of the job's course.
    pub(crate) fn announced(&mut self, id: Process, job: &str, reason: &str) {
        match reason {
            "Training" => {
                let committed =
                    self.coordinators.get(&id).and_then(|c| c.core.job(job)).map_or(0, |view| view.committed);
                let line = self.oracle.line(job);
                let lost = line.committed.saturating_sub(committed);
                (line.committed, line.forgiven) = (committed, false);
                if lost > 0 {
                    self.say(crate::trace::Actor::World, "steps lost", [lost, 0], || format!("{lost} of {job}"));
                    *self.counts.entry("steps lost").or_default() += lost;
                }
            }
            "ReplicasDiffer" | "StateGivenUp" => self.oracle.line(job).forgiven = true,
            _ => {}
        }
    }

    /// A worker holds a state.
    pub(crate) fn holds(&mut self, job: &str, step: u64, state: u64, what: &str) {
        let right = self.course(job).states.get(step as usize) == Some(&state);
        if !right && !self.oracle.wrong.contains(&state) {
            let what = format!("a state of {job} after {step} steps is {what}, and is not that of an undisturbed run");
            self.violate(Promise::NoHalfState, what);
        }
    }

    pub(crate) fn applies(&mut self, job: &str, step: u64, before: u64, after: u64) {
        if self.oracle.wrong.contains(&before) {
            self.oracle.wrong.insert(after);
        }
        let line = self.oracle.line(job);
        line.applied = line.applied.max(step + 1);
        self.holds(job, step, before, "stepped on from");
        let right = self.course(job).states.get(step as usize + 1) == Some(&after);
        if !right && !self.oracle.wrong.contains(&after) {
            let what = format!("step {step} of {job} leads to another state than in an undisturbed run");
            self.violate(Promise::SameRun, what);
        }
    }

    /// A worker has read a checkpoint.
    pub(crate) fn loads(&mut self, job: &str, step: u64, states: &[u64], state: u64) {
        if states.iter().any(|one| self.oracle.wrong.contains(one)) {
            self.oracle.wrong.insert(state);
        }
        let right = self.course(job).states.get(step as usize).copied();
        if states.iter().any(|one| Some(*one) != right && !self.oracle.wrong.contains(one)) {
            let what = format!("the checkpoint after step {step} of {job} is damaged, and was loaded all the same");
            self.violate(Promise::NeverSilentlyWrong, what);
        }
    }

    /// A manifest is there.
    pub(crate) fn manifest_put(&mut self, job: &str, step: u64) {
        let right = self.course(job).states.get(step as usize).copied();
        let states = self.storage.place(job).whole(step, false).unwrap_or_default();
        if states.iter().any(|one| Some(*one) != right && !self.oracle.wrong.contains(one)) {
            let what = format!("the checkpoint after step {step} of {job} is not the state of an undisturbed run");
            self.violate(Promise::NoHalfState, what);
        }
        if states.iter().any(|one| self.oracle.wrong.contains(one)) {
            self.count("wrong checkpoints");
            let mixed = states.iter().fold(0, |all, state| mix(all, *state));
            self.oracle.wrong.insert(mixed);
        }
    }

    pub(crate) fn checkpoint_exists(&mut self, job: &str, step: u64) {
        let there = self.storage.place(job).manifests.keys().next_back().is_some_and(|newest| *newest >= step);
        if !there {
            let what = format!("the checkpoint after step {step} of {job} counts as written, and is not there");
            self.violate(Promise::NeverSilentlyWrong, what);
        }
    }

    /// The storage was searched.
    pub(crate) fn searched(&mut self, _id: Process, job: &str, step: Option<u64>) {
        let damaged = step.is_some_and(|step| {
            let place = self.storage.place(job);
            place.manifests.contains_key(&step)
                && place.damaged_steps.contains(&step)
                && place.whole(step, false).is_none()
        });
        if damaged && self.options.plant.is_some() {
            self.violate(Promise::NeverSilentlyWrong, format!("a damaged checkpoint of {job} is taken for the newest"));
        }
    }

    pub(crate) fn request_answered(&mut self, id: Process, request: u64, answer: &Result<u64, Refusal>) {
        let job = self.coordinators.get_mut(&id).and_then(|c| c.requests.remove(&request));
        let Some(job) = job else {
            return self.violate(Promise::SaysWhy, format!("request {request} is answered twice, or was never asked"));
        };
        if let Ok(step) = answer {
            self.checkpoint_exists(&job, *step);
        }
    }

    pub(crate) fn accepted(&mut self, job: usize) {
        self.oracle.line(&format!("j{job}")).accepted = true;
    }

    pub(crate) fn job_ends(&mut self, id: Process, job: &str, outcome: &Outcome) {
        self.say(crate::trace::Actor::Coordinator(id), "job ends", [0, 0], || format!("{job}: {outcome}"));
        match outcome {
            Outcome::Succeeded => {
                self.count("succeeded");
                let steps = self.course(job).steps();
                let right = self.course(job).states.last().copied();
                let place = self.storage.place(job);
                let damaged = place.damaged_steps.contains(&steps);
                let states = place.whole(steps, false);
                let good = states.as_ref().is_some_and(|states| states.iter().all(|one| Some(*one) == right));
                let wrong = states.is_some_and(|states| states.iter().any(|one| self.oracle.wrong.contains(one)));
                if wrong {
                    self.count("wrong ends");
                } else if !good && !damaged {
                    let what = format!("{job} has succeeded, and its last checkpoint is not the end of its run");
                    self.violate(Promise::SameRun, what);
                }
            }
            // Refused, and named: more of the storage was damaged than it keeps copies of.
            Outcome::Failed { .. } if self.storage.place(job).newest(false).is_err() => self.count("unreadable"),
            Outcome::Failed { reason } => {
                self.violate(Promise::Heals, format!("{job} has failed: {reason}"));
            }
            Outcome::Cancelled { reason } => {
                self.count("cancelled");
                self.oracle.line(job).cancelled = true;
                if !reason.contains("person") {
                    self.violate(Promise::SaysWhy, format!("{job} was cancelled by nobody: {reason}"));
                }
            }
        }
    }
}
