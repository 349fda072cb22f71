//! Helm, and what it renders.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};
use r2o_test_kit::repository;
use serde_json::Value;

/// What the tests of the chart need.
pub const NEEDS: &str = "needs helm (cargo xtask setup --deploy)";

/// Versions of Helm that the chart is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helm {
    /// Helm 3.
    Three,
    /// Helm 4.
    Four,
}

impl Helm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Three, Self::Four];

    /// Runs it, whatever comes of it; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(self, arguments: &[&str]) -> Result<Option<Output>> {
        let Some(program) = tool(match self {
            Self::Three => "helm3",
            Self::Four => "helm",
        }) else {
            return Ok(None);
        };
        // No settings of the user's, and no cluster.
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", env::temp_dir()).env("KUBECONFIG", "/dev/null");
        Ok(Some(command.output().context("cannot run Helm")?))
    }
}

/// A program that `cargo xtask setup --deploy` fetched; `cargo xtask test` says where.
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os("R2O_DEPLOY_TOOLS")?);
    Some(folder.join("bin").join(name)).filter(|path| path.is_file())
}

/// The Python that has the validator of Kubernetes objects.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os("R2O_DEPLOY_TOOLS")?);
    Some(folder.join("python/bin/python")).filter(|path| path.is_file())
}

/// The chart's folder.
#[must_use]
pub fn chart() -> PathBuf {
    repository().join("deploy/helm/r2o")
}

/// The files of values under the chart's `ci/`.
///
/// # Errors
/// When they cannot be listed.
pub fn values_files() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(chart().join("ci")).context("cannot list the chart's ci/")?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// What to render.
#[derive(Clone, Debug, Default)]
pub struct Release {
    arguments: Vec<String>,
}

impl Release {
    /// Kinds that the Prometheus operator brings.
    pub const OPERATOR: [&str; 3] = [
        "monitoring.coreos.com/v1/ServiceMonitor",
        "monitoring.coreos.com/v1/PodMonitor",
        "monitoring.coreos.com/v1/PrometheusRule",
    ];

    /// For a version of Kubernetes.
    #[must_use]
    pub fn on(version: &str) -> Self {
        Self { arguments: vec!["--kube-version".to_owned(), version.to_owned()] }
    }

    /// With a file of values.
    #[must_use]
    pub fn values(mut self, file: &Path) -> Self {
        self.arguments.extend(["--values".to_owned(), file.display().to_string()]);
        self
    }

    /// With a value.
    #[must_use]
    pub fn set(mut self, value: &str) -> Self {
        self.arguments.extend(["--set".to_owned(), value.to_owned()]);
        self
    }

    /// On a cluster that knows more kinds.
    #[must_use]
    pub fn with(mut self, kinds: &[&str]) -> Self {
        self.arguments.extend(kinds.iter().flat_map(|kind| ["--api-versions".to_owned(), (*kind).to_owned()]));
        self
    }

    /// Renders it to text; `None` when there is no Helm.
    ///
    /// # Errors
    /// With Helm's message, when it refuses.
    pub fn text(&self, helm: Helm) -> Result<Option<String>> {
        let chart = chart().display().to_string();
        let mut arguments = vec!["template", "r2o", &chart, "--namespace", "training"];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let Some(output) = helm.run(&arguments)? else { return Ok(None) };
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Some(String::from_utf8(output.stdout)?))
    }

    /// Renders it to objects; `None` when there is no Helm.
    ///
    /// # Errors
    /// With Helm's message, when it refuses.
    pub fn objects(&self, helm: Helm) -> Result<Option<Vec<Value>>> {
        let Some(text) = self.text(helm)? else { return Ok(None) };
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).context("the rendered chart is no YAML")?;
        Ok(Some(documents.into_iter().filter(|document| !document.is_null()).collect()))
    }
}
