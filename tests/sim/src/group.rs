//! Process groups: nobody leaves a collective before all members have entered it.

use std::collections::BTreeMap;
use std::sync::Arc;

use r2o_coordinator_core::LaneReport;

use crate::happening::Process;

/// What a member brings to a collective.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Brings {
    /// Itself: the forming of the group.
    Itself,
    /// The steps that its state holds.
    Steps(Option<u64>),
    /// The steps that its state holds, and the state, of which one member's is taken.
    State(Option<u64>, u64),
    /// A hash of its state.
    Digest(u64),
    /// The reports of its lanes at a step.
    Lanes(u64, Vec<LaneReport>),
}

impl Brings {
    fn kind(&self) -> (u8, u64) {
        match self {
            Self::Itself => (0, 0),
            Self::Steps(_) => (1, 0),
            Self::State(..) => (2, 0),
            Self::Digest(_) => (3, 0),
            Self::Lanes(step, _) => (4, *step),
        }
    }
}

/// How a collective ends for a member.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// What all members brought, in rank order.
    All(Arc<Vec<Brings>>),
    Failed(String),
}

/// A generation's members as they meet.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) members: Vec<Option<Process>>,
    /// What is brought to the collective that nobody has left yet: by rank, with the number of the member's task.
    pub(crate) entered: BTreeMap<usize, (Process, u64, Brings)>,
    /// Members whose part of the last collective is decided but who have not left it: process, number of task.
    pub(crate) leaving: BTreeMap<Process, u64>,
    pub(crate) broken: bool,
}

impl Group {
    pub(crate) fn new(world: usize) -> Self {
        Self { members: vec![None; world], entered: BTreeMap::new(), leaving: BTreeMap::new(), broken: false }
    }

    /// A member enters the next collective. `Some`: it was the last one; all that was brought.
    ///
    /// # Errors
    /// When members are in different collectives, which no correct fleet ever is.
    pub(crate) fn enter(
        &mut self,
        rank: usize,
        process: Process,
        number: u64,
        brings: Brings,
    ) -> Result<Option<Arc<Vec<Brings>>>, String> {
        if let Some((_, _, other)) = self.entered.values().next()
            && other.kind() != brings.kind()
        {
            return Err(format!("{brings:?} meets {other:?} in one collective"));
        }
        if let Some(slot) = self.members.get_mut(rank) {
            *slot = Some(process);
        }
        self.entered.insert(rank, (process, number, brings));
        if self.entered.len() < self.members.len() {
            return Ok(None);
        }
        let all = std::mem::take(&mut self.entered);
        self.leaving = all.values().map(|(process, number, _)| (*process, *number)).collect();
        Ok(Some(Arc::new(all.into_values().map(|(.., brings)| brings).collect())))
    }
}
