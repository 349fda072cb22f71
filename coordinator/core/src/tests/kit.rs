//! A core with fake workers that do what they are told.

use std::collections::BTreeMap;

use r2o_types::TrainJob;

use crate::*;

/// A job of 2 lanes and `epochs` epochs of 4 steps.
pub(super) fn job(name: &str, epochs: u64, fleet: &str) -> TrainJob {
    let text = format!(
        "{{apiVersion: r2o.dev/v1, kind: TrainJob, metadata: {{name: {name}}}, spec: {{epochs: {epochs}, \
         data: {{url: /set}}, batch: {{lanes: 2, samplesPerLane: 4}}, optimizer: {{warmupEpochs: 0}}, \
         fleet: {fleet}}}}}"
    );
    TrainJob::parse(&text).unwrap()
}

pub(super) fn submit(job: TrainJob, order: u64, resume: Resume) -> Event {
    Event::JobSubmitted(Box::new(NewJob {
        job,
        steps_per_epoch: 4,
        order,
        submitted_at: 0,
        last_generation: 0,
        lineage: 0,
        last_workers: Vec::new(),
        paused: None,
        resume,
    }))
}

pub(super) struct Kit {
    pub(super) core: Core,
    pub(super) now: Millis,
    /// Everything that was ever commanded.
    pub(super) log: Vec<Command>,
    /// Work that members have not done yet, by session.
    pub(super) work: BTreeMap<Session, Vec<Command>>,
    /// Steps in the state of each worker, and the generation and job in which it has them.
    pub(super) states: BTreeMap<Session, Held>,
    pub(super) fail_manifests: bool,
    /// The worker whose state differs from the others'.
    pub(super) odd: Option<Session>,
}

impl Kit {
    pub(super) fn new() -> Self {
        let config = Config {
            join_window_ms: 100,
            pause_ms: 10,
            budgets: Budgets { infrastructure: 3, ..Budgets::default() },
            window: 4,
            ..Config::default()
        };
        Self {
            core: Core::new(config, 0),
            now: 1_000,
            log: Vec::new(),
            work: BTreeMap::new(),
            states: BTreeMap::new(),
            fail_manifests: false,
            odd: None,
        }
    }

