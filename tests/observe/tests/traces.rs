//! Traces and metrics of real processes at a real receiver: a step of the coordinator and its workers is one trace, and a
//! receiver that is dead or hangs costs training nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use r2o_observe::{Received, Receiver, hex, program, small_job};
use r2o_telemetry::metrics::table;
use r2o_test_kit::{Authority, Fleet, FleetOptions, Process, Signal, WorkerOptions, free_port, not_run, wait_until};
use r2o_transport::ServerTlsFiles;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// Long enough on two busy cores.
const RUN: Duration = Duration::from_secs(300);
/// For processes that end, with what they have left to send.
const END: Duration = Duration::from_secs(60);

/// A coordinator and two workers that send to `url`, with JSON lines down to each step.
async fn fleet(url: &str, more: &[(&str, &str)]) -> Result<Fleet> {
    let given = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "300"),
        ("R2O_LOG_FORMAT", "json"),
        ("R2O_LOG", "info,r2o_worker=debug"),
    ];
    let environment = given.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fleet::start_with(2, FleetOptions { environment, ..FleetOptions::default() }).await
}

/// Runs a short job to its end, on both workers.
async fn train(fleet: &mut Fleet, name: &str, epochs: u64) -> Result<()> {
    let mut job = small_job(name, fleet.folder())?;
    job.spec.epochs = epochs;
    (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (2, 2);
    fleet.submit(&job).await?;
    fleet.wait_success(name, RUN).await?;
    Ok(())
}

/// Ends all processes as an operator does.
async fn stop(fleet: &mut Fleet) -> Result<()> {
    let workers = fleet.workers.iter_mut().map(|worker| &mut worker.process);
    for process in workers.chain([&mut fleet.coordinator.process]) {
        process.signal(Signal::TERM)?;
        let status = process.wait_end(END).await?;
        ensure!(status.success(), "{} ended with {status}:\n{}", process.name(), process.log_tail(10));
    }
    Ok(())
}

/// Spans by their trace.
fn traces(spans: &[Received]) -> BTreeMap<String, Vec<&Received>> {
    let mut traces = BTreeMap::<_, Vec<_>>::new();
    spans.iter().for_each(|span| traces.entry(span.trace()).or_default().push(span));
    traces
}

fn named<'a>(trace: &[&'a Received], name: &str) -> Vec<&'a Received> {
    trace.iter().filter(|received| received.span.name == name).copied().collect()
}

/// Those of `name` right under a span, by instance.
fn under<'a>(trace: &[&'a Received], parent: &Received, name: &str) -> BTreeMap<String, &'a Received> {
    let children = named(trace, name).into_iter().filter(|child| child.span.parent_span_id == parent.span.span_id);
    children.map(|child| (child.instance.clone(), child)).collect()
}

fn both() -> Vec<String> {
    vec!["worker-0".to_owned(), "worker-1".to_owned()]
}

/// Every step is a span of the coordinator with one of each worker under it, in the trace of its window, and their parts.
fn check_steps(spans: &[Received], steps: usize) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (id, trace) in traces(spans).iter().filter(|(_, trace)| !named(trace, "step").is_empty()) {
        let windows = named(trace, "step_window");
        ensure!(windows.len() == 1, "trace {id} has {} windows", windows.len());
        let window = windows[0];
        ensure!(window.service == "r2o-coordinator" && window.span.parent_span_id.is_empty(), "{window:?}");
        for step in named(trace, "step") {
            ensure!(step.span.parent_span_id == window.span.span_id, "{step:?}");
            let (number, computed) = (step.attribute("r2o.step"), under(trace, step, "compute_step"));
            ensure!(computed.keys().cloned().collect::<Vec<_>>() == both(), "step {number}: {computed:#?}");
            for (worker, work) in &computed {
                ensure!(work.service == "r2o-worker" && work.attribute("r2o.worker.name") == *worker, "{work:?}");
                for phase in ["data_wait", "to_device", "masks", "backward", "update"] {
                    let phase = under(trace, work, phase).len();
                    ensure!(phase == 1, "step {number} of {worker} has {phase} of each part");
                }
            }
            ensure!(step.attribute("r2o.job.name") == "traced" && step.attribute("r2o.generation") == "1", "{step:?}");
            seen.insert(number);
        }
        ensure!(!trace.iter().any(|span| span.span.status.as_ref().is_some_and(|s| s.code == 2)), "{trace:#?}");
    }
    ensure!(seen.len() == steps, "{steps} steps were computed, seen are {seen:?}");
    Ok(())
}

