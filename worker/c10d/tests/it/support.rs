//! Ranks as threads, and comparisons.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use r2o_c10d::{GlooOptions, MemoryStore, ProcessGroup, Store};
use tch::{Kind, Tensor};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn options() -> GlooOptions {
    GlooOptions { address: "127.0.0.1".to_owned(), timeout: TIMEOUT }
}

/// Runs `body` as each rank of a Gloo group, in threads; results by rank.
pub(crate) fn ranks<T: Send>(world: usize, body: impl Fn(&ProcessGroup) -> T + Sync) -> Vec<T> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let body = &body;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..world)
            .map(|rank| {
                let store = Arc::clone(&store);
                scope.spawn(move || body(&ProcessGroup::gloo(store, rank, world, options()).unwrap()))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// The largest difference, relative to the reference's largest value.
pub(crate) fn difference(a: &Tensor, reference: &Tensor) -> f64 {
    assert_eq!(a.size(), reference.size());
    let (a, b) = (a.to_kind(Kind::Double), reference.to_kind(Kind::Double));
    let scale = b.abs().max().double_value(&[]).max(1e-3);
    (a - b).abs().max().double_value(&[]) / scale
}

/// Values from a fixed, seedless recipe: tests in parallel threads share torch's generator.
pub(crate) fn values(shape: &[i64], salt: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    let x = Tensor::arange(n, (Kind::Double, tch::Device::Cpu));
    let noise: Tensor = ((&x * 12.9898 + salt * 78.233).sin() * 43_758.545_3).frac();
    (noise * 2.0 + (&x * 0.37 + salt).cos()).to_kind(Kind::Float).reshape(shape)
}
