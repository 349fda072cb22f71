//! The thread that computes. It owns engine, process group and loader, and does one task after another; only
//! [`Trainer::abort`] reaches into it from outside.

mod base;
mod form;
mod memory;
mod running;
mod traced;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::Base;
use crossbeam_channel::{Receiver, Sender};
use r2o_c10d::ProcessGroup;
use r2o_data::StreamOptions;
use r2o_engine::host::Device;
use r2o_proto::token::TokenChannel;
use r2o_storage::StorageError;
use r2o_storage::checkpoint::CheckpointError;
use r2o_storage::shard::SetError;
use r2o_telemetry::TaskKind;
use r2o_telemetry::otlp::{Spans, place};
use r2o_types::TraceContext;
use r2o_worker_core::{Assignment, Event, Failure, Ticket};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use crate::cli::DeviceChoice;
use crate::metrics::Metrics;
use crate::session::Outbox;
use running::Running;
use traced::Traced;

/// What does not change while the process lives.
pub(crate) struct Settings {
    /// Where to compute.
    pub(crate) device: Device,
    /// Threads for computing on a CPU.
    pub(crate) threads: usize,
    /// Threads for decoding.
    pub(crate) loader_threads: usize,
    /// How data is read and kept.
    pub(crate) stream: StreamOptions,
    /// After this a collective counts as hung.
    pub(crate) collective_timeout: Duration,
    /// Hash pixels and masks.
    pub(crate) audit: bool,
    /// After this step the state is damaged, for tests.
    pub(crate) flip_bit_at: Option<u64>,
    /// Address of the data plane.
    pub(crate) advertise: String,
    /// To the coordinator.
    pub(crate) channel: TokenChannel,
    /// What is measured.
    pub(crate) metrics: Metrics,
    /// Where finished spans go.
    pub(crate) spans: Spans,
    /// The worker's name.
    pub(crate) name: String,
    /// For storage and rendezvous calls from the computing thread.
    pub(crate) runtime: Handle,
}

/// Work for the thread.
pub(crate) enum Task {
    /// Build everything for a generation.
    Form {
        /// Membership.
        assignment: Arc<Assignment>,
        /// The stream on which to report.
        outbox: Outbox,
    },
    /// One step.
    Compute {
        /// Generation of the ticket.
        generation: u64,
        /// The ticket.
        ticket: Ticket,
    },
    /// Copy the state out and upload a share of it.
    CopyOut {
        /// Generation of the request.
        generation: u64,
        /// Committed steps of the state.
        step: u64,
        /// The checkpoint's span, if it is traced.
        trace: Option<TraceContext>,
    },
    /// Build what a job needs, apart from its state.
    Prepare {
        /// The job.
        job: String,
        /// The resolved job as JSON.
        spec: String,
    },
    /// End a generation and keep its state.
    Park {
        /// Which.
        generation: u64,
    },
    /// Forget a generation.
    Discard {
        /// Which.
        generation: u64,
    },
}

impl Task {
    /// The generation whose end makes the task void.
    fn generation(&self) -> Option<u64> {
        match self {
            Self::Form { assignment, .. } => Some(assignment.generation),
            Self::Compute { generation, .. } | Self::CopyOut { generation, .. } => Some(*generation),
            Self::Park { .. } | Self::Discard { .. } | Self::Prepare { .. } => None,
        }
    }
}

/// The newest aborted generation and the group that may be waiting inside a collective.
#[derive(Default)]
struct Fence {
    aborted: AtomicU64,
    /// Tasks that were begun, and whether the last one still runs.
    begun: AtomicU64,
    busy: AtomicBool,
    group: Mutex<Option<(u64, ProcessGroup)>>,
}

impl Fence {
    /// Makes the group known to [`Trainer::abort`]; a group of an aborted generation is aborted at once.
    fn publish(&self, generation: u64, group: ProcessGroup) {
        let mut slot = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_aborted(generation) {
            group.abort();
        }
        *slot = Some((generation, group));
    }

    fn withdraw(&self) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_aborted(&self, generation: u64) -> bool {
        self.aborted.load(Ordering::Acquire) >= generation
    }
}

/// Handle of the computing thread.
#[derive(Clone)]
pub(crate) struct Trainer {
    tasks: Sender<Task>,
    fence: Arc<Fence>,
}

