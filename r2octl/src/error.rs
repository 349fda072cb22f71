//! Errors as people and scripts meet them: one sentence of what and where, the causes, what to do, and an exit code.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;

use r2o_storage::StorageError;
use r2o_storage::checkpoint::CheckpointError;
use tonic::Code;

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for another reason than those below
  2  wrong usage: unknown command or argument
  3  not found: no such job, checkpoint or file
  4  refused: the input is invalid, damaged, or conflicts with what is there
  5  unreachable: no answer from the coordinator or the storage
  6  the watched job failed or was cancelled
  7  no space left
  8  not proven: the ledger does not show that each sample was trained on exactly once
  9  not allowed: the token is missing, unknown, or of a role that may not do this";

/// The exit code of a failed command; see [`EXIT_CODES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Failure = 1,
    NotFound = 3,
    Refused = 4,
    Unreachable = 5,
    JobFailed = 6,
    NoSpace = 7,
    NotProven = 8,
    NotAllowed = 9,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    what: String,
    advice: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl CliError {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), advice: None, source: None }
    }

    pub(crate) fn failure(what: impl Into<String>) -> Self {
        Self::new(Exit::Failure, what)
    }

    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what)
    }

    /// Adds what to do about it.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds the cause.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn code(&self) -> Exit {
        self.exit
    }

    /// Whether the reader of our output went away (`r2octl list | head -1`): no failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let io = self.source.as_ref().and_then(|e| e.downcast_ref::<io::Error>());
        io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// `error: what`, then the causes that say something new, then the advice.
    pub(crate) fn for_people(&self) -> String {
        let mut text = format!("error: {}\n", self.what);
        let mut said = self.what.clone();
        let mut cause: Option<&dyn StdError> = self.source.as_ref().map(|e| &**e as &dyn StdError);
        while let Some(e) = cause {
            let words = e.to_string();
            if !said.contains(&words) {
                _ = writeln!(text, "  caused by: {words}");
                said = words;
            }
            cause = e.source();
        }
        if let Some(advice) = &self.advice {
            _ = writeln!(text, "  try: {advice}");
        }
        text
    }

    /// What an answer of the coordinator means. `about` names what was asked for.
    pub(crate) fn from_status(status: tonic::Status, about: &str, coordinator: &str) -> Self {
        let message = if status.message().is_empty() { status.code().description() } else { status.message() };
        match status.code() {
            Code::NotFound => Self::new(Exit::NotFound, format!("{about}: {message}"))
                .advice("`r2octl list` shows the jobs of this coordinator"),
            Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition | Code::OutOfRange => {
                Self::refused(format!("{about}: {message}"))
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                Self::new(Exit::NotAllowed, format!("{about}: {message}"))
                    .advice("give a token of the coordinator's --tokens file by --token-file FILE or R2O_TOKEN_FILE")
            }
            Code::Unavailable | Code::DeadlineExceeded => unreachable_coordinator(coordinator, status),
            // The connection broke: a transport's error is the status's source.
            Code::Unknown | Code::Internal if status.source().is_some() => {
                let causes = std::iter::successors(status.source(), |cause| (*cause).source());
                let root = causes.last().map(ToString::to_string).unwrap_or_default();
                unreachable_coordinator(coordinator, root)
            }
            Code::Unimplemented => {
                Self::failure(format!("{about}: {coordinator} does not know this request: {message}"))
                    .advice("compare `r2octl version` with the coordinator's version")
            }
            _ => Self::failure(format!("{about}: {message}")),
        }
    }
}

