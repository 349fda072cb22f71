//! One parameter for several lanes beside lanes of their own.
#![allow(clippy::unwrap_used)]

use r2o_aten::{channels_last, fan_out};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn lanes_gradients_add_up_in_float64() {
    let value = channels_last(&Tensor::randn([8, 4, 3, 3], CPU)).unwrap();
    let images = Tensor::randn([3, 2, 4, 9, 9], CPU);
    let loss = |lane: i64, weight: &Tensor| {
        images.select(0, lane).conv2d(weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1).square().sum(Kind::Float)
    };
    let leaf = Tensor::zeros([1], (Kind::Double, Device::Cpu)).expand(value.size(), false).set_requires_grad(true);
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
    assert_eq!(leaf.grad(), expected, "bit by bit");
}

#[test]
fn a_lane_that_is_not_used_adds_nothing() {
    let value = Tensor::ones([5], CPU);
    let leaf = value.to_kind(Kind::Double).set_requires_grad(true);
    let copies = fan_out(&leaf, &value, 2).unwrap();
    (&copies[1] * 3.0).sum(Kind::Float).backward();
    assert_eq!(Vec::<f64>::try_from(leaf.grad()).unwrap(), [3.0; 5]);
}

#[test]
fn a_leaf_that_does_not_fit_is_refused() {
    let value = Tensor::ones([2, 3], CPU);
    let error = fan_out(&Tensor::ones([2, 3], CPU), &value, 2).unwrap_err();
    assert!(error.to_string().contains("expected Double [2, 3]"), "{error}");
    assert!(fan_out(&Tensor::ones([3], (Kind::Double, Device::Cpu)), &value, 2).is_err());
}