impl Trainer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(settings: Settings, events: UnboundedSender<Event>) -> Result<Self> {
        let (tasks, queue) = crossbeam_channel::unbounded();
        let fence = Arc::new(Fence::default());
        let body = Body { settings, fence: Arc::clone(&fence), events, running: None, parked: None };
        let _runs_as_long_as_the_process =
            r2o_telemetry::spawn_thread("trainer", TaskKind::Service, move || body.serve(&queue))
                .context("cannot start the computing thread")?;
        Ok(Self { tasks, fence })
    }

    /// Queues a task.
    pub(crate) fn submit(&self, task: Task) {
        let _thread_ended_with_the_process = self.tasks.send(task);
    }

    /// Wakes the thread when it waits for peers of `generation`, and makes it skip what is queued of it.
    pub(crate) fn abort(&self, generation: u64) {
        let slot = self.fence.group.lock().unwrap_or_else(PoisonError::into_inner);
        self.fence.aborted.fetch_max(generation, Ordering::AcqRel);
        if let Some((current, group)) = slot.as_ref()
            && *current <= generation
        {
            group.abort();
        }
    }

    /// The task at work, if it is of a generation up to this one. The same answer some time after [`Trainer::abort`] means
    /// that it cannot be woken.
    pub(crate) fn at_work(&self) -> Option<u64> {
        self.fence.busy.load(Ordering::Acquire).then(|| self.fence.begun.load(Ordering::Acquire))
    }
}

/// The device that the flag asks for.
///
/// # Errors
/// When a GPU is asked for and there is none.
pub(crate) fn device(choice: DeviceChoice) -> Result<Device> {
    Ok(match choice {
        DeviceChoice::Cpu => Device::cpu(),
        DeviceChoice::Auto => Device::cuda().unwrap_or_else(Device::cpu),
        DeviceChoice::Cuda => match Device::cuda() {
            Some(device) => device,
            None => bail!("--device cuda: libtorch sees no GPU; check the driver and that this build has CUDA"),
        },
    })
}

struct Body {
    settings: Settings,
    fence: Arc<Fence>,
    events: UnboundedSender<Event>,
    running: Option<Running>,
    /// The job of a generation that has ended, or of one that may come.
    parked: Option<Box<Base>>,
}

impl Body {
    fn serve(mut self, queue: &Receiver<Task>) {
        for task in queue {
            let generation = task.generation();
            if generation.is_some_and(|generation| self.fence.is_aborted(generation)) {
                continue;
            }
            self.fence.begun.fetch_add(1, Ordering::AcqRel);
            self.fence.busy.store(true, Ordering::Release);
            let event = self.guarded(task);
            self.fence.busy.store(false, Ordering::Release);
            if let Some(event) = event {
                let _agent_is_gone = self.events.send(event);
            }
        }
    }

    /// A panic would leave the coordinator waiting for a report that never comes.
    fn guarded(&mut self, task: Task) -> Option<Event> {
        let generation = task.generation();
        let step = self.running.as_ref().map_or(0, Running::step);
        let failure = match catch_unwind(AssertUnwindSafe(|| self.perform(task))) {
            Ok(Ok(event)) => return event,
            Ok(Err(failure)) => failure,
            Err(panic) => {
                let reason = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_else(|| "of unknown kind".to_owned());
                // Nobody knows what state it left.
                (self.running, self.parked) = (None, None);
                Failure::Job(format!("the computing thread panicked: {reason}"))
            }
        };
        generation.map(|generation| Event::WorkFailed { generation, step, failure })
    }

