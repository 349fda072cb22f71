//! The words of reasons, and what to do about them.

use super::{Outcome, Reason, device_word};

impl Outcome {
    /// The word for programs; it never changes.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed { .. } => "Failed",
            Self::Cancelled { .. } => "Cancelled",
        }
    }
}

impl Reason {
    /// The word for programs, in CamelCase; it never changes.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Locating => "Locating",
            Self::NoWorkers { .. } => "NoWorkers",
            Self::NoSuchDevice { .. } => "NoSuchDevice",
            Self::TooFewWorkers { .. } => "TooFewWorkers",
            Self::OtherVersions { .. } => "OtherVersions",
            Self::Behind { .. } => "Behind",
            Self::Joining { .. } => "Joining",
            Self::Claiming { .. } => "Claiming",
            Self::Paused { .. } => "Paused",
            Self::BackingOff { .. } => "BackingOff",
            Self::Forming { .. } => "Forming",
            Self::Training { .. } => "Training",
            Self::HandingOver { .. } => "HandingOver",
            Self::LastCheckpoint => "LastCheckpoint",
            Self::CheckpointsFail { .. } => "CheckpointsFail",
            Self::JournalNotWritten { .. } => "JournalNotWritten",
            Self::Finalizing { .. } => "Finalizing",
            Self::Ended { outcome } => outcome.word(),
        }
    }

    /// Whether the job is held up until something outside of it changes, so that its events should say so. What has an
    /// event of its own, in the same words (a pause, the journal, the end), is not meant.
    #[must_use]
    pub fn is_wait(&self) -> bool {
        match self {
            Self::NoWorkers { .. }
            | Self::NoSuchDevice { .. }
            | Self::TooFewWorkers { .. }
            | Self::OtherVersions { .. }
            | Self::Behind { .. }
            | Self::Claiming { .. }
            | Self::BackingOff { .. }
            | Self::CheckpointsFail { .. } => true,
            Self::Locating
            | Self::Joining { .. }
            | Self::Paused { .. }
            | Self::Forming { .. }
            | Self::Training { .. }
            | Self::HandingOver { .. }
            | Self::LastCheckpoint
            | Self::JournalNotWritten { .. }
            | Self::Finalizing { .. }
            | Self::Ended { .. } => false,
        }
    }

    /// What a person can do about it, as what follows "try:"; `None`: nothing need be done. `job` is the job's name.
    #[must_use]
    pub fn hint(&self, job: &str) -> Option<String> {
        Some(match self {
            Self::Locating => "if it takes long, `r2octl events` says what is wrong with the job's storage".to_owned(),
            Self::NoWorkers { .. } => "start `r2o-worker run --coordinator URL` on each machine".to_owned(),
            Self::NoSuchDevice { device, .. } => format!(
                "start `r2o-worker run --device {word}` where there is one, or submit the job with another \
                 spec.fleet.device than {word}",
                word = device_word(*device)
            ),
            Self::TooFewWorkers { needed, free, busy } if free + busy >= *needed as usize => {
                "wait for the other jobs, raise spec.priority, or start more workers; `r2octl fleet` shows who has which"
                    .to_owned()
            }
            Self::TooFewWorkers { needed, free, busy } => {
                let missing = (*needed as usize).saturating_sub(free + busy);
                let workers = if missing == 1 { "worker" } else { "workers" };
                format!("start {missing} more {workers}, or lower spec.fleet.minWorkers")
            }
            Self::OtherVersions { version, .. } => {
                format!("start more workers of version {version}, or replace all of them by one version")
            }
            Self::Behind { job: ahead } => {
                format!("wait, raise spec.priority, or send the other back: `r2octl requeue {ahead}`")
            }
            Self::Paused { .. } => format!("let it go on by `r2octl resume {job}`"),
            Self::BackingOff { .. } => {
                format!("look for the cause in `r2octl logs {job}` and `r2octl events {job}` if it goes on")
            }
            Self::Forming { .. } => {
                format!("if it takes long, `r2octl logs {job}` says what the missing workers do")
            }
            Self::CheckpointsFail { .. } => {
                "mend the storage under spec.checkpoint.url (access, space); it is tried again until it works".to_owned()
            }
            Self::JournalNotWritten { .. } => {
                "mend the storage of the coordinator's --state (access, space); it is tried again until it works"
                    .to_owned()
            }
            Self::Ended { outcome: Outcome::Failed { .. } } => {
                format!("mend the cause (`r2octl logs {job}` says more), then `r2octl requeue {job}`")
            }
            Self::Ended { outcome: Outcome::Cancelled { .. } } => {
                format!("let it go on from its newest checkpoint by `r2octl requeue {job}`")
            }
            Self::Joining { .. }
            | Self::Claiming { .. }
            | Self::Training { .. }
            | Self::HandingOver { .. }
            | Self::LastCheckpoint
            | Self::Finalizing { .. }
            | Self::Ended { outcome: Outcome::Succeeded } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use r2o_types::Device;

    use super::*;

    fn all() -> Vec<Reason> {
        let text = str::to_owned;
        vec![
            Reason::Locating,
            Reason::NoWorkers { needed: 2 },
            Reason::NoSuchDevice { device: Device::Cuda, connected: 3 },
            Reason::TooFewWorkers { needed: 4, free: 1, busy: 3 },
            Reason::TooFewWorkers { needed: 4, free: 1, busy: 0 },
            Reason::OtherVersions { needed: 2, version: text("0.1.0"), free: 1, others: 3 },
            Reason::Behind { job: text("big") },
            Reason::Joining { free: 2, most: 8 },
            Reason::Claiming { workers: 2 },
            Reason::Paused { reason: text("the weekend") },
            Reason::BackingOff { failures: 3, last: text("worker w is lost") },
            Reason::Forming { generation: 4, missing: vec![text("w1"), text("w2")], more: 0 },
            Reason::Training { workers: 8 },
            Reason::HandingOver { reason: text("worker w drains") },
            Reason::LastCheckpoint,
            Reason::CheckpointsFail { last: text("no space left") },
            Reason::JournalNotWritten { reason: text("cannot reach s3://state") },
            Reason::Finalizing { outcome: Outcome::Succeeded },
            Reason::Ended { outcome: Outcome::Succeeded },
            Reason::Ended { outcome: Outcome::Failed { reason: text("the loss is NaN") } },
            Reason::Ended { outcome: Outcome::Cancelled { reason: text("enough") } },
        ]
    }

    #[test]
    fn every_reason_has_a_word_a_sentence_and_a_hint_where_there_is_something_to_do() {
        let mut text = String::new();
        for reason in all() {
            _ = writeln!(text, "{}: {reason}", reason.word());
            if let Some(hint) = reason.hint("demo") {
                _ = writeln!(text, "  try: {hint}");
            }
        }
        insta::assert_snapshot!(text, @r"
        Locating: looks for its newest checkpoint
          try: if it takes long, `r2octl events` says what is wrong with the job's storage
        NoWorkers: waits for workers: none is connected and the job needs at least 2
          try: start `r2o-worker run --coordinator URL` on each machine
        NoSuchDevice: waits for workers with device cuda: none of the 3 connected has it
          try: start `r2o-worker run --device cuda` where there is one, or submit the job with another spec.fleet.device than cuda
        TooFewWorkers: waits for workers: 1 free, 3 busy with other jobs, but the job needs at least 4
          try: wait for the other jobs, raise spec.priority, or start more workers; `r2octl fleet` shows who has which
        TooFewWorkers: waits for workers: 1 free, 0 busy with other jobs, but the job needs at least 4
          try: start 3 more workers, or lower spec.fleet.minWorkers
        OtherVersions: waits for workers of version 0.1.0: 1 are free and the job needs at least 2; 3 of other versions may not take part, because it is reproducible
          try: start more workers of version 0.1.0, or replace all of them by one version
        Behind: waits for workers: the free ones are kept for job big, which is ahead
          try: wait, raise spec.priority, or send the other back: `r2octl requeue big`
        Joining: starts in a moment with 2 workers, unless more join (it can use 8)
        Claiming: waits for 2 workers that finish their step for other jobs
        Paused: is paused until `r2octl resume`: the weekend
          try: let it go on by `r2octl resume demo`
        BackingOff: tries again in a moment, after 3 failures in a row without a new step; the last one: worker w is lost
          try: look for the cause in `r2octl logs demo` and `r2octl events demo` if it goes on
        Forming: generation 4 is being formed; not ready yet: w1, w2
          try: if it takes long, `r2octl logs demo` says what the missing workers do
        Training: trains on 8 workers
        HandingOver: trains to the end of the granted steps, then: worker w drains
        LastCheckpoint: all steps are done; writes the last checkpoint
        CheckpointsFail: checkpoints cannot be written: no space left
          try: mend the storage under spec.checkpoint.url (access, space); it is tried again until it works
        JournalNotWritten: waits for the coordinator's journal to be written: cannot reach s3://state
          try: mend the storage of the coordinator's --state (access, space); it is tried again until it works
        Finalizing: ends; writes history and report
        Succeeded: all epochs are done and saved
        Failed: the loss is NaN
          try: mend the cause (`r2octl logs demo` says more), then `r2octl requeue demo`
        Cancelled: cancelled: enough
          try: let it go on from its newest checkpoint by `r2octl requeue demo`
        ");
    }

    #[test]
    fn a_wait_says_what_to_do_unless_it_ends_by_itself() {
        for reason in all().into_iter().filter(Reason::is_wait) {
            assert!(reason.hint("demo").is_some() || matches!(reason, Reason::Claiming { .. }), "{reason:?}");
        }
    }
}
