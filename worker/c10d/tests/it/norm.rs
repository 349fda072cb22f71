//! Batch norm over groups of lanes beside one process that holds all lanes.

use r2o_c10d::{NormLayout, ProcessGroup, average_running, batch_norm};
use tch::{Device, Kind, Tensor};

use crate::support::{difference, ranks, values};

const PER_LANE: i64 = 3;
const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;
const OFFSET: f64 = 3.0;

/// What a fleet computes in two forward passes and a backward of the second.
struct Outcome {
    y: Tensor,
    dx: Tensor,
    dweight: Tensor,
    dbias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

struct Case {
    lanes: u32,
    group: u32,
    split: Vec<u32>,
    shape: Vec<i64>,
    channels_last: bool,
    agree: bool,
}

impl Case {
    fn channels(&self) -> i64 {
        self.shape[0]
    }

    /// All lanes' rows, not centred.
    fn input(&self, salt: f64) -> Tensor {
        let mut shape = vec![i64::from(self.lanes) * PER_LANE];
        shape.extend(&self.shape);
        values(&shape, salt) + OFFSET
    }

    fn lanes_of(&self, rank: usize) -> Vec<u32> {
        let first: u32 = self.split[..rank].iter().sum();
        (first..first + self.split[rank]).collect()
    }

    /// The part of `rows` that a rank has, in the case's memory format.
    fn part(&self, x: &Tensor, rank: usize) -> Tensor {
        let lanes = self.lanes_of(rank);
        let part = x.narrow(0, i64::from(lanes[0]) * PER_LANE, lanes.len() as i64 * PER_LANE);
        if self.channels_last && x.dim() == 4 {
            part.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
        } else {
            part.contiguous()
        }
    }

    fn parameters(&self) -> (Tensor, Tensor) {
        let weight = values(&[self.channels()], 3.0) + 2.0;
        (weight.set_requires_grad(true), values(&[self.channels()], 4.0).set_requires_grad(true))
    }

    fn buffers(&self) -> (Tensor, Tensor) {
        (values(&[self.channels()], 5.0), values(&[self.channels()], 6.0).abs() + 0.5)
    }

    /// The loss of some lanes: a sum over rows of something without symmetry, over the number of all lanes.
    fn loss(&self, y: &Tensor, coefficient: &Tensor) -> Tensor {
        ((y * coefficient).tanh() + y * y * coefficient * 0.1).sum(y.kind()) / f64::from(self.lanes)
    }

    fn rank(&self, pg: &ProcessGroup) -> Outcome {
        let (rank, world) = (pg.rank(), pg.world() as f64);
        let mut layout = NormLayout::new(self.lanes, self.group, &self.lanes_of(rank));
        if self.agree {
            layout = layout.agree(pg).unwrap();
        }
        let (weight, bias) = self.parameters();
        let (mean, var) = self.buffers();
        let norm = |x: &Tensor| batch_norm(x, &weight, &bias, &mean, &var, &layout, Some(pg), MOMENTUM, EPS).unwrap();
        let _ = tch::no_grad(|| norm(&self.part(&self.input(7.0), rank)));
        let x = self.part(&self.input(1.0), rank).detach().set_requires_grad(true);
        let y = norm(&x);
        assert_eq!(y.stride(), x.stride(), "the result keeps the input's memory format");
        average_running(&layout, Some(pg), &[mean.shallow_clone(), var.shallow_clone()]).unwrap();
        let coefficient = self.part(&self.input(2.0), rank) - OFFSET;
        (self.loss(&y, &coefficient) * world).backward();
        let average = |gradient: Tensor| {
            let mut gradient = gradient.copy();
            pg.all_reduce_sum(&mut gradient).unwrap();
            gradient / world
        };
        Outcome {
            y: y.detach(),
            dx: x.grad() / world,
            dweight: average(weight.grad()),
            dbias: average(bias.grad()),
            running_mean: mean,
            running_var: var,
        }
    }

