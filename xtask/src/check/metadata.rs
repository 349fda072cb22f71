//! What cargo knows of the workspace and its dependencies.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::repo;

/// `cargo metadata`, as far as the rules need it.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    workspace_default_members: BTreeSet<String>,
    /// Which package needs which, as resolved.
    pub(crate) resolve: Resolve,
}

/// The resolved graph.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// What one package needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

/// One need of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

/// What it is needed for: `None` at run time, else `dev` or `build`.
#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    pub(crate) kind: Option<String>,
}

/// One package, ours or a dependency.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a package's dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
}

/// One of our crates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crate {
    pub(crate) name: String,
    /// Builds by a plain `cargo build`.
    pub(crate) default: bool,
    /// Normal and build dependencies.
    pub(crate) dependencies: BTreeSet<String>,
    /// Dependencies of its tests alone.
    pub(crate) test_dependencies: BTreeSet<String>,
}

/// Asks cargo, for the platform that we ship on.
pub(crate) fn load() -> Result<Metadata> {
    let mut command = repo::cargo();
    command.args(["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    serde_json::from_str(&repo::text(&mut command)?).context("cannot read what `cargo metadata` printed")
}

impl Metadata {
    /// Our crates.
    pub(crate) fn workspace(&self) -> Vec<Crate> {
        let ours = self.packages.iter().filter(|package| self.is_ours(package));
        ours.map(|package| Crate {
            name: package.name.clone(),
            default: self.workspace_default_members.contains(&package.id),
            dependencies: package.named(|kind| kind != Some("dev")),
            test_dependencies: package.named(|kind| kind == Some("dev")),
        })
        .collect()
    }

    /// Whether the package is in the workspace.
    pub(crate) fn is_ours(&self, package: &Package) -> bool {
        self.workspace_members.contains(&package.id)
    }
}

impl Package {
    fn named(&self, wanted: impl Fn(Option<&str>) -> bool) -> BTreeSet<String> {
        let lines = self.dependencies.iter().filter(|line| wanted(line.kind.as_deref()));
        lines.map(|line| line.name.clone()).collect()
    }
}
