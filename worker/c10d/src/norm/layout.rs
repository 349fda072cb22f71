//! Which groups of lanes are here, and which of them span ranks.

use tch::{Kind, Tensor};

use crate::error::Error;
use crate::ffi;
use crate::group::ProcessGroup;

/// A group of lanes that has lanes on this rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalGroup {
    /// The group's number, from 0, over all lanes of the job.
    pub group: u32,
    /// Its first lane here, counted inside the group.
    pub first: u32,
    /// How many of its lanes are here. They follow each other.
    pub lanes: u32,
    /// Whether all of its lanes are here.
    pub complete: bool,
}

/// How the lanes of a job share batch statistics, seen from one rank. Group `g` is the lanes from `g * size` to
/// `(g + 1) * size`, wherever they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormLayout {
    local: Vec<LocalGroup>,
    /// Groups whose sums are all-reduced, the same list on all ranks.
    shared: Vec<u32>,
    /// Local groups that this rank takes into the running statistics, as flags beside `local`.
    counts: Vec<bool>,
    groups: u32,
    size: u32,
    reproducible: bool,
}

impl NormLayout {
    /// The layout of a rank that computes `my_lanes` (ascending) of `total_lanes`, in groups of `norm_group_lanes`,
    /// which divides the total.
    ///
    /// Without knowing who has the other lanes it treats every group as spread over ranks, unless groups are single
    /// lanes or all lanes are here. [`NormLayout::agree`] makes it lean.
    #[must_use]
    pub fn new(total_lanes: u32, norm_group_lanes: u32, my_lanes: &[u32]) -> Self {
        let size = norm_group_lanes.max(1);
        let groups = total_lanes.div_ceil(size);
        let mut local: Vec<LocalGroup> = Vec::new();
        for lane in my_lanes {
            match local.last_mut() {
                Some(last) if last.group == lane / size => last.lanes += 1,
                _ => local.push(LocalGroup { group: lane / size, first: lane % size, lanes: 1, complete: false }),
            }
        }
        for group in &mut local {
            group.complete = group.lanes == size;
        }
        let alone = u32::try_from(my_lanes.len()).is_ok_and(|mine| mine == total_lanes);
        let shared = if alone || size == 1 { Vec::new() } else { (0..groups).collect() };
        let counts = vec![true; local.len()];
        Self { local, shared, counts, groups, size, reproducible: false }
    }

    /// Statistics whose bits do not depend on who has which lanes: sums are taken lane by lane, every rank learns those
    /// of all lanes, and adds them in the order of lanes. Costs an all-reduce of all lanes' sums per layer.
    #[must_use]
    pub fn reproducible(mut self) -> Self {
        self.reproducible = true;
        self.shared = (0..self.groups).collect();
        self
    }

    /// Whether results are independent of who has which lanes, bit by bit.
    #[must_use]
    pub fn is_reproducible(&self) -> bool {
        self.reproducible
    }

    /// Asks the other ranks who has which lanes, so that only groups that do span ranks are all-reduced. Collective:
    /// every rank calls it once, with layouts of the same job.
    ///
    /// # Errors
    /// When a peer is lost, or the ranks' lanes do not make up whole groups.
    pub fn agree(&self, pg: &ProcessGroup) -> Result<Self, Error> {
        let mut mine = vec![0_i64; self.groups as usize];
        for group in &self.local {
            mine[group.group as usize] = i64::from(group.lanes);
        }
        let held = pg.all_gather(&Tensor::from_slice(&mine).to_device(pg.device()))?;
        let held: Vec<Vec<i64>> = held.iter().map(read).collect::<Result<_, _>>()?;
        let mut layout = self.clone();
        if !self.reproducible {
            layout.shared.clear();
        }
        let mut owners = Vec::new();
        for group in 0..self.groups {
            let lanes: Vec<i64> = held.iter().map(|rank| rank[group as usize]).collect();
            if lanes.iter().sum::<i64>() != i64::from(self.size) {
                let reason = format!("the ranks have {lanes:?} lanes of group {group}, which has {}", self.size);
                return Err(Error::Argument { operation: "norm layout", reason });
            }
            if !self.reproducible && lanes.iter().filter(|&&n| n > 0).count() > 1 {
                layout.shared.push(group);
            }
            owners.push(lanes.iter().position(|&n| n > 0).unwrap_or_default());
        }
        layout.counts = self.local.iter().map(|local| owners[local.group as usize] == pg.rank()).collect();
        Ok(layout)
    }

