//! What an operator says of the receiver, in OpenTelemetry's own variables, and what the process says of itself.

use std::convert::Infallible;
use std::env;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

use super::span::{Value, key_value};
use crate::build_info;

/// Where traces and metrics go, if anywhere.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OtlpOptions {
    /// URL of an OTLP receiver (gRPC) that gets traces and metrics, like http://collector:4317; default: none
    #[arg(long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Headers for the receiver, NAME=VALUE,..., such as its token
    #[arg(
        long = "otlp-headers",
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        hide_env_values = true,
        value_name = "HEADERS",
        default_value = "",
        hide_default_value = true
    )]
    pub headers: Headers,
    /// Authorities that the receiver's certificate may be of, in PEM, for an https address; default: the system's
    #[arg(id = "otlp_ca", long = "otlp-ca", env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show to the receiver, in PEM
    #[arg(
        id = "otlp_cert",
        long = "otlp-cert",
        env = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        value_name = "FILE",
        requires = "otlp_key"
    )]
    pub cert: Option<PathBuf>,
    /// That certificate's key, in PEM
    #[arg(
        id = "otlp_key",
        long = "otlp-key",
        env = "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        value_name = "FILE",
        requires = "otlp_cert"
    )]
    pub key: Option<PathBuf>,
    /// Milliseconds that the receiver has to take what is sent
    #[arg(long = "otlp-timeout", env = "OTEL_EXPORTER_OTLP_TIMEOUT", value_name = "MS", default_value_t = 10_000)]
    pub timeout: u64,
    /// Milliseconds that spans wait for others, to be sent together
    #[arg(long = "otlp-delay", env = "OTEL_BSP_SCHEDULE_DELAY", value_name = "MS", default_value_t = 5_000)]
    pub delay: u64,
    /// Milliseconds between two times that metrics are sent
    #[arg(long = "otlp-metrics", env = "OTEL_METRIC_EXPORT_INTERVAL", value_name = "MS", default_value_t = 60_000)]
    pub interval: u64,
}

/// A number of milliseconds, at least one.
pub(super) fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number.max(1))
}

pub(super) type Header = (MetadataKey<Ascii>, MetadataValue<Ascii>);

/// Headers of every request, as `OTEL_EXPORTER_OTLP_HEADERS` writes them. They may be secret: nothing shows them, and they are
/// read late, because whoever parses a command line repeats what it cannot read.
#[derive(Clone, Default)]
pub struct Headers(String);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers(..)")
    }
}

impl FromStr for Headers {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// The headers cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--otlp-headers: {0}; write NAME=VALUE,... with values percent-encoded")]
pub struct BadHeaders(String);

impl Headers {
    pub(super) fn read(&self) -> Result<Vec<Header>, BadHeaders> {
        let header = |(name, value): (String, String)| {
            let value = value.parse().map_err(|_| format!("the value of `{name}` is not plain text"));
            let mut value: MetadataValue<Ascii> = value.map_err(BadHeaders)?;
            value.set_sensitive(true);
            let key = name.to_ascii_lowercase().parse();
            let key = key.map_err(|_| BadHeaders(format!("`{name}` is no name of a header")))?;
            Ok((key, value))
        };
        pairs(&self.0).map_err(BadHeaders)?.into_iter().map(header).collect()
    }
}

/// `NAME=VALUE,...` with values that are percent-encoded, as W3C Baggage writes them.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |(at, part): (usize, &str)| match part.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), decoded(value.trim()))),
        // It may be a secret: it is not repeated.
        _ => Err(format!("part {} is not NAME=VALUE", at + 1)),
    };
    parts.enumerate().map(pair).collect()
}

/// Text with its percent-encoded bytes; what is no such code stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// What a process says of itself with everything that it sends.
#[derive(Clone, Debug)]
pub struct Resource(Vec<(String, Value)>);

impl Resource {
    /// This program, in this instance. `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` win over both.
    #[must_use]
    pub fn of_process(service: &str, instance: &str) -> Self {
        Self::with_variables(service, instance, |name| env::var(name).ok())
    }

    fn with_variables(service: &str, instance: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut all = vec![
            ("service.name".to_owned(), service.to_owned()),
            ("service.version".to_owned(), build_info().version.to_owned()),
            ("service.instance.id".to_owned(), instance.to_owned()),
        ];
        let given = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let given = pairs(&given).unwrap_or_else(|error| {
            tracing::warn!("OTEL_RESOURCE_ATTRIBUTES is left out: {error}");
            Vec::new()
        });
        let name = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty());
        for (name, value) in given.into_iter().chain(name.map(|name| ("service.name".to_owned(), name))) {
            all.retain(|(known, _)| *known != name);
            all.push((name, value));
        }
        Self(all.into_iter().map(|(name, value)| (name, Value::Text(value))).collect())
    }

    pub(super) fn to_proto(&self) -> ProtoResource {
        let attributes = self.0.iter().map(|(name, value)| key_value(name.clone(), value.clone())).collect();
        ProtoResource { attributes, ..ProtoResource::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn headers_are_read_and_never_shown() {
        let headers: Headers = "authorization=Bearer%20s3cret, X-Tenant=r2o,".parse().unwrap();
        let read = headers.read().unwrap();
        let words: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(words, [("authorization", "Bearer s3cret"), ("x-tenant", "r2o")]);
        assert!(!format!("{headers:?} {read:?}").contains("s3cret"));
    }

    #[test]
    fn headers_that_cannot_be_read_stay_secret_on_a_command_line_too() {
        let command = || OtlpOptions::augment_args(clap::Command::new("test"));
        for wrong in ["s3cret", "authorization=s3cret\u{7f}", "a=b,s3cret"] {
            let matches = command().try_get_matches_from(["test", "--otlp-headers", wrong]).unwrap();
            let options = OtlpOptions::from_arg_matches(&matches).unwrap();
            let error = options.headers.read().unwrap_err().to_string();
            assert!(error.contains("--otlp-headers") && !error.contains("s3cret"), "{error}");
            assert!(!format!("{options:?}").contains("s3cret"));
        }
    }

    #[test]
    fn what_is_no_code_stays() {
        assert_eq!((decoded("a%2Cb"), decoded("50%"), decoded("%zz")), ("a,b".into(), "50%".into(), "%zz".into()));
    }

    #[test]
    fn the_environment_names_the_resource() {
        let variable = |name: &str| match name {
            "OTEL_SERVICE_NAME" => Some("mine".to_owned()),
            "OTEL_RESOURCE_ATTRIBUTES" => Some("service.name=other,k8s.namespace.name=ml".to_owned()),
            _ => None,
        };
        let Resource(all) = Resource::with_variables("r2o-worker", "worker-0", variable);
        let value = |name: &str| all.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        assert_eq!(value("service.name"), ["mine".into()]);
        assert_eq!(value("service.instance.id"), ["worker-0".into()]);
        assert_eq!(value("k8s.namespace.name"), ["ml".into()]);
    }
}
