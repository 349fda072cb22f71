//! Tokens and their roles.

use std::time::Duration;

use r2o_proto::PROTOCOL;
use r2o_proto::token::{TokenChannel, TokenFile};
use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::fleet_client::FleetClient;
use r2o_proto::v1::jobs_client::JobsClient;
use r2o_proto::v1::rendezvous_client::RendezvousClient;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::*;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::kit::*;

struct Door {
    place: Place,
    handle: r2o_coordinator::Handle,
}

impl Door {
    async fn new(tokens: &str) -> Self {
        Self::with_grace(tokens, Duration::from_secs(10)).await
    }

    async fn with_grace(tokens: &str, grace: Duration) -> Self {
        let place = Place::new();
        std::fs::write(place.path("tokens"), tokens).unwrap();
        let mut options = place.options();
        options.tokens = Some(place.path("tokens"));
        options.token_grace = grace;
        let handle = r2o_coordinator::Service::start(options).await.unwrap();
        Self { place, handle }
    }

    /// A connection with a token; `None`: without.
    async fn with(&self, token: Option<&str>) -> TokenChannel {
        let file = token.map(|token| {
            let path = self.place.path(&format!("token-{token}"));
            std::fs::write(&path, token).unwrap();
            path
        });
        TokenFile::new(file).on(Endpoint::from_shared(self.handle.url()).unwrap().connect().await.unwrap())
    }

    async fn list(&self, token: Option<&str>) -> Result<(), Status> {
        JobsClient::new(self.with(token).await).list(ListRequest {}).await.map(drop)
    }

    async fn submit(&self, token: &str) -> Result<(), Status> {
        let request = SubmitRequest { spec: self.place.job("a", 1).to_string(), dry_run: true };
        JobsClient::new(self.with(Some(token)).await).submit(request).await.map(drop)
    }

    async fn join(&self, token: &str) -> Result<To, Status> {
        let hello = futures::stream::iter([WorkerMessage { kind: Some(Kind::Hello(hello("w"))) }]);
        let mut inbox = FleetClient::new(self.with(Some(token)).await).session(hello).await?.into_inner();
        Ok(inbox.message().await?.unwrap().kind.unwrap())
    }
}

fn hello(worker: &str) -> Hello {
    Hello {
        worker: worker.into(),
        incarnation: "1".into(),
        device: "cpu".into(),
        protocol: PROTOCOL,
        ..Hello::default()
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, things: &[&str]) {
    let status = answer.expect_err("it was served");
    assert_eq!(status.code(), code, "{status:?}");
    names(status.message(), things);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_is_for_and_others_are_told_what_they_lack() {
    let door = Door::new("worker w-secret\nreader r-secret\nsubmitter s-secret\nadmin a-secret\n").await;
    refused(door.list(None).await, Code::Unauthenticated, &["--token-file", "R2O_TOKEN_FILE"]);
    refused(door.list(Some("wrong")).await, Code::Unauthenticated, &["does not know this token"]);
    refused(door.list(Some("w-secret")).await, Code::PermissionDenied, &["role worker", "Jobs/List", "role reader"]);
    for token in ["r-secret", "s-secret", "a-secret"] {
        door.list(Some(token)).await.unwrap();
    }
    refused(door.submit("r-secret").await, Code::PermissionDenied, &["role reader", "Jobs/Submit", "role submitter"]);
    door.submit("s-secret").await.unwrap();
    refused(door.join("s-secret").await, Code::PermissionDenied, &["Fleet/Session", "role worker"]);
    assert!(matches!(door.join("w-secret").await.unwrap(), To::Welcome(_)));
    let get = GetRequest { scope: None, key: "k".into(), timeout_ms: 0 };
    let mut rendezvous = RendezvousClient::new(door.with(Some("r-secret")).await);
    refused(rendezvous.get(get.clone()).await, Code::PermissionDenied, &["Rendezvous/Get"]);
    let mut rendezvous = RendezvousClient::new(door.with(Some("w-secret")).await);
    refused(rendezvous.get(get).await, Code::InvalidArgument, &["scope"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_change_without_a_restart() {
    let door = Door::new("reader first").await;
    door.list(Some("first")).await.unwrap();
    std::fs::write(door.place.path("tokens"), "# rotated\nreader second\n").unwrap();
    refused(door.list(Some("first")).await, Code::Unauthenticated, &["does not know"]);
    door.list(Some("second")).await.unwrap();
    std::fs::write(door.place.path("tokens"), "half of a li").unwrap();
    door.list(Some("second")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_does_not_start_with_tokens_that_it_cannot_read() {
    let place = Place::new();
    let mut options = place.options();
    options.tokens = Some(place.path("tokens"));
    let start = |options| async { r2o_coordinator::Service::start(options).await.expect_err("it started").to_string() };
    names(&start(options.clone()).await, &["token file", "/tokens", "role"]);
    std::fs::write(place.path("tokens"), "secret-word").unwrap();
    let message = start(options).await;
    names(&message, &["line 1"]);
    assert!(!message.contains("secret-word"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_token_is_taken_back_shows_another_on_its_stream_or_loses_it() {
    let door = Door::with_grace("worker first\nworker other\n", Duration::from_millis(50)).await;
    let stream = async |token| {
        let (outbox, outgoing) = tokio::sync::mpsc::unbounded_channel();
        outbox.send(WorkerMessage { kind: Some(Kind::Hello(hello(token))) }).unwrap();
        let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(outgoing);
        let inbox = FleetClient::new(door.with(Some(token)).await).session(outgoing).await.unwrap().into_inner();
        (outbox, inbox)
    };
    let beat = |token: &str| WorkerMessage { kind: Some(Kind::Heartbeat(Heartbeat { token: token.to_owned() })) };
    let (keeps, mut kept) = stream("first").await;
    let (loses, mut lost) = stream("other").await;
    keeps.send(beat("second")).unwrap();
    std::fs::write(door.place.path("tokens"), "worker second\n").unwrap();
    keeps.send(beat("second")).unwrap();
    let mut beats = tokio::time::interval(Duration::from_millis(10));
    let ended = loop {
        tokio::select! {
            _ = beats.tick() => {
                let _ended = loses.send(beat("other"));
                keeps.send(beat("")).unwrap();
            }
            message = lost.message() => match message {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status,
            },
            message = kept.message() => assert!(matches!(message, Ok(Some(_))), "{message:?}"),
        }
    };
    refused(Err::<(), _>(ended), Code::Unauthenticated, &["taken back"]);
}
