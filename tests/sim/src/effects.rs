//! Work on storage: takes time, fails, is done though its answer is lost, and comes back to whoever asked.

use crate::happening::{Answer, Happening, Op, Process, Up};
use crate::options::Plant;
use crate::storage::{Lease, Manifest, Object};
use crate::trace::Actor;
use crate::world::{MS, World};

impl Op {
    pub(crate) fn coordinator(&self) -> Option<Process> {
        match self {
            Self::Acquire { coordinator }
            | Self::Renew { coordinator }
            | Self::Replay { coordinator }
            | Self::Append { coordinator, .. }
            | Self::Locate { coordinator, .. }
            | Self::Admit { coordinator, .. }
            | Self::Check { coordinator, .. }
            | Self::Put { coordinator, .. }
            | Self::Finalize { coordinator, .. } => Some(*coordinator),
            Self::Trim { .. } | Self::Upload { .. } | Self::Load { .. } => None,
        }
    }

    pub(crate) fn process(&self) -> Option<Process> {
        match self {
            Self::Upload { process, .. } | Self::Load { process, .. } => Some(*process),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Acquire { .. } => "acquire",
            Self::Renew { .. } => "renew",
            Self::Replay { .. } => "replay",
            Self::Append { .. } => "append",
            Self::Trim { .. } => "trim",
            Self::Locate { .. } => "locate",
            Self::Admit { .. } => "admit",
            Self::Check { .. } => "check",
            Self::Put { .. } => "put manifest",
            Self::Finalize { .. } => "finalize",
            Self::Upload { .. } => "upload",
            Self::Load { .. } => "load",
        }
    }
}

impl World {
    /// Begins work on storage: its effect comes at a later moment, unless the process stops before.
    pub(crate) fn store(&mut self, op: Op) {
        let delay = self.dice.between(MS, 30 * MS) * (1 + self.storage.slow);
        self.after(delay, Happening::Effect { op: Box::new(op) });
    }

    pub(crate) fn effect(&mut self, op: Op) {
        // A request that is on its way arrives though its sender is stopped or gone, more often than not.
        let gone = op.coordinator().is_some_and(|id| !self.coordinators.contains_key(&id))
            || op.process().is_some_and(|id| !self.workers.contains_key(&id));
        if gone && self.dice.chance(500) {
            return;
        }
        let fails = self.storage.away_until > self.now || self.dice.chance(self.storage.flaky);
        let mute = !fails && self.dice.chance(self.storage.mute);
        let answer = if fails { Err("the storage does not answer".to_owned()) } else { Ok(self.carry_effect(&op)) };
        if fails || mute {
            self.count("storage failures");
            let name = op.name();
            self.say(Actor::Storage, if mute { "answer lost" } else { "fails" }, [0, 0], || name.to_owned());
        }
        let answer = if mute { Err("the storage's answer was lost".to_owned()) } else { answer };
        let delay = self.dice.between(MS, 20 * MS) * (1 + self.storage.slow);
        self.after(delay, Happening::Answered { op: Box::new(op), answer });
    }

    fn carry_effect(&mut self, op: &Op) -> Answer {
        let trusting = self.plants(Plant::TrustDamaged);
        match op {
            Op::Acquire { coordinator } => self.acquire(*coordinator),
            Op::Renew { coordinator } => self.renew(*coordinator),
            Op::Replay { .. } => {
                let records = self.storage.journal.iter().map(|(n, (_, bytes))| (*n, bytes.clone())).collect();
                Answer::Records(records)
            }
            Op::Append { coordinator, number, record } => {
                let (overwrite, blind) = (self.plants(Plant::JournalOverwrite), self.plants(Plant::TrimReopens));
                match self.storage.append(*number, *coordinator, record, overwrite, blind) {
                    true => {
                        let record = record.clone();
                        self.recorded(*coordinator, *number, &record);
                        Answer::Done
                    }
                    false => Answer::Taken,
                }
            }
            Op::Trim { below } => {
                self.storage.journal.retain(|number, _| number >= below);
                Answer::Done
            }
            Op::Locate { coordinator, job, .. } => self.search(*coordinator, job, trusting),
            Op::Admit { coordinator, job } => self.search(*coordinator, &format!("j{job}"), trusting),
            Op::Check { commit, .. } => match self.storage.place(&commit.job).missing(&commit.tensors) {
                true => Answer::Missing,
                false => Answer::Done,
            },
            Op::Put { commit, .. } => {
                let keep = self.course(&commit.job).job.spec.checkpoint.keep.last as usize;
                let place = self.storage.place(&commit.job);
                let (generation, tensors, put_at) = (commit.generation, commit.tensors.clone(), self.now);
                place.manifests.entry(commit.step).or_insert(Manifest { put_at, generation, tensors });
                if place.whole(commit.step, trusting).is_none() {
                    return Answer::Taken;
                }
                self.manifest_put(&commit.job, commit.step);
                self.storage.place(&commit.job).retain(keep);
                Answer::Done
            }
            Op::Finalize { job, .. } => {
                self.storage.place(job).sweep();
                Answer::Done
            }
            Op::Upload { upload, .. } => {
                let place = self.storage.place(&upload.job);
                for tensor in &upload.tensors {
                    let object = Object { state: upload.state, damaged: false };
                    // One that is there is checked, and replaced when it is damaged.
                    place.objects.insert(tensor.blake3.clone(), object);
                }
                Answer::Done
            }
            Op::Load { job, step, .. } => match self.storage.place(job).whole(*step, trusting) {
                Some(states) => Answer::Whole(states),
                None => Answer::Missing,
            },
        }
    }

