//! The CPU libtorch folder, made from the torch wheel.
//!
//! The wheel is a CUDA build. Without `libtorch_cuda` it is a CPU library that still names two small CUDA libraries, so
//! those lie beside it; `libtorch.so` is a stub that pulls in the rest, because torch-sys links `-ltorch`.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{folder, pip};
use crate::repo;

/// The release that tch 0.24 binds.
pub(crate) const VERSION: &str = "2.11.0";

const REQUIREMENTS: &str = include_str!("../../requirements/libtorch.txt");

/// Changes when the way of making the folder changes.
const RECIPE: &str = "1";

/// What is taken from the wheels.
const MEMBERS: [&str; 6] = [
    "torch/include/",
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
];

/// Makes `.libtorch` point to a libtorch unless it does already. A `LIBTORCH` of the user's own is used as it is.
pub(super) fn ensure() -> Result<()> {
    let link = repo::root().join(".libtorch");
    // Cargo's configuration sets LIBTORCH to `.libtorch` unless the environment has one.
    if let Some(own) =
        env::var_os("LIBTORCH").map(PathBuf::from).filter(|own| !own.as_os_str().is_empty() && *own != link)
    {
        verify(&own)
            .with_context(|| format!("LIBTORCH is set to {}: unset it to use the project's own", own.display()))?;
        println!("libtorch: {} (from LIBTORCH)", own.display());
        return Ok(());
    }
    if verify(&link).is_ok() {
        return Ok(());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("set-up knows only x86-64 Linux: set LIBTORCH to a libtorch {VERSION} folder");
    }
    let made = folder::path(&format!("libtorch-{VERSION}-cpu"), &[RECIPE, REQUIREMENTS])?;
    folder::ensure(&made, |half| match installed() {
        Some(site) => {
            println!("making libtorch from the torch {VERSION} installed under {}", site.display());
            assemble(&site, half)
        }
        None => from_wheels(half),
    })?;
    verify(&made)?;
    point(&link, &made)?;
    println!("libtorch: .libtorch -> {}", made.display());
    Ok(())
}

/// Whether a folder is a usable libtorch of our version.
fn verify(folder: &Path) -> Result<()> {
    for file in ["lib/libtorch_cpu.so", "lib/libc10.so", "lib/libtorch.so", "include/torch/csrc/autograd/variable.h"] {
        if !folder.join(file).exists() {
            bail!("{} lacks {file}: it is no libtorch folder", folder.display());
        }
    }
    // The Python package has a version.py in place of build-version.
    if let Ok(version) = fs::read_to_string(folder.join("build-version"))
        && version.trim().split('+').next() != Some(VERSION)
    {
        bail!("{} is libtorch {}, not {VERSION}", folder.display(), version.trim());
    }
    Ok(())
}

/// The site-packages folder of the user's Python, when it has the pinned torch and the two CUDA libraries.
fn installed() -> Option<PathBuf> {
    let ask = "import importlib.metadata as m, importlib.util as u, os\n\
               print(m.version('torch').split('+')[0], os.path.dirname(os.path.dirname(u.find_spec('torch').origin)))";
    let output =
        Command::new(pip::interpreter()).args(["-c", ask]).output().ok().filter(|output| output.status.success())?;
    let answer = String::from_utf8(output.stdout).ok()?;
    let (version, site) = answer.trim().split_once(' ')?;
    let site = PathBuf::from(site);
    let whole = ["torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1"];
    let whole = whole.iter().chain(&MEMBERS[4..]).all(|file| site.join(file).is_file());
    (version == VERSION && whole).then_some(site)
}

fn from_wheels(half: &Path) -> Result<()> {
    println!("libtorch {VERSION} for CPUs is downloaded once (544 MB) and kept in {}", repo::cache()?.display());
    let wheels = half.join("wheels");
    fs::create_dir(&wheels)?;
    pip::download(&repo::root().join("xtask/requirements/libtorch.txt"), &wheels)?;
    let site = half.join("site");
    pip::unpack(&wheels, &site, &MEMBERS)?;
    assemble(&site, half)?;
    fs::remove_dir_all(wheels)?;
    fs::remove_dir_all(site)?;
    Ok(())
}

/// Fills a libtorch folder from a site-packages folder that holds the wheels' files.
fn assemble(site: &Path, folder: &Path) -> Result<()> {
    let library = folder.join("lib");
    fs::create_dir(&library)?;
    for file in
        ["torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1"].iter().chain(&MEMBERS[4..])
    {
        let from = site.join(file);
        let to = library.join(from.file_name().context("a library has a name")?);
        fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    copy_tree(&site.join("torch/include"), &folder.join("include"))?;
    stub(&library)?;
    fs::write(folder.join("build-version"), format!("{VERSION}\n"))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

/// Links an empty libtorch.so that needs libtorch_cpu and libc10.
fn stub(library: &Path) -> Result<()> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut link = Command::new(&compiler);
    link.current_dir(library);
    link.args([
        "-shared",
        "-o",
        "libtorch.so",
        "-x",
        "c",
        "/dev/null",
        "-Wl,-soname,libtorch.so",
        "-Wl,--no-as-needed",
    ]);
    // The two libraries name others that the linker need not find here.
    link.args(["-L.", "-ltorch_cpu", "-lc10", "-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined"]);
    repo::text(&mut link).with_context(|| {
        format!("cannot link with `{compiler}`: install a C and C++ compiler (Debian: apt-get install build-essential) or set CC")
    })?;
    Ok(())
}

/// Makes `link` point to `folder` in one stroke.
pub(super) fn point(link: &Path, folder: &Path) -> Result<()> {
    match fs::symlink_metadata(link) {
        Ok(found) if !found.file_type().is_symlink() => {
            bail!("{} is in the way and is not what set-up made: remove it", link.display())
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", link.display())),
    }
    let fresh = link.with_extension("new");
    let _ = fs::remove_file(&fresh);
    symlink(folder, &fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    fs::rename(&fresh, link).with_context(|| format!("cannot make {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_libraries_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = verify(folder.path()).unwrap_err().to_string();
        assert!(error.contains("lib/libtorch_cpu.so"), "{error}");
    }

    #[test]
    fn another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for file in
            ["lib/libtorch_cpu.so", "lib/libc10.so", "lib/libtorch.so", "include/torch/csrc/autograd/variable.h"]
        {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert!(verify(folder.path()).is_ok());
        fs::write(folder.path().join("build-version"), "2.11.0+cu130\n").unwrap();
        assert!(verify(folder.path()).is_ok());
        fs::write(folder.path().join("build-version"), "2.13.0\n").unwrap();
        assert!(verify(folder.path()).unwrap_err().to_string().contains("2.13.0"));
    }

    #[test]
    fn a_link_is_replaced_and_a_folder_is_not() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join(".libtorch");
        point(&link, Path::new("/nowhere/old")).unwrap();
        point(&link, Path::new("/nowhere/new")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/nowhere/new"));
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        assert!(point(&link, Path::new("/nowhere/new")).unwrap_err().to_string().contains("in the way"));
    }

    #[test]
    fn every_pinned_wheel_has_a_hash() {
        let pins = REQUIREMENTS.lines().filter(|line| line.contains("==")).count();
        assert_eq!(pins, 3);
        assert_eq!(REQUIREMENTS.matches("--hash=sha256:").count(), pins);
    }
}
