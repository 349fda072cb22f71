//! The one place where tasks and threads are started. Each has a name and a kind; the kind says what a panic does and
//! what becomes of the task when nobody holds its handle.

use std::{
    any::Any,
    borrow::Cow,
    error::Error,
    fmt,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    thread,
};

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Exit status of a process that lost a [`TaskKind::Service`] (EX_SOFTWARE of sysexits.h).
const EXIT_SOFTWARE: i32 = 70;

/// What kind of work a task does, and so what to do when it ends badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// The process is of no use without it: a panic ends the process, so that its supervisor starts it anew.
    Service,
    /// Serves one peer or one job: a panic is logged and ends only it; dropping the handle cancels it.
    Session,
    /// One piece of work that must run to its end even when nobody waits: a panic is logged.
    Work,
}

/// What a panic in a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// Log it and give it to whoever awaits the handle.
    Log,
    /// Log it and end the process with status 70.
    Exit,
}

/// What dropping a task's handle does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrop {
    /// The task runs on.
    Detach,
    /// The task is cancelled at its next await point.
    Cancel,
}

impl TaskKind {
    /// What a panic does.
    pub const fn on_panic(self) -> OnPanic {
        match self {
            Self::Service => OnPanic::Exit,
            Self::Session | Self::Work => OnPanic::Log,
        }
    }

    /// What dropping the handle does.
    pub const fn on_drop(self) -> OnDrop {
        match self {
            Self::Session => OnDrop::Cancel,
            Self::Service | Self::Work => OnDrop::Detach,
        }
    }
}

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// It was cancelled, or the runtime shut down.
    Cancelled,
    /// It panicked.
    Panicked {
        /// The task's name.
        name: String,
        /// What the panic said.
        message: String,
    },
}

impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::Panicked { name, message } => write!(f, "task `{name}` panicked: {message}"),
        }
    }
}

impl Error for TaskEnd {}

/// A running task. Awaiting it gives the task's result; what dropping it does follows its [`TaskKind`].
#[derive(Debug)]
pub struct TaskHandle<T> {
    inner: JoinHandle<Result<T, TaskEnd>>,
    on_drop: OnDrop,
}

impl<T> TaskHandle<T> {
    /// Cancels the task at its next await point.
    pub fn cancel(&self) {
        self.inner.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }
}

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Cancel {
            self.inner.abort();
        }
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskEnd>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner).poll(cx).map(|joined| joined.unwrap_or(Err(TaskEnd::Cancelled)))
    }
}

/// Starts a task on the current runtime. Events in it carry its name as the span `task`.
pub fn spawn<F>(name: impl Into<Cow<'static, str>>, kind: TaskKind, future: F) -> TaskHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let name = name.into();
    let span = tracing::info_span!("task", name = %name);
    let caught = CatchPanic(Box::pin(future));
    let supervised = async move { caught.await.map_err(|panic| ended_badly(&name, kind, panic.as_ref())) };
    TaskHandle { inner: tokio::spawn(supervised.instrument(span)), on_drop: kind.on_drop() }
}

/// Runs a blocking function on the runtime's blocking threads. It cannot be cancelled once it runs.
pub fn spawn_blocking<F, T>(name: impl Into<Cow<'static, str>>, kind: TaskKind, function: F) -> TaskHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let name = name.into();
    let span = tracing::info_span!("task", name = %name);
    let supervised = move || {
        let _entered = span.enter();
        catch_unwind(AssertUnwindSafe(function)).map_err(|panic| ended_badly(&name, kind, panic.as_ref()))
    };
    TaskHandle { inner: tokio::task::spawn_blocking(supervised), on_drop: OnDrop::Detach }
}

/// Starts an operating-system thread, for loops that must not share a runtime (such as the step loop).
///
/// Errors: the system refuses another thread.
pub fn spawn_thread<F, T>(
    name: impl Into<Cow<'static, str>>,
    kind: TaskKind,
    function: F,
) -> io::Result<thread::JoinHandle<Result<T, TaskEnd>>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let name = name.into();
    thread::Builder::new().name(name.to_string()).spawn(move || {
        catch_unwind(AssertUnwindSafe(function)).map_err(|panic| ended_badly(&name, kind, panic.as_ref()))
    })
}

fn ended_badly(name: &str, kind: TaskKind, panic: &(dyn Any + Send)) -> TaskEnd {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    tracing::error!(task = name, panic = message, "task panicked");
    if kind.on_panic() == OnPanic::Exit {
        std::process::exit(EXIT_SOFTWARE);
    }
    TaskEnd::Panicked { name: name.to_owned(), message }
}

/// Polls a future and turns a panic into a value.
struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_result_comes_back() {
        assert_eq!(spawn("sum", TaskKind::Work, async { 1 + 1 }).await, Ok(2));
        assert_eq!(spawn_blocking("sum", TaskKind::Work, || 3).await, Ok(3));
        assert_eq!(spawn_thread("sum", TaskKind::Work, || 4).unwrap().join().unwrap(), Ok(4));
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_that_names_the_task() {
        let end = spawn("loader", TaskKind::Work, async { panic!("shard {} is gone", 3) }).await.unwrap_err();
        let TaskEnd::Panicked { name, message } = end else { panic!("not a panic") };
        assert_eq!((name.as_str(), message.as_str()), ("loader", "shard 3 is gone"));
    }

    #[tokio::test]
    async fn dropping_a_session_cancels_it_and_dropping_work_does_not() {
        for (kind, runs_on) in [(TaskKind::Session, false), (TaskKind::Work, true)] {
            let (go, wait) = oneshot::channel::<()>();
            let (done, ended) = oneshot::channel::<()>();
            drop(spawn("waits", kind, async move {
                let _ = wait.await;
                let _ = done.send(());
            }));
            // A cancelled task drops its receiver, so this send may fail: that is the point.
            let _ = go.send(());
            assert_eq!(ended.await.is_ok(), runs_on, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn cancel_ends_a_task() {
        let task = spawn("waits", TaskKind::Work, std::future::pending::<()>());
        task.cancel();
        assert_eq!(task.await, Err(TaskEnd::Cancelled));
    }

    #[test]
    fn only_a_service_takes_the_process_with_it() {
        assert_eq!(TaskKind::Service.on_panic(), OnPanic::Exit);
        assert_eq!(TaskKind::Session.on_panic(), OnPanic::Log);
        assert_eq!(TaskKind::Work.on_panic(), OnPanic::Log);
    }
}
