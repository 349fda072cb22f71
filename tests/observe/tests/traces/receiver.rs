//! A receiver of OTLP over gRPC, on a socket of its own, that keeps what it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use r2o_telemetry::TaskKind;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// A span, and which program it is of.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// `service.name`.
    pub(crate) service: String,
    /// `service.instance.id`.
    pub(crate) instance: String,
    /// The span.
    pub(crate) span: Span,
}

impl Received {
    /// An attribute as text; empty: it has none of this name.
    pub(crate) fn attribute(&self, name: &str) -> String {
        attribute(&self.span.attributes, name)
    }

    /// The trace's id as log lines have it.
    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }
}

/// An id in words.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute as text.
pub(crate) fn attribute(all: &[KeyValue], name: &str) -> String {
    let value = all.iter().find(|a| a.key == name).and_then(|a| a.value.clone()).and_then(|value| value.value);
    match value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Received>>,
    metrics: Mutex<Vec<(String, Metric)>>,
    tokens: Mutex<Vec<String>>,
}

/// A receiver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Receiver {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    kept: Arc<Kept>,
}

impl Receiver {
    /// Begins to listen on a free port.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let receiver = Self { address: listener.local_addr()?, kept: Arc::default() };
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip))
            .add_service(MetricsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let _runs_on = r2o_telemetry::spawn("receiver", TaskKind::Work, server);
        Ok(receiver)
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Received> {
        self.kept.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All metrics so far, each with the service that sent it.
    pub(crate) fn metrics(&self) -> Vec<(String, Metric)> {
        self.kept.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came as `authorization`.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.kept.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_token<T>(&self, request: &Request<T>) {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.kept.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token.unwrap_or_default().to_owned());
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.note_token(&request);
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default().attributes;
            let of = |name| attribute(&resource, name);
            let (service, instance) = (of("service.name"), of("service.instance.id"));
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| Received { service: service.clone(), instance: instance.clone(), span });
            self.kept.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_metrics {
            let service = attribute(&of_resource.resource.unwrap_or_default().attributes, "service.name");
            let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            self.kept
                .metrics
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(metrics.map(|metric| (service.clone(), metric)));
        }
        Ok(Response::new(Default::default()))
    }
}
