//! The store in which the process groups of a generation find each other: in memory, fenced by generation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use r2o_proto::v1::rendezvous_server::Rendezvous;
use r2o_proto::v1::{
    AddRequest, AddResponse, CheckRequest, CheckResponse, CompareSetRequest, CompareSetResponse, DeleteRequest,
    DeleteResponse, GetRequest, GetResponse, Scope, SetRequest, SetResponse,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::limits::{KEY_BYTES, ROOM_BYTES, VALUE_BYTES};

#[derive(Debug)]
struct Room {
    generation: u64,
    keys: HashMap<String, Vec<u8>>,
    /// Of all keys and values.
    bytes: usize,
    /// Dropped with the room, which wakes whoever waits.
    changed: watch::Sender<()>,
}

/// One room per job, of its current generation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rooms(Arc<Mutex<HashMap<String, Room>>>);

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an empty room; the one of an earlier generation is gone with its keys.
    pub(crate) fn open(&self, job: &str, generation: u64) {
        let room = Room { generation, keys: HashMap::new(), bytes: 0, changed: watch::Sender::new(()) };
        self.lock().insert(job.to_owned(), room);
    }

    pub(crate) fn close(&self, job: &str) {
        self.lock().remove(job);
    }

    /// Works in the room of a scope.
    fn with<T>(&self, scope: Option<&Scope>, work: impl FnOnce(&mut Room) -> Result<T, Status>) -> Result<T, Status> {
        let scope = scope.ok_or_else(|| Status::invalid_argument("scope: is missing"))?;
        let mut rooms = self.lock();
        match rooms.get_mut(&scope.job) {
            Some(room) if room.generation == scope.generation => work(room),
            Some(room) => Err(Status::failed_precondition(format!(
                "generation {} of job {} is over, the current one is {}",
                scope.generation, scope.job, room.generation
            ))),
            None => Err(Status::failed_precondition(format!(
                "job {} has no current generation: generation {} is over",
                scope.job, scope.generation
            ))),
        }
    }
}

impl Room {
    fn put(&mut self, key: String, value: Vec<u8>) -> Result<(), Status> {
        let more = key.len() + value.len();
        let less = self.keys.get(&key).map_or(0, |old| key.len() + old.len());
        let bytes = self.bytes - less + more;
        if bytes > ROOM_BYTES {
            return Err(Status::resource_exhausted(format!(
                "key {key}: a generation's keys and values would have {bytes} bytes, at most {ROOM_BYTES} are kept"
            )));
        }
        self.bytes = bytes;
        self.keys.insert(key, value);
        self.changed.send_replace(());
        Ok(())
    }

    fn take_out(&mut self, key: &str) -> bool {
        let old = self.keys.remove(key);
        self.bytes -= old.as_ref().map_or(0, |value| key.len() + value.len());
        old.is_some()
    }
}

fn check_size(key: &str, value: &[u8]) -> Result<(), Status> {
    if key.len() > KEY_BYTES {
        return Err(Status::invalid_argument(format!("a key of {} bytes: a key has at most {KEY_BYTES}", key.len())));
    }
    if value.len() > VALUE_BYTES {
        let message = format!("key {key}: a value of {} bytes, at most {VALUE_BYTES} are kept", value.len());
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

#[tonic::async_trait]
impl Rendezvous for Rooms {
    async fn set(&self, request: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        let SetRequest { scope, key, value } = request.into_inner();
        check_size(&key, &value)?;
        self.with(scope.as_ref(), |room| room.put(key, value))?;
        Ok(Response::new(SetResponse {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { scope, key, timeout_ms } = request.into_inner();
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        let wait = async {
            loop {
                let found = self.with(scope.as_ref(), |room| match room.keys.get(&key) {
                    Some(value) => Ok(Ok(value.clone())),
                    None => Ok(Err(room.changed.subscribe())),
                })?;
                match found {
                    Ok(value) => return Ok(Response::new(GetResponse { value })),
                    // An error means that the room is gone, which the next look says better.
                    Err(mut changed) => drop(changed.changed().await),
                }
            }
        };
        match tokio::time::timeout(timeout, wait).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!("nobody set key {key} within {timeout_ms} ms"))),
        }
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        let AddRequest { scope, key, delta } = request.into_inner();
        check_size(&key, &[])?;
        let value = self.with(scope.as_ref(), |room| {
            // A counter is its decimal text, as c10d's own stores keep it.
            let old = match room.keys.get(&key) {
                None => 0,
                Some(text) => std::str::from_utf8(text)
                    .ok()
                    .and_then(|t| t.trim().parse::<i64>().ok())
                    .ok_or_else(|| Status::failed_precondition(format!("key {key} is not a number")))?,
            };
            let value = old.wrapping_add(delta);
            room.put(key, value.to_string().into_bytes())?;
            Ok(value)
        })?;
        Ok(Response::new(AddResponse { value }))
    }

    async fn compare_set(&self, request: Request<CompareSetRequest>) -> Result<Response<CompareSetResponse>, Status> {
        let CompareSetRequest { scope, key, expected, desired } = request.into_inner();
        check_size(&key, &desired)?;
        let value = self.with(scope.as_ref(), |room| match room.keys.get(&key) {
            Some(old) if *old != expected => Ok(old.clone()),
            None if !expected.is_empty() => Ok(expected),
            _ => {
                room.put(key, desired.clone())?;
                Ok(desired)
            }
        })?;
        Ok(Response::new(CompareSetResponse { value }))
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let CheckRequest { scope, keys } = request.into_inner();
        let present = self.with(scope.as_ref(), |room| Ok(keys.iter().all(|key| room.keys.contains_key(key))))?;
        Ok(Response::new(CheckResponse { present }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { scope, key } = request.into_inner();
        let deleted = self.with(scope.as_ref(), |room| Ok(room.take_out(&key)))?;
        Ok(Response::new(DeleteResponse { deleted }))
    }
}
