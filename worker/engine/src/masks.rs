//! From the raw view and its prior to masks: features, prior pooling, K-means, label maps.

use r2o_types::MethodSpec;
use tch::{Kind, Tensor};

use crate::error::StepError;
use crate::kmeans::{self, Settings, Start};
use crate::lanes::by_lane;
use crate::norm::NormScope;
use crate::{loss, prior};

/// Above this K there is no K-means and the masks are the prior's regions.
pub(crate) const K_MAX: u32 = r2o_types::schedule::K_MAX;

/// Masks of the images of all local lanes, lane-major.
#[derive(Debug)]
pub(crate) struct Masks {
    /// (N, S) int64: cluster of each region, -1 where the lane has no such region.
    pub(crate) labels: Tensor,
    /// (N, M, M) int64
    pub(crate) map: Tensor,
    /// Masks per image.
    pub(crate) count: i64,
    /// (L) int64: assignments that K-means made; none where masks are the prior.
    pub(crate) iterations: Option<Tensor>,
}

impl Masks {
    /// One-hot (N, K, M, M).
    pub(crate) fn one_hot(&self) -> Tensor {
        let (images, side, _) = self.map.size3().unwrap_or_default();
        let mut maps = Tensor::zeros([images, self.count, side, side], (Kind::Float, self.map.device()));
        maps.scatter_value_(1, &self.map.unsqueeze(1), 1.0)
    }
}

/// Whether K-means runs.
pub(crate) fn predicted(method: &MethodSpec, k: u32) -> bool {
    method.mask_prediction.enabled && k <= K_MAX
}

/// Merges the prior's regions into K masks by K-means over C4 (N, C, g, g).
pub(crate) fn predict(
    c4: &Tensor,
    prior: &Tensor,
    regions: &[i64],
    start: &Start,
    settings: Settings,
    scope: &NormScope,
) -> Result<Masks, StepError> {
    let lanes = regions.len() as i64;
    let images = prior.size()[0];
    let most = regions.iter().copied().max().unwrap_or(1);
    let side = prior.size()[1] / 4;
    let points = by_lane(scope, [c4, prior], |lane, [c4, prior]| {
        // Apart from each other a lane is pooled to as many regions as it has, and then filled up.
        let own = if scope.lanes_apart().is_some() { regions[lane] } else { most };
        let pooled = loss::normalise(&prior::pool(c4, prior, own));
        Ok(pooled.f_constant_pad_nd([0, 0, 0, most - own])?)
    })?;
    let points = points.view([lanes, images / lanes, most, -1]);
    let apart = scope.lanes_apart().is_some();
    let found = kmeans::cluster(&points, regions, start, settings, apart)?;
    let labels = found.labels.view([images, most]);
    let dominant = prior::dominant(prior, side);
    let map = labels.gather(1, &dominant.view([images, -1]), false).view([images, side, side]);
    Ok(Masks { labels, map, count: settings.clusters, iterations: Some(found.iterations) })
}

/// The prior's regions themselves.
pub(crate) fn from_prior(prior: &Tensor, regions: i64, side: i64) -> Masks {
    let images = prior.size()[0];
    let labels = Tensor::arange(regions, (Kind::Int64, prior.device())).view([1, -1]).expand([images, regions], false);
    Masks { labels, map: prior::dominant(prior, side), count: regions, iterations: None }
}
