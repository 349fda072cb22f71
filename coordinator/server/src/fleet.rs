//! The service of workers: one stream each.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use r2o_coordinator_core::{Event, Session};
use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::fleet_server::Fleet;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{CoordinatorMessage, JobLog, LogLine, Notice, Refused, WorkerMessage};
use r2o_telemetry::TaskKind;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::actor::{Line, Mailbox, Message};
use crate::board::Board;
use crate::limits::{self, sentence};
use crate::tokens::{Shown, Tokens};
use crate::wire;

/// How long a stream may be open without a word: nobody else is kept waiting by one, but it takes room.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// Serves workers.
#[derive(Debug, Clone)]
pub(crate) struct FleetService {
    pub(crate) mailbox: Mailbox,
    pub(crate) board: Board,
    /// The tokens that are served, and how long a worker whose own was taken back may take to show another.
    pub(crate) leave: (Tokens, Duration),
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let shown = request.extensions().get::<Shown>().copied().unwrap_or_default();
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_WAIT, incoming.message()).await;
        let first =
            first.map_err(|_| Status::deadline_exceeded("no message came within 10 s: a session begins with a Hello"));
        let first = first??.and_then(|m| m.kind);
        let Some(Kind::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message of a session must be a Hello"));
        };
        let (outbox, outgoing) = mpsc::unbounded_channel();
        if let Some(reason) = limits::refusal(&hello) {
            // To come again is of no use, which a refusal says, unlike a status.
            tracing::warn!("a worker is refused: {reason}");
            let _sent = outbox.send(Ok(wire::message(To::Refused(Refused { reason }))));
            return Ok(Response::new(Box::pin(UnboundedReceiverStream::new(outgoing))));
        }
        let held = wire::held(&hello);
        let worker = wire::worker_info(hello);
        let line = Line { outbox, end: self.stop.child_token() };
        let (reply, session) = oneshot::channel();
        let (name, end, outbox) = (worker.name.clone(), line.end.clone(), line.outbox.clone());
        self.mailbox.send(Message::Join { worker, held, line, reply });
        let session = session.await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        let (mailbox, board, (tokens, grace)) = (self.mailbox.clone(), self.board.clone(), self.leave.clone());
        let leave = Leave { tokens, grace, shown, known: Instant::now() };
        let reader = Reader { session, name, outbox, mailbox, board, leave };
        let _runs_on = r2o_telemetry::spawn("session", TaskKind::Work, reader.run(incoming, end.clone()));
        // What was sent before the end, such as a refusal, still goes out.
        let stop = self.stop.clone();
        let outgoing = UnboundedReceiverStream::new(outgoing).take_until(stop.cancelled_owned());
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Reads one worker's messages.
struct Reader {
    session: Session,
    name: String,
    outbox: mpsc::UnboundedSender<Result<CoordinatorMessage, Status>>,
    mailbox: Mailbox,
    board: Board,
    leave: Leave,
}

/// A worker's leave to be served, which ends some time after its token was taken back.
struct Leave {
    tokens: Tokens,
    grace: Duration,
    shown: Shown,
    /// When the token was last among those that are served.
    known: Instant,
}

impl Leave {
    /// Whether it holds still; `token`: shown anew, if not empty.
    fn holds(&mut self, token: &str) -> bool {
        if !token.is_empty() && self.tokens.serve_worker(Shown::token(token)) {
            self.shown = Shown::token(token);
        }
        if self.tokens.serve_worker(self.shown) {
            self.known = Instant::now();
            return true;
        }
        self.known.elapsed() < self.grace
    }
}

impl Reader {
    async fn run(mut self, mut incoming: Streaming<WorkerMessage>, end: CancellationToken) {
        let session = self.session;
        let (reason, goodbye) = loop {
            let message = tokio::select! {
                message = incoming.message() => message,
                () = end.cancelled() => break ("its stream was closed".to_owned(), false),
            };
            match message {
                Ok(Some(WorkerMessage { kind: Some(Kind::Goodbye(bye)) })) => break (sentence(bye.reason), true),
                Ok(Some(WorkerMessage { kind: Some(Kind::Heartbeat(beat)) })) if !self.leave.holds(&beat.token) => {
                    let reason = "its token was taken back".to_owned();
                    let _gone = self.outbox.send(Err(Status::unauthenticated(reason.clone())));
                    break (reason, false);
                }
                Ok(Some(WorkerMessage { kind: Some(kind) })) => self.take(kind),
                Ok(Some(WorkerMessage { kind: None })) => {}
                Ok(None) => break ("its stream ended".to_owned(), false),
                Err(status) => {
                    let reason = match limits::too_large(&status) {
                        Some(reason) => {
                            let refused = Refused { reason: reason.clone() };
                            let _gone = self.outbox.send(Ok(wire::message(To::Refused(refused))));
                            reason
                        }
                        None => format!("its stream broke: {}", status.message()),
                    };
                    break (reason, false);
                }
            }
        };
        tracing::info!(worker = self.name, goodbye, "worker left: {reason}");
        self.mailbox.event(Event::WorkerLeft { session, reason, goodbye });
    }

    fn take(&self, kind: Kind) {
        match kind {
            Kind::LogLine(line) => self.log(line),
            Kind::Notice(notice) => self.notice(notice),
            kind => {
                if let Some(event) = wire::event(self.session, kind) {
                    self.mailbox.event(event);
                }
            }
        }
    }

    fn log(&self, line: LogLine) {
        let LogLine { job, level, target, message, unix_ms } = line;
        let [level, target, message] = [level, target, message].map(sentence);
        let line = JobLog { unix_ms, worker: self.name.clone(), level, target, message };
        if job.is_empty() {
            self.mailbox.send(Message::Log { session: self.session, line });
        } else if let Some(entry) = self.board.get(&job) {
            entry.logs.push(line);
        }
    }

    fn notice(&self, notice: Notice) {
        if let Some(entry) = self.board.get(&notice.job) {
            let warning = ["Failed", "Damaged", "NotWritten"].iter().any(|end| notice.reason.ends_with(end));
            let message = format!("worker {}: {}", self.name, sentence(notice.message));
            entry.announce(&sentence(notice.reason), message, warning);
        }
    }
}
