//! What is compared with what, and how fast ours should be.

use std::{path::Path, process::Command};

use crate::repo;

/// One program of ours beside one script of the reference's.
pub(super) struct Pair {
    /// For the command line.
    pub(super) name: &'static str,
    /// The package whose example `program` is.
    pub(super) package: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Script and arguments that make what both sides read.
    prepare: &'static [&'static str],
    script: &'static str,
    script_arguments: &'static [&'static str],
    /// How many times as fast ours should be: (part of the measure's name, ratio). The first that fits counts.
    targets: &'static [(&'static str, f64)],
}

/// All comparisons.
pub(super) const PAIRS: &[Pair] = &[
    Pair {
        name: "step",
        package: "r2o-engine",
        program: "engine-bench",
        arguments: &["step"],
        prepare: &[],
        script: "bench_step.py",
        script_arguments: &[],
        targets: &[("bfloat16", 1.8), ("float32", 1.1)],
    },
    Pair {
        name: "kmeans",
        package: "r2o-engine",
        program: "engine-bench",
        arguments: &["kmeans"],
        prepare: &[],
        script: "bench_kmeans.py",
        script_arguments: &[],
        targets: &[("k128", 1.5), ("k4", 1.0)],
    },
    Pair {
        name: "checkpoint",
        package: "r2o-engine",
        program: "engine-bench",
        arguments: &["checkpoint"],
        prepare: &[],
        script: "bench_checkpoint.py",
        script_arguments: &[],
        targets: &[("hold", 20.0)],
    },
    Pair {
        name: "slic",
        package: "r2o-data",
        program: "data-bench",
        arguments: &["slic"],
        prepare: &[],
        script: "bench_slic.py",
        script_arguments: &[],
        targets: &[("slic", 8.0)],
    },
    Pair {
        name: "loader",
        package: "r2o-data",
        program: "data-bench",
        arguments: &["loader", "target/bench-photos"],
        prepare: &["large_photos.py", "target/bench-photos"],
        script: "bench_loader.py",
        script_arguments: &["target/bench-photos"],
        targets: &[("best-python", 1.5), ("online-slic", 8.0), ("no-slic", 8.0), ("loader", 25.0)],
    },
];

impl Pair {
    /// Our side.
    pub(super) fn ours(&self) -> Command {
        let mut command = Command::new(repo::programs("release/examples").join(self.program));
        command.current_dir(repo::root()).args(self.arguments);
        command
    }

    /// What makes the files that both sides read, when there are any.
    pub(super) fn preparation(&self, python: &Path) -> Option<Command> {
        let (script, arguments) = self.prepare.split_first()?;
        let mut command = Command::new(python);
        command.current_dir(repo::root()).arg(repo::root().join("tests/parity").join(script)).args(arguments);
        Some(command)
    }

    /// The reference's side.
    pub(super) fn theirs(&self, python: &Path) -> Command {
        let mut command = Command::new(python);
        command
            .current_dir(repo::root())
            .arg(repo::root().join("tests/parity").join(self.script))
            .args(self.script_arguments);
        command
    }

    /// How many times as fast ours should be in a measure.
    pub(super) fn target(&self, measure: &str) -> Option<f64> {
        self.targets.iter().find(|(part, _)| measure.contains(part)).map(|(_, ratio)| *ratio)
    }
}