    /// The groups with lanes here, in order.
    #[must_use]
    pub fn local_groups(&self) -> &[LocalGroup] {
        &self.local
    }

    /// The groups whose sums are all-reduced, the same on all ranks.
    #[must_use]
    pub fn shared_groups(&self) -> &[u32] {
        &self.shared
    }

    /// Groups of the job.
    #[must_use]
    pub fn groups_total(&self) -> u32 {
        self.groups
    }

    /// Lanes in a whole group.
    #[must_use]
    pub fn lanes_per_group(&self) -> u32 {
        self.size
    }

    /// Lanes on this rank.
    #[must_use]
    pub fn local_lanes(&self) -> u32 {
        self.local.iter().map(|group| group.lanes).sum()
    }

    /// Whether each forward pass shows every rank the statistics of all groups, so that running buffers are right
    /// without [`super::average_running`]. The same answer on all ranks: a rank that sees all groups while another does
    /// not must still join the average.
    #[must_use]
    pub fn running_is_exact(&self) -> bool {
        self.shared_is_everything() || self.local_lanes() == self.groups * self.size
    }

    pub(super) fn shared_is_everything(&self) -> bool {
        self.shared.len() == self.groups as usize
    }

    /// This rank's share in the mean of running buffers: the part of all groups that it takes in.
    pub(super) fn running_weight(&self) -> f64 {
        f64::from(self.counted()) / f64::from(self.groups)
    }

    fn counted(&self) -> u32 {
        self.counts.iter().map(|&counts| u32::from(counts)).sum()
    }

    pub(super) fn describe(&self, group: &LocalGroup) -> ffi::NormGroup {
        let place = |list: &[u32]| list.iter().position(|&g| g == group.group);
        let shared = place(&self.shared).and_then(|at| i64::try_from(at).ok()).unwrap_or(-1);
        let index = self.local.iter().position(|local| local == group);
        let (first, lanes) = (i64::from(group.first), i64::from(group.lanes));
        ffi::NormGroup { first, lanes, shared, counts: index.is_some_and(|at| self.counts[at]) }
    }
}

fn read(tensor: &Tensor) -> Result<Vec<i64>, Error> {
    Vec::<i64>::try_from(tensor.to_device(tch::Device::Cpu).to_kind(Kind::Int64))
        .map_err(|e| Error::Argument { operation: "norm layout", reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_fall_into_groups() {
        let layout = NormLayout::new(5, 5, &[3, 4]);
        assert_eq!(layout.local_groups(), [LocalGroup { group: 0, first: 3, lanes: 2, complete: false }]);
        assert_eq!(layout.shared_groups(), [0]);
        assert!(layout.running_is_exact());

        let layout = NormLayout::new(6, 2, &[1, 2, 3]);
        assert_eq!(
            layout.local_groups(),
            [
                LocalGroup { group: 0, first: 1, lanes: 1, complete: false },
                LocalGroup { group: 1, first: 0, lanes: 2, complete: true }
            ]
        );
        assert_eq!((layout.groups_total(), layout.local_lanes()), (3, 3));
    }

    #[test]
    fn nothing_is_shared_where_all_lanes_are_here_or_groups_are_lanes() {
        let all = NormLayout::new(4, 2, &[0, 1, 2, 3]);
        assert!(all.shared_groups().is_empty() && all.running_is_exact());
        let single = NormLayout::new(4, 1, &[0, 1]);
        assert!(single.shared_groups().is_empty());
        assert!(!single.running_is_exact());
        assert!((single.running_weight() - 0.5).abs() < f64::EPSILON);
    }
}
