//! The demo's processes: each in its own group with its own log, none left behind.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::interrupt::Interrupt;
use crate::repo;

/// Between two looks at whether something has happened.
const LOOK: Duration = Duration::from_millis(100);

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// Running processes. Dropping this ends them.
pub(super) struct Processes {
    logs: PathBuf,
    interrupt: Interrupt,
    running: Vec<(String, Child)>,
}

impl Processes {
    /// No processes yet; their logs go to `logs`.
    pub(super) fn new(logs: PathBuf, interrupt: Interrupt) -> Result<Self> {
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self { logs, interrupt, running: Vec::new() })
    }

    /// Starts a process in the background.
    pub(super) fn start(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start `{}`", repo::shown(command)))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Runs a command with this program's output to its end. Fails when it fails, when a background process dies, or
    /// when the user interrupts (then the command is ended).
    pub(super) fn in_sight(&mut self, command: &mut Command) -> Result<()> {
        println!("$ {}", repo::shown(command));
        let mut child = command.process_group(0).stdin(Stdio::null()).spawn().with_context(|| repo::shown(command))?;
        loop {
            if let Some(status) = child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("`{}` failed ({status})", repo::shown(command));
            }
            if let Err(error) = self.interrupt.pause(LOOK).and_then(|()| self.must_run()) {
                end(&mut child, Signal::KILL);
                return Err(error);
            }
        }
    }

    /// Waits until `look` gives something.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        while start.elapsed() < deadline {
            if let Some(value) = look()? {
                return Ok(value);
            }
            self.interrupt.pause(LOOK)?;
        }
        bail!("waited {} s in vain: {what}", deadline.as_secs())
    }

    /// Fails when a background process has ended.
    fn must_run(&mut self) -> Result<()> {
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended ({status})");
            }
        }
        Ok(())
    }

    /// Prints the last lines of every log.
    pub(super) fn print_tails(&self, lines: usize) {
        for (name, _) in &self.running {
            let log = self.logs.join(format!("{name}.log"));
            let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let all: Vec<&str> = text.lines().collect();
            eprintln!("--- {}\n{}", log.display(), all[all.len().saturating_sub(lines)..].join("\n"));
        }
    }

    /// Ends all processes, the last started first, gently and then firmly.
    pub(super) fn stop(&mut self) {
        for (_, child) in &self.running {
            let _ = kill_process_group(Pid::from_child(child), Signal::TERM);
        }
        let start = Instant::now();
        while let Some((_, child)) = self.running.last_mut() {
            let ended = matches!(child.try_wait(), Ok(Some(_)) | Err(_));
            if !ended && start.elapsed() < GRACE && self.interrupt.pause(LOOK).is_ok() {
                continue;
            }
            end(child, Signal::KILL);
            self.running.pop();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
    }
}

fn end(child: &mut Child, signal: Signal) {
    // The group may be gone already.
    let _ = kill_process_group(Pid::from_child(child), signal);
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_dead_process_ends_what_is_in_sight() {
        let logs = tempfile::tempdir().unwrap();
        let (_sender, interrupt) = Interrupt::by_hand();
        let mut processes = Processes::new(logs.path().to_owned(), interrupt).unwrap();
        processes.start("worker-0", &mut shell("echo broken; exit 9")).unwrap();
        let error = processes.in_sight(&mut shell("exec tail -f /dev/null")).unwrap_err().to_string();
        assert!(error.contains("worker-0 ended"), "{error}");
        assert_eq!(fs::read_to_string(logs.path().join("worker-0.log")).unwrap(), "broken\n");
    }

    #[test]
    fn an_interrupt_ends_everything() {
        let logs = tempfile::tempdir().unwrap();
        let (sender, interrupt) = Interrupt::by_hand();
        let mut processes = Processes::new(logs.path().to_owned(), interrupt).unwrap();
        processes.start("coordinator", &mut shell("exec tail -f /dev/null")).unwrap();
        sender.send(()).unwrap();
        let error = processes.in_sight(&mut shell("exec tail -f /dev/null")).unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
        processes.stop();
        assert!(processes.running.is_empty());
    }

    #[test]
    fn a_failing_command_is_named() {
        let logs = tempfile::tempdir().unwrap();
        let (_sender, interrupt) = Interrupt::by_hand();
        let mut processes = Processes::new(logs.path().to_owned(), interrupt).unwrap();
        processes.in_sight(&mut shell("exit 0")).unwrap();
        assert!(processes.in_sight(&mut shell("exit 4")).unwrap_err().to_string().contains("exit 4"));
    }

    #[test]
    fn what_never_comes_is_named() {
        let logs = tempfile::tempdir().unwrap();
        let (_sender, interrupt) = Interrupt::by_hand();
        let processes = Processes::new(logs.path().to_owned(), interrupt).unwrap();
        let waited = processes.wait("godot", Duration::from_millis(150), || Ok(None::<()>));
        assert!(waited.unwrap_err().to_string().contains("godot"));
    }
}
