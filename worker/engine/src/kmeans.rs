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

/// What K-means found.
#[derive(Debug)]
pub(crate) struct Clusters {
    /// (L, B, S) int64: -1 where a lane has no such region.
    pub(crate) labels: Tensor,
    /// (L) int64: assignments made.
    pub(crate) iterations: Tensor,
}

/// Clusters points (L, B, S, C) float32 lane by lane; of each image of lane `l` the first `regions[l]` count.
/// `apart`: what a lane gets must not depend on those beside it.
pub(crate) fn cluster(
    points: &Tensor,
    regions: &[i64],
    start: &Start,
    settings: Settings,
    apart: bool,
) -> Result<Clusters, StepError> {
    if points.device() != Device::Cpu {
        return if apart {
            one_by_one(points, regions, start, settings)
        } else {
            device::cluster(points, regions, start, settings)
        };
    }
    let start = match start {
        Start::Centres(centres) => r2o_aten::Start::Centres(centres),
        Start::PlusPlus(uniforms) => r2o_aten::Start::PlusPlus(uniforms),
    };
    let Settings { clusters, max_iterations, tolerance } = settings;
    let regions = Tensor::from_slice(regions);
    let found = r2o_aten::kmeans(&points.contiguous(), &regions, start, clusters, max_iterations, tolerance)?;
    Ok(Clusters { labels: found.labels, iterations: found.iterations })
}

/// Each lane by itself, with the points that it has: libraries choose their kernels by the sizes of what they are given.
fn one_by_one(points: &Tensor, regions: &[i64], start: &Start, settings: Settings) -> Result<Clusters, StepError> {
    let most = points.size()[2];
    let (mut labels, mut iterations) = (Vec::new(), Vec::new());
    for (&own, lane) in regions.iter().zip(0..) {
        let one = |tensor: &Tensor| tensor.narrow(0, lane, 1);
        let start = match start {
            Start::Centres(centres) => Start::Centres(one(centres)),
            Start::PlusPlus(uniforms) => Start::PlusPlus(one(uniforms)),
        };
        let found = device::cluster(&one(points).narrow(2, 0, own), &[own], &start, settings)?;
        // Padding is 0 and what does not exist is -1.
        labels.push((found.labels + 1).f_constant_pad_nd([0, most - own])? - 1);
        iterations.push(found.iterations);
    }
    Ok(Clusters { labels: Tensor::f_cat(&labels, 0)?, iterations: Tensor::f_cat(&iterations, 0)? })
}