/// How the job began, and each of its checkpoints, are traces too.
fn check_others(spans: &[Received]) -> Result<()> {
    let all = traces(spans);
    let of = |root: &str| all.values().filter(|trace| !named(trace, root).is_empty()).collect::<Vec<_>>();
    for (root, kind, parts) in [
        ("recovery", "join_generation", ["build", "rendezvous", "state", "loader"].as_slice()),
        ("checkpoint", "save_share", &["copy_state", "upload"]),
    ] {
        let found = of(root);
        ensure!(!found.is_empty(), "no trace of a {root}");
        for trace in found {
            let top = named(trace, root)[0];
            let place = if root == "recovery" { named(trace, "form_generation")[0] } else { top };
            let workers = under(trace, place, kind);
            ensure!(workers.keys().cloned().collect::<Vec<_>>() == both(), "{root}: {trace:#?}");
            for part in parts {
                let has = workers.values().all(|worker| under(trace, worker, part).len() == 1);
                ensure!(has, "{kind} lacks {part}: {trace:#?}");
            }
        }
    }
    let committed = of("checkpoint").iter().all(|trace| named(trace, "commit_checkpoint").len() == 1);
    ensure!(committed, "a checkpoint has no commit");
    Ok(())
}

/// Nobody's parent is missing: all that was begun was sent.
fn check_whole(spans: &[Received]) -> Result<()> {
    for (id, trace) in traces(spans) {
        let known: BTreeSet<_> = trace.iter().map(|span| span.span.span_id.clone()).collect();
        ensure!(known.len() == trace.len(), "two spans of trace {id} have one id: {trace:#?}");
        let orphan =
            trace.iter().find(|s| !s.span.parent_span_id.is_empty() && !known.contains(&s.span.parent_span_id));
        ensure!(orphan.is_none(), "trace {id}: {orphan:#?} has no parent");
    }
    Ok(())
}

