//! torchvision's `RandomResizedCrop`: area 8 % to 100 %, ratio 3/4 to 4/3, ten tries, then the centre.

use r2o_types::Keyed;

use crate::resize::Crop;

const SCALE: [f64; 2] = [0.08, 1.0];
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
const TRIES: usize = 10;

pub(super) fn random_resized(keyed: &mut Keyed, width: u32, height: u32) -> Crop {
    let (w, h) = (f64::from(width), f64::from(height));
    // All tries are drawn, used or not, so that what follows has a fixed place in the stream.
    let tries: [[f64; 4]; TRIES] = std::array::from_fn(|_| std::array::from_fn(|_| keyed.uniform()));
    for [area, ratio, top, left] in tries {
        let area = w * h * (SCALE[0] + (SCALE[1] - SCALE[0]) * area);
        let ratio = (RATIO[0].ln() + (RATIO[1].ln() - RATIO[0].ln()) * ratio).exp();
        let crop_width = (area * ratio).sqrt().round_ties_even();
        let crop_height = (area / ratio).sqrt().round_ties_even();
        if (1.0..=w).contains(&crop_width) && (1.0..=h).contains(&crop_height) {
            let top = (top * (h - crop_height + 1.0)).floor();
            let left = (left * (w - crop_width + 1.0)).floor();
            return whole_pixels(left, top, crop_width, crop_height);
        }
    }
    centre(w, h)
}

fn centre(w: f64, h: f64) -> Crop {
    let (width, height) = if w / h < RATIO[0] {
        (w, (w / RATIO[0]).round_ties_even().min(h))
    } else if w / h > RATIO[1] {
        ((h * RATIO[1]).round_ties_even().min(w), h)
    } else {
        (w, h)
    };
    whole_pixels(((w - width) / 2.0).floor(), ((h - height) / 2.0).floor(), width, height)
}

fn whole_pixels(left: f64, top: f64, width: f64, height: f64) -> Crop {
    Crop { left: left as u32, top: top as u32, width: width as u32, height: height as u32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_crop_lies_inside_the_picture(width in 1_u32..2000, height in 1_u32..2000, sample: u64) {
            let mut keyed = Keyed::new("test", &[sample]);
            let crop = random_resized(&mut keyed, width, height);
            prop_assert!(crop.width >= 1 && crop.height >= 1);
            prop_assert!(crop.left + crop.width <= width);
            prop_assert!(crop.top + crop.height <= height);
        }
    }

    #[test]
    fn a_strip_falls_back_to_its_centre() {
        let crop = random_resized(&mut Keyed::new("test", &[]), 1000, 10);
        assert_eq!((crop.width, crop.height, crop.top), (13, 10, 0));
        assert_eq!(crop.left, 493);
    }
}
