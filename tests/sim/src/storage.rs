//! The object store: journal, leases of coordinators, and each job's checkpoints. What an operation does happens at one
//! moment; the answer comes later, or not at all.

use std::collections::BTreeMap;

use r2o_coordinator_core::Tensor;

use crate::dice::mix;

/// A stored tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object {
    pub(crate) state: u64,
    pub(crate) damaged: bool,
}

impl Object {
    /// The state that its bytes are of.
    fn read(&self) -> u64 {
        if self.damaged { mix(self.state, 0xdead) } else { self.state }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) put_at: u64,
    pub(crate) generation: u64,
    pub(crate) tensors: Vec<Tensor>,
}

/// One job's storage.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) manifests: BTreeMap<u64, Manifest>,
    pub(crate) objects: BTreeMap<String, Object>,
    /// Checkpoints that were damaged.
    pub(crate) damaged_steps: Vec<u64>,
}

/// A checkpoint that passes its checksums: the states that its tensors are of.
pub(crate) type Whole = Vec<u64>;

impl Place {
    pub(crate) fn missing(&self, tensors: &[Tensor]) -> bool {
        tensors.iter().any(|t| !self.objects.contains_key(&t.blake3))
    }

    /// The states of a checkpoint's tensors, or `None` when it is not whole.
    pub(crate) fn whole(&self, step: u64, trusting: bool) -> Option<Whole> {
        let manifest = self.manifests.get(&step)?;
        let object = |t: &Tensor| self.objects.get(&t.blake3).filter(|o| trusting || !o.damaged).map(Object::read);
        manifest.tensors.iter().map(object).collect()
    }

    /// The newest whole checkpoint: `Err` when there are some and none is whole.
    pub(crate) fn newest(&self, trusting: bool) -> Result<Option<(u64, u64)>, ()> {
        for (step, manifest) in self.manifests.iter().rev() {
            if self.whole(*step, trusting).is_some() {
                return Ok(Some((*step, manifest.generation)));
            }
        }
        if self.manifests.is_empty() { Ok(None) } else { Err(()) }
    }

    /// Deletes all but the newest checkpoints, then the objects that only they used.
    pub(crate) fn retain(&mut self, last: usize) {
        let go: Vec<u64> = self.manifests.keys().rev().skip(last.max(1)).copied().collect();
        let gone: Vec<Manifest> = go.iter().filter_map(|step| self.manifests.remove(step)).collect();
        for tensor in gone.iter().flat_map(|m| &m.tensors) {
            let used = self.manifests.values().flat_map(|m| &m.tensors).any(|t| t.blake3 == tensor.blake3);
            if !used {
                self.objects.remove(&tensor.blake3);
            }
        }
    }

    /// Deletes the objects that no manifest names.
    pub(crate) fn sweep(&mut self) {
        let manifests = &self.manifests;
        let used = |id: &String| manifests.values().flat_map(|m| &m.tensors).any(|t| t.blake3 == *id);
        self.objects.retain(|id, _| used(id));
    }
}

/// A lease on the lead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) holder: u64,
    /// In milliseconds of its holder's clock.
    pub(crate) expires: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Storage {
    /// Records by number: who wrote them, and what.
    pub(crate) journal: BTreeMap<u64, (u64, Vec<u8>)>,
    pub(crate) leases: BTreeMap<u64, Lease>,
    pub(crate) places: BTreeMap<String, Place>,
    /// When a coordinator looked for a job's newest checkpoint the last time.
    pub(crate) searched: BTreeMap<(u64, String), u64>,
    /// Until when every operation fails.
    pub(crate) away_until: u64,
    /// Operations that fail, in a thousand.
    pub(crate) flaky: u64,
    /// Answers that are lost although the operation was done, in a thousand.
    pub(crate) mute: u64,
    /// How much longer than usual everything takes.
    pub(crate) slow: u64,
}

impl Storage {
    pub(crate) fn place(&mut self, job: &str) -> &mut Place {
        if !self.places.contains_key(job) {
            self.places.insert(job.to_owned(), Place::default());
        }
        self.places.get_mut(job).expect("it was just put")
    }

    /// Puts record `number` unless it is there; true when it is now `writer`'s. A number whose record was trimmed is free
    /// again, but the one before it is gone, too: a writer that was away so long must not take it, unless it is `blind`.
    pub(crate) fn append(&mut self, number: u64, writer: u64, record: &[u8], overwrite: bool, blind: bool) -> bool {
        let follows = match number.checked_sub(1) {
            Some(before) => self.journal.contains_key(&before),
            None => self.journal.keys().all(|there| *there == 0),
        };
        if overwrite || !self.journal.contains_key(&number) {
            if follows || blind || overwrite {
                self.journal.insert(number, (writer, record.to_vec()));
                return true;
            }
            return false;
        }
        self.journal.get(&number).is_some_and(|(by, there)| *by == writer && there == record)
    }
}
