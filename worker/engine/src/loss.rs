//! Pooling under masks, and BYOL's loss over the regions that both views show.

use tch::{Kind, Tensor};

/// Averages features under each mask: masks (N, K, cells), features (N, C, g, g), to (N, K, C). A mask's sum is divided by
/// its mass, or by 1 where that is less.
pub(crate) fn pool(masks: &Tensor, features: &Tensor) -> Tensor {
    let (images, channels, height, width) = features.size4().unwrap_or_default();
    let mass = masks.sum_dim_intlist(2, true, Kind::Float).clamp_min(1.0);
    let rows = features.permute([0, 2, 3, 1]).reshape([images, height * width, channels]).to_kind(Kind::Float);
    (masks / mass).bmm(&rows)
}

/// What regions count for.
#[derive(Debug)]
pub(crate) struct Weighting {
    /// (L, B, K): 0 for a region that a view does not show.
    pub(crate) weights: Tensor,
    /// (L): regions that count, per image.
    pub(crate) valid: Tensor,
}

/// From masks aligned to both views, (L, B, K, cells) each.
pub(crate) fn weighting(view1: &Tensor, view2: &Tensor, threshold: f64, by_area: bool) -> Weighting {
    let mass = |masks: &Tensor| masks.sum_dim_intlist(-1, false, Kind::Float);
    let (mass1, mass2) = (mass(view1), mass(view2));
    let counts = mass1.gt(threshold).logical_and(&mass2.gt(threshold)).to_kind(Kind::Float);
    let images = counts.size()[1] as f64;
    let valid = counts.sum_dim_intlist([1, 2].as_slice(), false, Kind::Double) / images;
    let weights = if by_area { (mass1 + mass2) * 0.5 * counts } else { counts };
    Weighting { weights, valid }
}

/// The loss of each lane, (L): the weighted mean over both orders of the squared distance between normalised predictions
/// and projections (L, 2, B, K, D); 0 for a lane in which no region counts.
pub(crate) fn byol(predictions: &Tensor, projections: &Tensor, weights: &Tensor) -> Tensor {
    let distance = (normalise(predictions) - normalise(projections)).square().sum_dim_intlist(-1, false, Kind::Float);
    let all = [1, 2, 3];
    let weights = weights.unsqueeze(1);
    let sum = (distance * &weights).sum_dim_intlist(all.as_slice(), false, Kind::Float);
    let total = weights.sum_dim_intlist(all.as_slice(), false, Kind::Float) * 2.0;
    // Where nothing counts the sum is 0 already.
    sum / total.clamp_min(f64::from(f32::MIN_POSITIVE))
}

/// Rows of unit length; a row of zeros stays.
pub(crate) fn normalise(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2.0, [-1], true).clamp_min(1e-12);
    x / norm
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn no_valid_region_means_no_loss_and_no_gradient() {
        let q = Tensor::randn([2, 2, 3, 4, 5], CPU).set_requires_grad(true);
        let z = Tensor::randn([2, 2, 3, 4, 5], CPU);
        let weights = Tensor::zeros([2, 3, 4], CPU);
        let _filled = weights.select(0, 1).fill_(1.0);
        let losses = byol(&q, &z, &weights);
        assert_eq!(losses.double_value(&[0]), 0.0);
        assert!(losses.double_value(&[1]) > 0.0);
        losses.sum(Kind::Float).backward();
        assert_eq!(f64::try_from(q.grad().select(0, 0).norm()).unwrap(), 0.0);
        assert!(f64::try_from(q.grad().select(0, 1).norm()).unwrap() > 0.0);
    }

    #[test]
    fn area_weighs_regions() {
        // Two regions, masses 3 and 1 in view 1, 1 and 0 in view 2.
        let view1 = Tensor::from_slice(&[3.0_f32, 0.0, 1.0, 0.0]).view([1, 1, 2, 2]);
        let view2 = Tensor::from_slice(&[0.5_f32, 0.5, 0.0, 0.0]).view([1, 1, 2, 2]);
        let equal = weighting(&view1, &view2, 1e-3, false);
        assert_eq!(Vec::<f64>::try_from(equal.weights.to_kind(Kind::Double).view(-1)).unwrap(), [1.0, 0.0]);
        assert_eq!(equal.valid.double_value(&[0]), 1.0);
        let by_area = weighting(&view1, &view2, 1e-3, true);
        assert_eq!(Vec::<f64>::try_from(by_area.weights.to_kind(Kind::Double).view(-1)).unwrap(), [2.0, 0.0]);
    }

    #[test]
    fn opposite_directions_are_four_apart() {
        let q = Tensor::ones([1, 2, 1, 1, 4], CPU);
        assert!((byol(&q, &(&q * -2.0), &Tensor::ones([1, 1, 1], CPU)).double_value(&[0]) - 4.0).abs() < 1e-6);
        assert!(byol(&q, &(&q * 3.0), &Tensor::ones([1, 1, 1], CPU)).double_value(&[0]) < 1e-12);
    }
}
