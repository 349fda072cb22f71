//! K-means as batched operations, all lanes at once, without waiting for the device.

use tch::{Kind, Tensor};

use super::{Clusters, Settings, Start};
use crate::error::StepError;

/// Iterations between two looks at the device.
const LOOK_EVERY: i64 = 10;

/// Points of all lanes as (L, P, C), and which of them exist.
struct Points {
    x: Tensor,
    /// (L, P)
    norms: Tensor,
    /// (L, P) float: 1 where there is a point.
    exists: Tensor,
}

impl Points {
    fn new(points: &Tensor, regions: &[i64]) -> Self {
        let (lanes, images, most, channels) = points.size4().unwrap_or_default();
        let x = points.reshape([lanes, images * most, channels]);
        let device = points.device();
        let count = Tensor::from_slice(regions).to_device(device).view([-1, 1, 1]);
        let exists = Tensor::arange(most, (Kind::Int64, device)).view([1, 1, -1]).lt_tensor(&count);
        let exists = exists.expand([lanes, images, most], false).reshape([lanes, -1]).to_kind(Kind::Float);
        Self { norms: x.square().sum_dim_intlist(-1, false, Kind::Float), x, exists }
    }

    /// Squared distances (L, K, P) to centres (L, K, C); those next to 0 may come out a rounding below it.
    fn distances(&self, centres: &Tensor) -> Tensor {
        let norms = centres.square().sum_dim_intlist(-1, true, Kind::Float);
        self.norms.unsqueeze(1).baddbmm(centres, &self.x.transpose(1, 2), 1.0, -2.0).g_add_(&norms)
    }

    /// The points of these numbers: (L, T) to (L, T, C).
    fn at(&self, index: &Tensor) -> Tensor {
        let channels = self.x.size()[2];
        self.x.gather(1, &index.unsqueeze(-1).expand([-1, -1, channels], false), false)
    }

    /// Numbers (L, T) of points drawn by weights (L, P) with uniforms (L, T); by existence where all weights are 0.
    fn draw(&self, weights: &Tensor, uniforms: &Tensor) -> Tensor {
        let weights = weights.to_kind(Kind::Double);
        let any = weights.sum_dim_intlist(1, true, Kind::Double).gt(0.0);
        let weights = weights.where_self(&any, &self.exists.to_kind(Kind::Double));
        let sums = weights.cumsum(1, Kind::Double);
        let last = sums.size()[1] - 1;
        let wanted = uniforms * sums.narrow(1, last, 1);
        let sorter = None::<&Tensor>;
        wanted.contiguous().searchsorted(&sums, false, true, "right", sorter).clamp(0, last)
    }
}

pub(super) fn cluster(
    points: &Tensor,
    regions: &[i64],
    start: &Start,
    settings: Settings,
) -> Result<Clusters, StepError> {
    let (lanes, images, most, _) = points.size4()?;
    let points = Points::new(points, regions);
    let centres = match start {
        Start::Centres(centres) => centres.shallow_clone(),
        Start::PlusPlus(uniforms) => plus_plus(&points, &uniforms.to_device(points.x.device()), settings.clusters),
    };
    let (labels, iterations) = lloyd(&points, centres, settings);
    let nothing = Tensor::full_like(&labels, -1);
    let labels = labels.where_self(&points.exists.gt(0.5), &nothing).view([lanes, images, most]);
    Ok(Clusters { labels, iterations })
}

/// k-means++ with greedy candidates; (L, K, C).
fn plus_plus(points: &Points, uniforms: &Tensor, clusters: i64) -> Tensor {
    let first = points.draw(&points.exists, &uniforms.select(1, 0).narrow(1, 0, 1));
    let mut chosen = vec![points.at(&first)];
    let mut nearest = points.distances(&chosen[0]).clamp_min(0.0).squeeze_dim(1) * &points.exists;
    for k in 1..clusters {
        let drawn = points.draw(&nearest, &uniforms.select(1, k));
        let candidates = points.at(&drawn);
        let distances = points.distances(&candidates).clamp_min(0.0);
        let lowered = distances.minimum(&nearest.unsqueeze(1)) * points.exists.unsqueeze(1);
        let best = lowered.sum_dim_intlist(-1, false, Kind::Double).argmin(1, true);
        let pick = |t: &Tensor| t.gather(1, &best.unsqueeze(-1).expand([-1, -1, t.size()[2]], false), false);
        chosen.push(pick(&candidates));
        nearest = pick(&lowered).squeeze_dim(1);
    }
    Tensor::cat(&chosen, 1)
}