    fn perform(&mut self, task: Task) -> Result<Option<Event>, Failure> {
        match task {
            Task::Form { assignment, outbox } => {
                let _place = place(assignment.trace).entered();
                let Settings { spans, name, .. } = &self.settings;
                let mut traced = Traced::begin(spans, name, assignment.trace, "join_generation");
                self.park();
                let mut base =
                    traced.part("build", || self.base(&assignment.job, &assignment.spec)).map_err(failure_of)?;
                let formed = form::form(&self.settings, &self.fence, &mut base, &assignment, &outbox, &mut traced);
                traced.end(formed.as_ref().err());
                let loader = match formed {
                    Ok(loader) => loader,
                    Err(failure) => {
                        self.parked = Some(base);
                        return Err(failure);
                    }
                };
                let (generation, step) = (assignment.generation, base.step);
                self.running = Some(Running::new(&self.settings, assignment, base, loader, outbox));
                Ok(Some(Event::Formed { generation, step }))
            }
            Task::Compute { generation, ticket } => {
                self.current(generation)?.compute(ticket)?;
                Ok(Some(Event::WorkDone { generation }))
            }
            Task::CopyOut { generation, step, trace } => {
                self.current(generation)?.copy_out(step, trace)?;
                Ok(Some(Event::WorkDone { generation }))
            }
            Task::Prepare { job, spec } => {
                match self.base(&job, &spec) {
                    Ok(mut base) => {
                        // It warms up while the others finish what is granted to them.
                        let _agent_is_gone = self.events.send(Event::Prepared { job });
                        base.warm_up();
                        self.parked = Some(base);
                    }
                    Err(error) => tracing::warn!(job, "cannot prepare for the job: {error:#}"),
                }
                Ok(None)
            }
            Task::Park { generation } => {
                if self.running.as_ref().is_some_and(|r| r.generation() <= generation) {
                    self.park();
                }
                Ok(None)
            }
            Task::Discard { generation } => {
                if self.running.as_ref().is_some_and(|r| r.generation() <= generation) {
                    self.park();
                }
                self.parked.take_if(|base| base.since.is_none_or(|since| since <= generation));
                Ok(None)
            }
        }
    }

    /// Ends the generation, and keeps its state.
    fn park(&mut self) {
        if let Some(running) = self.running.take() {
            let mut base = running.into_base();
            base.engine.take_lanes(Vec::new());
            self.parked = Some(base);
            self.fence.withdraw();
        }
    }

    /// What is here of a job, or what it takes to begin.
    fn base(&mut self, job: &str, spec: &str) -> Result<Box<Base>> {
        match self.parked.take() {
            Some(base) if base.serves(job, spec) => Ok(base),
            // The old one goes first: two engines may not fit into memory.
            old => {
                drop(old);
                Ok(Box::new(Base::build(&self.settings, job, spec)?))
            }
        }
    }

    fn current(&mut self, generation: u64) -> Result<&mut Running, Failure> {
        self.running
            .as_mut()
            .filter(|r| r.generation() == generation)
            .ok_or_else(|| Failure::Collective(format!("generation {generation} is not formed on this worker")))
    }
}

/// A failure with the whole chain of causes in its text: the job's own, unless storage does not answer for now.
fn failure_of(error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    let text = format!("{error:#}");
    if error.chain().any(is_outage) { Failure::Collective(text) } else { Failure::Job(text) }
}

/// Whether trying again later may help, with nothing mended in the job.
fn is_outage(cause: &(dyn std::error::Error + 'static)) -> bool {
    // Transparent errors do not show the one inside as their source.
    let of_checkpoint = match cause.downcast_ref() {
        Some(CheckpointError::Storage(error)) => Some(error),
        _ => None,
    };
    let of_set = match cause.downcast_ref() {
        Some(SetError::Storage(error)) => Some(error),
        _ => None,
    };
    cause.downcast_ref().or(of_checkpoint).or(of_set).is_some_and(StorageError::is_transient)
}

/// A collective failure with the whole chain of causes in its text.
fn collective_failure(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Collective(format!("{:#}", error.into()))
}

#[cfg(test)]
mod tests {
    use r2o_data::DataError;
    use r2o_storage::Operation;

    use super::*;

    fn storage(kind: std::io::ErrorKind) -> StorageError {
        StorageError::from_io(Operation::Read, "s3://bucket/object", std::io::Error::from(kind))
    }

    #[test]
    fn storage_that_does_not_answer_is_not_the_jobs_fault_and_what_is_missing_is() {
        let away = || storage(std::io::ErrorKind::ConnectionRefused);
        for error in [
            anyhow::Error::new(away()),
            CheckpointError::from(away()).into(),
            DataError::from(away()).into(),
            DataError::from(SetError::from(away())).into(),
        ] {
            let failure = failure_of(error.context("reading the next batch"));
            assert!(
                matches!(&failure, Failure::Collective(text) if text.contains("s3://bucket/object")),
                "{failure:?}"
            );
        }
        let gone = CheckpointError::from(storage(std::io::ErrorKind::NotFound));
        assert!(matches!(failure_of(gone), Failure::Job(_)));
    }
}