/// The JSON lines of a process.
fn lines(process: &Process) -> Result<Vec<Value>> {
    let log = process.log();
    log.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// A line of each worker's step, and one of the coordinator, are found by the ids of a span that was received.
fn check_logs(fleet: &Fleet, spans: &[Received]) -> Result<()> {
    let place = |received: &Received| (received.trace(), hex(&received.span.span_id));
    let known: BTreeSet<_> = spans.iter().map(place).collect();
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let traced = |line: &Value| known.contains(&(text(line, "trace_id"), text(line, "span_id")));
    for worker in &fleet.workers {
        let lines = lines(&worker.process)?;
        let step = lines.iter().find(|line| line["message"] == "step computed").context("no line of a step")?;
        ensure!(step["job"] == "traced" && step["generation"] == 1 && step["step"].is_u64(), "{step}");
        ensure!(step["worker"] == worker.process.name() && traced(step), "{step}");
    }
    let lines = lines(&fleet.coordinator.process)?;
    for word in ["Training", "CheckpointCommitted"] {
        let said = |line: &&Value| text(line, "message").starts_with(word);
        let line = lines.iter().find(said).with_context(|| format!("the coordinator does not say {word}"))?;
        ensure!(line["job"] == "traced" && traced(line), "{line}");
    }
    Ok(())
}

fn check_metrics(receiver: &Receiver) -> Result<()> {
    let sent = receiver.metrics();
    for (service, declared) in [("r2o-coordinator", table::COORDINATOR), ("r2o-worker", table::WORKER)] {
        let names: BTreeSet<_> = sent.iter().filter(|(of, _)| of == service).map(|(_, m)| m.name.as_str()).collect();
        let missing: Vec<_> = declared.iter().map(|d| d.name).filter(|name| !names.contains(name)).collect();
        ensure!(missing.is_empty(), "{service} does not send {missing:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_coordinator_and_two_workers_is_one_trace() -> Result<()> {
    let receiver = Receiver::start(None).await?;
    let token = [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret")];
    let mut fleet = fleet(&format!("http://{}", receiver.address), &token).await?;
    train(&mut fleet, "traced", 5).await?;
    let steps = fleet.job("traced").await?.steps;
    stop(&mut fleet).await?;
    let spans = receiver.spans();
    check_steps(&spans, usize::try_from(steps)?)?;
    check_others(&spans)?;
    check_whole(&spans)?;
    check_logs(&fleet, &spans)?;
    check_metrics(&receiver)?;
    ensure!(receiver.tokens().iter().all(|token| token == "Bearer s3cret"), "{:?}", receiver.tokens());
    let logs = fleet.logs(usize::MAX);
    ensure!(!logs.contains("s3cret"), "a log has the receiver's token");
    println!("{} spans of {steps} steps in {} traces", spans.len(), traces(&spans).len());
    Ok(())
}

/// A collector of others: what `cargo xtask setup --deploy` fetched, or what the machine has.
fn rotel() -> Option<PathBuf> {
    let tools = std::env::var_os("R2O_DEPLOY_TOOLS").map(|tools| PathBuf::from(tools).join("bin/rotel"));
    tools.filter(|path| path.is_file()).or_else(|| program("rotel"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_comes_through_a_collector_of_others() -> Result<()> {
    let Some(rotel) = rotel() else {
        not_run("needs rotel: cargo xtask setup --deploy");
        return Ok(());
    };
    let receiver = Receiver::start(None).await?;
    let folder = tempfile::tempdir()?;
    let [grpc, http] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
    let endpoint = format!("http://{}", receiver.address);
    let to = ["start", "--exporter", "otlp", "--otlp-exporter-endpoint", &endpoint];
    let from = ["--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http];
    let relay = Process::start_path(&rotel, "rotel", folder.path(), to.iter().chain(&from), &[])?;
    wait_until("rotel listens", END, || async { Ok(tokio::net::TcpStream::connect(&grpc).await.ok()) }).await?;
    let mut fleet = fleet(&format!("http://{grpc}"), &[]).await?;
    train(&mut fleet, "traced", 2).await?;
    let steps = usize::try_from(fleet.job("traced").await?.steps)?;
    stop(&mut fleet).await?;
    let last = std::cell::RefCell::new(None);
    let all = wait_until("all spans come through", END, || async {
        let checked = check_steps(&receiver.spans(), steps).and_then(|()| check_whole(&receiver.spans()));
        let done = checked.is_ok();
        last.replace(checked.err());
        Ok(done.then_some(()))
    });
    all.await.with_context(|| format!("{:?}\n{}", last.borrow(), relay.log_tail(10)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_is_one_trace_and_what_it_broke_is_marked() -> Result<()> {
    let receiver = Receiver::start(None).await?;
    let mut fleet = fleet(&format!("http://{}", receiver.address), &[]).await?;
    let mut job = small_job("broken", fleet.folder())?;
    job.spec.epochs = 10_000;
    (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (1, 2);
    fleet.submit(&job).await?;
    let both_train = |job: &r2o_proto::v1::Job| {
        Ok(job.workers.len() == 2 && job.progress.as_ref().is_some_and(|progress| progress.step > 1))
    };
    let before = fleet.wait_job("broken", "both train", RUN, both_train).await?;
    fleet.workers.pop().context("no second worker")?.process.kill()?;
    let again = |job: &r2o_proto::v1::Job| Ok(job.generation > before.generation && job.workers.len() == 1);
    let after = fleet.wait_job("broken", "one goes on", RUN, again).await?;
    let reached = after.progress.map_or(0, |progress| progress.step);
    fleet.wait_step("broken", reached + 4, RUN).await?;
    stop(&mut fleet).await?;

    let spans = receiver.spans();
    let all = traces(&spans);
    let lost =
        |trace: &&Vec<&Received>| named(trace, "recovery").iter().any(|s| s.attribute("r2o.reason") == "worker_lost");
    let recoveries: Vec<_> = all.values().filter(lost).collect();
    ensure!(recoveries.len() == 1, "{} recoveries from the loss", recoveries.len());
    let formed = named(recoveries[0], "form_generation");
    ensure!(formed.len() == 1, "{formed:#?}");
    let joined = under(recoveries[0], formed[0], "join_generation");
    ensure!(joined.keys().map(String::as_str).eq(["worker-0"]), "{joined:#?}");
    let (was, until) =
        (formed[0].span.start_time_unix_nano, named(recoveries[0], "recovery")[0].span.end_time_unix_nano);
    ensure!(named(recoveries[0], "recovery")[0].span.start_time_unix_nano <= was && was < until, "{formed:#?}");
    let failed = |s: &&Received| s.span.status.as_ref().is_some_and(|status| status.code == 2);
    let broken: Vec<_> = spans.iter().filter(failed).collect();
    ensure!(broken.iter().any(|s| s.span.name == "step"), "no step of the broken generation is marked: {broken:#?}");
    let first = before.generation.to_string();
    ensure!(
        broken.iter().filter(|s| s.span.name == "step").all(|s| s.attribute("r2o.generation") == first),
        "{broken:#?}"
    );
    Ok(())
}

/// Takes connections and says nothing.
async fn silent() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mute = async move { while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
            let _runs_on = r2o_telemetry::spawn("mute", r2o_telemetry::TaskKind::Work, mute);
        }
    };
    let _runs_on = r2o_telemetry::spawn("silent", r2o_telemetry::TaskKind::Work, serve);
    Ok(format!("http://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_or_is_dead_costs_spans_and_no_step() -> Result<()> {
    let hangs = silent().await?;
    let dead = format!("http://127.0.0.1:{}", free_port()?);
    let web = [free_port()?, free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
    let short = [("OTEL_EXPORTER_OTLP_TIMEOUT", "200"), ("R2O_HTTP", web[0].as_str())];
    let mut fleet = fleet(&hangs, &short).await?;
    // One worker's receiver hangs as the coordinator's does, the other's is dead.
    for (index, (url, web)) in [(&hangs, &web[1]), (&dead, &web[2])].into_iter().enumerate() {
        fleet.workers[index].process.kill()?;
        let more = ["--otlp-endpoint", url, "--http", web].map(str::to_owned).to_vec();
        let options = WorkerOptions { threads: 1, audit: false, more };
        let url = fleet.coordinator.url.clone();
        let environment: Vec<_> = fleet.options.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let name = format!("again-{index}");
        let worker = r2o_test_kit::Worker::start_on(None, fleet.folder(), &name, &url, &options, &environment)?;
        fleet.workers[index] = worker;
    }
    train(&mut fleet, "untroubled", 4).await?;
    let client = reqwest::Client::new();
    for address in &web {
        let lost = wait_until("losses are counted", END, || async {
            let text = client.get(format!("http://{address}/metrics")).send().await?.text().await?;
            let line = text.lines().find(|line| line.starts_with("r2o_spans_lost_total{reason=\"not_sent\"}"));
            let count: f64 = line.and_then(|line| line.split(' ').nth(1)).context("no such metric")?.parse()?;
            Ok((count > 0.0).then_some(count))
        });
        println!("{} spans were lost at {address}", lost.await?);
    }
    stop(&mut fleet).await?;
    let said = fleet.coordinator.process.log().matches("the OTLP receiver does not take spans").count();
    ensure!(said == 1, "the coordinator said {said} times that its receiver is away");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_spans_go_to_a_receiver_that_is_trusted_and_to_no_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [cert, key] = ["receiver.pem", "receiver.key"].map(|name| folder.path().join(name));
    let ours = Authority::new(folder.path(), "ours")?;
    ours.sign(&cert, &key, 2100)?;
    let foreign = Authority::new(folder.path(), "foreign")?.file.display().to_string();
    let receiver = Receiver::start(Some(ServerTlsFiles { cert, key, client_ca: None })).await?;
    let ca = ours.file.display().to_string();
    let mut fleet = fleet(&format!("https://{}", receiver.address), &[("OTEL_EXPORTER_OTLP_CERTIFICATE", &ca)]).await?;
    fleet.workers.pop().context("no second worker")?.process.kill()?;
    fleet.options.worker.more = ["--otlp-ca", &foreign].map(str::to_owned).to_vec();
    fleet.add_worker("distrustful")?;
    train(&mut fleet, "sealed", 2).await?;
    stop(&mut fleet).await?;
    let from: BTreeSet<_> = receiver.spans().into_iter().map(|received| received.instance).collect();
    ensure!(from.contains("worker-0") && from.len() == 2, "spans are of worker-0 and the coordinator, not of {from:?}");
    let said = fleet.workers[1].process.log();
    ensure!(said.contains("the OTLP receiver does not take spans") && said.contains("certificate"), "{said}");
    Ok(())
}
