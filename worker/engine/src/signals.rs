//! What tells an encoder that learns from one that collapses: looked at every few steps, in one of the worker's lanes.

use tch::{Device, Kind, Tensor};

use crate::error::StepError;
use crate::loss;
use crate::masks::Masks;
use crate::step::Forward;

/// Steps from one look to the next: a look takes as long as some hundredths of a step.
const EVERY: u64 = 10;

/// Whether this step is looked at.
pub(crate) fn due(step: u64) -> bool {
    step.is_multiple_of(EVERY)
}

/// Names and values, of this worker's first lane unless said otherwise:
///
/// - `similarity`: mean cosine of predictions and the target's projections of the same region in the other view.
/// - `embedding_std`: standard deviation of the target's projections of unit length, the mean over their D dimensions, times
///   sqrt(D): 1 where they point everywhere alike, 0 where all are one (Chen and He, 2021, section 4.1).
/// - `effective_rank`: of those projections, the exponential of their singular values' entropy (RankMe, Garrido et al., 2023):
///   from 1 to D.
/// - `kmeans_iterations`: mean over the worker's lanes.
/// - `masks_per_image`: masks that an image shows any of.
/// - `largest_mask_ratio`: share of an image that its largest mask takes.
pub(crate) fn signals(forward: &Forward) -> Result<Vec<(&'static str, f64)>, StepError> {
    tch::no_grad(|| {
        let first = |tensor: &Tensor| tensor.select(0, 0).detach();
        let (q, z) = (loss::normalise(&first(&forward.predictions)), loss::normalise(&first(&forward.projections)));
        let counts = first(&forward.weights).gt(0.0).unsqueeze(0).expand_as(&q.select(-1, 0));
        let cosines = (&q * &z).sum_dim_intlist(-1, false, Kind::Float);
        let shown = counts.sum(Kind::Double).clamp_min(1.0);
        let similarity = (cosines * &counts).sum(Kind::Double) / shown;
        let mut signals = vec![("similarity", f64::try_from(similarity)?)];

        let dimensions = z.size()[3];
        let rows = z.reshape([-1, dimensions]).f_index(&[Some(counts.reshape([-1]))])?;
        if rows.size()[0] > 1 {
            let spread = rows.f_std_dim(&[0_i64][..], false, false)?.mean(Kind::Double) * (dimensions as f64).sqrt();
            signals.push(("embedding_std", f64::try_from(spread)?));
            signals.push(("effective_rank", effective_rank(&rows)?));
        }
        if let Some(iterations) = &forward.masks.iterations {
            signals.push(("kmeans_iterations", f64::try_from(iterations.mean(Kind::Double))?));
        }
        let [count, largest] = sizes(&forward.masks, q.size()[1])?;
        signals.extend([("masks_per_image", count), ("largest_mask_ratio", largest)]);
        // Of what is not finite the step itself complains.
        signals.retain(|(_, value)| value.is_finite());
        Ok(signals)
    })
}

/// Of rows (n, D). The singular values are roots of the eigenvalues of a matrix of D x D, which is small whatever n is.
fn effective_rank(rows: &Tensor) -> Result<f64, StepError> {
    let gram = rows.tr().f_matmul(rows)?.to_device(Device::Cpu).to_kind(Kind::Double);
    if gram.isfinite().all().int64_value(&[]) == 0 {
        return Ok(f64::NAN);
    }
    let values = gram.f_linalg_eigvalsh("L")?.clamp_min(0.0).sqrt();
    let shares = &values / values.sum(Kind::Double).clamp_min(f64::MIN_POSITIVE);
    let entropy = -(&shares * shares.clamp_min(f64::MIN_POSITIVE).log()).sum(Kind::Double);
    Ok(f64::try_from(entropy)?.exp())
}

/// Masks that an image shows, and the share of the largest; means over the first `images`.
fn sizes(masks: &Masks, images: i64) -> Result<[f64; 2], StepError> {
    let map = masks.map.narrow(0, 0, images).reshape([images, -1]);
    let offsets = Tensor::arange(images, (Kind::Int64, map.device())).unsqueeze(1) * masks.count;
    let cells = (map + offsets).reshape([-1]).f_bincount(None::<&Tensor>, images * masks.count)?;
    let cells = cells.view([images, masks.count]).to_kind(Kind::Double);
    let shares = &cells / cells.sum_dim_intlist(1, true, Kind::Double);
    let count = cells.gt(0.0).sum_dim_intlist(1, false, Kind::Double).mean(Kind::Double);
    Ok([f64::try_from(count)?, f64::try_from(shares.amax([1], false).mean(Kind::Double))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn forward(predictions: Tensor, projections: Tensor, map: Tensor, count: i64) -> Forward {
        let size = predictions.size();
        Forward {
            masks: Masks { labels: Tensor::zeros([1, 1], (Kind::Int64, Device::Cpu)), map, count, iterations: None },
            predictions,
            projections,
            losses: Tensor::zeros([size[0]], CPU),
            valid: Tensor::zeros([size[0]], CPU),
            weights: Tensor::ones([size[0], size[2], size[3]], CPU),
        }
    }

    fn find(signals: &[(&str, f64)], name: &str) -> f64 {
        signals.iter().find(|(n, _)| *n == name).expect(name).1
    }

    #[test]
    fn spread_embeddings_and_collapsed_ones_are_told_apart() {
        let map = Tensor::from_slice(&[0_i64, 0, 0, 1, 2, 2, 2, 2]).view([2, 2, 2]);
        let spread = Tensor::randn([1, 2, 2, 200, 8], CPU);
        let seen = signals(&forward(spread.copy(), spread.copy(), map.copy(), 200)).unwrap();
        assert!((find(&seen, "similarity") - 1.0).abs() < 1e-5, "{seen:?}");
        assert!((find(&seen, "embedding_std") - 1.0).abs() < 0.05, "{seen:?}");
        assert!((7.5..=8.001).contains(&find(&seen, "effective_rank")), "{seen:?}");
        assert_eq!((find(&seen, "masks_per_image"), find(&seen, "largest_mask_ratio")), (1.5, 0.875));

        let one = Tensor::randn([1, 1, 1, 1, 8], CPU).expand([1, 2, 2, 200, 8], false);
        let seen = signals(&forward(spread, one, map, 200)).unwrap();
        assert!(find(&seen, "embedding_std") < 1e-3 && find(&seen, "effective_rank") < 1.1, "{seen:?}");
        assert!(find(&seen, "similarity").abs() < 0.2, "{seen:?}");
    }

    #[test]
    fn the_rank_is_of_singular_values() {
        // 3 and 1: shares of three quarters and one.
        let rows = Tensor::from_slice(&[3.0_f32, 0.0, 0.0, 1.0]).view([2, 2]);
        let entropy = -(0.75 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln());
        assert!((effective_rank(&rows).unwrap() - entropy.exp()).abs() < 1e-6);
    }

    #[test]
    fn regions_that_do_not_count_are_not_looked_at() {
        let map = Tensor::zeros([1, 2, 2], (Kind::Int64, Device::Cpu));
        let mut forward = forward(Tensor::randn([1, 2, 1, 4, 8], CPU), Tensor::randn([1, 2, 1, 4, 8], CPU), map, 4);
        forward.weights = Tensor::zeros([1, 1, 4], CPU);
        let seen = signals(&forward).unwrap();
        assert_eq!(find(&seen, "similarity"), 0.0);
        assert!(!seen.iter().any(|(name, _)| *name == "effective_rank"), "{seen:?}");
    }
}