    /// torch's own batch norm on each group of lanes, in one process, in float64.
    fn reference(&self) -> Outcome {
        let (weight, bias) = self.parameters();
        let wide = |x: &Tensor| x.detach().to_kind(Kind::Double);
        let (weight, bias) = (wide(&weight).set_requires_grad(true), wide(&bias).set_requires_grad(true));
        let x = wide(&self.input(1.0)).set_requires_grad(true);
        let groups = i64::from(self.lanes / self.group);
        let (mut means, mut vars, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for (earlier, part) in wide(&self.input(7.0)).chunk(groups, 0).iter().zip(x.chunk(groups, 0)) {
            let (mean, var) = self.buffers();
            let (mean, var) = (wide(&mean), wide(&var));
            let norm = |x: &Tensor| {
                x.batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&var), true, MOMENTUM, EPS, false)
            };
            let _ = tch::no_grad(|| norm(earlier));
            outputs.push(norm(&part));
            means.push(mean);
            vars.push(var);
        }
        let y = Tensor::cat(&outputs, 0);
        self.loss(&y, &(wide(&self.input(2.0)) - OFFSET)).backward();
        Outcome {
            y: y.detach(),
            dx: x.grad(),
            dweight: weight.grad(),
            dbias: bias.grad(),
            running_mean: Tensor::stack(&means, 0).mean_dim(0, false, Kind::Double),
            running_var: Tensor::stack(&vars, 0).mean_dim(0, false, Kind::Double),
        }
    }

    fn check(&self) {
        let what =
            format!("{} lanes in groups of {}, split {:?}, {:?}", self.lanes, self.group, self.split, self.shape);
        let outcomes = ranks(self.split.len(), |pg| self.rank(pg));
        let expected = self.reference();
        for (rank, got) in outcomes.iter().enumerate() {
            let near = |name: &str, got: &Tensor, expected: &Tensor| {
                let difference = difference(got, expected);
                assert!(difference < 1e-5, "{name} of rank {rank} is off by {difference:e}: {what}");
            };
            near("y", &got.y, &self.part(&expected.y, rank));
            near("dx", &got.dx, &self.part(&expected.dx, rank));
            near("dweight", &got.dweight, &expected.dweight);
            near("dbias", &got.dbias, &expected.dbias);
            near("running_mean", &got.running_mean, &expected.running_mean);
            near("running_var", &got.running_var, &expected.running_var);
            assert_eq!(got.running_mean, outcomes[0].running_mean, "replicas are equal: {what}");
            assert_eq!(got.running_var, outcomes[0].running_var, "replicas are equal: {what}");
        }
    }
}

/// Every way to split lanes over ranks and into groups: whole, single, spread, and mixtures.
#[test]
fn any_fleet_gives_the_gradients_of_one_process() {
    let splits: [(u32, &[u32]); 8] = [
        (2, &[2]),
        (2, &[1, 1]),
        (4, &[2, 2]),
        (4, &[3, 1]),
        (5, &[3, 2]),
        (5, &[2, 2, 1]),
        (6, &[3, 2, 1]),
        (6, &[1, 5]),
    ];
    for (lanes, split) in splits {
        for group in (1..=lanes).filter(|group| lanes % group == 0) {
            for (shape, channels_last) in [(vec![5, 4, 3], true), (vec![5, 4, 3], false), (vec![7], false)] {
                for agree in [true, false] {
                    Case { lanes, group, split: split.to_vec(), shape: shape.clone(), channels_last, agree }.check();
                }
            }
        }
    }
}

/// Enough values for several blocks and threads.
#[test]
fn large_layers_agree() {
    for (shape, channels_last) in [(vec![64, 33, 31], true), (vec![64, 33, 31], false), (vec![8192], false)] {
        Case { lanes: 3, group: 3, split: vec![2, 1], shape, channels_last, agree: true }.check();
    }
}

