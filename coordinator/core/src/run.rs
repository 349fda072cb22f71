//! A generation at work: readiness, tickets, reports, committed steps.

use std::collections::BTreeMap;

use crate::parity::{Difference, difference};
use crate::save::falls_on;
use crate::state::{Blame, Gathering, Job, Phase, Worker};
use crate::{Command, CommittedStep, Config, Core, Held, LaneReport, Millis, Session, Start, StepReport, Ticket};

impl Core {
    pub(crate) fn on_recovered(&mut self, session: Session, number: u64, reports: Vec<(u64, StepReport)>) {
        let Some((name, _)) = self.membership(session, number) else { return };
        let Some(job) = self.jobs.get_mut(&name) else { return };
        let (committed, steps, lanes) = (job.committed, job.steps(), job.job.spec.batch.lanes);
        let Phase::Active(generation) = &mut job.phase else { return };
        let whole = |report: &StepReport| report.lanes.iter().map(|l| l.lane).eq(0..lanes);
        let wanted = |(step, report): &(u64, StepReport)| (committed..steps).contains(step) && whole(report);
        generation.recovered.extend(reports.into_iter().filter(wanted));
    }

    pub(crate) fn on_ready(&mut self, now: Millis, session: Session, number: u64, step: u64) {
        self.on_heard_now(now, session);
        let Some((name, rank)) = self.membership(session, number) else {
            return self.on_ready_late(session, number, step);
        };
        let Some(job) = self.jobs.get_mut(&name) else { return };
        let (committed, steps) = (job.committed, job.steps());
        let Phase::Active(generation) = &mut job.phase else { return };
        let worker = generation.members[rank].worker.clone();
        if generation.training_since.is_some() {
            return;
        }
        let possible = match generation.start {
            Start::Peers { .. } => (committed..=steps).contains(&step),
            Start::Seed | Start::Checkpoint => step == committed,
        };
        let same = generation.ready_with.is_none_or(|other| other == step);
        if !possible || !same {
            let reason =
                format!("worker {worker} holds {step} steps; {committed} are committed, and all must hold the same");
            self.end_generation(now, &name, &reason, Blame::Infrastructure);
            return;
        }
        generation.ready_with = Some(step);
        generation.ready.add(rank, ());
        let all = generation.ready.missing() == 0;
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.held = Some(Held { job: name.clone(), generation: number, step });
        }
        self.changed.insert(name.clone());
        if all {
            self.begin(now, &name, step);
        }
    }

    /// The generation ended while the word was on its way: what the worker holds counts as if it had come with it.
    fn on_ready_late(&mut self, session: Session, number: u64, step: u64) {
        let newest = |(_, job): &(&String, &Job)| job.generation == number && job.lineage <= number;
        let Some((name, job)) = self.jobs.iter().find(newest) else { return };
        let waits = matches!(job.phase, Phase::Queued { .. } | Phase::Locating);
        let free = |w: &&mut Worker| w.job.is_none() && w.quarantine.is_none();
        if let Some(worker) = self.workers.get_mut(&session).filter(free).filter(|_| waits) {
            worker.held = Some(Held { job: name.clone(), generation: number, step });
            self.unsettled = true;
        }
    }

    /// All members hold the state after `step` steps: commits what only they knew of, and grants.
    fn begin(&mut self, now: Millis, name: &str, step: u64) {
        self.unsettled = true;
        self.commit_recovered(now, name, step);
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.forming_failures = 0;
        let Phase::Active(generation) = &mut job.phase else { return };
        generation.granted = step;
        generation.training_since = Some(now);
        generation.last_commit_at = now;
        if !matches!(generation.start, Start::Peers { .. }) {
            job.saving.last_at = now;
        }
        let (number, after) = (generation.number, now - generation.opened_at);
        self.announce(name, "Training", format!("generation {number} is ready after {after} ms"), false);
        self.grant(now, name);
    }

    /// Steps that were applied while a worker or this coordinator went away, before they were reported.
    fn commit_recovered(&mut self, now: Millis, name: &str, until: u64) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let from = job.committed;
        let (steps_per_epoch, batch) = (job.steps_per_epoch, &job.job.spec.batch);
        let images = u64::from(batch.lanes) * u64::from(batch.samples_per_lane);
        let Phase::Active(generation) = &mut job.phase else { return };
        let (number, mut reports) = (generation.number, std::mem::take(&mut generation.recovered));
        let seconds = (now - generation.opened_at) as f64 / 1000.0 / (until - from).max(1) as f64;
        job.committed = until;
        job.high_water = job.high_water.max(until);
        let mut unknown = 0;
        for step in from..until {
            let Some(report) = reports.remove(&step) else {
                unknown += 1;
                continue;
            };
            let Some(ticket) = self.ticket(name, number, step) else { continue };
            let ends_epoch = (step + 1).is_multiple_of(steps_per_epoch);
            let step = merge(ticket, vec![report], images, seconds, ends_epoch);
            self.out.push(Command::CommitStep(Box::new(step)));
        }
        if until > from {
            let message = format!("{} steps from {from} on were applied before they were reported", until - from);
            self.announce(name, "StepsRecovered", message, false);
        }
        if unknown > 0 {
            let message = format!("{unknown} steps of {from} to {until} are in the state, but their reports are lost");
            self.announce(name, "ReportsLost", message, true);
        }
    }

    fn on_heard_now(&mut self, now: Millis, session: Session) {
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.last_heard = now;
        }
    }

    /// Grants as many steps as the window allows, and takes the checkpoints that are due between them; none in a generation
    /// that is to end. Who joins waits for what is granted: a long step is granted just before it is to begin, and while a
    /// worker prepares, one at a time.
    pub(crate) fn grant(&mut self, now: Millis, name: &str) {
        loop {
            if self.close_when_due(now, name) {
                return;
            }
            self.take_due_checkpoint(now, name);
            let Some(job) = self.jobs.get_mut(name) else { return };
            let (steps, committed, window) = (job.steps(), job.committed, window(&self.config, job));
            let early = until_next(&self.config, job);
            let Phase::Active(generation) = &mut job.phase else { return };
            let step = generation.granted;
            generation.grants_at = None;
            if generation.training_since.is_none() || step >= steps || step >= committed + window {
                return;
            }
            let at = generation.last_commit_at + early;
            if step > committed && now < at {
                generation.grants_at = Some(at);
                return;
            }
            // Looked for last: this runs with every report of every worker.
            if step > committed && self.workers.values().any(|worker| worker.prepares_for(name)) {
                return;
            }
            generation.granted += 1;
            generation.reports.insert(step, Gathering::new(generation.members.len()));
            let (sessions, number) = (generation.sessions(), generation.number);
            let Some(ticket) = self.ticket(name, number, step) else { return };
            self.out.push(Command::Grant { sessions, ticket });
        }
    }

    /// Grants what was held back until now.
    pub(crate) fn grant_due(&mut self, now: Millis) {
        let due = |job: &Job| job.active().and_then(|g| g.grants_at).is_some_and(|at| at <= now);
        let names: Vec<String> = self.jobs.iter().filter(|(_, job)| due(job)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(Phase::Active(generation)) = self.jobs.get_mut(&name).map(|job| &mut job.phase) {
                generation.grants_at = None;
            }
            self.grant(now, &name);
        }
    }

    fn ticket(&self, name: &str, generation: u64, step: u64) -> Option<Ticket> {
        let job = self.jobs.get(name)?;
        let clock = job.schedule.at(step);
        let every = self.config.parity_steps;
        // A checkpoint is of replicas that agreed a moment ago: one with a fault in it would outlive those who differ.
        let saves = falls_on(job, step + 1) || step + 1 == job.steps();
        let compare = every > 0 && job.active().is_some_and(|g| g.members.len() > 1);
        Some(Ticket {
            job: name.to_owned(),
            generation,
            step,
            epoch: clock.epoch,
            step_in_epoch: clock.step_in_epoch,
            k: clock.k,
            tau: clock.tau,
            learning_rate: clock.learning_rate,
            hash_state: compare && ((step + 1).is_multiple_of(every) || saves),
        })
    }

    pub(crate) fn on_report(&mut self, now: Millis, session: Session, number: u64, step: u64, report: StepReport) {
        self.on_heard_now(now, session);
        let Some((name, rank)) = self.membership(session, number) else { return };
        let Some(Phase::Active(generation)) = self.jobs.get_mut(&name).map(|j| &mut j.phase) else { return };
        let member = &generation.members[rank];
        let own = report.lanes.iter().map(|l| l.lane).eq(member.lanes.iter().copied());
        let wrong = if own {
            match generation.reports.get_mut(&step).map(|ranks| ranks.add(rank, report)) {
                Some(true) => None,
                Some(false) => Some(format!("worker {} reported step {step} twice", member.worker)),
                None => Some(format!("worker {} reported step {step}, which was not granted", member.worker)),
            }
        } else {
            let lanes: Vec<u32> = report.lanes.iter().map(|l| l.lane).collect();
            Some(format!(
                "worker {} reported lanes {lanes:?} of step {step}, its lanes are {:?}",
                member.worker, member.lanes
            ))
        };
        match wrong {
            Some(reason) => self.end_generation(now, &name, &reason, Blame::Infrastructure),
            None => {
                if let Some(held) = self.workers.get_mut(&session).and_then(|w| w.held.as_mut()) {
                    held.step = step + 1;
                }
                self.commit_steps(now, &name);
            }
        }
    }

    /// Commits the next steps as long as all ranks have reported them.
    fn commit_steps(&mut self, now: Millis, name: &str) {
        while let Some((step, difference)) = self.next_commit(now, name) {
            if let Some((lane, loss)) = step.lanes.iter().find(|l| !l.loss.is_finite()).map(|l| (l.lane, l.loss)) {
                let number = step.ticket.step;
                let reason = format!("the loss of lane {lane} at step {number} is {loss}");
                // The step is in everybody's state: only a checkpoint is from before it.
                self.forget_state_of(name);
                self.fail_step(now, name, number, &reason, reason.clone());
                return;
            }
            if let Some(job) = self.jobs.get_mut(name) {
                job.committed = step.ticket.step + 1;
                job.high_water = job.high_water.max(job.committed);
            }
            let number = step.ticket.step;
            self.out.push(Command::CommitStep(Box::new(step)));
            self.changed.insert(name.to_owned());
            if let Some(difference) = difference {
                self.on_difference(now, name, number, &difference);
                return;
            }
        }
        self.grant(now, name);
    }

    /// The next step that all ranks have reported, and how their states differ after it, if they do.
    fn next_commit(&mut self, now: Millis, name: &str) -> Option<(CommittedStep, Option<Difference>)> {
        let job = self.jobs.get_mut(name)?;
        let (step, steps_per_epoch) = (job.committed, job.steps_per_epoch);
        let batch = &job.job.spec.batch;
        let images = u64::from(batch.lanes) * u64::from(batch.samples_per_lane);
        let Phase::Active(generation) = &mut job.phase else { return None };
        if generation.reports.get(&step)?.missing() > 0 {
            return None;
        }
        let parts = generation.reports.remove(&step)?.into_parts();
        let ms = (now - generation.last_commit_at.min(now)) as f64;
        // One slow step does not count for much.
        job.step_ms = Some(job.step_ms.map_or(ms, |old| 0.75 * old + 0.25 * ms));
        let seconds = ms / 1000.0;
        generation.last_commit_at = now;
        let number = generation.number;
        let ticket = self.ticket(name, number, step)?;
        let difference = difference(&parts);
        Some((merge(ticket, parts, images, seconds, (step + 1).is_multiple_of(steps_per_epoch)), difference))
    }
}

