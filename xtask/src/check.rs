//! The gate: what must hold of the repository besides its tests. Nothing here changes a file.

mod advisories;
mod arrows;
mod licences;
mod links;
mod manifests;
pub(crate) mod metadata;
mod recipes;
mod rooms;
mod spdx;
mod text;
mod tidy;

use anyhow::{Result, bail};

use crate::{chart, repo, schema, setup};

/// What to check. Without options: everything.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the rules that need no compiler: arrows, tidy, links, recipes, schema, chart, licences, advisories.
    #[arg(long)]
    quick: bool,
    /// Only whether the feature `cuda` compiles and links; needs no GPU.
    #[arg(long, conflicts_with = "quick")]
    cuda: bool,
}

/// One broken rule, with where and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) place: String,
    what: String,
}

impl Violation {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// Runs every rule, prints all violations, and fails when there is one.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.cuda {
        return cuda();
    }
    let mut failed = Vec::new();
    let files = text::tracked()?;
    let metadata = metadata::load()?;
    let groups: [(&str, Vec<Violation>); 9] = [
        ("arrows", arrows::check(&metadata.workspace())),
        ("manifests", manifests::check(&files)),
        ("tidy", tidy::check(&files)),
        ("rooms", rooms::check(&files)),
        ("links", links::check(&files)),
        ("recipes", recipes::check(&files)),
        ("schema", schema::check()),
        ("chart", chart::check()),
        ("licences", licences::check(&metadata)),
    ];
    for (name, violations) in groups {
        println!(
            "{name}: {}",
            if violations.is_empty() { "ok".to_owned() } else { format!("{} broken", violations.len()) }
        );
        for violation in &violations {
            println!("  {}: {}", violation.place, violation.what);
        }
        if !violations.is_empty() {
            failed.push(name);
        }
    }
    println!("{}", licences::duplicates(&metadata));
    if !advisories::check()? {
        failed.push("advisories");
    }
    if !arguments.quick {
        failed.extend(compiler()?);
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    println!("check passed");
    Ok(())
}

/// Builds and links the programs with the feature `cuda`, against headers and libraries alone.
fn cuda() -> Result<()> {
    setup::libtorch()?;
    let root = setup::cuda()?;
    let mut build = repo::cargo();
    build.env("R2O_CUDA_ROOT", root).args(["build", "--package", "r2o-gpu-suite", "--package", "r2o-worker"]);
    build.args(["--features", "r2o-gpu-suite/cuda,r2o-worker/cuda"]);
    repo::run(&mut build)?;
    println!("the feature `cuda` compiles and links");
    Ok(())
}

/// Format and lints, of all crates and targets.
fn compiler() -> Result<Vec<&'static str>> {
    setup::libtorch()?;
    let mut failed = Vec::new();
    let steps: [(&str, &[&str]); 2] = [
        ("format (`cargo fmt` mends it)", &["fmt", "--all", "--check"]),
        ("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]),
    ];
    for (name, arguments) in steps {
        if let Err(error) = repo::run(repo::cargo().args(arguments)) {
            println!("{error:#}");
            failed.push(name);
        }
    }
    Ok(failed)
}
