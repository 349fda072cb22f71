//! The images' recipes are as they should be, as far as a linter can say.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use r2o_test_deploy::{NEEDS, tool};
use r2o_test_kit::{not_run, repository};

#[test]
fn the_recipes_lint() -> Result<()> {
    let Some(hadolint) = tool("hadolint") else {
        not_run(NEEDS);
        return Ok(());
    };
    for file in ["Dockerfile", "prebuilt.Dockerfile"] {
        let path = repository().join("deploy/docker").join(file);
        let output = Command::new(&hadolint).arg("--no-color").arg(&path).output().context("cannot run hadolint")?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

#[test]
fn the_linter_is_not_fooled() -> Result<()> {
    let Some(hadolint) = tool("hadolint") else {
        not_run(NEEDS);
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("Dockerfile");
    fs::write(&file, "FROM debian:latest\nRUN cd /x && sudo true\n")?;
    assert!(!Command::new(hadolint).arg(&file).output()?.status.success());
    Ok(())
}

#[test]
fn wheels_of_the_gpu_image_are_pinned_by_hash_and_of_the_torch_that_we_build_with() -> Result<()> {
    let read = |path: &str| fs::read_to_string(repository().join(path));
    let (cuda, built) = (read("deploy/docker/cuda.txt")?, read("xtask/requirements/libtorch.txt")?);
    let torch = built.lines().find(|line| line.starts_with("torch==")).context("libtorch.txt names no torch")?;
    assert!(cuda.lines().any(|line| line == torch), "cuda.txt has another torch than {torch}");
    let wheels: Vec<&str> = cuda.lines().filter(|line| line.contains("==") && !line.starts_with('#')).collect();
    let hashes = cuda.lines().filter(|line| line.trim_start().starts_with("--hash=sha256:")).count();
    assert_eq!(wheels.len(), hashes, "{wheels:?}");
    Ok(())
}

/// Every image that is shipped runs as nobody and has its bill of materials, and its bases have versions.
#[test]
fn images_are_pinned_say_what_they_hold_and_run_as_nobody() -> Result<()> {
    let text = fs::read_to_string(repository().join("deploy/docker/Dockerfile"))?;
    for target in ["coordinator", "worker-cpu", "worker-cuda"] {
        let (_, rest) = text.split_once(&format!(" AS {target}\n")).with_context(|| format!("no target {target}"))?;
        let stage = rest.split("\nFROM ").next().unwrap_or_default();
        assert!(stage.contains("\nUSER 65532:65532\n"), "{target} runs as root");
        assert!(stage.contains(".cdx.json /usr/share/sbom/\n"), "{target} has no bill of materials");
        assert!(stage.contains("org.opencontainers.image.revision"), "{target} has no labels");
    }
    let bases = ["RUST", "DEBIAN"];
    for base in bases {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("ARG {base}="))).unwrap_or_default();
        let version = line.split_once(':').map(|(_, version)| version).unwrap_or_default();
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{base} has no version: {line}");
    }
    Ok(())
}
