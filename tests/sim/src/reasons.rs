//! It says why: the reason that a job gives must be true, and none may last for ever.

use r2o_coordinator_core::{JobState, JobView, Reason};

use crate::coordinator::Coordinator;
use crate::happening::{Happening, Process, Wish};
use crate::options::Promise;
use crate::world::{SECOND, World};

/// How long after the faults have stopped everything may take, in seconds.
const BOUND: u64 = 1_200;

/// What a job does, in numbers that change when it gets on.
pub(crate) type Situation = (u8, u64, u64, u64);

fn situation(view: &JobView) -> Situation {
    let kind = match &view.reason {
        Reason::Locating => 0,
        Reason::NoWorkers { .. } => 1,
        Reason::NoSuchDevice { .. } => 2,
        Reason::TooFewWorkers { .. } => 3,
        Reason::OtherVersions { .. } => 16,
        Reason::Behind { .. } => 4,
        Reason::Joining { .. } => 5,
        Reason::Claiming { .. } => 6,
        Reason::Paused { .. } => 7,
        Reason::BackingOff { .. } => 8,
        Reason::Forming { .. } => 9,
        Reason::Training { .. } => 10,
        Reason::HandingOver { .. } => 11,
        Reason::LastCheckpoint => 12,
        Reason::CheckpointsFail { .. } => 13,
        Reason::Finalizing { .. } => 14,
        Reason::Ended { .. } => 15,
        Reason::JournalNotWritten { .. } => 17,
    };
    (kind, view.generation, view.committed, view.checkpoint.unwrap_or(0))
}

impl World {
    /// Looks at the reasons of all jobs of a coordinator.
    pub(crate) fn watch_reasons(&mut self, id: Process) {
        let Some(coordinator) = self.coordinators.get(&id).filter(|c| c.serving && c.stopped_until <= self.now) else {
            return;
        };
        let held: Vec<String> = coordinator.gate.waiting().map(str::to_owned).collect();
        let views: Vec<JobView> = coordinator.core.job_names().filter_map(|name| coordinator.core.job(name)).collect();
        let mut wrong = Vec::new();
        for view in views.iter().filter(|view| !view.state.has_ended()) {
            if let Some(what) = untrue(coordinator, view) {
                wrong.push(format!("{} says that it {}; {what}", view.name, view.reason));
            }
        }
        for view in views {
            let key = (id, view.name.clone());
            // Whoever waits for the journal says so, and waits as long as the storage fails.
            if view.state.has_ended() || held.contains(&view.name) {
                self.oracle.situations.remove(&key);
                continue;
            }
            let now = situation(&view);
            let (same, since) = self.oracle.situations.entry(key).or_insert((now, self.now));
            if *same != now {
                (*same, *since) = (now, self.now);
            }
            let lasted = (self.now - *since) / SECOND;
            if lasted > self.patience(&view) {
                wrong.push(format!("{} says for {lasted} s that it {}", view.name, view.reason));
            }
        }
        if let (Some(what), true) = (wrong.into_iter().next(), self.scenario.unruly == 0 || self.healing) {
            self.violate(Promise::SaysWhy, format!("coordinator {id}: {what}"));
        }
    }

    /// Seconds that a reason may last without anything getting on.
    fn patience(&self, view: &JobView) -> u64 {
        let config = &self.scenario.config;
        let (form, stall) = (config.form_timeout_ms / 1_000, config.stall_ms / 1_000);
        // A coordinator that was stopped grants everybody their time anew.
        let away = 10;
        match &view.reason {
            Reason::Joining { .. } => config.join_window_ms / 1_000 + 1 + away,
            Reason::Forming { .. } => form + 1 + away,
            Reason::Training { .. } | Reason::HandingOver { .. } => stall + 1 + away,
            Reason::BackingOff { .. } => 61 + away,
            Reason::Claiming { .. } => stall + form + away,
            _ => u64::MAX,
        }
    }

    /// Looks whether all is well, and goes on looking.
    pub(crate) fn look(&mut self) {
        let ids: Vec<Process> = self.coordinators.keys().copied().collect();
        for id in &ids {
            self.watch_reasons(*id);
        }
        self.after(2 * SECOND, Happening::Look);
        let Some(healed) = self.oracle.healed_at else { return };
        let newest = self.coordinators.values().rfind(|c| c.serving);
        let views: Vec<JobView> =
            newest.map(|c| c.core.job_names().filter_map(|name| c.core.job(name)).collect()).unwrap_or_default();
        let ended = views.iter().filter(|view| view.state.has_ended()).count();
        if ended == self.courses.len() && newest.is_some_and(|c| c.records.is_empty()) {
            self.done = true;
            return;
        }
        let late = (self.now - healed) / SECOND;
        if late % 30 < 2 {
            for job in 0..self.courses.len() {
                let view = views.iter().find(|view| view.name == format!("j{job}"));
                match view {
                    None => self.after(0, Happening::Wish { wish: Wish::Submit, job }),
                    Some(view) if view.paused => self.after(0, Happening::Wish { wish: Wish::Resume, job }),
                    Some(_) => {}
                }
            }
        }
        if late > BOUND {
            let open = views.iter().filter(|view| view.state != JobState::Succeeded);
            let open: Vec<String> = open.map(|view| format!("{} {}", view.name, view.reason)).collect();
            let what = format!("{BOUND} s after the last fault jobs have not ended: {}", open.join("; "));
            self.violate(Promise::Heals, what);
        }
    }
}

/// What contradicts a job's reason.
fn untrue(coordinator: &Coordinator, view: &JobView) -> Option<String> {
    let workers = coordinator.core.workers();
    let free = workers.iter().filter(|w| w.job.is_none()).count();
    match &view.reason {
        Reason::Locating => {
            let asked = coordinator.locating.contains_key(&view.name);
            let held = coordinator.gate.waiting().any(|job| job == view.name);
            (!asked && !held).then(|| "nobody asks the storage".to_owned())
        }
        Reason::NoWorkers { .. } => (!workers.is_empty()).then(|| format!("{} are connected", workers.len())),
        Reason::NoSuchDevice { .. } => Some("every worker has it".to_owned()),
        Reason::JournalNotWritten { .. } => Some("a core knows nothing of that".to_owned()),
        Reason::TooFewWorkers { needed, free: said, busy } => {
            let enough = *said >= *needed as usize;
            let more = *said > free || *busy > workers.len() - free;
            (enough || more).then(|| format!("{free} workers are free and {} busy", workers.len() - free))
        }
        Reason::OtherVersions { needed, free: said, others, .. } => {
            let fits = *said < *needed as usize && said + others >= *needed as usize && said + others <= free;
            (!fits).then(|| format!("{free} workers are free"))
        }
        Reason::Behind { job } => {
            let waits = coordinator.core.job(job).is_some_and(|other| !other.state.has_ended());
            (!waits).then(|| format!("{job} waits for nothing"))
        }
        Reason::Joining { free: said, .. } => (*said > free).then(|| format!("{free} are free")),
        Reason::Paused { .. } => (!view.paused).then(|| "nobody paused it".to_owned()),
        Reason::Forming { missing, .. } => missing.is_empty().then(|| "nobody is missing".to_owned()),
        Reason::Training { workers } => (*workers == 0).then(|| "nobody works".to_owned()),
        Reason::Claiming { .. }
        | Reason::BackingOff { .. }
        | Reason::HandingOver { .. }
        | Reason::LastCheckpoint
        | Reason::CheckpointsFail { .. }
        | Reason::Finalizing { .. }
        | Reason::Ended { .. } => None,
    }
}
