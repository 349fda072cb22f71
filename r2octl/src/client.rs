//! The connection to the coordinator.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use r2o_proto::token::{TokenChannel, TokenFile};
use r2o_proto::v1::jobs_client::JobsClient;
use r2o_transport::ClientTls;
use tonic::transport::Endpoint;

use crate::error::{CliError, unreachable_coordinator};

/// Long job specs and many jobs in one answer.
const MESSAGE_LIMIT: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A coordinator that hangs is found by unanswered pings, also below a stream that is silent for long.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How this process shows who it is: one command line has one way.
static IDENTITY: OnceLock<(TokenFile, ClientTls)> = OnceLock::new();

/// Shows the token in `token`, and these certificates, with every request from now on.
pub(crate) fn show_identity(token: Option<PathBuf>, tls: ClientTls) {
    let _set_once = IDENTITY.set((TokenFile::new(token), tls));
}

/// A coordinator that answered.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    /// Its address, for messages.
    pub(crate) url: String,
    /// The service.
    pub(crate) jobs: JobsClient<TokenChannel>,
}

impl Coordinator {
    /// Connects within some seconds.
    pub(crate) async fn connect(url: &str) -> Result<Self, CliError> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|e| CliError::refused(format!("`{url}` is not an address of a coordinator")).because(e))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .user_agent(concat!("r2octl/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| CliError::failure("cannot set up the client").because(e))?;
        let (token, tls) = IDENTITY.get().cloned().unwrap_or_default();
        tls.check().map_err(|e| CliError::refused("cannot set up TLS").because(e))?;
        let connected = r2o_transport::connect(&endpoint, tls).await;
        let channel = connected.map_err(|e| unreachable_coordinator(&url, e))?;
        let jobs = JobsClient::new(token.on(channel)).max_decoding_message_size(MESSAGE_LIMIT);
        Ok(Self { url, jobs })
    }

    /// Turns an answer into the message, or into an error that says what it was about.
    pub(crate) fn take<T>(
        &self,
        answer: Result<tonic::Response<T>, tonic::Status>,
        about: &str,
    ) -> Result<T, CliError> {
        answer.map(tonic::Response::into_inner).map_err(|s| CliError::from_status(s, about, &self.url))
    }
}
