//! All-reduce, broadcast, all-gather, barrier and abort over threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use r2o_c10d::{CUDA, Error, GlooOptions, MemoryStore, NcclOptions, ProcessGroup, Store};
use tch::{Kind, Tensor};

use crate::support::{difference, options, ranks, values};

#[test]
fn collectives_over_two_and_three_ranks() {
    for world in [1, 2, 3] {
        let results = ranks(world, |pg| {
            assert_eq!((pg.world(), pg.device()), (world, tch::Device::Cpu));
            let mut sum = values(&[3, 5], pg.rank() as f64);
            pg.all_reduce_sum(&mut sum).unwrap();
            let mut root = Tensor::full([7], pg.rank() as f64, (Kind::Float, tch::Device::Cpu));
            pg.broadcast(&mut root, world - 1).unwrap();
            let all = pg.all_gather(&Tensor::from_slice(&[pg.rank() as i64, 7])).unwrap();
            pg.barrier().unwrap();
            (sum, root, all)
        });
        let expected: Tensor = (0..world).map(|rank| values(&[3, 5], rank as f64)).sum();
        for (sum, root, all) in &results {
            assert!(difference(sum, &expected) < 1e-6);
            assert_eq!(sum, &results[0].0, "the same bits on each rank");
            assert_eq!(root.double_value(&[3]), (world - 1) as f64);
            let gathered: Vec<i64> = all.iter().map(|t| t.int64_value(&[0])).collect();
            assert_eq!(gathered, (0..world as i64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn views_with_gaps_and_integers_travel() {
    let results = ranks(2, |pg| {
        let base = Tensor::ones([4, 6], (Kind::Int64, tch::Device::Cpu));
        let mut view = base.slice(1, 0, 6, 2);
        pg.all_reduce_sum(&mut view).unwrap();
        Vec::<i64>::try_from(base.sum_dim_intlist(0, false, Kind::Int64)).unwrap()
    });
    assert_eq!(results, [[8, 4, 8, 4, 8, 4], [8, 4, 8, 4, 8, 4]]);
}

#[test]
fn an_aborted_group_refuses_and_its_peer_fails() {
    let started = Instant::now();
    let errors = ranks(2, |pg| {
        pg.barrier().unwrap();
        if pg.rank() == 0 {
            pg.abort();
            pg.abort();
            assert!(pg.aborted());
        }
        pg.all_reduce_sum(&mut Tensor::ones([4], (Kind::Float, tch::Device::Cpu))).unwrap_err()
    });
    assert_eq!(errors[0], Error::Aborted { operation: "all-reduce" });
    assert!(
        matches!(&errors[1], Error::Collective { operation: "all-reduce", rank: 1, world: 2, .. }),
        "{}",
        errors[1]
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn aborting_one_group_leaves_others_and_strangers_alone() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stranger = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    ranks(2, |survivor| {
        let doomed = ranks(2, ProcessGroup::clone);
        for group in &doomed {
            group.abort();
        }
        survivor.barrier().unwrap();
        assert!(doomed[0].barrier().is_err());
    });
    stranger.write_all(b"x").unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

/// A store that refuses, as the coordinator does once a generation is over.
struct Closed;

impl Store for Closed {
    fn set(&self, _: &str, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn get(&self, key: &str, _: Duration) -> Result<Vec<u8>, String> {
        Err(format!("generation 3 is over, asked for {key}"))
    }
    fn add(&self, _: &str, _: i64) -> Result<i64, String> {
        Ok(1)
    }
    fn compare_set(&self, _: &str, _: &[u8], _: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
    fn check(&self, _: &[String]) -> Result<bool, String> {
        Ok(false)
    }
    fn delete(&self, _: &str) -> Result<bool, String> {
        Ok(false)
    }
}

#[test]
fn errors_of_the_store_reach_the_caller() {
    let started = Instant::now();
    let error = ProcessGroup::gloo(Arc::new(Closed), 0, 2, options()).unwrap_err();
    assert!(error.to_string().contains("generation 3 is over"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "at once, not after the timeout");
}

#[test]
fn a_peer_that_never_comes_and_a_foreign_address_are_named() {
    let short = GlooOptions { timeout: Duration::from_millis(200), ..options() };
    let error = ProcessGroup::gloo(Arc::new(MemoryStore::new()), 0, 2, short).unwrap_err();
    assert!(matches!(error, Error::Rendezvous { rank: 0, world: 2, .. }), "{error}");
    let foreign = GlooOptions { address: "192.0.2.1".to_owned(), ..options() };
    let error = ProcessGroup::gloo(Arc::new(MemoryStore::new()), 0, 1, foreign).unwrap_err();
    assert!(matches!(&error, Error::Address { address, .. } if address == "192.0.2.1"), "{error}");
}

#[test]
fn an_interface_can_be_advertised() {
    let options = GlooOptions { address: "lo".to_owned(), ..options() };
    let group = ProcessGroup::gloo(Arc::new(MemoryStore::new()), 0, 1, options).unwrap();
    group.barrier().unwrap();
}

#[test]
fn without_cuda_nccl_says_so() {
    if !CUDA {
        let options = NcclOptions { device: 0, timeout: Duration::from_secs(1) };
        let error = ProcessGroup::nccl(Arc::new(MemoryStore::new()), 0, 1, options).unwrap_err();
        assert_eq!(error, Error::NoCuda);
    }
}

#[test]
fn the_memory_store_keeps_c10d_s_rules() {
    let store = MemoryStore::new();
    assert_eq!(store.add("n", 2).unwrap(), 2);
    assert_eq!(store.add("n", 3).unwrap(), 5);
    assert_eq!(store.get("n", Duration::ZERO).unwrap(), b"5");
    assert_eq!(store.compare_set("k", b"", b"a").unwrap(), b"a");
    assert_eq!(store.compare_set("k", b"x", b"b").unwrap(), b"a");
    assert_eq!(store.compare_set("missing", b"x", b"b").unwrap(), b"x");
    assert!(store.check(&["n".into(), "k".into()]).unwrap());
    assert!(store.delete("k").unwrap() && !store.delete("k").unwrap());
    assert!(store.get("k", Duration::from_millis(1)).unwrap_err().contains("`k`"));
}