    /// Feeds an event, and answers for the storage at once.
    pub(super) fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.now += 1;
            let commands = self.core.handle(self.now, event);
            self.core.check_invariants().unwrap();
            for command in commands {
                events.extend(self.answer(&command));
                self.log.push(command);
            }
        }
    }

    fn answer(&mut self, command: &Command) -> Option<Event> {
        let mut queue = |sessions: &[Session]| {
            for session in sessions {
                self.work.entry(*session).or_default().push(command.clone());
            }
        };
        match command {
            Command::Assign { session, .. } => {
                // What is left of the generation before is dropped.
                self.work.insert(*session, vec![command.clone()]);
            }
            Command::Prepare { session, .. } => queue(&[*session]),
            Command::Grant { sessions, .. } | Command::TakeCheckpoint { sessions, .. } => queue(sessions),
            Command::Release { session, keep, .. } => {
                self.work.remove(session);
                if !keep {
                    self.states.remove(session);
                }
            }
            Command::Disconnect { session, .. } => {
                self.work.remove(session);
                self.states.remove(session);
            }
            Command::LocateCheckpoint { job } => {
                let step = self.core.job(job)?.checkpoint;
                return Some(Event::CheckpointLocated { job: job.clone(), step });
            }
            Command::CommitCheckpoint { job, generation, step, .. } => {
                let (job, generation, step) = (job.clone(), *generation, *step);
                return Some(match self.fail_manifests {
                    true => Event::CheckpointNotCommitted { job, generation, step, reason: "no space left".into() },
                    false => Event::CheckpointCommitted { job, generation, step },
                });
            }
            Command::Finalize { job, .. } => return Some(Event::Finalized { job: job.clone() }),
            _ => {}
        }
        None
    }

    pub(super) fn join(&mut self, session: Session, name: &str) {
        self.join_with(session, name, None);
    }

    pub(super) fn join_with(&mut self, session: Session, name: &str, held: Option<Held>) {
        let worker = WorkerInfo {
            name: name.to_owned(),
            incarnation: session.to_string(),
            version: "0.1.0".to_owned(),
            device: "cpu".to_owned(),
            address: "127.0.0.1".to_owned(),
            threads: 1,
        };
        self.feed(Event::WorkerJoined { session, worker, held });
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, ms: Millis) {
        self.now += ms;
        for session in self.core.workers.keys().copied().collect::<Vec<_>>() {
            self.feed(Event::WorkerHeard { session });
        }
        self.feed(Event::Tick);
    }

    /// One member does the first thing that it was told. False: it has nothing to do.
    pub(super) fn work(&mut self, session: Session) -> bool {
        let Some(queue) = self.work.get_mut(&session).filter(|q| !q.is_empty()) else { return false };
        let event = match queue.remove(0) {
            Command::Assign { assignment: a, .. } => {
                let step = self.agreed(&a);
                self.states.insert(session, Held { job: a.job, generation: a.generation, step });
                Event::WorkerReady { session, generation: a.generation, step }
            }
            Command::Prepare { job, .. } => Event::WorkerPrepared { session, job },
            Command::Grant { ticket, .. } => {
                let (generation, step) = (ticket.generation, ticket.step);
                self.states.get_mut(&session).unwrap().step = step + 1;
                Event::StepReported { session, generation, step, report: self.report(session, &ticket) }
            }
            Command::TakeCheckpoint { generation, step, .. } => {
                let tensor = Tensor {
                    name: format!("t{session}"),
                    dtype: "F32".to_owned(),
                    shape: vec![1],
                    blake3: "00".to_owned(),
                    bytes: 4,
                };
                Event::PartUploaded { session, generation, step, part: Ok(vec![tensor]) }
            }
            other => panic!("not work: {other:?}"),
        };
        self.feed(event);
        true
    }

    /// The step at which the members of a generation begin.
    fn agreed(&self, a: &Assignment) -> u64 {
        let Start::Peers { since } = a.start else { return a.step };
        let held = a.members.iter().filter_map(|m| self.states.get(&m.session));
        let held = held.filter(|h| h.job == a.job && h.generation >= since).map(|h| h.step);
        held.max().expect("somebody holds the state")
    }

    fn report(&self, session: Session, ticket: &Ticket) -> StepReport {
        let view = self.core.job(&ticket.job).unwrap();
        let lanes = view.members.iter().find(|m| m.session == session).map(|m| m.lanes.clone()).unwrap_or_default();
        let lane = |lane| LaneReport { lane, loss: 1.0 + f64::from(lane), valid_regions: 2.0, ..LaneReport::default() };
        let (mut tensor_digests, mut tensor_names) = (Vec::new(), Vec::new());
        if ticket.hash_state {
            tensor_digests = vec![ticket.step, u64::from(self.odd == Some(session))];
            tensor_names = vec!["a".to_owned(), "b".to_owned()];
        }
        let lanes = lanes.into_iter().map(lane).collect();
        StepReport { lanes, gradient_norm: 0.5, tensor_digests, tensor_names, ..StepReport::default() }
    }

    /// Everybody works until nobody has anything to do.
    pub(super) fn run(&mut self) {
        while self.work.keys().copied().collect::<Vec<_>>().into_iter().any(|session| self.work(session)) {}
    }

    pub(super) fn view(&self, job: &str) -> JobView {
        self.core.job(job).unwrap()
    }

    pub(super) fn committed(&self) -> Vec<u64> {
        let step = |c: &Command| match c {
            Command::CommitStep(step) => Some(step.ticket.step),
            _ => None,
        };
        self.log.iter().filter_map(step).collect()
    }

    pub(super) fn checkpoints(&self) -> Vec<u64> {
        let step = |c: &Command| match c {
            Command::RecordCheckpoint { step, .. } => Some(*step),
            _ => None,
        };
        self.log.iter().filter_map(step).collect()
    }

    pub(super) fn answers(&self) -> Vec<(u64, Result<u64, Refusal>)> {
        let answer = |c: &Command| match c {
            Command::AnswerCheckpoint { request, answer } => Some((*request, answer.clone())),
            _ => None,
        };
        self.log.iter().filter_map(answer).collect()
    }
}

/// A job of two epochs whose generation forms on so many workers.
pub(super) fn started(fleet: &str, workers: u64) -> Kit {
    let mut kit = Kit::new();
    for session in 1..=workers {
        kit.join(session, &format!("w{session}"));
    }
    kit.feed(submit(job("a", 2, fleet), 0, Resume::Fresh));
    kit.wait(100);
    kit
}
