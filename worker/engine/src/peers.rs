//! What the workers of a group tell each other apart from gradients: how each lane fared, and the state itself.

use tch::Tensor;

use crate::engine::Engine;
use crate::error::{EngineError, StepError};

/// Numbers of the caller's own that every peer learns of a lane.
pub type LaneWords = [u64; 3];

/// How one lane fared in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneOutput {
    /// The lane.
    pub lane: u32,
    /// Loss.
    pub loss: f64,
    /// Regions that count, mean per image.
    pub valid_regions: f64,
    /// XXH3 of the mask labels; 0 unless the batch asks for it.
    pub mask_digest: u64,
    /// What the lane's worker said of it.
    pub words: LaneWords,
}

/// 64-bit numbers of a [`LaneOutput`], without the lane.
const WORDS: usize = 6;

impl LaneOutput {
    fn to_words(self) -> [i64; WORDS] {
        let [a, b, c] = self.words;
        [self.loss.to_bits(), self.valid_regions.to_bits(), self.mask_digest, a, b, c].map(u64::cast_signed)
    }

    fn from_words(lane: u32, words: &[i64]) -> Self {
        let word = |at: usize| words[at].cast_unsigned();
        let (loss, valid_regions) = (f64::from_bits(word(0)), f64::from_bits(word(1)));
        Self { lane, loss, valid_regions, mask_digest: word(2), words: [word(3), word(4), word(5)] }
    }
}

impl Engine {
    /// The outputs of all lanes. Whoever applies a step thus knows all that there is to report of it, should its peers go
    /// away before they reported their part. Collective.
    pub(crate) fn all_lanes(&self, local: &[LaneOutput]) -> Result<Vec<LaneOutput>, StepError> {
        let Some(group) = &self.scope.group else { return Ok(local.to_vec()) };
        let mut words = vec![0_i64; self.total_lanes as usize * WORDS];
        for output in local {
            let at = output.lane as usize * WORDS;
            words[at..at + WORDS].copy_from_slice(&output.to_words());
        }
        // Every other worker adds zeros.
        let mut table = Tensor::from_slice(&words).f_to_device(group.device())?;
        group.all_reduce_sum(&mut table)?;
        group.check("exchange of lanes")?;
        let words = Vec::<i64>::try_from(table.f_to_device(tch::Device::Cpu)?)?;
        Ok((0..).zip(words.chunks_exact(WORDS)).map(|(lane, words)| LaneOutput::from_words(lane, words)).collect())
    }

    /// Every member's word, by rank; without peers one's own. Collective.
    ///
    /// # Errors
    /// When a peer is lost.
    pub fn gather(&self, word: u64) -> Result<Vec<u64>, EngineError> {
        let Some(group) = &self.scope.group else { return Ok(vec![word]) };
        let mine = Tensor::from_slice(&[word.cast_signed()]).f_to_device(group.device())?;
        let all = group.all_gather(&mine)?;
        group.check("gather")?;
        all.iter().map(|t| Ok(t.f_int64_value(&[0])?.cast_unsigned())).collect()
    }

    /// Gives every member the state of rank `root`, bit by bit. After an error the state is of no use on any other rank.
    /// Collective.
    ///
    /// # Errors
    /// When a peer is lost.
    pub fn share_state(&mut self, root: usize) -> Result<(), EngineError> {
        let Some(group) = self.scope.group.clone() else { return Ok(()) };
        self.settle();
        let model = &self.model;
        let whole = [
            &model.online.flat,
            &model.online.flat_buffers,
            &model.target.flat,
            &model.target.flat_buffers,
            &model.momentum.flat,
        ];
        for tensor in whole {
            group.broadcast(&mut tensor.detach(), root)?;
        }
        Ok(group.check("exchange of the state")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_survive_the_way() {
        let lane =
            LaneOutput { lane: 3, loss: -0.5, valid_regions: 2.25, mask_digest: u64::MAX, words: [1, u64::MAX, 0] };
        assert_eq!(LaneOutput::from_words(3, &lane.to_words()), lane);
    }
}
