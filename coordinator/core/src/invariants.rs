//! What must hold after every event; a broken invariant is a defect of this crate.

use std::collections::BTreeSet;

use crate::state::{Generation, Job, Phase};
use crate::{Core, Session};

impl Core {
    /// Checks every invariant.
    ///
    /// # Errors
    /// Names the one that does not hold, and where.
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut placed: BTreeSet<Session> = BTreeSet::new();
        let mut numbers: BTreeSet<u64> = BTreeSet::new();
        for (name, job) in &self.jobs {
            let holds = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("job {name}: {what}")) };
            holds(job.committed <= job.steps(), "no more steps are committed than the job has")?;
            holds(job.committed <= job.high_water, "the high water is the most that was committed")?;
            holds(job.checkpoint.is_none_or(|c| c <= job.high_water), "a checkpoint holds committed steps")?;
            holds(job.generation <= self.last_generation, "generations are numbered in order")?;
            if let Phase::Active(generation) = &job.phase {
                holds(numbers.insert(generation.number), "a generation belongs to one job")?;
                check_generation(self, name, job, generation)?;
                for member in generation.members.iter() {
                    holds(placed.insert(member.session), "a worker is in one generation at most")?;
                }
            } else {
                holds(
                    !self.workers.values().any(|w| w.job.as_deref() == Some(name)),
                    "only a job with a generation has workers",
                )?;
            }
            if job.has_ended() {
                holds(job.saving.requests.is_empty(), "an ended job leaves no request unanswered")?;
            }
        }
        if self.workers.iter().any(|(session, w)| w.job.is_some() != placed.contains(session)) {
            return Err("a worker knows its job exactly when a generation has it as member".to_owned());
        }
        let held = self.workers.values().filter_map(|w| w.held.as_ref());
        if held.filter_map(|h| self.jobs.get(&h.job)).any(|job| matches!(job.phase, Phase::Ended { .. })) {
            return Err("nobody keeps the state of a job that has ended".to_owned());
        }
        let waits = |name: &String| {
            self.jobs.get(name).is_some_and(|j| !j.has_ended() && j.paused.is_none() && j.active().is_none())
        };
        if self.workers.values().filter_map(|w| w.claimed.as_ref()).any(|name| !waits(name)) {
            return Err("workers are claimed for jobs that wait".to_owned());
        }
        let names: BTreeSet<&str> = self.workers.values().map(|w| w.info.name.as_str()).collect();
        if names.len() != self.workers.len() {
            return Err("a worker's name is there once".to_owned());
        }
        Ok(())
    }
}

fn check_generation(core: &Core, name: &str, job: &Job, generation: &Generation) -> Result<(), String> {
    let holds = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(format!("job {name}, generation {}: {what}", generation.number)) }
    };
    let lanes: Vec<u32> = generation.members.iter().flat_map(|m| m.lanes.iter().copied()).collect();
    holds(lanes == (0..job.job.spec.batch.lanes).collect::<Vec<_>>(), "the lanes are dealt exactly once, in order")?;
    holds(generation.members.iter().all(|m| !m.lanes.is_empty()), "every member has a lane")?;
    let version = core.version_of(job, generation);
    let same =
        |m: &crate::Member| core.workers.get(&m.session).is_none_or(|w| version.is_none_or(|v| v == w.info.version));
    holds(generation.members.iter().all(same), "a reproducible job has workers of one version")?;
    let fleet = &job.job.spec.fleet;
    let members = generation.members.len();
    holds(
        members >= fleet.min_workers as usize && members <= job.most_workers(),
        "no fewer nor more workers than asked",
    )?;
    holds(generation.granted >= job.committed, "only granted steps are committed")?;
    holds(generation.granted <= job.committed + core.config.window, "no step is granted beyond the window")?;
    holds(generation.granted <= job.steps(), "no step is granted beyond the job")?;
    let open: Vec<u64> = generation.reports.keys().copied().collect();
    holds(open == (job.committed..generation.granted).collect::<Vec<_>>(), "reports are awaited for open steps")?;
    holds(job.lineage > 0 && job.lineage <= generation.number, "a generation belongs to a course")?;
    if generation.training_since.is_some() {
        let leaves = |m: &crate::Member| core.workers.get(&m.session).is_some_and(|w| !w.stays());
        holds(
            generation.closing.is_some() || !generation.members.iter().any(leaves),
            "a generation with a worker that drains or is claimed is to end",
        )?;
    } else {
        holds(generation.granted == job.committed, "nothing is granted before all are ready")?;
    }
    holds(generation.number == job.generation, "the job's newest generation is the current one")
}
