//! One parameter for several lanes beside lanes of their own.
#![allow(clippy::unwrap_used)]

use r2o_aten::{channels_last, fan_out};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn leaf(value: &Tensor) -> Tensor {
    let shape = [&[2], value.size().as_slice()].concat();
    Tensor::zeros([1], (Kind::Double, Device::Cpu)).expand(shape, false).set_requires_grad(true)
}

/// Both parts of a leaf's gradient together.
fn whole(leaf: &Tensor) -> Tensor {
    leaf.grad().sum_dim_intlist(0, false, Kind::Double)
}

/// The parts of the sum of some lanes' gradients.
fn sum_of(gradients: &[Tensor], lanes: &[usize]) -> Tensor {
    let value = Tensor::zeros(gradients[0].size(), CPU);
    let leaf = leaf(&value);
    let copies = fan_out(&leaf, &value, lanes.len()).unwrap();
    let dots = copies.iter().zip(lanes).map(|(copy, lane)| (copy * &gradients[*lane]).sum(Kind::Float));
    Tensor::stack(&dots.collect::<Vec<_>>(), 0).sum(Kind::Float).backward();
    leaf.grad()
}

#[test]
fn lanes_gradients_add_up() {
    let value = channels_last(&Tensor::randn([8, 4, 3, 3], CPU)).unwrap();
    let images = Tensor::randn([3, 2, 4, 9, 9], CPU);
    let loss = |lane: i64, weight: &Tensor| {
        images.select(0, lane).conv2d(weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1).square().sum(Kind::Float)
    };
    let leaf = leaf(&value);
    let copies = fan_out(&leaf, &value, 3).unwrap();
    assert!(copies.iter().all(|copy| copy.data_ptr() == value.data_ptr() && copy.requires_grad()));
    let losses: Vec<_> = (0..3).map(|lane| loss(lane, &copies[lane as usize])).collect();
    Tensor::stack(&losses, 0).sum(Kind::Float).backward();

    let mut expected = Tensor::zeros(value.size(), (Kind::Double, Device::Cpu));
    for lane in 0..3 {
        let alone = value.copy().set_requires_grad(true);
        loss(lane, &alone).backward();
        expected += alone.grad().to_kind(Kind::Double);
    }
    assert_eq!(leaf.grad().kind(), Kind::Double);
    assert_eq!(whole(&leaf), expected, "bit by bit: these fit in the parts");
}

#[test]
fn sums_are_the_same_bits_whoever_adds_which_lanes() {
    // Magnitudes 2^30 apart, where adding up in float64 alone depends on the order.
    let scale = |lane: i64| (Tensor::randn([4096], CPU) * 10.0).clamp(-30.0, 14.0 - lane as f64).exp2();
    let gradients: Vec<Tensor> = (0..8).map(|lane| scale(lane) * Tensor::randn([4096], CPU)).collect();
    let naive = |lanes: &[usize]| {
        lanes.iter().fold(Tensor::zeros([4096], (Kind::Double, Device::Cpu)), |sum, lane| sum + &gradients[*lane])
    };
    assert_ne!(naive(&[0, 1, 2, 3, 4, 5, 6, 7]), naive(&[7, 3, 0, 5, 2, 6, 1, 4]), "the numbers ask for nothing");
    let one = sum_of(&gradients, &[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(sum_of(&gradients, &[7, 3, 0, 5, 2, 6, 1, 4]), one);
    let two = sum_of(&gradients, &[6, 1, 2]) + sum_of(&gradients, &[5, 0, 7, 3, 4]);
    assert_eq!(two, one);
    let three = sum_of(&gradients, &[4]) + (sum_of(&gradients, &[0, 1]) + sum_of(&gradients, &[2, 3, 7, 6, 5]));
    assert_eq!(three, one);
    let error = (one.sum_dim_intlist(0, false, Kind::Double) - naive(&[0, 1, 2, 3, 4, 5, 6, 7])).abs().max();
    assert!(f64::try_from(error).unwrap() < 1e-11);
}

#[test]
fn a_lane_that_is_not_used_adds_nothing() {
    let value = Tensor::ones([5], CPU);
    let leaf = leaf(&value);
    let copies = fan_out(&leaf, &value, 2).unwrap();
    (&copies[1] * 3.0).sum(Kind::Float).backward();
    assert_eq!(Vec::<f64>::try_from(whole(&leaf)).unwrap(), [3.0; 5]);
}

#[test]
fn a_leaf_that_does_not_fit_is_refused() {
    let value = Tensor::ones([2, 3], CPU);
    let error = fan_out(&Tensor::ones([2, 2, 3], CPU), &value, 2).unwrap_err();
    assert!(error.to_string().contains("expected Double [2, 2, 3]"), "{error}");
    assert!(fan_out(&Tensor::ones([2, 3], (Kind::Double, Device::Cpu)), &value, 2).is_err());
}
