//! The coordinator's part of traces: one per window of steps, one per checkpoint, one per recovery.
//!
//! Ids are functions of the job, the generation and the step, so that nothing has to be remembered for them to be the same
//! everywhere; what is kept here is only when open spans began. Nothing is kept, and nothing is sent along, where no spans
//! are exported.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use r2o_coordinator_core::{CommittedStep, Millis, Ticket};
use r2o_telemetry::otlp::{Span, Spans, attribute};
use r2o_types::TraceContext;

/// Steps that share a trace: enough to see how they follow one another, few enough for a trace of a large fleet, in which
/// each worker adds some fifteen spans per step.
const WINDOW: u64 = 4;

/// All open spans of a coordinator.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    spans: Spans,
    /// Share of step windows that are traced.
    ratio: f64,
    jobs: HashMap<String, Open>,
}

/// What is open of one job.
#[derive(Debug, Default)]
struct Open {
    /// What no other job has, not even a later one of the same name.
    uid: String,
    generation: u64,
    /// When the last generation ended, until the next is ready.
    broken: Option<SystemTime>,
    recovery: Option<Recovery>,
    forming: Option<Begun>,
    windows: BTreeMap<u64, Window>,
    checkpoint: Option<(u64, Begun)>,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    context: TraceContext,
    at: SystemTime,
}

#[derive(Debug)]
struct Recovery {
    begun: Begun,
    reason: &'static str,
}

#[derive(Debug)]
struct Window {
    begun: Begun,
    epoch: u64,
    /// By number.
    steps: BTreeMap<u64, Begun>,
}

impl Begun {
    fn now(context: TraceContext) -> Self {
        Self { context, at: SystemTime::now() }
    }
}

/// As messages carry it.
fn traceparent(begun: Option<&Begun>) -> String {
    begun.map(|begun| begun.context.to_string()).unwrap_or_default()
}

impl Traces {
    pub(crate) fn new(spans: Spans, ratio: f64) -> Self {
        Self { spans, ratio, jobs: HashMap::new() }
    }

    fn open(&mut self, job: &str) -> Option<&mut Open> {
        self.jobs.get_mut(job)
    }

    /// Whether anybody wants spans.
    pub(crate) fn are_wanted(&self) -> bool {
        self.spans.are_exported()
    }

    /// A generation is opened, for the first time or after `reason`.
    pub(crate) fn opened(&mut self, job: &str, submitted: Millis, generation: u64, reason: &'static str) {
        if !self.are_wanted() {
            return;
        }
        self.close(job, "the generation was replaced");
        let open = self.jobs.entry(job.to_owned()).or_default();
        open.uid = format!("{job} {submitted}");
        open.generation = generation;
        let recovery = open.recovery.get_or_insert_with(|| {
            let context = TraceContext::root(&format!("{} recovery {generation}", open.uid));
            // The time that a person took is nobody's recovery.
            let at = open.broken.filter(|_| reason != "paused").unwrap_or_else(SystemTime::now);
            Recovery { begun: Begun { context, at }, reason }
        });
        let context = recovery.begun.context.child(&format!("generation {generation}"));
        open.forming = Some(Begun::now(context));
    }

    /// What the members of the newest generation are told.
    pub(crate) fn forming(&self, job: &str) -> String {
        traceparent(self.jobs.get(job).and_then(|open| open.forming.as_ref()))
    }

    /// All members of the generation are ready.
    pub(crate) fn ready(&mut self, job: &str) {
        self.close_forming(job, None);
        let spans = self.spans.clone();
        let Some(open) = self.open(job) else { return };
        open.broken = None;
        if let Some(Recovery { begun, reason }) = open.recovery.take() {
            let generation = open.generation;
            spans.record(|| {
                Span::root("recovery", begun.context, begun.at)
                    .with(attribute::JOB, job)
                    .with(attribute::GENERATION, generation)
                    .with(attribute::REASON, reason)
            });
        }
    }

    fn close_forming(&mut self, job: &str, error: Option<&str>) {
        let spans = self.spans.clone();
        let Some(open) = self.open(job) else { return };
        let (Some(begun), Some(recovery)) = (open.forming.take(), &open.recovery) else { return };
        let (generation, parent) = (open.generation, recovery.begun.context);
        spans.record(|| {
            Span::under(parent, "form_generation", begun.context, begun.at)
                .with(attribute::JOB, job)
                .with(attribute::GENERATION, generation)
                .failed(error.map(str::to_owned))
        });
    }

    /// The generation has ended; what it had begun ends with it.
    pub(crate) fn ended(&mut self, job: &str, message: &str) {
        self.close(job, message);
        if let Some(open) = self.open(job) {
            open.broken.get_or_insert_with(SystemTime::now);
        }
    }

    /// The job has ended.
    pub(crate) fn forget(&mut self, job: &str) {
        self.close(job, "the job has ended");
        self.jobs.remove(job);
    }

