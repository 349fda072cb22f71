//! K-means beside one that is written as it is defined.
#![allow(clippy::unwrap_used)]

use r2o_aten::{Start, kmeans};
use tch::{Kind, Tensor};

/// Small deterministic numbers in [0, 1).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }

    fn take(&mut self, count: i64) -> Vec<f64> {
        (0..count).map(|_| self.next()).collect()
    }
}

fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// Lloyd's iterations in float64; (labels, inertia).
fn naive(points: &[Vec<f64>], mut centres: Vec<Vec<f64>>, most: usize, tolerance: f64) -> (Vec<i64>, f64) {
    let mut previous = f64::INFINITY;
    let (mut labels, mut inertia) = (Vec::new(), 0.0);
    for _ in 0..most {
        labels = points
            .iter()
            .map(|point| {
                let distance = |k: &usize| squared(point, &centres[*k]);
                (0..centres.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
            })
            .collect();
        inertia = points.iter().zip(&labels).map(|(point, &k)| squared(point, &centres[k])).sum();
        if (inertia - previous).abs() < tolerance {
            break;
        }
        previous = inertia;
        for (k, centre) in centres.iter_mut().enumerate() {
            let members: Vec<_> = points.iter().zip(&labels).filter(|(_, l)| **l == k).map(|(p, _)| p).collect();
            if !members.is_empty() {
                for (c, value) in centre.iter_mut().enumerate() {
                    *value = members.iter().map(|p| p[c]).sum::<f64>() / members.len() as f64;
                }
            }
        }
    }
    (labels.iter().map(|&l| l as i64).collect(), inertia)
}

fn tensor(values: &[f64], shape: &[i64]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float).view(shape)
}

fn list(tensor: &Tensor) -> Vec<i64> {
    Vec::<i64>::try_from(tensor.contiguous().view(-1)).unwrap()
}

#[test]
fn agrees_with_the_definition() {
    let mut numbers = Numbers(1);
    for (images, regions, channels, clusters) in
        [(1, 1, 3, 1), (2, 7, 5, 3), (4, 40, 20, 16), (8, 90, 33, 64), (3, 300, 130, 5)]
    {
        let n = images * regions;
        let points = numbers.take(n * channels);
        let rows: Vec<Vec<f64>> =
            points.chunks(channels as usize).map(|row| row.iter().map(|&v| f64::from(v as f32)).collect()).collect();
        let first: Vec<Vec<f64>> = (0..clusters as usize).map(|k| rows[k * 5 % n as usize].clone()).collect();
        let centres = tensor(&first.concat(), &[1, clusters, channels]);
        let input = tensor(&points, &[1, images, regions, channels]);
        let counts = Tensor::from_slice(&[regions]);
        let found = kmeans(&input, &counts, Start::Centres(&centres), clusters, 200, 1e-6).unwrap();
        let (labels, inertia) = naive(&rows, first, 200, 1e-6);
        assert_eq!(list(&found.labels), labels);
        assert!((found.inertia.double_value(&[0]) - inertia).abs() < 1e-4 * inertia.max(1.0));
    }
}

#[test]
fn the_number_of_threads_does_not_matter_and_lanes_are_independent() {
    let mut numbers = Numbers(2);
    let (images, regions, channels, clusters, candidates) = (4, 60, 40, 9, 4);
    let points = tensor(&numbers.take(3 * images * regions * channels), &[3, images, regions, channels]);
    let counts = Tensor::from_slice(&[60_i64, 31, 44]);
    let uniforms = Tensor::from_slice(&numbers.take(3 * clusters * candidates)).view([3, clusters, candidates]);
    let run = |points: &Tensor, counts: &Tensor, uniforms: &Tensor| {
        kmeans(points, counts, Start::PlusPlus(uniforms), clusters, 50, 1e-6).unwrap()
    };
    tch::set_num_threads(1);
    let one = run(&points, &counts, &uniforms);
    tch::set_num_threads(2);
    let two = run(&points, &counts, &uniforms);
    assert_eq!(list(&one.labels), list(&two.labels));
    assert_eq!(one.inertia, two.inertia);
    for lane in 0..3 {
        let own = |t: &Tensor| t.narrow(0, lane, 1).contiguous();
        let alone = run(&own(&points), &own(&counts), &own(&uniforms));
        assert_eq!(list(&alone.labels), list(&own(&two.labels)));
        let labels = alone.labels.squeeze_dim(0);
        let count = counts.int64_value(&[lane]);
        assert!(list(&labels.narrow(1, 0, count)).iter().all(|l| (0..clusters).contains(l)));
        assert!(list(&labels.narrow(1, count, regions - count)).iter().all(|l| *l == -1));
    }
}

#[test]
fn an_empty_cluster_keeps_its_centre() {
    // All points are nearer to the first centre, until its mean moves away and leaves the last point to the second.
    let points = tensor(&[0.0, 0.0, 0.0, 0.0, 0.0, 4.0], &[1, 1, 6, 1]);
    let centres = tensor(&[2.0, 6.5], &[1, 2, 1]);
    let regions = Tensor::from_slice(&[6_i64]);
    let found = kmeans(&points, &regions, Start::Centres(&centres), 2, 10, 1e-9).unwrap();
    assert_eq!(list(&found.labels), [0, 0, 0, 0, 0, 1]);
    let first = kmeans(&points, &regions, Start::Centres(&centres), 2, 1, 1e-9).unwrap();
    assert_eq!(list(&first.labels), [0; 6]);
    assert_eq!(first.iterations.int64_value(&[0]), 1);
}

#[test]
fn equal_points_do_no_harm() {
    let points = Tensor::zeros([1, 2, 10, 4], (Kind::Float, tch::Device::Cpu));
    let uniforms = Tensor::from_slice(&Numbers(3).take(5 * 3)).view([1, 5, 3]);
    let found = kmeans(&points, &Tensor::from_slice(&[10_i64]), Start::PlusPlus(&uniforms), 5, 200, 1e-6).unwrap();
    assert_eq!(list(&found.labels), [0; 20]);
}

#[test]
fn shapes_are_checked() {
    let points = Tensor::zeros([1, 2, 10, 4], (Kind::Float, tch::Device::Cpu));
    let centres = Tensor::zeros([1, 3, 5], (Kind::Float, tch::Device::Cpu));
    let regions = Tensor::from_slice(&[10_i64]);
    let error = kmeans(&points, &regions, Start::Centres(&centres), 3, 1, 0.0).unwrap_err();
    assert!(error.to_string().contains("[1, 3, 5]"), "{error}");
    let wide = Tensor::from_slice(&[11_i64]);
    let centres = Tensor::zeros([1, 3, 4], (Kind::Float, tch::Device::Cpu));
    let error = kmeans(&points, &wide, Start::Centres(&centres), 3, 1, 0.0).unwrap_err();
    assert!(error.to_string().contains("11 regions"), "{error}");
}
