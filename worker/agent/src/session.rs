//! The stream to the coordinator: connects, says hello, keeps the lease alive, and turns messages into events.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use r2o_proto::token::{TokenChannel, TokenFile};
use r2o_proto::v1::coordinator_message::Kind as From;
use r2o_proto::v1::fleet_client::FleetClient;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{Heartbeat, Hello, WorkerMessage};
use r2o_telemetry::TaskKind;
use r2o_transport::ClientTls;
use r2o_worker_core::Event;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::wire;

/// An assignment carries a whole job and its members.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
const RETRY: Duration = Duration::from_millis(300);

/// A channel that connects when it is first used and again whenever it broke.
///
/// # Errors
/// When `url` is not an http or https URL, or certificates cannot be read.
pub(crate) fn channel(url: &str, tls: ClientTls) -> Result<Channel> {
    tls.check()?;
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("--coordinator {url}: not a URL; write it like http://host:7070"))?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    Ok(r2o_transport::channel(&endpoint, tls))
}

/// The sending half of the current stream.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(mpsc::UnboundedSender<WorkerMessage>);

impl Outbox {
    /// Queues a message. A message for a broken stream is dropped: the coordinator has given this worker up by then.
    pub(crate) fn send(&self, message: WorkerMessage) {
        let _dropped_when_broken = self.0.send(message);
    }
}

/// Connects in the background until it works, then feeds `events` until the stream ends with [`Event::Disconnected`].
/// The outbox is handed over before [`Event::Connected`] is sent.
pub(crate) fn open(
    channel: TokenChannel,
    token: TokenFile,
    hello: watch::Receiver<Hello>,
    events: mpsc::UnboundedSender<Event>,
    outboxes: mpsc::UnboundedSender<Outbox>,
) {
    let _runs_on = r2o_telemetry::spawn("session", TaskKind::Work, async move {
        let mut retry = tokio::time::interval(RETRY);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = false;
        loop {
            retry.tick().await;
            // What is held changes while the coordinator is away: granted steps are computed all the same.
            let now = hello.borrow().clone();
            match run(channel.clone(), &token, now, &events, &outboxes).await {
                Ok(Served::Yes) => break,
                Ok(Served::No) => {}
                Err(error) if !said => {
                    tracing::warn!("cannot reach the coordinator, trying again: {error:#}");
                    said = true;
                }
                Err(_) => {}
            }
        }
        let _agent_is_gone = events.send(Event::Disconnected);
    });
}

/// Whether the coordinator accepted the session before the stream ended.
enum Served {
    Yes,
    No,
}

async fn run(
    channel: TokenChannel,
    token: &TokenFile,
    hello: Hello,
    events: &mpsc::UnboundedSender<Event>,
    outboxes: &mpsc::UnboundedSender<Outbox>,
) -> Result<Served> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut shown = token.token();
    sender.send(wire::message(Kind::Hello(hello))).context("the stream closed before the first message")?;
    let mut client = FleetClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut incoming = match client.session(UnboundedReceiverStream::new(receiver)).await {
        Ok(session) => session.into_inner(),
        // To try again is of no use before a person gave another token.
        Err(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
            let _agent_is_gone = events.send(Event::Refused(status.message().to_owned()));
            return Ok(Served::No);
        }
        Err(status) => return Err(status.into()),
    };

    let Some(first) = incoming.message().await? else { return Ok(Served::No) };
    let heartbeat = match &first.kind {
        Some(From::Welcome(w)) => Duration::from_millis(u64::from(w.heartbeat_ms.max(10))),
        Some(From::Refused(r)) => {
            let _agent_is_gone = events.send(Event::Refused(r.reason.clone()));
            return Ok(Served::No);
        }
        _ => bail!("the coordinator's first message is neither a welcome nor a refusal: is it of another version?"),
    };
    let _agent_is_gone = outboxes.send(Outbox(sender.clone()));
    let _agent_is_gone = events.send(Event::Connected);

    let mut beat = tokio::time::interval(heartbeat);
    loop {
        tokio::select! {
            _ = beat.tick() => {
                // The stream outlives the token that it was opened with.
                let token = token.token().filter(|token| shown.as_ref() != Some(token));
                shown = token.clone().or(shown);
                let heartbeat = Heartbeat { token: token.unwrap_or_default() };
                if sender.send(wire::message(Kind::Heartbeat(heartbeat))).is_err() {
                    return Ok(Served::Yes);
                }
            }
            message = incoming.message() => match message {
                Ok(Some(message)) => {
                    if let Some(event) = wire::event(message)
                        && events.send(event).is_err()
                    {
                        return Ok(Served::Yes);
                    }
                }
                Ok(None) => return Ok(Served::Yes),
                Err(status) => {
                    tracing::warn!(code = ?status.code(), "the stream to the coordinator broke: {}", status.message());
                    return Ok(Served::Yes);
                }
            }
        }
    }
}
