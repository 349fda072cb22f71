//! K-means on the CPU, whole in C++ (cpp/kmeans.cpp).

use std::ptr::{null, null_mut};

use tch::{Device, Kind, Tensor};

use crate::{Error, ffi, run};

/// How the first centres are found.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Given: (L, K, C) float32.
    Centres(&'a Tensor),
    /// k-means++, with uniforms in [0, 1): (L, K, T) float64, T candidates per centre. The first centre uses only its
    /// first number.
    PlusPlus(&'a Tensor),
}

/// What K-means found.
#[derive(Debug)]
pub struct KMeans {
    /// (L, B, S) int64; -1 where an image of the lane has no such region.
    pub labels: Tensor,
    /// (L) float64: sum of squared distances to the nearest centre.
    pub inertia: Tensor,
    /// (L) int64: assignments made.
    pub iterations: Tensor,
}

/// Clusters the points of each lane on their own: squared Euclidean distance, ties to the lowest cluster, empty clusters
/// keep their centre, at most `max_iterations` assignments, stop when the inertia changes by less than `tolerance`. The
/// labels are those of the last assignment.
///
/// `points` is (L, B, S, C) float32 on the CPU, `regions` (L) int64: the first `regions[l]` points of each image of lane `l` count.
///
/// # Errors
/// When shapes do not fit.
pub fn kmeans(
    points: &Tensor,
    regions: &Tensor,
    start: Start<'_>,
    clusters: i64,
    max_iterations: i64,
    tolerance: f64,
) -> Result<KMeans, Error> {
    const OPERATION: &str = "kmeans";
    let refuse = |reason| Err(Error { operation: OPERATION, reason });
    let size = points.size();
    let on_cpu = |t: &Tensor, kind| t.device() == Device::Cpu && t.kind() == kind && t.is_contiguous();
    if size.len() != 4 || !on_cpu(points, Kind::Float) || !on_cpu(regions, Kind::Int64) || regions.size() != [size[0]] {
        return refuse(format!(
            "points {size:?} and regions {:?} are not (L,B,S,C) and (L) on the CPU",
            regions.size()
        ));
    }
    let (centres, uniforms) = match start {
        Start::Centres(t) if on_cpu(t, Kind::Float) && t.size() == [size[0], clusters, size[3]] => (t.as_ptr(), null()),
        Start::PlusPlus(t)
            if on_cpu(t, Kind::Double) && t.dim() == 3 && t.size()[..2] == [size[0], clusters] && t.size()[2] > 0 =>
        {
            (null(), t.as_ptr())
        }
        Start::Centres(t) | Start::PlusPlus(t) => {
            return refuse(format!("the start is {:?}, for {clusters} clusters of points {size:?}", t.size()));
        }
    };
    let (mut labels, mut inertia, mut iterations) = (null_mut(), null_mut(), null_mut());
    // SAFETY: all tensors are live, on the CPU, contiguous and of the shapes that the shim reads.
    run(OPERATION, || unsafe {
        ffi::r2o_aten_kmeans(
            points.as_ptr(),
            regions.as_ptr(),
            centres,
            uniforms,
            clusters,
            max_iterations,
            tolerance,
            &raw mut labels,
            &raw mut inertia,
            &raw mut iterations,
        )
    })?;
    // SAFETY: the shim made the three tensors, which this side owns.
    unsafe {
        Ok(KMeans {
            labels: Tensor::from_ptr(labels),
            inertia: Tensor::from_ptr(inertia),
            iterations: Tensor::from_ptr(iterations),
        })
    }
}
