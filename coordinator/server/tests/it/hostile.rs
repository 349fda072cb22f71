//! Peers that are odd, late or hostile: refused with what is wrong, or tolerated; and the others train on.

use r2o_coordinator::Handle;
use r2o_proto::PROTOCOL;
use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::fleet_client::FleetClient;
use r2o_proto::v1::rendezvous_client::RendezvousClient;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::*;
use tonic::Code;

use super::kit::*;

/// A job that one honest worker trains; it never saves.
async fn training(place: &Place) -> Handle {
    let handle = place.start().await;
    let mut job = place.job("a", 100_000);
    job["spec"]["checkpoint"]["every"]["epochs"] = 100_000.into();
    submit(&handle, &job).await.unwrap();
    FakeWorker::join(&handle, "honest").await.work();
    until(&handle, "a", |p| p.step >= 4).await;
    handle
}

/// The job goes on in the generation that it has.
async fn trains_on(handle: &Handle) {
    let before = get(handle, "a").await;
    assert_eq!(before.generation, 1);
    let step = before.progress.unwrap().step;
    until(handle, "a", |p| p.step > step + 20 && p.generation == 1).await;
}

fn hello(worker: &str) -> Hello {
    Hello {
        worker: worker.to_owned(),
        incarnation: "1".to_owned(),
        version: "99.9".to_owned(),
        device: "cpu".to_owned(),
        address: "127.0.0.1".to_owned(),
        threads: 1,
        held: None,
        protocol: PROTOCOL,
    }
}

/// The first answer to a hello.
async fn answer(handle: &Handle, hello: Hello) -> To {
    let mut client = FleetClient::connect(handle.url()).await.unwrap();
    let (outbox, messages) = tokio::sync::mpsc::unbounded_channel();
    outbox.send(WorkerMessage { kind: Some(Kind::Hello(hello)) }).unwrap();
    let messages = tokio_stream::wrappers::UnboundedReceiverStream::new(messages);
    let mut inbox = client.session(messages).await.unwrap().into_inner();
    inbox.message().await.unwrap().unwrap().kind.unwrap()
}