/// Bits of what a fleet computes where the layout is reproducible: values and parameters' gradients of all lanes.
fn reproducible(lanes: u32, group: u32, split: &[u32], channels_last: bool) -> [Tensor; 6] {
    let shape = vec![37, 9, 7];
    let case = Case { lanes, group, split: split.to_vec(), shape, channels_last, agree: true };
    let outcomes = ranks(split.len(), |pg| {
        let rank = pg.rank();
        let layout = NormLayout::new(lanes, group, &case.lanes_of(rank)).reproducible();
        // A rank with all lanes needs no group.
        let pg = (pg.world() > 1).then_some(pg);
        let layout = pg.map_or(Ok(layout.clone()), |pg| layout.agree(pg)).unwrap();
        assert!(layout.running_is_exact());
        let (weight, bias) = case.parameters();
        let rows = case.lanes_of(rank).len() as i64;
        let apart = |t: &Tensor| t.detach().repeat([rows, 1]).set_requires_grad(true);
        let (weight, bias, (mean, var)) = (apart(&weight), apart(&bias), case.buffers());
        let x = case.part(&case.input(1.0), rank).detach().set_requires_grad(true);
        let y = batch_norm(&x, &weight, &bias, &mean, &var, &layout, pg, MOMENTUM, EPS).unwrap();
        case.loss(&y, &(case.part(&case.input(2.0), rank) - OFFSET)).backward();
        [y.detach(), x.grad(), weight.grad(), bias.grad(), mean, var]
    });
    let rows = |at: usize| Tensor::cat(&outcomes.iter().map(|o| o[at].shallow_clone()).collect::<Vec<_>>(), 0);
    let same = |at: usize| outcomes[0][at].shallow_clone();
    [rows(0), rows(1), rows(2), rows(3), same(4), same(5)]
}

#[test]
fn reproducible_layouts_give_the_same_bits_on_any_fleet() {
    for (group, channels_last) in [(6, true), (3, true), (1, false), (2, false)] {
        let alone = reproducible(6, group, &[6], channels_last);
        for split in [&[3, 3][..], &[4, 2], &[1, 5], &[2, 3, 1]] {
            for (at, (got, expected)) in reproducible(6, group, split, channels_last).iter().zip(&alone).enumerate() {
                assert_eq!(got, expected, "result {at} of {split:?} with groups of {group}");
            }
        }
    }
}

#[test]
fn bfloat16_with_float32_weights() {
    let results = ranks(2, |pg| {
        let layout = NormLayout::new(2, 2, &[pg.rank() as u32]);
        let all = values(&[2 * PER_LANE, 16, 5, 5], 1.0).to_kind(Kind::BFloat16);
        let x = all.narrow(0, pg.rank() as i64 * PER_LANE, PER_LANE).copy().set_requires_grad(true);
        let ones = || Tensor::ones([16], (Kind::Float, Device::Cpu));
        let (weight, bias) = (ones().set_requires_grad(true), (ones() * 0.5).set_requires_grad(true));
        let y = batch_norm(&x, &weight, &bias, &ones(), &ones(), &layout, Some(pg), MOMENTUM, EPS).unwrap();
        assert_eq!((y.kind(), x.kind()), (Kind::BFloat16, Kind::BFloat16));
        (&y * &y).sum(Kind::Float).backward();
        assert_eq!((x.grad().kind(), weight.grad().kind()), (Kind::BFloat16, Kind::Float));
        let wide = all.to_kind(Kind::Float);
        let expected = wide.batch_norm(
            Some(&ones()),
            Some(&(ones() * 0.5)),
            None::<&Tensor>,
            None::<&Tensor>,
            true,
            0.1,
            EPS,
            false,
        );
        difference(&y, &expected.narrow(0, pg.rank() as i64 * PER_LANE, PER_LANE))
    });
    assert!(results.iter().all(|&d| d < 4e-3), "{results:?}: half a step of bfloat16");
}

#[test]
fn arguments_that_do_not_fit_are_named() {
    let layout = NormLayout::new(4, 4, &[0, 1]);
    let ones = |n| Tensor::ones([n], (Kind::Float, Device::Cpu));
    let call = |x: &Tensor, n| batch_norm(x, &ones(n), &ones(n), &ones(n), &ones(n), &layout, None, 0.1, EPS);
    let matrix = |rows| Tensor::ones([rows, 3], (Kind::Float, Device::Cpu));
    let reason = |result: Result<Tensor, r2o_c10d::Error>| result.unwrap_err().to_string();
    assert!(reason(call(&matrix(5), 3)).contains("5 rows cannot be dealt to 2 lanes"));
    assert!(reason(call(&matrix(4), 2)).contains("weight"));
    assert!(reason(call(&matrix(4), 3)).contains("spans workers"));
    assert!(reason(call(&ones(4), 4)).contains("[4]"));
}
