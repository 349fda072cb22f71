//! `cargo xtask demo`: the whole service on this machine, on real photographs.
//!
//! Packs the photographs, starts a coordinator and workers as processes of their own on loopback, trains the demo job
//! to its end, then stops a second job half-way and resumes it from its checkpoint.

mod interrupt;
mod processes;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use r2o_types::TrainJob;

use crate::{repo, setup};
use interrupt::Interrupt;
use processes::Processes;

/// How to run the demo.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Epochs to train in place of the recipe's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    epochs: Option<u64>,
    /// Worker processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=4))]
    workers: u64,
    /// Folder for the data, the run and its results. What an earlier demo left there is replaced.
    #[arg(long, default_value = "demo-out")]
    out: PathBuf,
}

/// Epochs of the job that is stopped and resumed.
const SHORT_EPOCHS: u64 = 4;

/// Marks a folder as the demo's own, so that no other is ever emptied.
const MARK: &str = ".r2o-demo";

/// Runs the demo. Fails when a process dies or a job does not succeed, with the last lines of the logs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    setup::libtorch()?;
    // The whole workspace, so that the tests find what the demo built.
    repo::run(repo::cargo().args(["build", "--workspace", "--bins"]))?;
    let built = start.elapsed();

    let out = prepare(&arguments.out)?;
    let interrupt = Interrupt::listen()?;
    let mut demo = Demo { processes: Processes::new(out.join("logs"), interrupt)?, server: String::new(), out };
    let result = demo.run(arguments);
    if let Err(error) = result {
        demo.processes.print_tails(25);
        return Err(error);
    }
    demo.processes.stop();
    println!("\nset-up and build {:.0} s, demo {:.0} s", built.as_secs_f64(), (start.elapsed() - built).as_secs_f64());
    Ok(())
}

/// An empty folder for this run. An earlier run's data set stays: packing it again would give the same bytes.
fn prepare(out: &Path) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    let mark = out.join(MARK);
    if !mark.is_file() && fs::read_dir(&out)?.next().is_some() {
        bail!("{} has files that no demo wrote: choose an empty folder with --out", out.display());
    }
    fs::write(&mark, "written by `cargo xtask demo`\n")?;
    for part in ["state", "logs", "results"] {
        let folder = out.join(part);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(out)
}

struct Demo {
    processes: Processes,
    /// The coordinator's URL.
    server: String,
    out: PathBuf,
}

impl Demo {
    fn run(&mut self, arguments: &Arguments) -> Result<()> {
        heading("packing the photographs, with their superpixels");
        let photos = repo::root().join("tests/fixtures/photos");
        let data = self.out.join("data");
        self.r2octl(["data", "pack"], |command| command.arg(photos).arg("--out").arg(&data))?;

        heading(&format!("starting a coordinator and {} workers", arguments.workers));
        self.start_fleet(arguments.workers)?;

        heading("training (logs: see the folder `logs` of the demo's)");
        let job = self.job("demo", arguments.epochs, arguments.workers)?;
        let trained = Instant::now();
        self.submit(&job)?;
        self.r2octl(["watch", "demo"], |command| command)?;
        println!("trained {} epochs in {:.0} s", job.spec.epochs, trained.elapsed().as_secs_f64());

        heading("stopping a second job half-way and resuming it from its checkpoint");
        self.stop_and_resume(arguments.workers)?;

        heading("results");
        self.results(&job)
    }

    fn start_fleet(&mut self, workers: u64) -> Result<()> {
        let address = self.out.join("state/address");
        let state = format!("file://{}", self.out.join("state").display());
        let mut coordinator = Command::new(repo::programs("debug").join("r2o-coordinator"));
        coordinator.args(["--listen", "127.0.0.1:0", "--state", &state, "--address-file"]).arg(&address);
        self.processes.start("coordinator", &mut coordinator)?;
        let address = self.processes.wait("the coordinator listens", Duration::from_secs(60), || {
            Ok(fs::read_to_string(&address).ok().filter(|text| !text.trim().is_empty()))
        })?;
        let address = address.trim();
        self.server = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };

