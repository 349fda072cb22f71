//! RoIAlign (He et al., 2017) as torchvision.ops.roi_align with aligned=False and sampling_ratio=-1.
//!
//! A box has axes, so the weights of a sampling point are a product of a weight of its row and one of its column, and the
//! whole operation is `rows @ map @ columns^T` with two small matrices per image.

use tch::{Kind, Tensor};

/// The two matrices of each box.
#[derive(Debug)]
pub(crate) struct Aligner {
    /// (N, out, side)
    pub(crate) rows: Tensor,
    /// (N, out, side), mirrored where the view is flipped.
    pub(crate) columns: Tensor,
}

impl Aligner {
    /// For boxes (N, 4) of (y0, x0, y1, x1) in [0, 1] on maps of `side`, aligned to `out` cells, then mirrored where
    /// `flips` (N, bool).
    pub(crate) fn new(boxes: &Tensor, flips: &Tensor, side: i64, out: i64) -> Self {
        let edge = |i: i64| boxes.select(1, i).to_kind(Kind::Float) * side as f64;
        let columns = weights(&edge(1), &edge(3), side, out);
        let columns = columns.flip([1]).where_self(&flips.to_kind(Kind::Bool).view([-1, 1, 1]), &columns);
        Self { rows: weights(&edge(0), &edge(2), side, out), columns }
    }

    /// Aligns maps (N, K, side, side) to (N, K, out * out).
    pub(crate) fn apply(&self, maps: &Tensor) -> Tensor {
        let (images, count, side, _) = maps.size4().unwrap_or_default();
        let out = self.rows.size()[1];
        let across = maps.reshape([images, count * side, side]).bmm(&self.columns.transpose(1, 2));
        let across = across.view([images, count, side, out]);
        self.rows.unsqueeze(1).matmul(&across).reshape([images, count, out * out])
    }
}

/// The weights (N, out, side) of one axis; the steps are torchvision's, in float32, because the number of samples jumps
/// with the box's size.
fn weights(start: &Tensor, end: &Tensor, side: i64, out: i64) -> Tensor {
    let options = (Kind::Float, start.device());
    let length = (end - start).clamp_min(1.0);
    let bin = &length / out as f64;
    let samples = bin.ceil();
    // Boxes lie in the map, so no bin has more samples than this.
    let most = (side + out - 1) / out;
    let column = |t: &Tensor| t.view([-1, 1, 1]);
    let cell = Tensor::arange(out, options).view([1, -1, 1]);
    let sample = Tensor::arange(most, options).view([1, 1, -1]);
    let at = column(start) + cell * column(&bin) + (&sample + 0.5) * column(&bin) / column(&samples);
    let inside = at.ge(-1.0).logical_and(&at.le(side as f64)).logical_and(&sample.lt_tensor(&column(&samples)));
    let pixel = Tensor::arange(side, options).view([1, 1, 1, -1]);
    let hat = (-(at.clamp(0.0, (side - 1) as f64).unsqueeze(-1) - pixel).abs() + 1.0).clamp_min(0.0);
    let sum = (hat * inside.unsqueeze(-1)).sum_dim_intlist(2, false, Kind::Float);
    sum / column(&samples)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::SafeTensors;
    use tch::Device;

    use super::*;

    /// tests/parity/roi.py wrote what torchvision computes: whole maps, specks, boxes at the edges, mirrored ones.
    #[test]
    fn agrees_with_torchvision() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/fixtures/roi_align.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for side in [8_i64, 24, 56] {
            let read = |name: &str| {
                let view = file.tensor(&format!("{side}.{name}")).unwrap();
                let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
                Tensor::from_data_size(view.data(), &shape, Kind::Float)
            };
            let (boxes, flips, expected) = (read("boxes"), read("flips"), read("aligned"));
            let pixel = Tensor::arange(side, (Kind::Int64, Device::Cpu));
            let pattern = (pixel.unsqueeze(1) * 31 + pixel.unsqueeze(0) * 17).remainder(23);
            let maps = Tensor::stack(&[&pattern, &(&pattern + 7).remainder(23)], 0).to_kind(Kind::Float);
            let maps = maps.expand([boxes.size()[0], 2, side, side], false).contiguous();
            let aligned = Aligner::new(&boxes, &flips, side, side / 8).apply(&maps);
            let difference = f64::try_from((aligned - expected).abs().max()).unwrap();
            assert!(difference < 1e-4, "side {side}: {difference:.1e} of values up to 22");
        }
    }
}
