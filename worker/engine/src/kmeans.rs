//! K-means over the regions of each lane.
//!
//! On a CPU all of it runs in C++ (r2o-aten). Elsewhere it is a sequence of batched operations on the device, which are
//! queued without waiting for it: lanes that have converged are frozen by a mask, and whether all have is looked at only
//! every few iterations.

use r2o_types::random::Keyed;
use tch::{Device, Tensor};

use crate::error::StepError;

mod device;

/// K-means' settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) clusters: i64,
    pub(crate) max_iterations: i64,
    pub(crate) tolerance: f64,
}

/// Where the first centres come from.
#[derive(Debug)]
pub(crate) enum Start {
    /// (L, K, C)
    Centres(Tensor),
    /// k-means++ with these uniforms, (L, K, candidates) float64 on the CPU.
    PlusPlus(Tensor),
}

/// Candidates per centre of k-means++, as scikit-learn and the authors' release have it.
pub(crate) fn candidates(clusters: i64) -> i64 {
    2 + (clusters as f64).ln().floor() as i64
}

/// The uniforms of k-means++ for each of `keys` (one per lane): a function of the key and K alone.
pub(crate) fn uniforms(domain: &str, keys: &[Vec<u64>], clusters: i64) -> Tensor {
    let per_lane = clusters * candidates(clusters);
    let numbers: Vec<f64> = keys
        .iter()
        .flat_map(|key| {
            let mut random = Keyed::new(domain, key);
            (0..per_lane).map(move |_| random.uniform())
        })
        .collect();
    Tensor::from_slice(&numbers).view([keys.len() as i64, clusters, candidates(clusters)])
}

/// Clusters points (L, B, S, C) float32 lane by lane; of each image of lane `l` the first `regions[l]` count. Labels are
/// (L, B, S) int64, -1 elsewhere.
pub(crate) fn cluster(
    points: &Tensor,
    regions: &[i64],
    start: &Start,
    settings: Settings,
) -> Result<Tensor, StepError> {
    if points.device() != Device::Cpu {
        return device::cluster(points, regions, start, settings);
    }
    let start = match start {
        Start::Centres(centres) => r2o_aten::Start::Centres(centres),
        Start::PlusPlus(uniforms) => r2o_aten::Start::PlusPlus(uniforms),
    };
    let Settings { clusters, max_iterations, tolerance } = settings;
    let regions = Tensor::from_slice(regions);
    Ok(r2o_aten::kmeans(&points.contiguous(), &regions, start, clusters, max_iterations, tolerance)?.labels)
}
