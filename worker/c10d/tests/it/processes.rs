//! Real processes: this test binary runs itself as the other ranks.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use r2o_c10d::{Error, MemoryStore, ProcessGroup, Store};
use tch::{Kind, Tensor};

use crate::reducer::{single_process_gradients, train_one_rank};
use crate::support::{TIMEOUT, difference, options, ranks};
use crate::tcp_store::{TcpStore, serve};

const STORE: &str = "R2O_C10D_TEST_STORE";
const PLACE: &str = "R2O_C10D_TEST_PLACE";

/// A rank in a process of its own; killed with the test.
struct Peer(Child);

impl Peer {
    fn start(store: &str, rank: usize, world: usize, role: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::peer", "--ignored"])
            .env(STORE, store)
            .env(PLACE, format!("{rank} {world} {role}"))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as libc::pid_t, signal) }, 0);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child process does; no test of its own.
#[test]
#[ignore = "run by the tests of this module in a process of its own"]
fn peer() {
    let Ok(address) = std::env::var(STORE) else { return };
    let place = std::env::var(PLACE).unwrap();
    let [rank, world, role] = place.split(' ').collect::<Vec<_>>()[..] else { panic!("{place}") };
    let store = Arc::new(TcpStore(address));
    let (rank, world) = (rank.parse().unwrap(), world.parse().unwrap());
    let pg = ProcessGroup::gloo(Arc::clone(&store) as Arc<dyn Store>, rank, world, options()).unwrap();
    match role {
        "train" => {
            let gradients = train_one_rank(&pg);
            let flat: Vec<f32> = Vec::<f32>::try_from(flatten(&gradients)).unwrap();
            let bytes: Vec<u8> = flat.iter().flat_map(|v| v.to_le_bytes()).collect();
            store.set(&format!("gradients/{rank}"), &bytes).unwrap();
            pg.barrier().unwrap();
        }
        _ => {
            pg.barrier().unwrap();
            // Never set: the parent kills or stops this process here.
            drop(store.get("the end", TIMEOUT));
        }
    }
}

fn flatten(tensors: &[Tensor]) -> Tensor {
    Tensor::cat(&tensors.iter().map(|t| t.reshape([-1])).collect::<Vec<_>>(), 0)
}

#[test]
fn gradients_over_processes_agree_with_a_single_process() {
    for world in [2, 3] {
        let store = Arc::new(MemoryStore::new());
        let address = serve(Arc::clone(&store));
        let peers: Vec<_> = (0..world).map(|rank| Peer::start(&address, rank, world, "train")).collect();
        let expected = flatten(&single_process_gradients(world));
        let mut first = None;
        for rank in 0..world {
            let bytes = store.get(&format!("gradients/{rank}"), TIMEOUT).unwrap();
            let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            assert!(difference(&Tensor::from_slice(&values), &expected) < 1e-5);
            assert_eq!(first.get_or_insert_with(|| bytes.clone()), &bytes, "the same bits on each rank");
        }
        for mut peer in peers {
            assert!(peer.0.wait().unwrap().success());
        }
    }
}

/// A group of this process and one peer that does nothing.
fn pair() -> (Peer, ProcessGroup) {
    let store = Arc::new(MemoryStore::new());
    let peer = Peer::start(&serve(Arc::clone(&store)), 1, 2, "idle");
    let pg = ProcessGroup::gloo(store, 0, 2, options()).unwrap();
    pg.barrier().unwrap();
    (peer, pg)
}

/// An all-reduce that waits for the peer, in a thread that is asleep in it when this returns.
fn waiting_all_reduce(pg: &ProcessGroup, values: i64) -> thread::JoinHandle<(Result<(), Error>, Instant)> {
    let (sender, receiver) = mpsc::channel();
    let pg = pg.clone();
    let thread = thread::spawn(move || {
        // SAFETY: gettid has no preconditions.
        sender.send(unsafe { libc::gettid() }).unwrap();
        let result = pg.all_reduce_sum(&mut Tensor::ones([values], (Kind::Float, tch::Device::Cpu)));
        (result, Instant::now())
    });
    let stat = format!("/proc/self/task/{}/stat", receiver.recv().unwrap());
    let asleep = || std::fs::read_to_string(&stat).is_ok_and(|s| s.rsplit(") ").next().unwrap().starts_with('S'));
    while !asleep() {
        thread::yield_now();
    }
    thread
}

#[test]
fn a_killed_peer_surfaces_within_a_second() {
    let (peer, pg) = pair();
    let thread = waiting_all_reduce(&pg, 1 << 20);
    let killed = Instant::now();
    peer.signal(libc::SIGKILL);
    let (result, at) = thread.join().unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Collective { operation: "all-reduce", rank: 0, world: 2, .. }), "{error}");
    assert!(at.duration_since(killed) < Duration::from_secs(1), "{:?}", at.duration_since(killed));
    println!("a killed peer surfaced after {:?}: {error}", at.duration_since(killed));
}

#[test]
fn abort_wakes_a_collective_whose_peer_hangs() {
    let (peer, pg) = pair();
    peer.signal(libc::SIGSTOP);
    let thread = waiting_all_reduce(&pg, 1 << 20);
    let aborted = Instant::now();
    pg.abort();
    let (result, at) = thread.join().unwrap();
    assert_eq!(result.unwrap_err(), Error::Aborted { operation: "all-reduce" });
    assert!(at.duration_since(aborted) < Duration::from_secs(1), "{:?}", at.duration_since(aborted));
    println!("abort woke a hung all-reduce after {:?}", at.duration_since(aborted));
}

/// Two ranks that all-reduce without pause and abort at nearly the same moment, so that sends meet a connection that just
/// ended. Gloo loses sight of some of them.
#[test]
fn ranks_that_abort_while_they_send_wake_at_once() {
    for round in 0..40 {
        let started = Instant::now();
        let waits = ranks(2, |pg| {
            thread::scope(|scope| {
                let (sender, receiver) = mpsc::channel();
                let work = scope.spawn(move || {
                    let mut sum = Tensor::ones([1 << (8 + round % 12)], (Kind::Float, tch::Device::Cpu));
                    for step in 0.. {
                        if let Err(error) = pg.all_reduce_sum(&mut sum) {
                            return (error, Instant::now());
                        }
                        if step == 20 {
                            sender.send(()).ok();
                        }
                    }
                    unreachable!()
                });
                // The other may have aborted before this one is as far: its sender is gone then.
                receiver.recv().ok();
                let aborted = Instant::now();
                pg.abort();
                let (error, at) = work.join().unwrap();
                (error, at.saturating_duration_since(aborted))
            })
        });
        for (error, wait) in waits {
            assert!(matches!(error, Error::Aborted { .. } | Error::Collective { .. }), "{error}");
            assert!(wait < Duration::from_secs(1), "round {round}: woke after {wait:?}");
        }
        assert!(started.elapsed() < TIMEOUT / 2, "round {round}: letting go of the groups waited");
    }
}