async fn refused(handle: &Handle, hello: Hello, things: &[&str]) {
    let To::Refused(refused) = answer(handle, hello).await else { panic!("it was welcome") };
    names(&refused.reason, things);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused_with_both_numbers_and_another_version_is_welcome() {
    let place = Place::new();
    let handle = training(&place).await;
    let other = Hello { protocol: 77, ..hello("other") };
    refused(&handle, other, &["protocol 77", "99.9", &format!("protocol {PROTOCOL}"), "same version"]).await;
    refused(&handle, Hello { protocol: 0, ..hello("old") }, &["protocol 0"]).await;
    assert!(matches!(answer(&handle, hello("newer")).await, To::Welcome(_)));
    trains_on(&handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_too_long_or_cannot_be_printed_are_refused() {
    let place = Place::new();
    let handle = training(&place).await;
    refused(&handle, hello(&"w".repeat(5_000)), &["hello.worker", "5000 bytes", "128"]).await;
    refused(&handle, hello("w\n\u{1b}[2J"), &["hello.worker", "printed"]).await;
    refused(&handle, Hello { incarnation: String::new(), ..hello("w") }, &["hello.incarnation", "empty"]).await;
    let job = "j".repeat(1_000);
    let held = Some(Held { job, generation: u64::MAX, step: u64::MAX });
    refused(&handle, Hello { held, ..hello("w") }, &["hello.held.job", "1000 bytes"]).await;
    // A state that nobody can have is let go, and the worker may stay.
    let held = Some(Held { job: "a".into(), generation: u64::MAX, step: u64::MAX });
    assert!(matches!(answer(&handle, Hello { held, ..hello("w") }).await, To::Welcome(_)));
    trains_on(&handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_ends_its_stream_with_the_limit_and_nobody_elses() {
    let place = Place::new();
    let handle = training(&place).await;
    let mut large = FakeWorker::join(&handle, "large").await;
    let message = "x".repeat((64 << 20) + 1);
    large.say(Kind::LogLine(LogLine { message, ..LogLine::default() }));
    large.work_until(|o| matches!(o, To::Refused(r) if r.reason.contains("67108864 bytes"))).await;
    assert!(large.obey().await.is_none(), "its stream ends");
    let spec = "x".repeat((4 << 20) + 1);
    let status = jobs(&handle).await.submit(SubmitRequest { spec, dry_run: false }).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    names(status.message(), &["4194304"]);
    trains_on(&handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_with_many_streams_has_the_newest_only() {
    let place = Place::new();
    let handle = training(&place).await;
    let mut many = Vec::new();
    for _ in 0..50 {
        many.push(FakeWorker::join(&handle, "many").await);
    }
    let mut newest = many.pop().unwrap();
    for mut old in many {
        old.work_until(|o| matches!(o, To::Refused(r) if r.reason.contains("worker many"))).await;
    }
    newest.work_until(|o| matches!(o, To::Welcome(_))).await;
    let workers = jobs(&handle).await.fleet(FleetRequest {}).await.unwrap().into_inner().workers;
    assert_eq!(workers.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["honest", "many"]);
    trains_on(&handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_to_a_generation_change_nothing_in_it() {
    let place = Place::new();
    let handle = training(&place).await;
    let stranger = FakeWorker::join(&handle, "stranger").await;
    let (job, step) = ("a".to_owned(), 5);
    for generation in [0, 1, 2, u64::MAX] {
        let lane = LaneReport { lane: 0, loss: f64::NAN, ..LaneReport::default() };
        let report = StepReport { job: job.clone(), generation, step, lanes: vec![lane], ..StepReport::default() };
        stranger.say(Kind::StepReport(report.clone()));
        stranger.say(Kind::Recovered(Recovered { job: job.clone(), generation, reports: vec![report] }));
        stranger.say(Kind::Ready(Ready { job: job.clone(), generation, step }));
        let reason = "mischief".to_owned();
        stranger.say(Kind::GenerationFailed(GenerationFailed { job: job.clone(), generation, reason: reason.clone() }));
        stranger.say(Kind::JobFailed(JobFailed { job: job.clone(), generation, step, reason: reason.clone() }));
        let part = CheckpointPart { job: job.clone(), generation, step, error: reason, ..CheckpointPart::default() };
        stranger.say(Kind::CheckpointPart(part));
    }
    stranger.say(Kind::Prepared(Prepared { job: "no such job".into() }));
    stranger.say(Kind::Hello(hello("stranger")));
    // A clock that is wrong by centuries, in both directions.
    for unix_ms in [i64::MIN, -1, i64::MAX] {
        let line = LogLine { job: job.clone(), message: "late".into(), unix_ms, ..LogLine::default() };
        stranger.say(Kind::LogLine(line));
    }
    let request = LogsRequest { name: "a".into(), follow: true, tail: 0 };
    let mut logs = jobs(&handle).await.logs(request).await.unwrap().into_inner();
    while logs.message().await.unwrap().unwrap().unix_ms != i64::MAX {}
    trains_on(&handle).await;
}

/// A worker of a job of its own that has reported one step; the generation that it is in is the first.
async fn member(place: &Place) -> (Handle, FakeWorker, Ticket) {
    let handle = place.start().await;
    submit(&handle, &place.job("a", 1_000)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| is_ticket(o, 0)).await;
    until(&handle, "a", |p| p.step == 1).await;
    let ticket = Ticket { job: "a".into(), generation: 1, step: 1, ..Ticket::default() };
    (handle, worker, ticket)
}

fn report(ticket: &Ticket, lanes: &[u32], loss: f64) -> Kind {
    let lane = |lane: &u32| LaneReport { lane: *lane, loss, ..LaneReport::default() };
    Kind::StepReport(StepReport {
        job: ticket.job.clone(),
        generation: ticket.generation,
        step: ticket.step,
        lanes: lanes.iter().map(lane).collect(),
        timings: vec![Timing { phase: "forward".into(), seconds: f64::NAN }],
        ..StepReport::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_reported_twice_counts_once() {
    let place = Place::new();
    let (handle, worker, ticket) = member(&place).await;
    worker.say(report(&Ticket { step: 0, ..ticket.clone() }, &[0, 1], 5.0));
    let ended = event(&handle, "a", "GenerationEnded").await;
    names(&ended.message, &["worker w", "step 0", "not granted"]);
    worker.work();
    until(&handle, "a", |p| p.step > 20 && p.generation == 2).await;
    let store = r2o_storage::open(&text(&place.path("a"))).unwrap();
    handle.shutdown().await;
    let steps = r2o_storage::history::read_all(&store).await.unwrap();
    assert!((steps[0].loss - 1.0).abs() < 1e-9, "the first word counts: {}", steps[0].loss);
    assert!(steps.windows(2).all(|pair| pair[1].step == pair[0].step + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_answered_twice_begins_once() {
    let place = Place::new();
    let (handle, worker, ticket) = member(&place).await;
    for step in [0, 1, 99] {
        worker.say(Kind::Ready(Ready { job: "a".into(), generation: 1, step }));
    }
    worker.say(report(&ticket, &[0, 1], 1.0));
    until(&handle, "a", |p| p.step == 2 && p.generation == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_an_old_generation_are_too_late() {
    let place = Place::new();
    let (handle, mut worker, ticket) = member(&place).await;
    let reason = "reset".to_owned();
    worker.say(Kind::GenerationFailed(GenerationFailed { job: "a".into(), generation: 1, reason }));
    worker.work_until(|o| matches!(o, To::Assignment(a) if a.generation == 2)).await;
    worker.say(report(&ticket, &[0, 1], f64::NAN));
    worker.say(Kind::JobFailed(JobFailed { job: "a".into(), generation: 1, step: 1, reason: "late".into() }));
    let key = SetRequest { scope: Some(Scope { job: "a".into(), generation: 1 }), key: "k".into(), value: vec![1] };
    let mut store = RendezvousClient::connect(handle.url()).await.unwrap();
    let status = store.set(key).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    names(status.message(), &["generation 1", "current one is 2"]);
    worker.work();
    let seen = until(&handle, "a", |p| p.step > 20).await;
    assert_eq!(seen.generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_are_not_its_own_end_the_generation_by_name() {
    let place = Place::new();
    let (handle, worker, ticket) = member(&place).await;
    worker.say(report(&ticket, &[0, 7], 1.0));
    let ended = event(&handle, "a", "GenerationEnded").await;
    names(&ended.message, &["worker w", "lanes [0, 7]", "step 1", "[0, 1]"]);
    worker.work();
    until(&handle, "a", |p| p.step > 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_is_no_number_names_its_lane_and_step() {
    let place = Place::new();
    let (handle, worker, ticket) = member(&place).await;
    worker.say(report(&ticket, &[0, 1], f64::NAN));
    let ended = event(&handle, "a", "GenerationEnded").await;
    names(&ended.message, &["lane 0", "step 1", "NaN"]);
    worker.work();
    until(&handle, "a", |p| p.step > 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_beyond_their_limits_are_refused_by_name() {
    let place = Place::new();
    let handle = training(&place).await;
    let mut store = RendezvousClient::connect(handle.url()).await.unwrap();
    let set =
        |key: String, value: Vec<u8>| SetRequest { scope: Some(Scope { job: "a".into(), generation: 1 }), key, value };
    let long = store.set(set("k".repeat(2_000), vec![])).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    names(long.message(), &["2000 bytes", "1024"]);
    let large = store.set(set("key".into(), vec![0; (1 << 20) + 1])).await.unwrap_err();
    assert_eq!(large.code(), Code::InvalidArgument);
    names(large.message(), &["key", "1048577 bytes", "1048576"]);
    let huge = store.set(set("key".into(), vec![0; 5 << 20])).await.unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange);
    for number in 0..255 {
        store.set(set(number.to_string(), vec![0; 1 << 20])).await.unwrap();
    }
    let full = store.set(set("last".into(), vec![0; 1 << 20])).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    names(full.message(), &["last", "268435456"]);
    store.set(set("0".into(), vec![1])).await.unwrap();
    store.set(set("last".into(), vec![0; 1 << 19])).await.unwrap();
    trains_on(&handle).await;
}