    fn close(&mut self, job: &str, error: &str) {
        self.close_forming(job, Some(error));
        self.saved(job, Some(error));
        let spans = self.spans.clone();
        let Some(open) = self.open(job) else { return };
        let generation = open.generation;
        for (_, window) in std::mem::take(&mut open.windows) {
            for (step, begun) in &window.steps {
                let span = step_span(job, generation, window.epoch, *step, &window, begun);
                spans.record(|| span.failed(Some(error.to_owned())));
            }
            spans.record(|| window_span(job, generation, &window));
        }
    }

    /// Leave is given to compute a step: what the members are told with it.
    pub(crate) fn granted(&mut self, ticket: &Ticket) -> String {
        let ratio = self.ratio;
        let Some(open) = self.open(&ticket.job) else { return String::new() };
        let number = ticket.step / WINDOW;
        if !open.windows.contains_key(&number) {
            let context = TraceContext::root(&format!("{} steps {} {number}", open.uid, ticket.generation));
            if !context.is_kept(ratio) {
                return String::new();
            }
            let window = Window { begun: Begun::now(context), epoch: ticket.epoch, steps: BTreeMap::new() };
            open.windows.insert(number, window);
        }
        let Some(window) = open.windows.get_mut(&number) else { return String::new() };
        let begun = Begun::now(window.begun.context.child(&format!("step {}", ticket.step)));
        window.steps.insert(ticket.step, begun);
        traceparent(Some(&begun))
    }

    /// A step is committed. Those that were found in a new generation belong to a trace that has ended.
    pub(crate) fn committed(&mut self, committed: &CommittedStep) {
        let ticket = &committed.ticket;
        let spans = self.spans.clone();
        let Some(open) = self.open(&ticket.job) else { return };
        let number = ticket.step / WINDOW;
        let Some(window) = open.windows.get_mut(&number) else { return };
        if let Some(begun) = window.steps.remove(&ticket.step) {
            let span = step_span(&ticket.job, ticket.generation, ticket.epoch, ticket.step, window, &begun);
            spans.record(|| span.with("r2o.k", u64::from(ticket.k)).with("r2o.loss", committed.loss));
        }
        if (ticket.step + 1).is_multiple_of(WINDOW)
            && let Some(window) = open.windows.remove(&number)
        {
            spans.record(|| window_span(&ticket.job, ticket.generation, &window));
        }
    }

    /// A checkpoint is asked for: what the members are told with it.
    pub(crate) fn saving(&mut self, job: &str, generation: u64, step: u64) -> String {
        let Some(open) = self.open(job) else { return String::new() };
        let at = SystemTime::now();
        // One that failed may be asked for again after the same step.
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let context = TraceContext::root(&format!("{} checkpoint {generation} {step} {since}", open.uid));
        open.checkpoint = Some((step, Begun { context, at }));
        context.to_string()
    }

    /// The span of the checkpoint that is being written, and where its parts go.
    pub(crate) fn checkpoint(&self, job: &str) -> Option<(TraceContext, Spans)> {
        let (_, begun) = self.jobs.get(job)?.checkpoint?;
        Some((begun.context, self.spans.clone()))
    }

    /// The checkpoint exists, or could not be written.
    pub(crate) fn saved(&mut self, job: &str, error: Option<&str>) {
        let spans = self.spans.clone();
        let Some(open) = self.open(job) else { return };
        let Some((step, begun)) = open.checkpoint.take() else { return };
        let generation = open.generation;
        spans.record(|| {
            Span::root("checkpoint", begun.context, begun.at)
                .with(attribute::JOB, job)
                .with(attribute::GENERATION, generation)
                .with(attribute::STEP, step)
                .failed(error.map(str::to_owned))
        });
    }

    /// The span that an event of a job belongs to, for its line in the log.
    pub(crate) fn of_event(&self, job: &str, word: &str) -> Option<TraceContext> {
        let open = self.jobs.get(job)?;
        match word {
            "GenerationOpened" | "Training" | "StepsRecovered" => open.forming.map(|begun| begun.context),
            "CheckpointCommitted" | "CheckpointFailed" => open.checkpoint.map(|(_, begun)| begun.context),
            _ => None,
        }
    }
}

fn step_span(job: &str, generation: u64, epoch: u64, step: u64, window: &Window, begun: &Begun) -> Span {
    Span::under(window.begun.context, "step", begun.context, begun.at)
        .with(attribute::JOB, job)
        .with(attribute::GENERATION, generation)
        .with(attribute::EPOCH, epoch)
        .with(attribute::STEP, step)
}

fn window_span(job: &str, generation: u64, window: &Window) -> Span {
    Span::root("step_window", window.begun.context, window.begun.at)
        .with(attribute::JOB, job)
        .with(attribute::GENERATION, generation)
        .with(attribute::EPOCH, window.epoch)
}
