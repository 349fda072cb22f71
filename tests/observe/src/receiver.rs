//! A receiver of OTLP over gRPC, on a socket of its own, that keeps what it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
use prost::Message;
use r2o_telemetry::TaskKind;
use r2o_transport::{Alpn, Incoming, Limits, ServerTls, ServerTlsFiles};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// A span, and which program it is of.
#[derive(Clone, Debug)]
pub struct Received {
    /// `service.name`.
    pub service: String,
    /// `service.instance.id`.
    pub instance: String,
    /// The span.
    pub span: Span,
}

impl Received {
    /// An attribute as text; empty: it has none of this name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> String {
        attribute(&self.span.attributes, name)
    }

    /// The trace's id as log lines have it.
    #[must_use]
    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }
}

/// An id in words.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute as text.
#[must_use]
pub fn attribute(all: &[KeyValue], name: &str) -> String {
    let value = all.iter().find(|a| a.key == name).and_then(|a| a.value.clone()).and_then(|value| value.value);
    match value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Received>,
    metrics: Vec<(String, Metric)>,
    tokens: Vec<String>,
    bytes: Vec<u8>,
}

/// A receiver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Receiver {
    /// Begins to listen on a free port; with `tls`, for those who speak TLS alone.
    ///
    /// # Errors
    /// When there is no port, or certificate and key cannot be read.
    pub async fn start(tls: Option<ServerTlsFiles>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let receiver = Self { address: listener.local_addr()?, kept: Arc::default() };
        let tls = tls.map(|files| ServerTls::open(files, Alpn::Grpc)).transpose()?;
        // It knows no tokens, so everybody stays a stranger.
        let limits = Limits { strangers: Duration::from_secs(86_400), ..Limits::of_process() };
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip))
            .add_service(MetricsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip))
            .serve_with_incoming(Incoming::new(listener, tls, limits)?);
        let _runs_on = r2o_telemetry::spawn("receiver", TaskKind::Work, server);
        Ok(receiver)
    }

    /// All spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Received> {
        self.kept().spans.clone()
    }

    /// All metrics so far, each with the service that sent it.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, Metric)> {
        self.kept().metrics.clone()
    }

    /// What came as `authorization`.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.kept().tokens.clone()
    }

    /// All that was sent so far, as bytes of protobuf, without headers.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.kept().bytes.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a request's token and bytes.
    fn keep<T: Message>(&self, request: Request<T>) -> T {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.unwrap_or_default().to_owned();
        let message = request.into_inner();
        let mut kept = self.kept();
        kept.tokens.push(token);
        kept.bytes.extend(message.encode_to_vec());
        message
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in self.keep(request).resource_spans {
            let resource = of_resource.resource.unwrap_or_default().attributes;
            let of = |name| attribute(&resource, name);
            let (service, instance) = (of("service.name"), of("service.instance.id"));
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| Received { service: service.clone(), instance: instance.clone(), span });
            self.kept().spans.extend(spans);
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
        for of_resource in self.keep(request).resource_metrics {
            let service = attribute(&of_resource.resource.unwrap_or_default().attributes, "service.name");
            let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            self.kept().metrics.extend(metrics.map(|metric| (service.clone(), metric)));
        }
        Ok(Response::new(Default::default()))
    }
}