    fn search(&mut self, id: Process, job: &str, trusting: bool) -> Answer {
        self.storage.searched.insert((id, job.to_owned()), self.now);
        match self.storage.place(job).newest(trusting) {
            Ok(newest) => Answer::Newest(newest),
            Err(()) => Answer::Unreadable,
        }
    }

    fn acquire(&mut self, id: Process) -> Answer {
        let Some(now) = self.coordinators.get(&id).map(|c| c.clock(self.now)) else { return Answer::Taken };
        let newest = self.storage.leases.last_key_value().map(|(number, lease)| (*number, *lease));
        // The holder's process can be seen to be dead where both run on one machine.
        let provable = self.dice.chance(500);
        let dead = |lease: &Lease| provable && !self.coordinators.contains_key(&lease.holder);
        if newest.is_some_and(|(_, lease)| lease.holder != id && lease.expires > now && !dead(&lease)) {
            return Answer::Taken;
        }
        let number = newest.map_or(0, |(number, _)| number + 1);
        let expires = now + self.scenario.leader_lease;
        self.storage.leases.insert(number, Lease { holder: id, expires });
        Answer::Done
    }

    fn renew(&mut self, id: Process) -> Answer {
        let Some(now) = self.coordinators.get(&id).map(|c| c.clock(self.now)) else { return Answer::Done };
        let expires = now + self.scenario.leader_lease;
        let mine = self.coordinators.get(&id).and_then(|c| c.lease);
        match (mine, self.storage.leases.last_key_value().map(|(number, _)| *number)) {
            (Some(mine), Some(newest)) if mine < newest => Answer::Taken,
            (Some(mine), _) => {
                self.storage.leases.insert(mine, Lease { holder: id, expires });
                Answer::Done
            }
            _ => Answer::Done,
        }
    }

    pub(crate) fn answered(&mut self, op: Op, answer: Result<Answer, String>) {
        if op.coordinator().is_some_and(|id| !self.coordinators.contains_key(&id)) {
            return self.unanswered(&op);
        }
        match op {
            Op::Acquire { coordinator } => match answer {
                Ok(Answer::Done) => {
                    let lease =
                        self.storage.leases.iter().rev().find(|(_, l)| l.holder == coordinator).map(|(n, _)| *n);
                    self.leads(coordinator, lease.unwrap_or(0));
                }
                _ => self.end_coordinator(coordinator, "it cannot have the lead"),
            },
            Op::Renew { coordinator } => {
                if matches!(answer, Ok(Answer::Taken)) {
                    self.end_coordinator(coordinator, "another coordinator took over");
                }
            }
            Op::Replay { coordinator } => match answer {
                Ok(Answer::Records(records)) => self.replayed(coordinator, &records),
                _ => self.end_coordinator(coordinator, "it cannot read the journal"),
            },
            Op::Append { coordinator, .. } => self.appended(coordinator, answer),
            Op::Trim { .. } => {}
            Op::Locate { coordinator, job, pause } => self.located(coordinator, job, pause, answer),
            Op::Admit { coordinator, job } => self.admitted(coordinator, job, answer),
            Op::Check { coordinator, commit } => self.checked(coordinator, commit, answer),
            Op::Put { coordinator, commit } => self.put(coordinator, *commit, answer),
            Op::Finalize { coordinator, job } => {
                self.feed(coordinator, r2o_coordinator_core::Event::Finalized { job });
            }
            Op::Upload { process, upload } => {
                if self.workers.contains_key(&process) {
                    let part = match answer {
                        Ok(Answer::Done) => Ok(upload.tensors),
                        Ok(_) => Err("an object did not read back as it was written".to_owned()),
                        Err(reason) => Err(reason),
                    };
                    let (generation, step) = (upload.generation, upload.step);
                    self.send_up(upload.stream, Up::Part { generation, step, part });
                }
            }
            Op::Load { process, number, .. } => self.loaded(process, number, answer),
        }
    }

    /// A person whose coordinator went away asks the next one.
    fn unanswered(&mut self, op: &Op) {
        if let Op::Admit { job, .. } = op {
            let wish = crate::happening::Wish::Submit;
            self.after(1_000 * MS, Happening::Wish { wish, job: *job });
        }
    }
}
