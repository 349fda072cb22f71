//! The server's side of TLS.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use x509_parser::parse_x509_certificate;

use crate::pem::{self, Stamp, TlsError};

/// Where a server's certificate and key are.
#[derive(Debug, Clone)]
pub struct ServerTlsFiles {
    /// Its certificate and those between it and its authority, in PEM.
    pub cert: PathBuf,
    /// The certificate's key, in PEM.
    pub key: PathBuf,
    /// The authorities of clients, in PEM: clients must show a certificate of theirs. `None`: they need none.
    pub client_ca: Option<PathBuf>,
}

/// What a server speaks inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 alone.
    Grpc,
    /// HTTP/2 or HTTP/1.1.
    Web,
}

/// A server's side of TLS; its files are looked at with each connection, and read again when they have changed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerTls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: ServerTlsFiles,
    alpn: Alpn,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    stamps: Vec<Option<Stamp>>,
    config: Arc<ServerConfig>,
    expires: SystemTime,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be read or does not fit the others.
    pub fn open(files: ServerTlsFiles, alpn: Alpn) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let (config, expires) = read(&files, alpn)?;
        Ok(Self(Arc::new(Inner { files, alpn, current: Mutex::new(Current { stamps, config, expires }) })))
    }

    /// What the next connection is served with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().config)
    }

    /// When the certificate ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.current().expires
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        let Inner { files, alpn, current } = &*self.0;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(files);
        if now != current.stamps {
            current.stamps = now;
            match read(files, *alpn) {
                Ok((config, expires)) => {
                    tracing::info!("certificate {}: read again", files.cert.display());
                    (current.config, current.expires) = (config, expires);
                }
                // Certificate and key are two files, and one comes before the other.
                Err(error) => tracing::warn!("the certificate from before stays: {error}"),
            }
        }
        current
    }
}

fn stamps(files: &ServerTlsFiles) -> Vec<Option<Stamp>> {
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|p| pem::stamp(p))
        .collect()
}

fn read(files: &ServerTlsFiles, alpn: Alpn) -> Result<(Arc<ServerConfig>, SystemTime), TlsError> {
    let (chain, key) = (pem::chain(&files.cert)?, pem::key(&files.key)?);
    let unfit = |error: rustls::Error| TlsError::new("certificate", &files.cert, error);
    let (_, own) =
        parse_x509_certificate(&chain[0]).map_err(|error| TlsError::new("certificate", &files.cert, error))?;
    let seconds = u64::try_from(own.validity().not_after.timestamp()).unwrap_or(0);
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let builder = ServerConfig::builder_with_provider(pem::provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(unfit)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(pem::authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, pem::provider()).build();
            let verifier = verifier.map_err(|error| TlsError::new("certificate authority", path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unfit)?;
    config.alpn_protocols = match alpn {
        Alpn::Grpc => vec![b"h2".to_vec()],
        Alpn::Web => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok((Arc::new(config), expires))
}
