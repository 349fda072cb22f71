//! What the tests of monitoring share: the dashboards, the alerts, and the names of metrics in their expressions.

mod receiver;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use r2o_telemetry::metrics::{Kind, table};
use r2o_test_kit::{packed_photos_with_objects, repository};
use r2o_types::TrainJob;
use serde::Deserialize;
use serde_json::Value;

pub use receiver::{Received, Receiver, attribute, hex};

/// A dashboard as it is in its file.
#[derive(Debug)]
pub struct Dashboard {
    /// The file's name without its end.
    pub name: String,
    /// All of it.
    pub json: Value,
}

/// One query of one panel.
#[derive(Debug, Clone)]
pub struct Query {
    /// `DASHBOARD / PANEL`.
    pub place: String,
    /// The expression, with variables.
    pub expr: String,
}

impl Query {
    /// The expression with values in place of variables: all jobs, and rates over five minutes.
    #[must_use]
    pub fn resolved(&self) -> String {
        self.expr.replace("$job", ".*").replace("$__rate_interval", "5m")
    }
}

impl Dashboard {
    /// Its panels.
    #[must_use]
    pub fn panels(&self) -> &[Value] {
        self.json["panels"].as_array().map_or(&[], Vec::as_slice)
    }

    /// All queries of all panels.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        let of = |panel: &Value| {
            let place = format!("{} / {}", self.name, text(&panel["title"]));
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            targets
                .into_iter()
                .map(move |target| Query { place: place.clone(), expr: text(&target["expr"]).to_owned() })
        };
        self.panels().iter().flat_map(of).collect()
    }
}

/// A string of JSON, or nothing.
#[must_use]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// All dashboards.
///
/// # Errors
/// When one cannot be read.
pub fn dashboards() -> Result<Vec<Dashboard>> {
    let mut all = Vec::new();
    for path in files("deploy/grafana", "json")? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let json = serde_json::from_slice(&std::fs::read(&path)?).with_context(|| path.display().to_string())?;
        all.push(Dashboard { name, json });
    }
    Ok(all)
}

/// The files of a folder of the repository with this end, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(folder: &str, end: &str) -> Result<Vec<PathBuf>> {
    let folder = repository().join(folder);
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut paths: Vec<_> = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == end)).collect();
    paths.sort();
    Ok(paths)
}

/// The file of alerts.
#[derive(Debug, Deserialize)]
pub struct Rules {
    /// Groups of rules.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated together.
#[derive(Debug, Deserialize)]
pub struct Group {
    /// The rules.
    pub rules: Vec<Alert>,
}

/// One alert.
#[derive(Debug, Clone, Deserialize)]
pub struct Alert {
    /// Its name.
    pub alert: String,
    /// When it fires.
    pub expr: String,
    /// What it says.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Where the alerts are.
#[must_use]
pub fn alerts_file() -> PathBuf {
    repository().join("deploy/prometheus/alerts.yaml")
}

/// All alerts.
///
/// # Errors
/// When they cannot be read.
pub fn alerts() -> Result<Vec<Alert>> {
    let text = std::fs::read_to_string(alerts_file())?;
    let rules: Rules = serde_saphyr::from_str(&text).context("deploy/prometheus/alerts.yaml")?;
    Ok(rules.groups.into_iter().flat_map(|group| group.rules).collect())
}

/// The names of our metrics in an expression, as the expression says them.
#[must_use]
pub fn metrics_in(expr: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expr.split(|c| !word(c));
    words.filter(|word| word.starts_with("r2o_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Whether a name in an expression is declared: as it stands, or as a part of a declared histogram.
#[must_use]
pub fn is_declared(name: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    table::all().iter().any(|declared| match declared.kind {
        Kind::Histogram => base == Some(declared.name),
        Kind::Counter | Kind::Gauge => name == declared.name,
    })
}

/// A program of the machine, on the search path.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|p| p.is_file())
}

/// The demo in its smallest size; it keeps its checkpoints in `folder`.
///
/// # Errors
/// When the recipe cannot be read, or the photographs cannot be packed.
pub fn small_job(name: &str, folder: &Path) -> Result<TrainJob> {
    let text = std::fs::read_to_string(repository().join("deploy/jobs/demo.yaml"))?;
    let mut job = TrainJob::parse(&text).context("deploy/jobs/demo.yaml")?;
    name.clone_into(&mut job.metadata.name);
    job.spec.data.image_size = 32;
    job.spec.data.url = packed_photos_with_objects()?.display().to_string();
    job.spec.checkpoint.url = Some(folder.join(name).display().to_string());
    job.spec.checkpoint.every.epochs = 1;
    (job.spec.batch.lanes, job.spec.batch.samples_per_lane, job.spec.batch.norm_group_lanes) = (8, 4, 8);
    (job.spec.model.projector.hidden, job.spec.model.predictor.hidden) = (32, 32);
    Ok(job)
}

/// The guide's page on monitoring.
#[must_use]
pub fn guide() -> PathBuf {
    Path::new(repository()).join("docs/guide/observability.md")
}