        let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let threads = (cores / workers).max(1).to_string();
        for index in 0..workers {
            let name = format!("worker-{index}");
            let mut worker = Command::new(repo::programs("debug").join("r2o-worker"));
            worker.args(["run", "--coordinator", &self.server, "--name", &name, "--device", "cpu"]);
            worker.args(["--threads", &threads, "--advertise", "127.0.0.1"]);
            self.processes.start(&name, &mut worker)?;
        }
        println!("coordinator at {}, {workers} workers with {threads} thread(s) each", self.server);
        Ok(())
    }

    /// The demo's recipe under a name, with this run's data; it waits for all workers before its first step.
    fn job(&self, name: &str, epochs: Option<u64>, workers: u64) -> Result<TrainJob> {
        let recipe = repo::root().join("deploy/jobs/demo.yaml");
        let text = fs::read_to_string(&recipe).with_context(|| format!("cannot read {}", recipe.display()))?;
        let mut value: serde_json::Value =
            serde_json::to_value(TrainJob::parse(&text).with_context(|| recipe.display().to_string())?)?;
        value["metadata"]["name"] = name.into();
        value["spec"]["data"]["url"] = format!("file://{}", self.out.join("data").display()).into();
        value["spec"]["fleet"]["minWorkers"] = workers.into();
        value["spec"]["fleet"]["maxWorkers"] = workers.into();
        if let Some(epochs) = epochs {
            let before = value["spec"]["epochs"].clone();
            value["spec"]["epochs"] = epochs.into();
            // A curriculum that ran over the whole run still does.
            if let Some(end) = value.pointer_mut("/spec/method/curriculum/epochs/1").filter(|end| **end == before) {
                *end = epochs.into();
            }
        }
        TrainJob::parse(&value.to_string()).with_context(|| format!("the demo's job {name}"))
    }

    fn submit(&mut self, job: &TrainJob) -> Result<()> {
        let file = self.out.join(format!("results/{}.json", job.metadata.name));
        fs::write(&file, serde_json::to_string_pretty(job)? + "\n")?;
        self.r2octl(["submit"], |command| command.arg(&file))
    }

    fn stop_and_resume(&mut self, workers: u64) -> Result<()> {
        let job = self.job("demo-resume", Some(SHORT_EPOCHS), workers)?;
        self.submit(&job)?;
        let half = self.processes.wait("a checkpoint half-way", Duration::from_secs(600), || {
            let seen = self.ask("demo-resume")?;
            let step = number(&seen, "checkpointStep");
            Ok((step > 0 && 2 * step >= number(&seen, "steps")).then_some(step))
        })?;
        self.r2octl(["cancel", "demo-resume"], |command| command)?;
        self.processes.wait("demo-resume stops", Duration::from_secs(60), || {
            Ok((self.ask("demo-resume")?["state"] == "Cancelled").then_some(()))
        })?;
        println!("stopped; there is a checkpoint after step {half}");
        self.submit(&job)?;
        self.r2octl(["watch", "demo-resume"], |command| command)
    }

    /// The job as r2octl prints it in JSON.
    fn ask(&self, name: &str) -> Result<serde_json::Value> {
        let mut command = self.client();
        let answer = repo::text(command.args(["get", name, "-o", "json"]))?;
        serde_json::from_str(&answer).with_context(|| format!("r2octl get {name} printed no JSON"))
    }

    fn results(&mut self, job: &TrainJob) -> Result<()> {
        let name = job.metadata.name.as_str();
        let results = self.out.join("results");
        let (report, masks, backbone) =
            (results.join("report.html"), results.join("masks.png"), results.join("backbone.safetensors"));
        self.r2octl(["report", name], |command| command.arg("--out").arg(&report).arg("--figure").arg(&masks))?;
        self.r2octl(["export", name], |command| command.arg("--out").arg(&backbone))?;
        self.r2octl(["checkpoints", "verify", "demo-resume"], |command| command)?;
        println!();
        for (what, path) in [
            ("report", report),
            ("masks", masks),
            ("backbone", backbone),
            ("run", self.out.join("state/jobs").join(name)),
            ("logs", self.out.join("logs")),
        ] {
            println!("{what:<10}{}", path.display());
        }
        Ok(())
    }

    fn client(&self) -> Command {
        let mut command = Command::new(repo::programs("debug").join("r2octl"));
        command.env("R2O_COORDINATOR", &self.server);
        command
    }

    /// Runs r2octl in sight, and ends it when the user interrupts or a process dies.
    fn r2octl<const N: usize>(
        &mut self,
        words: [&str; N],
        more: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<()> {
        let mut command = self.client();
        more(command.args(words));
        self.processes.in_sight(&mut command)
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// A number of an object, whether it was printed as a number or as text; 0 where there is none.
fn number(value: &serde_json::Value, name: &str) -> u64 {
    let found = &value[name];
    found.as_u64().or_else(|| found.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_folder_is_never_emptied() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::write(folder.path().join("state/thesis.tex"), "years of work").unwrap();
        assert!(prepare(folder.path()).unwrap_err().to_string().contains("--out"));
        assert!(folder.path().join("state/thesis.tex").is_file());
    }

    #[test]
    fn an_earlier_run_is_replaced_and_its_data_kept() {
        let folder = tempfile::tempdir().unwrap();
        let out = prepare(folder.path()).unwrap();
        fs::create_dir(out.join("data")).unwrap();
        fs::write(out.join("state/old"), "").unwrap();
        prepare(folder.path()).unwrap();
        assert!(out.join("data").is_dir() && !out.join("state/old").exists());
    }

    #[test]
    fn numbers_are_read_in_both_guises() {
        let value = serde_json::json!({"a": 3, "b": "4"});
        assert_eq!((number(&value, "a"), number(&value, "b"), number(&value, "c")), (3, 4, 0));
    }
}
