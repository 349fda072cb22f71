//! What follows from a journal record waits for it, job by job; everything else goes on.

use std::collections::{BTreeMap, VecDeque};

use crate::Command;

/// Commands of jobs that wait for a record of theirs, in order. See the crate documentation: the shell passes every command
/// through it.
#[derive(Debug, Default)]
pub struct Gate {
    waiting: BTreeMap<String, VecDeque<Command>>,
}

impl Gate {
    /// The command, if it may be carried out now; otherwise it is kept. Behind a command that others must not overtake
    /// ([`Command::is_gate`]) the job's gate is closed until [`Gate::open`].
    pub fn pass(&mut self, command: Command) -> Option<Command> {
        let Some(job) = command.job() else { return Some(command) };
        if let Some(waiting) = self.waiting.get_mut(job) {
            waiting.push_back(command);
            return None;
        }
        if command.is_gate() {
            self.waiting.insert(job.to_owned(), VecDeque::new());
        }
        Some(command)
    }

    /// A job's record is durable: takes out what waited for it. Each command must pass again, because one of them may be
    /// such a record, too.
    pub fn open(&mut self, job: &str) -> VecDeque<Command> {
        self.waiting.remove(job).unwrap_or_default()
    }

    /// Jobs that wait for a record.
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        self.waiting.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_for_its_record_and_others_do_not() {
        let mut gate = Gate::default();
        let record = |job: &str| Command::RecordResumed { job: job.to_owned() };
        let changed = |job: &str| Command::JobChanged { job: job.to_owned() };
        assert_eq!(gate.pass(record("a")), Some(record("a")));
        assert_eq!(gate.pass(changed("a")), None);
        assert_eq!(gate.pass(changed("b")), Some(changed("b")));
        assert_eq!(gate.pass(record("a")), None);
        assert_eq!(gate.pass(changed("a")), None);
        assert_eq!(gate.waiting().collect::<Vec<_>>(), ["a"]);
        let passed: Vec<Command> = gate.open("a").into_iter().filter_map(|c| gate.pass(c)).collect();
        assert_eq!(passed, [changed("a"), record("a")], "the second record closes the gate again");
        assert_eq!(gate.open("a"), [changed("a")]);
        assert_eq!(gate.pass(changed("a")), Some(changed("a")));
    }
}
