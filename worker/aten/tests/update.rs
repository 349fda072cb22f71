//! Updates beside their formulas, views and memory formats.
#![allow(clippy::unwrap_used)]

use r2o_aten::{LarsOptions, alias, channels_last, ema, is_channels_last, lars, norms};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
const OPTIONS: LarsOptions = LarsOptions { learning_rate: 0.3, momentum: 0.9, weight_decay: 1e-2, trust: 1e-3 };

/// The update as METHOD.md has it; (weight, momentum).
fn expected(weight: &Tensor, gradient: &Tensor, momentum: &Tensor, adapt: bool) -> (Tensor, Tensor) {
    let number = |t: &Tensor| f64::try_from(t.norm()).unwrap();
    let (w, g) = (number(weight), number(gradient));
    let decay = if adapt { OPTIONS.weight_decay } else { 0.0 };
    let ratio = if adapt && w > 0.0 && g > 0.0 { OPTIONS.trust * w / (g + decay * w) } else { 1.0 };
    let update = (gradient + weight * decay) * (ratio * OPTIONS.learning_rate);
    let momentum = momentum * OPTIONS.momentum + update;
    (weight - &momentum, momentum)
}

fn close(a: &Tensor, b: &Tensor) {
    let difference = f64::try_from((a - b).norm()).unwrap();
    assert!(difference <= 1e-6 * f64::try_from(b.norm()).unwrap().max(1.0), "{difference}");
}

fn check(kind: Kind) {
    let random = |shape: &[i64]| Tensor::randn(shape, CPU).to_kind(kind);
    let big = channels_last(&random(&[70, 50, 3, 3])).unwrap();
    let weights =
        [big, random(&[33]), random(&[40, 1000]), Tensor::zeros([4, 4], (kind, Device::Cpu)), random(&[4, 4])];
    let gradients: Vec<Tensor> = weights.iter().map(|w| random(&w.size())).collect();
    let _zeroed = gradients[4].shallow_clone().zero_();
    let momenta: Vec<Tensor> = weights.iter().map(|w| random(&w.size()) * 0.1).collect();
    let adapt = [true, false, true, true, true];
    let wanted: Vec<_> = (0..5).map(|i| expected(&weights[i], &gradients[i], &momenta[i], adapt[i])).collect();
    lars(&weights, &gradients, &momenta, &adapt, OPTIONS).unwrap();
    for i in 0..5 {
        close(&weights[i], &wanted[i].0);
        close(&momenta[i], &wanted[i].1);
    }
}

#[test]
fn lars_in_one_pass_is_its_formula() {
    check(Kind::Float);
}

#[test]
fn lars_by_foreach_is_its_formula() {
    // float64 takes the way of the GPU.
    check(Kind::Double);
}

#[test]
fn a_gradient_that_is_missing_is_named() {
    let weights = [Tensor::zeros([2], CPU)];
    let error = lars(&weights, &[Tensor::new()], &[Tensor::zeros([2], CPU)], &[true], OPTIONS).unwrap_err();
    assert!(error.to_string().contains("parameter 0 has no gradient"), "{error}");
    let error = lars(&weights, &[], &[], &[true], OPTIONS).unwrap_err();
    assert!(error.to_string().contains("[1, 0, 0, 1]"), "{error}");
}

#[test]
fn the_average_moves_by_tau() {
    for kind in [Kind::Float, Kind::Double] {
        let target = Tensor::randn([100_000], CPU).to_kind(kind);
        let online = Tensor::randn([100_000], CPU).to_kind(kind);
        let wanted = &target * 0.97 + &online * (1.0 - 0.97);
        ema(&[target.shallow_clone()], &[online.shallow_clone()], 0.97).unwrap();
        close(&target, &wanted);
        let before = target.copy();
        ema(&[target.shallow_clone()], &[online], 1.0).unwrap();
        assert_eq!(target, before, "tau = 1 changes nothing");
    }
}

#[test]
fn norms_do_not_depend_on_threads_or_layout() {
    let x = Tensor::randn([64, 32, 7, 7], CPU);
    let all = |threads| {
        tch::set_num_threads(threads);
        norms(&[x.shallow_clone(), x.narrow(0, 0, 3)]).unwrap()
    };
    let (one, two) = (all(1), all(2));
    assert_eq!(one, two);
    close(&one.get(0), &x.norm().to_kind(Kind::Double));
    assert!(norms(&[x.get(0) * f64::NAN]).unwrap().double_value(&[0]).is_nan());
}

#[test]
fn tensors_cut_from_a_buffer_share_its_memory() {
    let buffer = Tensor::arange(200, CPU);
    let filter = alias(&buffer, 16, &[2, 3, 3, 3], true).unwrap();
    assert!(is_channels_last(&filter).unwrap());
    assert_eq!(filter.double_value(&[0, 1, 0, 0]), 17.0);
    let vector = alias(&buffer, 100, &[5], true).unwrap().set_requires_grad(true);
    (&vector * 2.0).sum(Kind::Float).backward();
    assert_eq!(vector.grad().double_value(&[3]), 2.0);
    let _filled = buffer.shallow_clone().fill_(1.0);
    assert_eq!(vector.double_value(&[4]), 1.0);
    let error = alias(&buffer, 190, &[11], false).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
}

#[test]
fn errors_of_libtorch_come_back() {
    let error = channels_last(&Tensor::zeros([3], CPU)).unwrap_err();
    assert_eq!(error.operation, "channels_last");
    assert!(!error.reason.is_empty());
}
