//! The Python environment with the reference implementations' packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{folder, pip};
use crate::repo;

fn requirements() -> PathBuf {
    repo::root().join("tests/parity/requirements.txt")
}

/// The cache folder of the environment, named by its requirements and by the Python that it is made with.
fn place() -> Result<PathBuf> {
    let pins = requirements();
    let pins = fs::read_to_string(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    folder::path("python", &[&pins, &version()?])
}

/// Which Python environments are made with.
pub(super) fn version() -> Result<String> {
    let ask = "import sys; print(sys.version_info[:2], sys.base_prefix)";
    repo::text(Command::new(pip::interpreter()).args(["-c", ask]))
}

/// Makes an environment without packages.
pub(super) fn environment(folder: &Path) -> Result<()> {
    repo::run(Command::new(pip::interpreter()).args(["-m", "venv"]).arg(folder))
        .context("cannot make a virtual environment (Debian: apt-get install python3-venv)")
}

/// The interpreter, when it is there: `R2O_PYTHON`, or the environment that [`ensure`] made.
pub(super) fn existing() -> Option<PathBuf> {
    if let Some(given) = env::var_os("R2O_PYTHON").map(PathBuf::from) {
        return given.is_file().then_some(given);
    }
    let python = place().ok()?.join("bin/python");
    python.is_file().then_some(python)
}

/// Makes the environment when it is missing and gives back its interpreter.
pub(super) fn ensure() -> Result<PathBuf> {
    if let Some(python) = existing() {
        return Ok(python);
    }
    pip::require()?;
    let place = place()?;
    println!("the reference packages are downloaded once (3 GB) and kept in {}", place.display());
    folder::ensure(&place, |half| make(half).and_then(|()| relocate(half, half, &place)))?;
    Ok(place.join("bin/python"))
}

fn make(half: &Path) -> Result<()> {
    environment(half)?;
    let mut install = Command::new(half.join("bin/python"));
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--only-binary=:all:", "--no-compile"]);
    repo::run(install.arg("--requirement").arg(requirements()))
        .context("pip could not install the reference packages: see its message above")
}

/// Makes the environment in or under `half` name the folder that it will have once `half` is `place`. Its interpreter finds its packages by its own place, so it
/// works there; its scripts (pip, ...) name the old folder and are not used.
pub(super) fn relocate(environment: &Path, half: &Path, place: &Path) -> Result<()> {
    let configuration = environment.join("pyvenv.cfg");
    let text =
        fs::read_to_string(&configuration).with_context(|| format!("cannot read {}", configuration.display()))?;
    let moved = text.replace(&half.display().to_string(), &place.display().to_string());
    fs::write(&configuration, moved).with_context(|| format!("cannot write {}", configuration.display()))
}
