//! The client's side: a channel to a coordinator, by TCP or by TLS as its URL says.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::pem::{self, TlsError};

/// Where a client's certificates are. They are read for each connection: one that is renewed is shown from the next on.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientTls {
    /// Authorities that the coordinator's certificate may be of, in PEM, for an https address; default: the system's
    #[arg(long = "tls-ca", global = true, env = "R2O_TLS_CA", hide_env_values = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show to the coordinator, in PEM
    #[arg(long = "tls-cert", global = true, env = "R2O_TLS_CERT", hide_env_values = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// That certificate's key, in PEM
    #[arg(long = "tls-key", global = true, env = "R2O_TLS_KEY", hide_env_values = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

impl ClientTls {
    fn config(&self) -> Result<ClientConfig, TlsError> {
        let roots = match &self.ca {
            Some(path) => pem::authorities(path)?,
            None => system_roots(),
        };
        let unfit =
            |error| TlsError::new("certificates", self.ca.as_deref().unwrap_or("of the system".as_ref()), error);
        let builder = ClientConfig::builder_with_provider(pem::provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(unfit)?.with_root_certificates(roots);
        let mut config = match (&self.cert, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(pem::chain(cert)?, pem::key(key)?)
                .map_err(|error| TlsError::new("certificate", cert, error))?,
            (Some(cert), None) => {
                return Err(TlsError::new("certificate", cert, "its key is not given: --tls-key FILE"));
            }
            (None, Some(key)) => {
                return Err(TlsError::new("key", key, "its certificate is not given: --tls-cert FILE"));
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// Reads the files, so that what is wrong with them is known before a connection is tried.
    ///
    /// # Errors
    /// Names the file.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }
}

/// Those that can be read; without any, no server is trusted.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A channel that connects when it is first used and again whenever it broke: by TLS if the URL is https.
#[must_use]
pub fn channel(endpoint: &Endpoint, tls: ClientTls) -> Channel {
    endpoint.connect_with_connector_lazy(Connector { tls })
}

/// [`channel`], connected at once.
///
/// # Errors
/// When nobody answers, or who answers is not trusted or does not trust this client.
pub async fn connect(endpoint: &Endpoint, tls: ClientTls) -> Result<Channel, tonic::transport::Error> {
    endpoint.connect_with_connector(Connector { tls }).await
}

#[derive(Debug, Clone)]
struct Connector {
    tls: ClientTls,
}

/// A TCP or a TLS stream.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let wire = dial(&uri, &tls).await?;
            Ok(TokioIo::new(wire))
        })
    }
}

async fn dial(uri: &Uri, tls: &ClientTls) -> io::Result<Box<dyn Wire>> {
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    if !secure {
        return Ok(Box::new(stream));
    }
    let config = tls.config().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}
