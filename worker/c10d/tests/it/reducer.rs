//! The reducer beside one process that holds all gradients.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use r2o_c10d::{Error, ProcessGroup, Reducer, ReducerOptions};
use tch::{Device, Kind, Tensor};

use crate::support::{difference, ranks, values};

const ROWS_PER_RANK: i64 = 4;
const STEPS: usize = 3;

/// A small net of several buckets' worth of parameters.
fn parameters() -> Vec<Tensor> {
    let shapes: [&[i64]; 4] = [&[64, 16], &[64], &[8, 64], &[8]];
    let init = |(i, shape): (usize, &&[i64])| (values(shape, i as f64) * 0.1).detach().set_requires_grad(true);
    shapes.iter().enumerate().map(init).collect()
}

fn rows(first: i64, count: i64) -> Tensor {
    values(&[64, 16], 9.0).narrow(0, first, count)
}

fn loss(params: &[Tensor], x: &Tensor) -> Tensor {
    let hidden = (x.matmul(&params[0].transpose(0, 1)) + &params[1]).tanh();
    (hidden.matmul(&params[2].transpose(0, 1)) + &params[3]).square().mean(Kind::Float)
}

/// Descends a few steps; the gradients of the last.
fn train(params: &[Tensor], mut backward: impl FnMut()) -> Vec<Tensor> {
    for _ in 0..STEPS {
        backward();
        tch::no_grad(|| params.iter().for_each(|p| drop(p.detach().subtract_(&(p.grad() * 0.5)))));
    }
    params.iter().map(|p| p.grad().copy()).collect()
}

pub(crate) fn train_one_rank(pg: &ProcessGroup) -> Vec<Tensor> {
    let params = parameters();
    // Tiny buckets, so that there are several.
    let options = ReducerOptions { bucket_mb: 0.002, first_bucket_mb: 0.0005, find_unused: false };
    let reducer = Reducer::new(pg, &params, options).unwrap();
    let x = rows(pg.rank() as i64 * ROWS_PER_RANK, ROWS_PER_RANK);
    train(&params, || {
        params.iter().for_each(|p| drop(p.grad().defined().then(|| p.grad().zero_())));
        reducer.prepare_forward().unwrap();
        let loss = loss(&params, &x);
        reducer.prepare_backward().unwrap();
        loss.backward();
    })
}

pub(crate) fn single_process_gradients(world: usize) -> Vec<Tensor> {
    let params = parameters();
    let x = rows(0, ROWS_PER_RANK * world as i64);
    train(&params, || {
        params.iter().for_each(|p| drop(p.grad().defined().then(|| p.grad().zero_())));
        loss(&params, &x).backward();
    })
}

#[test]
fn gradients_are_the_mean_over_ranks() {
    for world in [1, 2, 3] {
        let results = ranks(world, train_one_rank);
        for (i, expected) in single_process_gradients(world).iter().enumerate() {
            for gradients in &results {
                assert!(difference(&gradients[i], expected) < 1e-5, "parameter {i} of world {world}");
                assert_eq!(gradients[i], results[0][i], "the same bits on each rank");
            }
        }
    }
}

#[test]
fn who_is_early_waits_and_knows_for_how_long() {
    const LATE: Duration = Duration::from_millis(300);
    let begin = Barrier::new(2);
    let waits = ranks(2, |pg| {
        let params = parameters();
        let reducer = Reducer::new(pg, &params, ReducerOptions::default()).unwrap();
        assert!(reducer.wait_seconds().unwrap() == 0.0, "nobody has waited yet");
        reducer.prepare_forward().unwrap();
        let loss = loss(&params, &rows(0, ROWS_PER_RANK));
        reducer.prepare_backward().unwrap();
        begin.wait();
        let began = Instant::now();
        while pg.rank() == 1 && began.elapsed() < LATE {
            std::thread::yield_now();
        }
        let began = Instant::now();
        loss.backward();
        let (took, waited) = (began.elapsed().as_secs_f64(), reducer.wait_seconds().unwrap());
        assert!(waited <= took, "{waited} of {took} seconds");
        waited / took
    });
    assert!(waits[0] > 0.5, "rank 0 waited for all of the time that rank 1 was late, not for {}", waits[0]);
}

#[test]
fn a_rank_with_other_parameters_is_refused() {
    let outcomes = ranks(2, |pg| {
        let shape = [4 + pg.rank() as i64, 3];
        let param = Tensor::ones(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        Reducer::new(pg, &[param], ReducerOptions::default()).err()
    });
    // Rank 0's are the rule; the others compare.
    let error = outcomes[1].as_ref().unwrap().to_string();
    assert!(error.contains("sizes [5, 3]"), "{error}");
}

#[test]
fn a_parameter_without_gradient_is_named() {
    ranks(1, |pg| {
        let error = Reducer::new(pg, &[Tensor::ones([2, 3], (Kind::Float, Device::Cpu))], ReducerOptions::default());
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains("[2, 3]"), "{error}");
    });
}

#[test]
fn backward_of_an_aborted_group_is_an_error() {
    let outcomes = ranks(2, |pg| {
        let params = parameters();
        let reducer = Reducer::new(pg, &params, ReducerOptions::default()).unwrap();
        reducer.prepare_forward().unwrap();
        let loss = loss(&params, &rows(0, ROWS_PER_RANK));
        reducer.prepare_backward().unwrap();
        pg.abort();
        loss.f_backward().is_err()
    });
    assert_eq!(outcomes, [true, true]);
}
