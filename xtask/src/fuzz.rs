//! `cargo xtask fuzz`: builds tests/fuzz with coverage, as cargo-fuzz does without a sanitizer, and runs its programs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail, ensure};

use crate::repo;

/// A program of tests/fuzz, and folders with samples to begin with.
struct Target {
    name: &'static str,
    samples: &'static [&'static str],
}

const TARGETS: [Target; 10] = [
    Target { name: "coco", samples: &["tests/fuzz/samples/coco"] },
    Target { name: "image", samples: &["tests/fixtures/formats", "tests/fuzz/samples/image"] },
    Target { name: "job", samples: &["deploy/jobs"] },
    Target { name: "jpeg", samples: &["tests/fixtures/formats", "tests/fuzz/samples/jpeg"] },
    Target { name: "manifest", samples: &["tests/fuzz/samples/manifest"] },
    Target { name: "map", samples: &["tests/fuzz/samples/map"] },
    Target { name: "messages", samples: &[] },
    Target { name: "parquet", samples: &["tests/fixtures/pack"] },
    Target { name: "set", samples: &["tests/fuzz/samples/set"] },
    Target { name: "tar", samples: &["tests/fuzz/samples/tar"] },
];

/// What LLVM has to add to each block for libFuzzer; all of it is in stable compilers.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
];

/// Memory of one program in MiB, and seconds of one input: beyond that it is a finding.
const LIMITS: [&str; 2] = ["-rss_limit_mb=2048", "-timeout=60"];

/// Which, and for how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Some of coco, image, job, jpeg, manifest, map, messages, parquet, set, tar; without any, all.
    targets: Vec<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Where its randomness begins; 0: elsewhere each time.
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Programs that run at a time.
    #[arg(long, default_value_t = 2)]
    at_once: usize,
}

/// Fails when a program finds something; the input that does it lies in `target/fuzz/findings`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let unknown = arguments.targets.iter().find(|name| TARGETS.iter().all(|target| target.name != **name));
    if let Some(name) = unknown {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!("there is no fuzz target `{name}`; there are {}", names.join(", "));
    }
    let chosen = |target: &&Target| arguments.targets.is_empty() || arguments.targets.iter().any(|n| n == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(chosen).collect();
    let programs = build()?;
    let mut found = Vec::new();
    for group in targets.chunks(arguments.at_once.max(1)) {
        let started = group.iter().map(|target| Ok((target.name, start(target, &programs, arguments)?)));
        let started: Vec<(&str, Child)> = started.collect::<Result<_>>()?;
        for (name, mut child) in started {
            let status = child.wait().with_context(|| format!("waiting for fuzz-{name}"))?;
            println!("fuzz-{name}: {}", if status.success() { "nothing found" } else { "FOUND SOMETHING" });
            found.extend((!status.success()).then_some(name));
        }
    }
    ensure!(found.is_empty(), "{} found something: see {}", found.join(", "), folder("findings").display());
    Ok(())
}

fn folder(name: &str) -> PathBuf {
    repo::programs("fuzz").join(name)
}

/// Programs with coverage, apart from all others: every crate is built anew for it.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let mut cargo = repo::cargo();
    cargo.args(["build", "--package", "r2o-fuzz", "--bins", "--target", &host]);
    cargo
        .env("CARGO_TARGET_DIR", repo::programs("fuzz"))
        .env("RUSTFLAGS", format!("{} --cfg fuzzing", COVERAGE.join(" ")));
    repo::run(&mut cargo)?;
    Ok(folder(&host).join("debug"))
}

/// Given by name, the target gets flags that build scripts do not get.
fn host() -> Result<String> {
    let output = Command::new("rustc").args(["--print", "host-tuple"]).output().context("cannot run rustc")?;
    ensure!(output.status.success(), "rustc does not say for which machine it builds");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn start(target: &Target, programs: &Path, arguments: &Arguments) -> Result<Child> {
    let (corpus, findings) = (folder("corpus").join(target.name), folder("findings").join(target.name));
    for folder in [&corpus, &findings] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log = findings.join("log");
    let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut program = Command::new(programs.join(format!("fuzz-{}", target.name)));
    program.arg(corpus).args(target.samples.iter().map(|samples| repo::root().join(samples)));
    program.args([format!("-max_total_time={}", arguments.seconds), format!("-seed={}", arguments.seed)]).args(LIMITS);
    program.arg(format!("-artifact_prefix={}/", findings.display()));
    println!("$ {} (log: {})", repo::shown(&program), log.display());
    program.stdout(file.try_clone()?).stderr(file).spawn().context("cannot start it")
}