/// How many steps of a job may be granted ahead: two at least, so that no worker waits for the next.
fn window(config: &Config, job: &Job) -> u64 {
    let Some(step_ms) = job.step_ms else { return config.window.min(2) };
    let steps = config.ahead_ms as f64 / step_ms.max(0.01);
    (1 + steps.ceil() as u64).clamp(2, config.window.max(2))
}

/// How long after a commit the step after the one at work is granted: that may begin earlier than the last ones let expect,
/// but hardly by so much.
fn until_next(config: &Config, job: &Job) -> Millis {
    let step_ms = job.step_ms.map_or(0, |ms| ms as Millis);
    step_ms.saturating_sub(config.ahead_ms)
}

/// One step out of its ranks' parts. Sums run in lane order, so that they do not depend on who computed what.
fn merge(ticket: Ticket, parts: Vec<StepReport>, images: u64, seconds: f64, ends_epoch: bool) -> CommittedStep {
    let mut timings: BTreeMap<String, f64> = BTreeMap::new();
    for (phase, spent) in parts.iter().flat_map(|p| &p.timings) {
        match timings.get_mut(phase) {
            Some(slowest) => *slowest = slowest.max(*spent),
            None => _ = timings.insert(phase.clone(), *spent),
        }
    }
    let signals = mean_signals(&parts);
    // The mean gradient is the same on every rank.
    let gradient_norm = parts.first().map_or(0.0, |p| p.gradient_norm);
    let mut lanes: Vec<LaneReport> = parts.into_iter().flat_map(|p| p.lanes).collect();
    lanes.sort_by_key(|l| l.lane);
    let mean = |value: fn(&LaneReport) -> f64| lanes.iter().map(value).sum::<f64>() / lanes.len().max(1) as f64;
    CommittedStep {
        loss: mean(|l| l.loss),
        valid_regions: mean(|l| l.valid_regions),
        ticket,
        gradient_norm,
        images,
        seconds,
        timings,
        signals,
        lanes,
        ends_epoch,
    }
}

/// Means of the ranks' signals, by their lanes.
fn mean_signals(parts: &[StepReport]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (part, (name, value)) in parts.iter().flat_map(|part| part.signals.iter().map(move |signal| (part, signal))) {
        let (sum, lanes) = sums.entry(name).or_default();
        *sum += value * part.lanes.len() as f64;
        *lanes += part.lanes.len() as f64;
    }
    let mean = |(name, (sum, lanes)): (&str, (f64, f64))| (name.to_owned(), sum / lanes.max(1.0));
    sums.into_iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_count_by_lanes_and_may_be_missing() {
        let part = |lanes: u32, signals: &[(&str, f64)]| StepReport {
            lanes: (0..lanes).map(|lane| LaneReport { lane, ..LaneReport::default() }).collect(),
            signals: signals.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            ..StepReport::default()
        };
        let parts = [part(3, &[("rank", 10.0), ("masks", 4.0)]), part(1, &[("rank", 2.0)]), part(2, &[])];
        let expected = [("masks", 4.0), ("rank", 8.0)].map(|(name, value)| (name.to_owned(), value));
        assert_eq!(mean_signals(&parts), BTreeMap::from(expected));
    }
}