/// Nobody answers at the coordinator's address.
pub(crate) fn unreachable_coordinator(url: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> CliError {
    let cause = cause.into();
    let advice = if is_about_tls(Some(&*cause)) {
        "write https:// before an address that is served by TLS, and give --tls-ca FILE, and --tls-cert FILE and --tls-key \
         FILE where it asks for a certificate"
    } else {
        "start `r2o-coordinator`, or give its address (https:// where it is served by TLS) with --coordinator URL or R2O_COORDINATOR"
    };
    CliError::new(Exit::Unreachable, format!("cannot reach the coordinator at {url}")).advice(advice).because(cause)
}

/// A connection by TLS, or one that should have been by TLS, was not made.
fn is_about_tls(mut cause: Option<&(dyn StdError + 'static)>) -> bool {
    while let Some(error) = cause {
        let words = error.to_string();
        if ["certificate", "fatal alert", "frame with invalid size", "corrupt message"]
            .iter()
            .any(|w| words.contains(w))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

impl From<io::Error> for CliError {
    fn from(e: io::Error) -> Self {
        let exit = match e.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            io::ErrorKind::StorageFull => Exit::NoSpace,
            _ => Exit::Failure,
        };
        Self::new(exit, "cannot write the output").because(e)
    }
}

impl From<StorageError> for CliError {
    fn from(e: StorageError) -> Self {
        let exit = exit_of_storage(&e);
        Self { exit, what: e.to_string(), advice: None, source: e.source().map(|s| s.to_string().into()) }
    }
}

pub(crate) fn exit_of_storage(e: &StorageError) -> Exit {
    match e {
        StorageError::InvalidUrl { .. } | StorageError::InvalidKey { .. } | StorageError::Unsupported { .. } => {
            Exit::Refused
        }
        StorageError::NotFound { .. } => Exit::NotFound,
        StorageError::NoSpace { .. } => Exit::NoSpace,
        StorageError::Unreachable { .. } => Exit::Unreachable,
        _ => Exit::Failure,
    }
}

impl From<CheckpointError> for CliError {
    fn from(e: CheckpointError) -> Self {
        let exit = match &e {
            CheckpointError::Storage(e) => exit_of_storage(e),
            CheckpointError::NoSuchStep { .. } => Exit::NotFound,
            CheckpointError::DamagedManifest { .. }
            | CheckpointError::DamagedTensor { .. }
            | CheckpointError::UnknownFormat { .. }
            | CheckpointError::NoneReadable { .. } => Exit::Refused,
            _ => Exit::Failure,
        };
        Self { exit, what: e.to_string(), advice: None, source: e.source().map(|s| s.to_string().into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_why_and_what_to_do() {
        let io = io::Error::other("connection refused");
        let error = unreachable_coordinator("http://localhost:1", io);
        insta::assert_snapshot!(error.for_people(), @r"
        error: cannot reach the coordinator at http://localhost:1
          caused by: connection refused
          try: start `r2o-coordinator`, or give its address (https:// where it is served by TLS) with --coordinator URL or R2O_COORDINATOR
        ");
    }

    #[test]
    fn what_goes_wrong_with_tls_is_said_to_be_about_tls() {
        for words in ["invalid peer certificate: UnknownIssuer", "received fatal alert: CertificateRequired"] {
            let error = unreachable_coordinator("https://c", io::Error::other(words));
            assert_eq!(error.code(), Exit::Unreachable);
            assert!(error.for_people().contains("--tls-ca") && error.for_people().contains(words));
        }
    }

    #[test]
    fn answers_map_to_exit_codes() {
        let code = |status: tonic::Status| CliError::from_status(status, "job a", "http://c").code();
        assert_eq!(code(tonic::Status::not_found("no job a")), Exit::NotFound);
        assert_eq!(code(tonic::Status::invalid_argument("spec.epochs: zero")), Exit::Refused);
        assert_eq!(code(tonic::Status::already_exists("a")), Exit::Refused);
        assert_eq!(code(tonic::Status::unavailable("down")), Exit::Unreachable);
        assert_eq!(code(tonic::Status::internal("?")), Exit::Failure);
        assert_eq!(code(tonic::Status::unauthenticated("no token")), Exit::NotAllowed);
        assert_eq!(code(tonic::Status::permission_denied("a reader's")), Exit::NotAllowed);
    }
}
