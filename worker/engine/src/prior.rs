//! The prior's regions on coarser grids.
//!
//! The grids have a side of s/16 and s/4, so bilinear resizing of one-hot labels (align_corners=false) always weighs the
//! four pixels around the middle of a cell by a quarter each. Those four labels, the taps, are all that is needed; the
//! one-hot maps at full size never exist.

use tch::{Kind, Tensor};

/// Labels of the four middle pixels of each cell: (N, s, s) integers to (N, cells, cells, 4) int64.
pub(crate) fn taps(prior: &Tensor, cells: i64) -> Tensor {
    let side = prior.size()[1];
    let step = side / cells;
    let first = step / 2 - 1;
    let tap = |y: i64, x: i64| prior.slice(1, first + y, side, step).slice(2, first + x, side, step);
    Tensor::stack(&[tap(0, 0), tap(0, 1), tap(1, 0), tap(1, 1)], -1).to_kind(Kind::Int64)
}

/// Averages features under each region: features (N, C, g, g), prior (N, s, s), to (N, regions, C). A region's sum is
/// divided by its area, or by 1 where that is less; a region that an image lacks is zero.
pub(crate) fn pool(features: &Tensor, prior: &Tensor, regions: i64) -> Tensor {
    let (images, channels, cells, _) = features.size4().unwrap_or_default();
    let index = taps(prior, cells).view([images, cells * cells, 4]).transpose(1, 2);
    let quarter = Tensor::full([images, 4, cells * cells], 0.25, (Kind::Float, features.device()));
    let mut weights = Tensor::zeros([images, regions, cells * cells], (Kind::Float, features.device()));
    let weights = weights.scatter_add_(1, &index, &quarter);
    let area = weights.sum_dim_intlist(2, true, Kind::Float).clamp_min(1.0);
    let rows = features.permute([0, 2, 3, 1]).reshape([images, cells * cells, channels]).to_kind(Kind::Float);
    weights.bmm(&rows) / area
}

/// The region of greatest weight in each cell, ties to the lowest label: (N, s, s) to (N, cells, cells) int64.
pub(crate) fn dominant(prior: &Tensor, cells: i64) -> Tensor {
    let taps = taps(prior, cells);
    let votes = taps.unsqueeze(-1).eq_tensor(&taps.unsqueeze(-2)).sum_dim_intlist(-1, false, Kind::Int64);
    // More votes first, then the lower label; labels are below 2^32.
    let score = votes * (1_i64 << 32) - &taps;
    let chosen = score.argmax(-1, true);
    taps.gather(-1, &chosen, false).squeeze_dim(-1)
}

/// Regions of each lane: its greatest label plus one. The prior's images are lane-major.
pub(crate) fn regions_per_lane(prior: &Tensor, lanes: i64) -> Vec<i64> {
    let greatest = prior.reshape([lanes, -1]).amax([1], false).to_kind(Kind::Int64);
    Vec::<i64>::try_from(greatest).unwrap_or_default().into_iter().map(|label| label + 1).collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// One-hot labels, resized by libtorch.
    fn resized(labels: &Tensor, regions: i64, cells: i64) -> Tensor {
        let one_hot = labels.one_hot(regions).permute([0, 3, 1, 2]).to_kind(Kind::Float);
        one_hot.upsample_bilinear2d([cells, cells], false, None, None)
    }

    #[test]
    fn pooling_and_dominant_regions_are_those_of_resized_one_hot_maps() {
        for side in [32, 96, 224] {
            let (images, regions, channels) = (2, 5, 7);
            let labels = Tensor::randint(regions, [images, side, side], (Kind::Int64, Device::Cpu));
            let maps = resized(&labels, regions, side / 4);
            assert_eq!(dominant(&labels, side / 4), maps.argmax(1, false));

            let cells = side / 16;
            let features = Tensor::randn([images, channels, cells, cells], (Kind::Float, Device::Cpu));
            let weights = resized(&labels, regions, cells).flatten(2, 3);
            let area = weights.sum_dim_intlist(2, true, Kind::Float).clamp_min(1.0);
            let expected = (weights / area).bmm(&features.flatten(2, 3).transpose(1, 2));
            let difference = (pool(&features, &labels, regions) - expected).abs().max();
            assert!(f64::try_from(difference).unwrap() < 1e-5);
        }
    }

    #[test]
    fn regions_are_counted_per_lane() {
        let mut labels = Tensor::zeros([4, 32, 32], (Kind::Uint8, Device::Cpu));
        let _filled = labels.narrow(0, 1, 1).narrow(1, 3, 1).fill_(6);
        let _filled = labels.narrow(0, 2, 1).fill_(200);
        assert_eq!(regions_per_lane(&labels, 2), [7, 201]);
        assert_eq!(regions_per_lane(&labels.fill_(0), 4), [1; 4]);
    }
}
