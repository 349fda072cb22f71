//! Folders in the user's cache: made once, whole or not at all.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::repo;

/// The path of the cache folder `NAME-HASH` for a recipe: texts that decide its content.
pub(crate) fn path(name: &str, recipe: &[&str]) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for text in recipe {
        hash.update(text.len().to_le_bytes());
        hash.update(text.as_bytes());
    }
    Ok(repo::cache()?.join(format!("{name}-{}", &hex::encode(hash.finalize())[..12])))
}

/// Makes `folder` by `fill`, which gets an empty folder beside it; it takes its name when `fill` has succeeded. Does
/// nothing when it is there. Set-ups that run at the same time wait for each other.
pub(crate) fn ensure(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().context("a cache folder has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let lock = parent.join("setup.lock");
    let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    lock.lock().context("cannot lock the cache folder")?;
    if folder.is_dir() {
        return Ok(());
    }
    // Under the lock, whatever half made folder there is was left by a set-up that was interrupted.
    let half = parent.join("unfinished");
    if half.exists() {
        fs::remove_dir_all(&half).with_context(|| format!("cannot remove {}", half.display()))?;
    }
    fs::create_dir(&half).with_context(|| format!("cannot make {}", half.display()))?;
    fill(&half)?;
    fs::rename(&half, folder).with_context(|| format!("cannot rename {} to {}", half.display(), folder.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("thing-1");
        let failed = ensure(&folder, |half| {
            fs::write(half.join("part"), "one")?;
            bail!("interrupted")
        });
        assert_eq!(failed.unwrap_err().to_string(), "interrupted");
        assert!(!folder.exists());

        ensure(&folder, |half| {
            assert_eq!(fs::read_dir(half)?.count(), 0, "what an interrupted set-up left is gone");
            Ok(fs::write(half.join("whole"), "two")?)
        })
        .unwrap();
        assert!(folder.join("whole").is_file());
        ensure(&folder, |_| bail!("made twice")).unwrap();
    }

    #[test]
    fn another_recipe_is_another_folder() {
        assert_ne!(path("a", &["x", "y"]).unwrap(), path("a", &["xy", ""]).unwrap());
        assert_eq!(path("a", &["x"]).unwrap(), path("a", &["x"]).unwrap());
    }
}
