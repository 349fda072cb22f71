//! What is known and chosen.

use std::time::Instant;

use crate::view::{EventView, JobView, ProgressView, WorkerView};

/// Steps of the curves that are kept.
const STEPS_KEPT: usize = 2_000;

/// One answer of the coordinator.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) jobs: Vec<JobView>,
    pub(super) workers: Vec<WorkerView>,
    /// The job that the rest is about.
    pub(super) job: Option<String>,
    pub(super) steps: Vec<ProgressView>,
    pub(super) events: Vec<EventView>,
}

/// What the screen is drawn from.
#[derive(Debug)]
pub(super) struct State {
    pub(super) url: String,
    pub(super) colours: bool,
    pub(super) look: Look,
    /// Steps of the chosen job so far.
    pub(super) steps: Vec<ProgressView>,
    steps_of: Option<String>,
    chosen: Option<String>,
    /// One job takes the whole screen.
    pub(super) whole: bool,
    pub(super) help: bool,
    /// Since when there is no answer.
    pub(super) away: Option<Instant>,
    pub(super) asked: bool,
}

/// The chosen job, or else the first that is not over, or the first.
pub(super) fn pick<'a>(jobs: &'a [JobView], chosen: Option<&str>) -> Option<&'a JobView> {
    let named = chosen.and_then(|name| jobs.iter().find(|job| job.name == name));
    named.or_else(|| jobs.iter().find(|job| !job.state.is_final())).or(jobs.first())
}

impl State {
    pub(super) fn new(url: &str, colours: bool) -> Self {
        Self {
            url: url.to_owned(),
            colours,
            look: Look::default(),
            steps: Vec::new(),
            steps_of: None,
            chosen: None,
            whole: false,
            help: false,
            away: None,
            asked: false,
        }
    }

    pub(super) fn choose(&mut self, job: Option<&str>) {
        self.chosen = job.map(str::to_owned);
    }

    pub(super) fn chosen(&self) -> Option<String> {
        self.chosen.clone()
    }

    /// The job whose steps are known, and the newest of them: what comes after it is asked for.
    pub(super) fn known(&self) -> Option<(String, u64)> {
        Some((self.steps_of.clone()?, self.steps.last()?.step))
    }

    /// The job that is shown in full.
    pub(super) fn job(&self) -> Option<&JobView> {
        pick(&self.look.jobs, self.chosen.as_deref())
    }

    pub(super) fn take(&mut self, mut look: Look) {
        look.jobs.sort_by_key(|job| (job.state.is_final(), job.submitted_unix_ms));
        if look.job != self.steps_of {
            self.steps.clear();
            self.steps_of.clone_from(&look.job);
        }
        for progress in look.steps.drain(..).filter(|p| p.k > 0) {
            // A step that was undone goes, with those after it.
            while self.steps.last().is_some_and(|last| last.step >= progress.step) {
                self.steps.pop();
            }
            self.steps.push(progress);
        }
        let surplus = self.steps.len().saturating_sub(STEPS_KEPT);
        self.steps.drain(..surplus);
        self.look = look;
        self.away = None;
        self.asked = true;
    }

    /// The coordinator does not answer; what is known stays on the screen.
    pub(super) fn lose(&mut self) {
        self.away.get_or_insert_with(Instant::now);
    }

    /// Moves the choice up or down.
    pub(super) fn step(&mut self, by: isize) {
        let jobs = &self.look.jobs;
        let at = self.job().and_then(|job| jobs.iter().position(|one| one.name == job.name));
        if let Some(job) = at.and_then(|at| jobs.get(at.saturating_add_signed(by).min(jobs.len() - 1))) {
            self.chosen = Some(job.name.clone());
        }
    }

    pub(super) fn toggle_whole(&mut self) {
        self.whole = !self.whole;
    }

    pub(super) fn toggle_help(&mut self) {
        self.help = !self.help;
    }

    /// Closes what is open; true: nothing is, so leave.
    pub(super) fn back(&mut self) -> bool {
        let open = self.help || self.whole;
        if self.help {
            self.help = false
        } else {
            self.whole = false
        }
        !open
    }
}
