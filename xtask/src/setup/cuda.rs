//! The folder that the feature `cuda` is compiled and linked against (`R2O_CUDA_ROOT`), without a GPU or a driver:
//! `include/` with the headers of CUDA and NCCL, `lib/` with torch's CUDA libraries.
//!
//! What those need in turn (cuBLAS, cuDNN, NCCL: 2.5 GB) is looked up on the machine that runs the program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{folder, pip};
use crate::repo;

const REQUIREMENTS: &str = include_str!("../../requirements/cuda.txt");

/// Changes when the way of making the folder changes.
const RECIPE: &str = "1";

/// What is taken from the wheels, and the part of the folder that it goes to.
const MEMBERS: [(&str, &str); 4] = [
    ("nvidia/cu13/include/", "include"),
    ("nvidia/nccl/include/", "include"),
    ("torch/lib/libtorch_cuda.so", "lib"),
    ("torch/lib/libc10_cuda.so", "lib"),
];

/// The folder, made when it is missing.
pub(super) fn ensure() -> Result<PathBuf> {
    let place = folder::path("cuda-13.0", &[RECIPE, REQUIREMENTS])?;
    folder::ensure(&place, |half| {
        println!("the headers of the feature `cuda` are downloaded once (740 MB) and kept in {}", place.display());
        let wheels = half.join("wheels");
        fs::create_dir(&wheels)?;
        pip::download(&repo::root().join("xtask/requirements/cuda.txt"), &wheels)?;
        let site = half.join("site");
        pip::unpack(&wheels, &site, &MEMBERS.map(|(from, _)| from))?;
        for (from, to) in MEMBERS {
            gather(&site.join(from), &half.join(to))?;
        }
        fs::remove_dir_all(wheels)?;
        Ok(fs::remove_dir_all(site)?)
    })?;
    Ok(place)
}

/// Moves a file into a folder, or what a folder holds into it; folders of one name become one.
fn gather(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    if from.is_file() {
        let target = to.join(from.file_name().context("a library has a name")?);
        return fs::rename(from, &target).with_context(|| format!("cannot move {}", from.display()));
    }
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let inside = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() { gather(&path, &inside)? } else { gather(&path, to)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_several_wheels_meet_in_one_folder() {
        let place = tempfile::tempdir().unwrap();
        for (file, text) in [("a/include/crt/x.h", "x"), ("b/include/nccl.h", "n"), ("b/include/crt/y.h", "y")] {
            let path = place.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let include = place.path().join("include");
        gather(&place.path().join("a/include"), &include).unwrap();
        gather(&place.path().join("b/include"), &include).unwrap();
        for file in ["crt/x.h", "crt/y.h", "nccl.h"] {
            assert!(include.join(file).is_file(), "{file}");
        }
    }
}
