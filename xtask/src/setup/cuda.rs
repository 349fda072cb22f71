//! The headers and libraries that the `cuda` feature is compiled and linked against, without a GPU.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::{folder, pip};
use crate::repo;

const REQUIREMENTS: &str = include_str!("../../requirements/cuda.txt");

/// What is taken from the wheels: all headers, and the libraries that are linked.
const MEMBERS: [&str; 5] = [
    "nvidia/cu13/include/",
    "nvidia/cu13/lib/libcudart.so",
    "nvidia/nccl/include/",
    "nvidia/nccl/lib/",
    "torch/lib/libtorch_cuda.so",
];

fn place() -> Result<PathBuf> {
    folder::path("cuda-13.0", &[REQUIREMENTS, &MEMBERS.join(" ")])
}

/// The folder, when it is there.
pub(super) fn existing() -> Option<PathBuf> {
    place().ok().filter(|place| place.is_dir())
}

/// Makes the folder when it is missing and gives it back.
pub(super) fn ensure() -> Result<PathBuf> {
    let place = place()?;
    folder::ensure(&place, |half| {
        let wheels = half.join("wheels");
        fs::create_dir(&wheels)?;
        pip::download(&repo::root().join("xtask/requirements/cuda.txt"), &wheels)?;
        pip::unpack(&wheels, half, &MEMBERS)?;
        Ok(fs::remove_dir_all(wheels)?)
    })?;
    Ok(place)
}
