//! The service of workers: one stream each.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use r2o_coordinator_core::{Event, Session};
use r2o_proto::v1::fleet_server::Fleet;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{CoordinatorMessage, JobLog, LogLine, Notice, WorkerMessage};
use r2o_telemetry::TaskKind;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::actor::{Line, Mailbox, Message};
use crate::board::Board;
use crate::wire;

/// Serves workers.
#[derive(Debug, Clone)]
pub(crate) struct FleetService {
    pub(crate) mailbox: Mailbox,
    pub(crate) board: Board,
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|m| m.kind);
        let Some(Kind::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message of a session must be a Hello"));
        };
        let held = wire::held(&hello);
        let worker = wire::worker_info(hello);
        for (field, value) in
            [("worker", &worker.name), ("incarnation", &worker.incarnation), ("device", &worker.device)]
        {
            if value.is_empty() {
                return Err(Status::invalid_argument(format!("hello.{field}: is empty")));
            }
        }
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let line = Line { outbox, end: self.stop.child_token() };
        let (reply, session) = oneshot::channel();
        let (name, end) = (worker.name.clone(), line.end.clone());
        self.mailbox.send(Message::Join { worker, held, line, reply });
        let session = session.await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        let reader = Reader { session, name, mailbox: self.mailbox.clone(), board: self.board.clone() };
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
    mailbox: Mailbox,
    board: Board,
}

impl Reader {
    async fn run(self, mut incoming: Streaming<WorkerMessage>, end: CancellationToken) {
        let session = self.session;
        let (reason, goodbye) = loop {
            let message = tokio::select! {
                message = incoming.message() => message,
                () = end.cancelled() => break ("its stream was closed".to_owned(), false),
            };
            match message {
                Ok(Some(WorkerMessage { kind: Some(Kind::Goodbye(bye)) })) => break (bye.reason, true),
                Ok(Some(WorkerMessage { kind: Some(kind) })) => self.take(kind),
                Ok(Some(WorkerMessage { kind: None })) => {}
                Ok(None) => break ("its stream ended".to_owned(), false),
                Err(status) => break (format!("its stream broke: {}", status.message()), false),
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
            entry.announce(&notice.reason, format!("worker {}: {}", self.name, notice.message), warning);
        }
    }
}
