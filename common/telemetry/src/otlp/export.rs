//! The tasks that send, and the queue before them.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::metrics::metrics;
use super::options::{BadHeaders, Header, OtlpOptions, Resource, milliseconds};
use super::span::{Span, unix_nanos};
use crate::metrics::{Counter, Registry};
use crate::{TaskHandle, TaskKind, build_info, spawn};

/// Spans that wait to be sent; those beyond are dropped. Both as OTEL_BSP_* have it by default.
const QUEUE: usize = 2_048;
/// Spans that are sent together.
const BATCH: usize = 512;
/// How long the end of the process waits for what is left to be sent.
const LAST: Duration = Duration::from_secs(2);

/// Takes finished spans, and never waits. Where nothing is exported it drops them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Span>,
    lost: Counter,
}

impl Spans {
    /// Whether anybody wants spans.
    #[must_use]
    pub fn are_exported(&self) -> bool {
        self.0.is_some()
    }

    /// Hands a span on. `make` is not called where nothing is exported.
    pub fn record(&self, make: impl FnOnce() -> Span) {
        if let Some(queue) = &self.0
            && queue.sender.try_send(make()).is_err()
        {
            queue.lost.inc(&["queue_full"]);
        }
    }
}

/// Brings what is only worth a look now and then up to date, before metrics are read.
pub type Look = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What is sent of the metrics.
pub struct Metrics {
    /// All of them.
    pub registry: Arc<Registry>,
    /// Called before each time.
    pub look: Look,
    /// Counts the spans that are dropped.
    pub lost: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// The export of one process.
#[derive(Debug, Default)]
pub struct Otlp {
    spans: Spans,
    stop: watch::Sender<bool>,
    tasks: Vec<TaskHandle<()>>,
}

impl Otlp {
    /// Begins to send spans and metrics over `channel`, which need not be connected yet. [`Otlp::default`] sends nothing.
    ///
    /// # Errors
    /// When the options' headers cannot be read.
    pub fn start(
        options: &OtlpOptions,
        channel: Channel,
        resource: &Resource,
        metrics: Metrics,
    ) -> Result<Self, BadHeaders> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let stop = watch::Sender::new(false);
        let spans = Spans(Some(Arc::new(Queue { sender, lost: metrics.lost.clone() })));
        let to = Receiver::new("spans", channel.clone(), options, resource)?;
        let sends = send_spans(to, queue, milliseconds(options.delay), metrics.lost.clone(), stop.subscribe());
        let of_spans = spawn("spans", TaskKind::Session, sends);
        let to = Receiver::new("metrics", channel, options, resource)?;
        let sends = send_metrics(to, metrics, milliseconds(options.interval), stop.subscribe());
        let tasks = vec![of_spans, spawn("metrics", TaskKind::Session, sends)];
        Ok(Self { spans, stop, tasks })
    }

    /// Where finished spans go.
    #[must_use]
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Sends what is left, unless that takes longer than two seconds.
    pub async fn finish(&mut self) {
        self.stop.send_replace(true);
        let all = async {
            for task in self.tasks.drain(..) {
                let _ended = task.await;
            }
        };
        if timeout(LAST, all).await.is_err() {
            tracing::warn!("the OTLP receiver does not take the last spans and metrics");
        }
    }
}

/// Sends spans as they come, many at a time, until the end.
async fn send_spans(
    mut to: Receiver,
    mut queue: mpsc::Receiver<Span>,
    delay: Duration,
    lost: Counter,
    mut stop: watch::Receiver<bool>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut beat = interval(delay);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let room = BATCH - batch.len();
        let (send, last) = tokio::select! {
            taken = queue.recv_many(&mut batch, room) => (taken == room, taken == 0),
            _ = beat.tick() => (true, false),
            _ = stop.wait_for(|stop| *stop) => (true, true),
        };
        if send {
            to.send_spans(&mut batch, &lost).await;
        }
        if last {
            break;
        }
    }
    while let Ok(span) = queue.try_recv() {
        batch.push(span);
        if batch.len() == BATCH || queue.is_empty() {
            to.send_spans(&mut batch, &lost).await;
        }
    }
}

/// Sends metrics now and then, and at the end.
async fn send_metrics(mut to: Receiver, source: Metrics, every: Duration, mut stop: watch::Receiver<bool>) {
    let start = unix_nanos(SystemTime::now());
    let mut beat = interval(every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = beat.tick() => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        (source.look)().await;
        to.send_metrics(metrics(&source.registry, start, unix_nanos(SystemTime::now()))).await;
        if last {
            return;
        }
    }
}

