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
