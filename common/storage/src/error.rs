//! Why an object store did not do what it was asked, in words that a person can act on.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

/// What was being done when a store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading an object or a part of it.
    Read,
    /// Writing an object.
    Write,
    /// Listing objects.
    List,
    /// Deleting an object.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::List => "list",
            Operation::Delete => "delete",
        })
    }
}

/// The source of a [`StorageError`]: the store's own words.
pub type Source = Box<dyn StdError + Send + Sync + 'static>;

/// A failed operation on a store. Every variant names the URL, and says what to do about it; the store's own words are the
/// [`source`](StdError::source) and are not repeated here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The URL names no store that this build knows, or is malformed.
    #[error(
        "`{url}` is not a storage URL: {reason}; use file:///folder, a plain path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or http(s)://host/path"
    )]
    InvalidUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that the store cannot hold.
    #[error("`{key}` is not a usable object name under {url}: {reason}")]
    InvalidKey {
        /// The store.
        url: String,
        /// The refused key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object does not exist.
    #[error("{url} does not exist; check the URL, or that what should have written it has finished")]
    NotFound {
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
    /// The disk, or the quota on it, is full.
    #[error("cannot {operation} {url}: no space left there; free some space or choose another URL, then try again")]
    NoSpace {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
    /// The file system or server accepts no writes at all.
    #[error("cannot {operation} {url}: the storage is read-only; mount it writable or choose another URL")]
    ReadOnly {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
    /// The storage is there, but not for this user or these credentials.
    #[error(
        "cannot {operation} {url}: permission denied; give this user or these credentials leave to {operation} there"
    )]
    PermissionDenied {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
    /// No usable credentials were sent or found.
    #[error(
        "cannot {operation} {url}: no valid credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (S3), GOOGLE_SERVICE_ACCOUNT (gs) or AZURE_STORAGE_ACCOUNT_NAME and _KEY (az)"
    )]
    Credentials {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
    /// Nothing answered, or not in time, after several tries.
    #[error("cannot {operation} {url}: the storage cannot be reached; check the address, the network and the server")]
    Unreachable {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
    /// The store cannot do this at all, for instance a write over plain HTTP.
    #[error("cannot {operation} {url}: this kind of storage does not support it; choose another URL")]
    Unsupported {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
    /// This process may not write any more.
    #[error("cannot {operation} {url}: another coordinator may lead by now, and this one changes nothing")]
    Fenced {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
    },
    /// Anything else; the source says what.
    #[error("cannot {operation} {url}")]
    Other {
        /// What was being done.
        operation: Operation,
        /// The object.
        url: String,
        /// The store's words.
        #[source]
        source: Source,
    },
}

impl StorageError {
    /// Sorts a store's error into what a person can do about it. `url` names the object.
    pub(crate) fn classify(operation: Operation, url: String, error: object_store::Error) -> Self {
        use object_store::Error as E;
        let kind = match &error {
            E::NotFound { .. } => Kind::NotFound,
            E::PermissionDenied { .. } => Kind::Permission,
            E::Unauthenticated { .. } => Kind::Credentials,
            E::NotSupported { .. } | E::NotImplemented { .. } => Kind::Unsupported,
            _ => kind_of_chain(&error),
        };
        Self::of_kind(kind, operation, url, Box::new(error))
    }

    /// Sorts an error of the operating system likewise; for code that works on files beside the store.
    pub fn from_io(operation: Operation, url: impl Into<String>, error: io::Error) -> Self {
        let kind = kind_of_io(&error).unwrap_or(Kind::Other);
        Self::of_kind(kind, operation, url.into(), Box::new(error))
    }

    fn of_kind(kind: Kind, operation: Operation, url: String, source: Source) -> Self {
        match kind {
            Kind::NotFound => Self::NotFound { url, source },
            Kind::NoSpace => Self::NoSpace { operation, url, source },
            Kind::ReadOnly => Self::ReadOnly { operation, url, source },
            Kind::Permission => Self::PermissionDenied { operation, url, source },
            Kind::Credentials => Self::Credentials { operation, url, source },
            Kind::Unreachable => Self::Unreachable { operation, url, source },
            Kind::Unsupported => Self::Unsupported { operation, url, source },
            Kind::Other => Self::Other { operation, url, source },
        }
    }

    /// Whether the object simply is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether trying again later, with nothing changed by a person, may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The URL that the operation was about.
    pub fn url(&self) -> &str {
        match self {
            Self::InvalidUrl { url, .. }
            | Self::InvalidKey { url, .. }
            | Self::NotFound { url, .. }
            | Self::NoSpace { url, .. }
            | Self::ReadOnly { url, .. }
            | Self::PermissionDenied { url, .. }
            | Self::Credentials { url, .. }
            | Self::Unreachable { url, .. }
            | Self::Unsupported { url, .. }
            | Self::Fenced { url, .. }
            | Self::Other { url, .. } => url,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NotFound,
    NoSpace,
    ReadOnly,
    Permission,
    Credentials,
    Unreachable,
    Unsupported,
    Other,
}

fn kind_of_io(error: &io::Error) -> Option<Kind> {
    use io::ErrorKind as K;
    Some(match error.kind() {
        K::NotFound => Kind::NotFound,
        K::StorageFull | K::QuotaExceeded => Kind::NoSpace,
        K::ReadOnlyFilesystem => Kind::ReadOnly,
        K::PermissionDenied => Kind::Permission,
        K::ConnectionRefused
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::NotConnected
        | K::HostUnreachable
        | K::NetworkUnreachable
        | K::NetworkDown
        | K::BrokenPipe
        | K::TimedOut => Kind::Unreachable,
        _ => return None,
    })
}

/// Walks the causes for the first one that says what happened. The text of the chain is consulted last: `object_store`
/// keeps a server's status code private.
fn kind_of_chain(error: &(dyn StdError + 'static)) -> Kind {
    let mut cause = Some(error);
    let mut text = String::new();
    while let Some(e) = cause {
        if let Some(kind) = e.downcast_ref::<io::Error>().and_then(kind_of_io) {
            return kind;
        }
        if let Some(http) = e.downcast_ref::<HttpError>() {
            match http.kind() {
                HttpErrorKind::Connect
                | HttpErrorKind::Request
                | HttpErrorKind::Timeout
                | HttpErrorKind::Interrupted => return kind_of_http(&text, &http.to_string()),
                _ => {}
            }
        }
        text = e.to_string();
        cause = e.source();
    }
    let text = error.to_string();
    if asks_for_credentials(&text) {
        Kind::Credentials
    } else if text.contains(" 405 ") || text.contains("405 Method Not Allowed") || text.contains("501 Not Implemented")
    {
        Kind::Unsupported
    } else if ["500 ", "502 ", "503 ", "504 ", "429 "].iter().any(|s| text.contains(&format!("status code: {s}"))) {
        Kind::Unreachable
    } else if text.contains("507 ") {
        Kind::NoSpace
    } else {
        Kind::Other
    }
}

/// A cloud client without credentials asks the machine's metadata service for some; when that service is not there, or
/// refuses, the credentials are missing, not the storage.
fn asks_for_credentials(text: &str) -> bool {
    ["169.254.169.254", "/latest/api/token", "metadata.google.internal", "/metadata/identity"]
        .iter()
        .any(|service| text.contains(service))
}

fn kind_of_http(context: &str, message: &str) -> Kind {
    if asks_for_credentials(context) || asks_for_credentials(message) { Kind::Credentials } else { Kind::Unreachable }
}
