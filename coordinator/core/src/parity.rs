//! Replica parity on-line: every so many steps each rank reports hashes of its state's tensors. A rank that differs from
//! most is named, sent away without its state, and let back in after a while, when it receives the state of the others.

use std::collections::BTreeMap;

use crate::state::Blame;
use crate::{Command, Core, Millis, Session, StepReport};

/// How often a worker may differ before it is not served any more: its memory or its processor is at fault.
const DIFFERS_MAX: u32 = 3;

/// Replicas that should be equal and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Ranks that differ from more than half; empty: there is no such half.
    pub(crate) odd: Vec<usize>,
    /// The first tensor in which somebody differs.
    pub(crate) tensor: String,
}

/// How the ranks' states differ after a step, by the hashes that they reported with it.
pub(crate) fn difference(parts: &[StepReport]) -> Option<Difference> {
    let digests: Vec<&[u64]> = parts.iter().map(|p| p.tensor_digests.as_slice()).collect();
    let hashed = digests.iter().all(|d| !d.is_empty());
    if !hashed || digests.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    let mut alike: BTreeMap<&[u64], Vec<usize>> = BTreeMap::new();
    for (rank, digest) in digests.iter().enumerate() {
        alike.entry(digest).or_default().push(rank);
    }
    let (most, ranks) = alike.iter().max_by_key(|(_, ranks)| ranks.len())?;
    let majority = ranks.len() * 2 > parts.len();
    let odd = if majority {
        (0..parts.len()).filter(|rank| ranks.binary_search(rank).is_err()).collect()
    } else {
        Vec::new()
    };
    let differs = |at: &usize| digests.iter().any(|d| d.get(*at) != most.get(*at));
    let at = (0..).find(differs).unwrap_or_default();
    let names = parts.iter().map(|p| &p.tensor_names).find(|names| !names.is_empty());
    let tensor = names.and_then(|names| names.get(at)).cloned().unwrap_or_else(|| format!("number {at}"));
    Some(Difference { odd, tensor })
}

impl Core {
    /// The generation ends. Those that differ are kept out of the next one, or, where nobody can say who is right, all go
    /// back to the newest checkpoint.
    pub(crate) fn on_difference(&mut self, now: Millis, name: &str, step: u64, difference: &Difference) {
        let Some(generation) = self.jobs.get(name).and_then(|job| job.active()) else { return };
        let members = generation.members.clone();
        let tensor = &difference.tensor;
        if difference.odd.is_empty() {
            let reason = format!(
                "the states of {} workers differ after step {step}, first in {tensor}, and no half of them agrees: all go \
                 back to the newest checkpoint",
                members.len()
            );
            self.announce(name, "ReplicasDiffer", reason.clone(), true);
            self.forget_state_of(name);
            self.end_generation(now, name, &reason, Blame::Infrastructure);
            return;
        }
        let mut named = Vec::new();
        for rank in &difference.odd {
            let Some(member) = members.get(*rank) else { continue };
            let message = format!(
                "worker {} holds another state after step {step} than the others, first in {tensor}: it is kept out for \
                 {} s and receives theirs then",
                member.worker,
                self.config.quarantine_ms / 1_000
            );
            self.announce(name, "ReplicaDiffers", message, true);
            self.quarantine(now, member.session);
            named.push((member.session, member.worker.clone()));
        }
        let names: Vec<&str> = named.iter().map(|(_, worker)| worker.as_str()).collect();
        let reason = format!("the state of {} differs from that of the others after step {step}", names.join(", "));
        self.end_generation(now, name, &reason, Blame::Infrastructure);
        for (session, worker) in &named {
            if self.suspects.get(worker).is_some_and(|times| *times >= DIFFERS_MAX) {
                let reason = format!("its state differed from its peers' {DIFFERS_MAX} times: is its memory sound?");
                self.out.push(Command::Disconnect { session: *session, reason: reason.clone(), refuse: true });
                self.lose(now, *session, &reason, false);
            }
        }
    }

    fn quarantine(&mut self, now: Millis, session: Session) {
        let until = now + self.config.quarantine_ms;
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.held = None;
            worker.quarantine = Some(until);
            *self.suspects.entry(worker.info.name.clone()).or_default() += 1;
        }
    }

    /// Lets those in again whose time is over.
    pub(crate) fn end_quarantines(&mut self, now: Millis) {
        for worker in self.workers.values_mut() {
            worker.quarantine.take_if(|until| *until <= now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(digests: &[u64], names: &[&str]) -> StepReport {
        StepReport {
            tensor_digests: digests.to_vec(),
            tensor_names: names.iter().map(|n| (*n).to_owned()).collect(),
            ..StepReport::default()
        }
    }

    #[test]
    fn the_odd_ranks_and_the_first_tensor_are_named() {
        let names = ["a", "b", "c"];
        assert_eq!(difference(&[part(&[1, 2, 3], &names), part(&[1, 2, 3], &[])]), None);
        assert_eq!(difference(&[part(&[], &[]), part(&[], &[])]), None, "nobody was asked");
        let odd = difference(&[part(&[1, 9, 8], &names), part(&[1, 2, 3], &[]), part(&[1, 2, 3], &[])]);
        assert_eq!(odd, Some(Difference { odd: vec![0], tensor: "b".into() }));
        let pair = difference(&[part(&[1, 2, 3], &names), part(&[1, 2, 4], &[])]);
        assert_eq!(
            pair,
            Some(Difference { odd: vec![], tensor: "c".into() }),
            "one of two cannot be told from the other"
        );
        let short = difference(&[part(&[1, 2], &names), part(&[1, 2, 3], &[]), part(&[1, 2, 3], &[])]);
        assert_eq!(short, Some(Difference { odd: vec![0], tensor: "c".into() }));
    }
}
