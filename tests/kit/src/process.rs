//! One program under test: started in its own process group, its output kept in a file.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process_group};

use crate::{binary, wait_until};

pub use rustix::process::Signal;

/// A running program. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts one of our programs. Standard output and error go to `FOLDER/NAME.log`; `environment` is added to the
    /// test's own.
    pub fn start<S: AsRef<OsStr>>(
        program: &str,
        name: &str,
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start_path(&binary(program)?, name, folder, arguments, environment)
    }

    /// Like [`Process::start`], for any program of the machine.
    pub fn start_path<S: AsRef<OsStr>>(
        path: &Path,
        name: &str,
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(path)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let group = Pid::from_child(&child);
        Ok(Self { name: name.to_owned(), child, group, log })
    }

    /// The name that it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operating system's number for it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last `lines` lines that it has printed.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Sends a signal to the whole group: [`Signal::TERM`], [`Signal::KILL`], [`Signal::STOP`], [`Signal::CONT`], ...
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process_group(self.group, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Its status when it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Fails, with the last lines of its log, when it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended ({status}):\n{}", self.name, self.log_tail(30));
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// Errors: the deadline passes first; the error shows the last lines of its log.
    pub async fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let tail = self.log.clone();
        let this = std::cell::RefCell::new(self);
        wait_until(&what, deadline, || async { this.borrow_mut().ended() })
            .await
            .with_context(|| format!("its log is {}", tail.display()))
    }

    /// Waits until its log contains `text`.
    ///
    /// Errors: the deadline passes, or it ends, before that.
    pub async fn wait_log(&mut self, text: &str, deadline: Duration) -> Result<()> {
        let what = format!("{} logs `{text}`", self.name);
        let this = std::cell::RefCell::new(self);
        wait_until(&what, deadline, || async {
            if this.borrow().log().contains(text) {
                return Ok(Some(()));
            }
            this.borrow_mut().must_run()?;
            Ok(None)
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group may be gone already, and nobody is left to tell.
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ({}):\n{}", self.name, self.log.display(), self.log_tail(40));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(folder: &Path, script: &str) -> Process {
        Process::start_path(Path::new("/bin/sh"), "shell", folder, ["-c", script], &[("WORD", "ready")]).unwrap()
    }

    #[tokio::test]
    async fn its_output_is_kept_and_signals_reach_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo $WORD; exec tail -f /dev/null");
        process.wait_log("ready", SOON).await.unwrap();
        process.must_run().unwrap();
        process.signal(Signal::STOP).unwrap();
        process.signal(Signal::CONT).unwrap();
        assert_eq!(process.kill().unwrap().signal(), Some(9));
        assert!(process.must_run().unwrap_err().to_string().contains("ready"), "the error shows the log");
    }

    #[tokio::test]
    async fn an_end_is_waited_for_and_a_log_that_never_comes_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "exit 3");
        assert_eq!(process.wait_end(SOON).await.unwrap().code(), Some(3));
        assert!(process.wait_log("ready", SOON).await.unwrap_err().to_string().contains("shell ended"));
    }

    #[tokio::test]
    async fn dropping_it_ends_its_children_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "tail -f /dev/null & echo child $! $WORD; wait");
        process.wait_log("ready", SOON).await.unwrap();
        let child = process.log().split_whitespace().nth(1).unwrap().to_owned();
        let status = PathBuf::from(format!("/proc/{child}/status"));
        assert!(status.exists());
        drop(process);
        // Whoever adopts the child may take a moment to bury it: a zombie has ended.
        let ended = || async {
            let text = fs::read_to_string(&status).unwrap_or_default();
            Ok((text.is_empty() || text.contains("State:\tZ")).then_some(()))
        };
        wait_until("the child ends", SOON, ended).await.unwrap();
    }
}
