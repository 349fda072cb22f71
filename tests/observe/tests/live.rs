//! A real Prometheus scrapes a real run of a coordinator and its workers: every panel and every alert has data, and an alert
//! reaches a person within half a minute of its fault.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::{Json, Router, extract::State, routing::post};
use r2o_observe::{alerts, alerts_file, dashboards, metrics_in, program, small_job};
use r2o_proto::v1::EventsRequest;
use r2o_telemetry::metrics::table;
use r2o_test_kit::{Fleet, FleetOptions, Process, Worker, WorkerOptions, free_port, not_run, wait_until};
use r2o_types::TrainJob;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Long enough on two busy cores.
const RUN: Duration = Duration::from_secs(420);
/// From a fault to whoever is told.
const TOLD_WITHIN_MS: i64 = 30_000;

/// Metrics that a run without such a fault has no values of; all others must have some.
const ONLY_ON_FAULT: &[&str] = &[];

/// On two workers or three, for longer than the test takes.
fn job(folder: &Path) -> Result<TrainJob> {
    let mut job = small_job("watched", folder)?;
    job.spec.epochs = 10_000;
    (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (2, 3);
    Ok(job)
}

/// Coordinator, two sound workers and one whose memory loses a bit, all of them scraped.
async fn fleet() -> Result<(Fleet, Vec<String>)> {
    let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
    let targets = (0..4).map(|_| address()).collect::<Result<Vec<_>>>()?;
    let coordinator = ["--parity-steps", "4", "--http", &targets[0]].map(str::to_owned).to_vec();
    let mut fleet = Fleet::start_with(0, FleetOptions { coordinator, ..FleetOptions::default() }).await?;
    let faults: [&[&str]; 3] = [&[], &[], &["--flip-bit-at", "11"]];
    for (index, fault) in faults.into_iter().enumerate() {
        // Workers of a host share a disk cache.
        let cache = fleet.folder().join("cache").display().to_string();
        let always = ["--http", &targets[index + 1], "--cache-dir", &cache, "--cache-bytes", "67108864"];
        let more = always.iter().chain(fault).map(|word| (*word).to_owned()).collect();
        let options = WorkerOptions { threads: 1, audit: false, more };
        let name = format!("worker-{index}");
        fleet.workers.push(Worker::start(fleet.folder(), &name, &fleet.coordinator.url, &options)?);
    }
    Ok((fleet, targets))
}

/// Takes what Alertmanager sends to people.
async fn webhook() -> Result<(SocketAddr, mpsc::UnboundedReceiver<Value>)> {
    let (sender, told) = mpsc::unbounded_channel();
    let take = |State(sender): State<mpsc::UnboundedSender<Value>>, Json(message): Json<Value>| async move {
        let _test_is_over = sender.send(message);
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/", post(take)).with_state(sender);
    let _runs_on =
        r2o_telemetry::spawn(
            "webhook",
            r2o_telemetry::TaskKind::Work,
            async move { axum::serve(listener, router).await },
        );
    Ok((address, told))
}

/// Prometheus with our alerts, and Alertmanager with that webhook.
struct Monitoring {
    url: String,
    client: reqwest::Client,
    _processes: [Process; 2],
}

impl Monitoring {
    fn start(programs: [PathBuf; 2], folder: &Path, targets: &[String], webhook: SocketAddr) -> Result<Self> {
        let [prometheus, alertmanager] = programs;
        let [own, other] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
        let targets = serde_json::to_string(targets)?;
        let alerts = alerts_file();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{other}']}}]}}]}}\n\
             scrape_configs:\n- job_name: r2o\n  honor_labels: true\n  static_configs: [{{targets: {targets}}}]\n",
            alerts.display()
        );
        let routes = format!(
            "route: {{receiver: people, group_wait: 0s, group_interval: 1s}}\n\
             receivers: [{{name: people, webhook_configs: [{{url: 'http://{webhook}/'}}]}}]\n"
        );
        std::fs::write(folder.join("prometheus.yaml"), config)?;
        std::fs::write(folder.join("alertmanager.yaml"), routes)?;
        let path = |name: &str| folder.join(name).display().to_string();
        let of_prometheus = [
            format!("--config.file={}", path("prometheus.yaml")),
            format!("--storage.tsdb.path={}", path("tsdb")),
            format!("--web.listen-address={own}"),
        ];
        let of_alertmanager = [
            format!("--config.file={}", path("alertmanager.yaml")),
            format!("--storage.path={}", path("alerts")),
            format!("--web.listen-address={other}"),
            "--cluster.listen-address=".to_owned(),
        ];
        let processes = [
            Process::start_path(&alertmanager, "alertmanager", folder, of_alertmanager, &[])?,
            Process::start_path(&prometheus, "prometheus", folder, of_prometheus, &[])?,
        ];
        Ok(Self { url: format!("http://{own}"), client: reqwest::Client::new(), _processes: processes })
    }

    /// The values of an expression now; an expression that does not parse is an error.
    async fn values(&self, expr: &str) -> Result<Vec<f64>> {
        let request = self.client.get(format!("{}/api/v1/query", self.url)).query(&[("query", expr)]);
        let answer: Value = request.send().await?.json().await?;
        ensure!(answer["status"] == "success", "{expr}: {}", answer["error"]);
        let result = answer["data"]["result"].as_array().context("no result")?;
        Ok(result.iter().filter_map(|one| one["value"][1].as_str()?.parse().ok()).collect())
    }

    /// Those of the expressions that have no value that is a number.
    async fn without_data(&self, expressions: &[(String, String)]) -> Result<Vec<(String, String)>> {
        let mut empty = Vec::new();
        for (place, expr) in expressions {
            if !self.values(expr).await?.iter().any(|value| value.is_finite()) {
                empty.push((place.clone(), expr.clone()));
            }
        }
        Ok(empty)
    }
}

/// All that people look at: panels as they are, and what alerts are made of.
fn expressions() -> Result<Vec<(String, String)>> {
    let panels = dashboards()?;
    let panels = panels.iter().flat_map(r2o_observe::Dashboard::queries);
    let mut all: Vec<_> = panels.map(|query| (query.place.clone(), query.resolved())).collect();
    for alert in alerts()? {
        all.extend(metrics_in(&alert.expr).into_iter().map(|name| (format!("alert {}", alert.alert), name)));
    }
    all.extend(table::all().iter().map(|declared| {
        let name = declared.name;
        ("declared".to_owned(), format!("{{__name__=~\"{name}(_count)?\"}}"))
    }));
    all.retain(|(_, expr)| !ONLY_ON_FAULT.iter().any(|name| metrics_in(expr).contains(*name)));
    Ok(all)
}

/// When the coordinator said that a replica differs.
async fn found(fleet: &Fleet) -> Result<Option<i64>> {
    let request = EventsRequest { name: "watched".to_owned(), follow: false };
    let mut events = fleet.coordinator.jobs().await?.events(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        if event.reason == "ReplicaDiffers" {
            return Ok(Some(event.unix_ms));
        }
    }
    Ok(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_has_data_and_an_alert_reaches_people() -> Result<()> {
    let (Some(prometheus), Some(alertmanager)) = (program("prometheus"), program("prometheus-alertmanager")) else {
        not_run("needs prometheus and prometheus-alertmanager");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (mut fleet, targets) = fleet().await?;
    let (address, mut told) = webhook().await?;
    let monitoring = Monitoring::start([prometheus, alertmanager], folder.path(), &targets, address)?;
    wait_until("all are scraped", RUN, || async {
        let up = monitoring.values("sum(up{job=\"r2o\"})").await.unwrap_or_default();
        Ok((up == [targets.len() as f64]).then_some(()))
    })
    .await?;
    fleet.submit(&job(folder.path())?).await?;
    // The fault is in step 11.
    fleet.wait_step("watched", 12, RUN).await?;
    let fault = wait_until("the replica is found", RUN, || found(&fleet)).await?;
    let message = tokio::time::timeout(RUN, told.recv()).await?.context("nobody is told any more")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let took = i64::try_from(now)? - fault;
    println!("told {took} ms after the replica was found: {}", message["commonAnnotations"]["summary"]);
    ensure!(message["status"] == "firing", "{message}");
    ensure!(message["commonLabels"]["alertname"] == "R2OReplicaDiffers", "{message}");
    ensure!(message["commonLabels"]["job"] == "watched", "the label is not the training job's name: {message}");
    ensure!(took <= TOLD_WITHIN_MS, "it took {took} ms");
    let expressions = expressions()?;
    ensure!(expressions.len() > 100, "only {} expressions", expressions.len());
    let pending = std::cell::RefCell::new(expressions.clone());
    let waited = wait_until("every expression has had data", RUN, || async {
        let asked = pending.borrow().clone();
        let empty = monitoring.without_data(&asked).await?;
        let done = empty.is_empty();
        pending.replace(empty);
        Ok(done.then_some(()))
    });
    waited.await.with_context(|| format!("without data: {:#?}", pending.borrow()))?;
    println!("{} expressions have data", expressions.len());
    let healed = monitoring.values("r2o_replicas_healed_total{job=\"watched\"}").await?;
    ensure!(healed.iter().sum::<f64>() >= 1.0, "the replica is not healed: {healed:?}");
    // The loaders of the generation that follows the fault find what those before it read.
    wait_until("chunks come from the disk cache", RUN, || async {
        let read = monitoring.values("sum(r2o_loader_chunks_total{from=\"disk\"})").await?;
        Ok(read.iter().any(|chunks| *chunks > 0.0).then_some(()))
    })
    .await?;
    Ok(())
}
