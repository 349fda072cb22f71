//! The way to a receiver of traces and metrics.

use std::time::Duration;

use http::Uri;
use r2o_telemetry::otlp::{BadHeaders, Metrics, Otlp, OtlpOptions, Resource};
use tonic::transport::Endpoint;

use crate::client::{ClientTls, channel};
use crate::pem::TlsError;

/// OTLP's own, for a URL that names none.
const PORT: u16 = 4317;
const CONNECT: Duration = Duration::from_secs(5);

/// Why nothing can be sent to a receiver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiverError {
    /// The address is none.
    #[error("--otlp-endpoint {0}: not the URL of a gRPC receiver; write it like http://collector:4317")]
    Url(String),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The headers cannot be read.
    #[error(transparent)]
    Headers(#[from] BadHeaders),
}

/// Begins to send what is traced and measured, if the options say where to; by TLS if the URL is https. Whether anybody is
/// there is not looked at.
///
/// # Errors
/// When the URL is none, or certificates or headers cannot be read.
pub fn send(options: &OtlpOptions, resource: &Resource, metrics: Metrics) -> Result<Otlp, ReceiverError> {
    let Some(url) = options.endpoint.as_deref().filter(|url| !url.is_empty()) else { return Ok(Otlp::default()) };
    let tls = ClientTls { ca: options.ca.clone(), cert: options.cert.clone(), key: options.key.clone() };
    let endpoint = Endpoint::from(address(url)?).connect_timeout(CONNECT);
    tls.check()?;
    Ok(Otlp::start(options, channel(&endpoint, tls), resource, metrics)?)
}

/// Scheme, host and port; a path is HTTP's affair.
fn address(url: &str) -> Result<Uri, ReceiverError> {
    let wrong = || ReceiverError::Url(without_user(url));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or_else(wrong)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    let port = uri.port_u16().unwrap_or(PORT);
    Uri::builder().scheme(scheme).authority(format!("{host}:{port}")).path_and_query("/").build().map_err(|_| wrong())
}

/// A URL to show: a name and a password in it stay out of logs.
fn without_user(url: &str) -> String {
    let Some((user, rest)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = user.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}...@{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_means_that_of_otlp() {
        let of = |url| address(url).unwrap().to_string();
        assert_eq!(of("http://collector"), "http://collector:4317/");
        assert_eq!(of("https://[::1]:9/v1/traces"), "https://[::1]:9/");
    }

    #[test]
    fn what_is_no_address_is_named() {
        for url in ["collector:4317", "ftp://collector", "/", "http://"] {
            assert!(address(url).unwrap_err().to_string().contains(url), "{url}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        for url in ["ftp://me:secret@collector", "me:secret@collector:4317", "http://me:sec@ret@ /"] {
            let told = address(url).unwrap_err().to_string();
            assert!(!told.contains("sec") && told.contains("...@"), "{told}");
        }
    }
}