/// Who gets one of the two.
struct Receiver {
    what: &'static str,
    channel: Channel,
    resource: ProtoResource,
    headers: Vec<Header>,
    timeout: Duration,
    /// Whether it did not take what was sent last: that it is away is said once.
    away: bool,
}

impl Receiver {
    fn new(
        what: &'static str,
        channel: Channel,
        options: &OtlpOptions,
        resource: &Resource,
    ) -> Result<Self, BadHeaders> {
        let (resource, headers) = (resource.to_proto(), options.headers.read()?);
        Ok(Self { what, channel, resource, headers, timeout: milliseconds(options.timeout), away: false })
    }

    async fn send_spans(&mut self, batch: &mut Vec<Span>, lost: &Counter) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        let spans = batch.drain(..).map(Into::into).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let request = self.request(ExportTraceServiceRequest { resource_spans });
        let mut client = TraceServiceClient::new(self.channel.clone());
        match self.answer(client.export(request)).await {
            Some(answer) => {
                let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
                lost.add(&["rejected"], rejected as f64);
            }
            None => lost.add(&["not_sent"], count as f64),
        }
    }

    /// What is not taken is sent again with the next: metrics count from the start.
    async fn send_metrics(&mut self, metrics: Vec<Metric>) {
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        let request = self.request(ExportMetricsServiceRequest { resource_metrics });
        let mut client = MetricsServiceClient::new(self.channel.clone());
        let _next_time = self.answer(client.export(request)).await;
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        request
    }

    /// What it answers in time, if it takes what is sent.
    async fn answer<T>(&mut self, call: impl Future<Output = Result<Response<T>, Status>>) -> Option<T> {
        let late = Err(Status::deadline_exceeded(format!("no answer within {:?}", self.timeout)));
        let answer = timeout(self.timeout, call).await.unwrap_or(late);
        let before = std::mem::replace(&mut self.away, answer.is_err());
        match &answer {
            Err(status) if !before => {
                tracing::warn!("the OTLP receiver does not take {}, goes on without: {}", self.what, in_words(status));
            }
            Ok(_) if before => tracing::info!("the OTLP receiver takes {} again", self.what),
            _ => {}
        }
        answer.ok().map(Response::into_inner)
    }
}

/// A status with what is at the root of it.
fn in_words(status: &Status) -> String {
    let root = std::iter::successors(status.source(), |cause| (*cause).source()).last();
    let root = root.map(|root| format!(" ({root})")).unwrap_or_default();
    format!("{:?}: {}{root}", status.code(), status.message())
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "r2o".to_owned(),
        version: build_info().version.to_owned(),
        ..InstrumentationScope::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};
    use r2o_types::TraceContext;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::metrics::{Point, Reading, table::Worker};

    fn lost(table: &Worker, reason: &str) -> f64 {
        let all = table.registry().readings().find(|(declaration, _)| declaration.name == "r2o_spans_lost_total");
        let of = |point: &Point| match point.reading {
            Reading::Number(count) if point.labels[0].1 == reason => Some(count),
            _ => None,
        };
        all.and_then(|(_, points)| points.iter().find_map(of)).unwrap_or_default()
    }

    #[test]
    fn a_span_is_not_even_made_where_nobody_wants_it() {
        Spans::default().record(|| panic!("made"));
    }

    /// On one thread the sending tasks do not run before the first await: the queue takes what it has room for.
    #[tokio::test]
    async fn what_the_queue_has_no_room_for_is_dropped_and_counted() {
        let table = Worker::default();
        let matches =
            OtlpOptions::augment_args(Command::new("test")).get_matches_from(["test", "--otlp-timeout", "50"]);
        let options = OtlpOptions::from_arg_matches(&matches).unwrap();
        let metrics = Metrics {
            registry: Arc::clone(table.registry()),
            look: Box::new(|| Box::pin(std::future::ready(()))),
            lost: table.spans_lost.clone(),
        };
        let nobody = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let mut otlp = Otlp::start(&options, nobody, &Resource::of_process("test", "0"), metrics).unwrap();
        let context = TraceContext::root("test");
        (0..QUEUE + 7).for_each(|_| otlp.spans().record(|| Span::root("test", context, SystemTime::now())));
        assert_eq!(lost(&table, "queue_full"), 7.0);
        otlp.finish().await;
        assert_eq!(lost(&table, "not_sent"), QUEUE as f64, "nobody took the rest");
    }
}
