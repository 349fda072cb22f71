//! One simulated worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::fleet_client::FleetClient;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{
    Assignment, Heartbeat, Hello, LaneReport, Prepared, Ready, StepReport, Ticket, Timing, WorkerMessage,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use crate::JOB;
use crate::group::{Group, Shared};

/// Lives until its stream ends, and says when that was not foreseen.
pub(crate) async fn live(shared: Arc<Shared>, client: FleetClient<Channel>, index: usize) {
    let (outbox, messages) = mpsc::unbounded_channel();
    let member = None;
    let worker = Worker { shared, index, outbox, member, reported_at: None, held: None };
    if let Err(error) = worker.run(client, messages).await {
        eprintln!("worker {index}: {error:#}");
    }
}

struct Worker {
    shared: Arc<Shared>,
    index: usize,
    outbox: mpsc::UnboundedSender<WorkerMessage>,
    member: Option<Member>,
    /// When it sent its newest report.
    reported_at: Option<Instant>,
    /// Steps of its state.
    held: Option<u64>,
}

/// Its part in a generation.
struct Member {
    generation: u64,
    group: Arc<Group>,
    over: watch::Receiver<u64>,
    lanes: Vec<u32>,
    /// Granted steps that are not begun.
    tickets: BTreeSet<u64>,
    /// The step that it computes, or waits for.
    step: u64,
    computes: bool,
    /// Since when it has nothing to do.
    idle_since: Instant,
    /// A finished step that is not reported yet, and when it will be.
    report: Option<(u64, tokio::time::Instant)>,
    /// Whether a first ticket came.
    trains: bool,
}

impl Worker {
    async fn run(
        mut self,
        mut client: FleetClient<Channel>,
        messages: mpsc::UnboundedReceiver<WorkerMessage>,
    ) -> Result<()> {
        self.say(Kind::Hello(Hello {
            worker: format!("worker-{:05}", self.index),
            incarnation: self.index.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: "cpu".to_owned(),
            address: "127.0.0.1".to_owned(),
            threads: 1,
            protocol: r2o_proto::PROTOCOL,
            ..Hello::default()
        }));
        let mut inbox = client.session(UnboundedReceiverStream::new(messages)).await?.into_inner();
        let first = inbox.message().await?.and_then(|message| message.kind);
        let Some(To::Welcome(welcome)) = first else { anyhow::bail!("no welcome: {first:?}") };
        let mut beat = tokio::time::interval(Duration::from_millis(u64::from(welcome.heartbeat_ms)));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let report_at = self.member.as_ref().and_then(|m| m.report).map(|(_, at)| at);
            let over = async {
                match &mut self.member {
                    Some(member) if member.computes => member.over.changed().await.is_ok(),
                    _ => std::future::pending().await,
                }
            };
            let due = async {
                match report_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = inbox.message() => match message?.and_then(|m| m.kind) {
                    Some(order) => self.obey(order),
                    None => return Ok(()),
                },
                () = due => self.report(),
                _ = over => self.step_is_over(),
                _ = beat.tick() => self.say(Kind::Heartbeat(Heartbeat::default())),
            }
        }
    }

    fn say(&self, kind: Kind) {
        let _broken = self.outbox.send(WorkerMessage { kind: Some(kind) });
    }

    fn obey(&mut self, order: To) {
        match order {
            To::Assignment(assignment) => {
                if let Err(error) = self.form(assignment) {
                    eprintln!("worker {}: {error:#}", self.index);
                }
            }
            To::Ticket(ticket) => self.take(&ticket),
            To::Prepare(prepare) => self.say(Kind::Prepared(Prepared { job: prepare.job })),
            To::Release(_) => self.member = None,
            To::Refused(refused) => eprintln!("worker {}: refused: {}", self.index, refused.reason),
            To::Welcome(_) | To::TakeCheckpoint(_) => {}
        }
    }

    fn form(&mut self, a: Assignment) -> Result<()> {
        // A coordinator of an earlier version lists all members.
        let (world, lanes) = match a.members.get(a.rank as usize) {
            Some(own) => (a.members.len(), own.lanes.clone()),
            None => (a.world as usize, a.lanes),
        };
        anyhow::ensure!(!lanes.is_empty(), "an assignment without lanes");
        // All members of a simulated fleet hold what the fastest of them does.
        let step = self.held.map_or(a.step, |held| held.max(a.step));
        let group = self.shared.group(a.generation, world, step);
        let step = *group.over.borrow();
        let over = group.over.subscribe();
        self.held = Some(step);
        self.reported_at = None;
        self.member = Some(Member {
            generation: a.generation,
            group,
            over,
            lanes,
            tickets: BTreeSet::new(),
            step,
            computes: false,
            idle_since: Instant::now(),
            report: None,
            trains: false,
        });
        self.shared.counts(a.generation).assigned.fetch_add(1, Ordering::Relaxed);
        self.shared.figures.assigned();
        self.say(Kind::Ready(Ready { job: JOB.to_owned(), generation: a.generation, step }));
        Ok(())
    }

    fn take(&mut self, ticket: &Ticket) {
        let Some(member) = self.member.as_mut().filter(|m| m.generation == ticket.generation) else { return };
        let now = Instant::now();
        if let (Some(own), Some(whole)) = (self.reported_at, member.group.whole_at()) {
            self.shared.figures.ticket(now - own, now.saturating_duration_since(whole));
        }
        if !std::mem::replace(&mut member.trains, true) {
            self.shared.counts(ticket.generation).train.fetch_add(1, Ordering::Relaxed);
        }
        member.tickets.insert(ticket.step);
        if !member.computes {
            let waited = now - member.idle_since;
            self.begin(waited);
        }
    }

    /// Begins the next step if it is granted.
    fn begin(&mut self, waited: Duration) {
        let Some(member) = &mut self.member else { return };
        if member.tickets.remove(&member.step) {
            member.computes = true;
            member.group.begin(member.step);
            self.shared.figures.waited(waited);
        }
    }

    fn step_is_over(&mut self) {
        // A step shorter than the spread: its report goes out before the next one.
        if self.member.as_ref().is_some_and(|m| m.report.is_some()) {
            self.report();
        }
        let Some(member) = &mut self.member else { return };
        let share = (self.index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let late = self.shared.spread.mul_f64(share as f64 / u32::MAX as f64);
        member.report = Some((member.step, tokio::time::Instant::now() + late));
        member.step += 1;
        member.computes = false;
        member.idle_since = Instant::now();
        self.held = Some(member.step);
        self.begin(Duration::ZERO);
    }

    fn report(&mut self) {
        let Some(member) = &mut self.member else { return };
        let Some((step, _)) = member.report.take() else { return };
        let lane = |lane: &u32| LaneReport { lane: *lane, loss: 1.0, valid_regions: 4.0, ..LaneReport::default() };
        let timing = |phase: &str| Timing { phase: phase.to_owned(), seconds: 0.1 };
        let report = StepReport {
            job: JOB.to_owned(),
            generation: member.generation,
            step,
            lanes: member.lanes.iter().map(lane).collect(),
            gradient_norm: 1.0,
            timings: ["data_wait", "forward", "backward", "optimizer"].map(timing).into(),
            ..StepReport::default()
        };
        member.group.reported(step);
        self.reported_at = Some(Instant::now());
        self.say(Kind::StepReport(report));
    }
}
