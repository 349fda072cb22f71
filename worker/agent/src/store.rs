//! The rendezvous store of process groups, kept by the coordinator and fenced by generation.

use std::time::Duration;

use r2o_proto::token::TokenChannel;
use r2o_proto::v1::rendezvous_client::RendezvousClient;
use r2o_proto::v1::{AddRequest, CheckRequest, CompareSetRequest, DeleteRequest, GetRequest, Scope, SetRequest};
use tokio::runtime::Handle;
use tonic::{Code, Status};

/// How long one waiting call stays open before it is asked again: a released generation then ends within this time
/// even where the connection to the coordinator hangs.
const POLL: Duration = Duration::from_secs(10);

/// c10d::Store over gRPC. Calls block the calling thread, which must not be one of the runtime's.
#[derive(Debug, Clone)]
pub(crate) struct RendezvousStore {
    client: RendezvousClient<TokenChannel>,
    runtime: Handle,
    scope: Scope,
}

impl RendezvousStore {
    /// A store whose keys belong to one generation of one job.
    pub(crate) fn new(channel: TokenChannel, runtime: Handle, job: &str, generation: u64) -> Self {
        Self { client: RendezvousClient::new(channel), runtime, scope: Scope { job: job.to_owned(), generation } }
    }

    fn scope(&self) -> Option<Scope> {
        Some(self.scope.clone())
    }
}

fn describe(key: &str, status: &Status) -> String {
    format!("rendezvous key {key}: {} ({:?})", status.message(), status.code())
}

impl r2o_c10d::Store for RendezvousStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let request = SetRequest { scope: self.scope(), key: key.to_owned(), value: value.to_vec() };
        self.runtime.block_on(self.client.clone().set(request)).map(drop).map_err(|s| describe(key, &s))
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        let mut left = timeout;
        loop {
            let wait = left.min(POLL);
            let request = GetRequest {
                scope: self.scope(),
                key: key.to_owned(),
                timeout_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            };
            left = left.saturating_sub(wait);
            match self.runtime.block_on(self.client.clone().get(request)) {
                Ok(response) => return Ok(response.into_inner().value),
                Err(status) if status.code() == Code::DeadlineExceeded && !left.is_zero() => {}
                Err(status) => return Err(describe(key, &status)),
            }
        }
    }

    fn add(&self, key: &str, delta: i64) -> Result<i64, String> {
        let request = AddRequest { scope: self.scope(), key: key.to_owned(), delta };
        let response = self.runtime.block_on(self.client.clone().add(request));
        response.map(|r| r.into_inner().value).map_err(|s| describe(key, &s))
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, String> {
        let request = CompareSetRequest {
            scope: self.scope(),
            key: key.to_owned(),
            expected: expected.to_vec(),
            desired: desired.to_vec(),
        };
        let response = self.runtime.block_on(self.client.clone().compare_set(request));
        response.map(|r| r.into_inner().value).map_err(|s| describe(key, &s))
    }

    fn check(&self, keys: &[String]) -> Result<bool, String> {
        let request = CheckRequest { scope: self.scope(), keys: keys.to_vec() };
        let response = self.runtime.block_on(self.client.clone().check(request));
        response.map(|r| r.into_inner().present).map_err(|s| describe(&keys.join(", "), &s))
    }

    fn delete(&self, key: &str) -> Result<bool, String> {
        let request = DeleteRequest { scope: self.scope(), key: key.to_owned() };
        let response = self.runtime.block_on(self.client.clone().delete(request));
        response.map(|r| r.into_inner().deleted).map_err(|s| describe(key, &s))
    }
}
