//! The photographs, packed once for all tests.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result, bail};

use crate::{binary, repository};

/// The folder of photographs that are free to commit (see its MANIFEST.tsv).
pub fn photos() -> PathBuf {
    repository().join("tests/fixtures/photos")
}

/// The photographs as a packed data set; a folder path that is a valid data URL.
///
/// Packed on first use and kept beside the programs; packed again when r2octl changes. Test processes that come at the
/// same time wait for each other.
pub fn packed_photos() -> Result<PathBuf> {
    let program = binary("r2octl")?;
    let built = fs::metadata(&program)?.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
    let folder = program.with_file_name("r2o-fixtures");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock the fixture folder")?;
    let packed = folder.join(format!("photos-{built}"));
    if packed.is_dir() {
        return Ok(packed);
    }
    remove_older(&folder)?;
    let half = folder.join("photos-unfinished");
    let output = crate::run(
        "r2octl",
        ["data".as_ref(), "pack".as_ref(), photos().as_os_str(), "--out".as_ref(), half.as_os_str()],
    )?;
    if !output.status.success() {
        bail!("r2octl data pack failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    fs::rename(&half, &packed)?;
    Ok(packed)
}

/// Removes sets that an older r2octl packed, and half made ones.
fn remove_older(folder: &std::path::Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
