//! Certificates and keys from PEM files, and whether the files have changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with certificates or keys. It never repeats what a key's file holds.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {reason}", path.display())]
pub struct TlsError {
    what: &'static str,
    path: PathBuf,
    reason: String,
}

impl TlsError {
    pub(crate) fn new(what: &'static str, path: &Path, reason: impl ToString) -> Self {
        Self { what, path: path.to_owned(), reason: reason.to_string() }
    }
}

/// The certificates in a file, the first being the owner's.
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates("certificate", path)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::new(what, path, reason);
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate in PEM".to_owned()));
    }
    Ok(certificates)
}

/// The key in a file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::new("key", path, error))
}

/// The authorities in a file.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let what = "certificate authority";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots.add(certificate).map_err(|error| TlsError::new(what, path, error))?;
    }
    Ok(roots)
}

/// The one library of cryptography in the programs.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What tells one state of a file from another.
pub(crate) type Stamp = (SystemTime, u64, u64);

/// Nothing where the file cannot be looked at.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let look = |path: &Path| -> io::Result<Stamp> {
        let meta = fs::metadata(path)?;
        Ok((meta.modified()?, meta.len(), meta.ino()))
    };
    look(path).ok()
}