/// Lloyd's iterations; labels (L, P), and how many assignments it took (L).
fn lloyd(points: &Points, mut centres: Tensor, settings: Settings) -> (Tensor, Tensor) {
    let (lanes, clusters, _) = centres.size3().unwrap_or_default();
    let device = centres.device();
    let mut previous = Tensor::full([lanes], f64::INFINITY, (Kind::Double, device));
    let mut done = Tensor::zeros([lanes], (Kind::Bool, device));
    let mut labels = Tensor::zeros([lanes, points.x.size()[1]], (Kind::Int64, device));
    let mut iterations = Tensor::zeros([lanes], (Kind::Int64, device));
    let numbers = Tensor::arange(clusters, (Kind::Int64, device)).view([1, -1, 1]);
    let exists = points.exists.unsqueeze(1);
    for iteration in 0..settings.max_iterations {
        let (least, nearest) = points.distances(&centres).min_dim(1, false);
        labels = labels.where_self(&done.view([-1, 1]), &nearest);
        iterations = iterations.g_add_(&done.logical_not());
        let inertia = (least.clamp_min(0.0) * &points.exists).sum_dim_intlist(1, false, Kind::Double);
        done = done.logical_or(&(&inertia - &previous).abs().lt(settings.tolerance));
        previous = inertia;
        if iteration % LOOK_EVERY == LOOK_EVERY - 1 && done.all().int64_value(&[]) != 0 {
            break;
        }
        // Sums as a product: every point is read once, and no two are added to one place at a time, in whatever order.
        let membership = labels.unsqueeze(1).eq_tensor(&numbers) * &exists;
        let members = membership.sum_dim_intlist(-1, true, Kind::Float);
        let means = membership.bmm(&points.x) / members.clamp_min(1.0);
        let moves = members.gt(0.0).logical_and(&done.logical_not().view([-1, 1, 1]));
        centres = means.where_self(&moves, &centres);
    }
    (labels, iterations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmeans::{cluster as native, one_by_one, uniforms};

    /// The sequence of batched operations and the C++ routine find the same clusters.
    #[test]
    fn agrees_with_the_native_routine() {
        let (lanes, images, most, channels) = (3, 4, 20, 16);
        let centres = Tensor::randn([7, channels], (Kind::Float, tch::Device::Cpu)) * 3.0;
        let which = Tensor::randint(7, [lanes * images * most], (Kind::Int64, tch::Device::Cpu));
        let noise = Tensor::randn([lanes * images * most, channels], (Kind::Float, tch::Device::Cpu)) * 0.1;
        let points = (centres.index_select(0, &which) + noise).view([lanes, images, most, channels]);
        let regions = [20, 13, 17];
        for clusters in [1, 4, 7, 12] {
            let start = Start::PlusPlus(uniforms("test", &[vec![1], vec![2], vec![3]], clusters));
            let settings = Settings { clusters, max_iterations: 50, tolerance: 1e-6 };
            let batched = cluster(&points, &regions, &start, settings).unwrap();
            let whole = native(&points, &regions, &start, settings, false).unwrap();
            let apart = one_by_one(&points, &regions, &start, settings).unwrap();
            let numbers = |tensor: &Tensor| Vec::<i64>::try_from(tensor.reshape([-1])).unwrap();
            for found in [batched, apart] {
                assert_eq!(numbers(&found.labels), numbers(&whole.labels));
                assert_eq!(numbers(&found.iterations), numbers(&whole.iterations));
            }
        }
    }
}
