//! What every store promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use r2o_storage::checkpoint::{Manifest, TensorEntry, commit, newest, write_object};
use r2o_storage::journal::{AppendError, Journal, trim};
use r2o_storage::leader::{AcquireError, Holder, RenewError, Watch, acquire, current};
use r2o_storage::{Fence, Put, StorageError, Store};
use tokio::sync::Barrier;

/// Holds an empty store to all of them.
pub(super) async fn all(store: &Store) {
    objects(&store.child("runs/a b")).await;
    one_winner(&store.child("race")).await;
    fenced(&store.child("fenced")).await;
    journal(&store.child("journal")).await;
    journals_race(&store.child("journals")).await;
    lease(&store.child("lease")).await;
    leases_race(&store.child("leases")).await;
    checkpoint(&store.child("run")).await;
    uploads(&store.child("uploads")).await;
}

async fn objects(store: &Store) {
    assert_eq!(store.list("").await.unwrap(), []);
    store.put("x/2", "two").await.unwrap();
    store.put("x/1", "one").await.unwrap();
    store.put("x/1", "first").await.unwrap();
    store.put("y", "").await.unwrap();
    let listed = store.list("").await.unwrap();
    assert_eq!(listed, [("x/1".into(), 5), ("x/2".into(), 3), ("y".into(), 0)]);
    assert_eq!(store.list("x").await.unwrap().len(), 2);
    assert_eq!(store.child("x").list("").await.unwrap().len(), 2);
    assert_eq!(&store.get("x/1").await.unwrap()[..], b"first");
    assert_eq!(&store.get_range("x/1", 1..3).await.unwrap()[..], b"ir");
    assert_eq!(store.get_ranges("x/1", &[0..1, 3..5]).await.unwrap(), [&b"f"[..], b"st"]);
    assert_eq!(store.head("x/1").await.unwrap(), Some(5));
    store.delete("x/1").await.unwrap();
    store.delete("x/1").await.unwrap();
    assert_eq!(store.head("x/1").await.unwrap(), None);
    assert_eq!(store.get_if_exists("x/1").await.unwrap(), None);
    assert!(store.get("x/1").await.unwrap_err().is_not_found());
}

/// Of many that put the same key at once exactly one creates it, and what is read is what that one put.
async fn one_winner(store: &Store) {
    for round in 0..10 {
        let start = Arc::new(Barrier::new(8));
        let puts = (0..8_u8).map(|me| {
            let (store, start) = (store.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                store.put_if_absent(&format!("{round}"), vec![me; 1_000]).await.unwrap()
            })
        });
        let mut winners = Vec::new();
        for (me, put) in puts.collect::<Vec<_>>().into_iter().enumerate() {
            if put.await.unwrap() == Put::Created {
                winners.push(me as u8);
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(&store.get(&format!("{round}")).await.unwrap()[..], &[winners[0]; 1_000]);
        assert_eq!(store.put_if_absent(&format!("{round}"), "late").await.unwrap(), Put::Exists);
        assert_eq!(store.head(&format!("{round}")).await.unwrap(), Some(1_000), "who is late changes nothing");
    }
    // What was deleted can be created again.
    store.delete("0").await.unwrap();
    assert_eq!(store.put_if_absent("0", "again").await.unwrap(), Put::Created);
}

async fn fenced(store: &Store) {
    let holds = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&holds);
    let behind = store.fenced(Fence::new(move || seen.load(Ordering::Relaxed))).child("below");
    behind.put("a", "1").await.unwrap();
    holds.store(false, Ordering::Relaxed);
    let refused = |result: Result<(), StorageError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, StorageError::Fenced { .. }), "{error}");
        assert!(error.to_string().contains("below/a") && error.to_string().contains("another coordinator"), "{error}");
    };
    refused(behind.put("a", "2").await);
    refused(behind.put_if_absent("a", "2").await.map(drop));
    refused(behind.delete("a").await);
    refused(behind.upload("a").await.map(drop));
    assert_eq!(&behind.get("a").await.unwrap()[..], b"1");
    holds.store(true, Ordering::Relaxed);
    behind.delete("a").await.unwrap();
}

async fn journal(store: &Store) {
    let (mut old, _) = Journal::open(store).await.unwrap();
    old.append(0, b"zero").await.unwrap();
    let (mut new, replay) = Journal::open(store).await.unwrap();
    assert_eq!(replay, [(0, b"zero".to_vec())]);
    new.append(1, b"one").await.unwrap();
    assert!(matches!(old.append(1, b"one").await, Err(AppendError::LostLeadership { number: 1, .. })));
    trim(store, 1).await.unwrap();
    assert_eq!(Journal::open(store).await.unwrap().1, [(1, b"one".to_vec())]);
}

/// Of many that append as fast as they can, one goes on and the others learn that they lost, at whichever record.
async fn journals_race(store: &Store) {
    let start = Arc::new(Barrier::new(6));
    let writers = (0..6).map(|me| {
        let (store, start) = (store.clone(), Arc::clone(&start));
        tokio::spawn(async move {
            let (mut journal, _) = Journal::open(&store).await.unwrap();
            start.wait().await;
            for number in 0..20 {
                match journal.append(number, format!("{me}").as_bytes()).await {
                    Ok(()) => {}
                    Err(AppendError::LostLeadership { .. }) => return number,
                    Err(error) => panic!("{error}"),
                }
            }
            20
        })
    });
    let mut reached = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        reached.push(writer.await.unwrap());
    }
    assert_eq!(reached.iter().filter(|number| **number == 20).count(), 1, "{reached:?}");
    let (_, records) = Journal::open(store).await.unwrap();
    assert_eq!(records.len(), 20);
    // Nobody who lost a record wrote a later one.
    let winner = &records[19].1;
    assert!(records.iter().all(|(_, record)| record == winner), "the first record decides");
}

fn holder(url: &str) -> Holder {
    Holder { machine: String::new(), ..Holder::this_process(url) }
}

async fn lease(store: &Store) {
    assert_eq!(current(store).await.unwrap(), None);
    let mut first = acquire(store, holder("http://a"), 1000, 0).await.unwrap();
    assert!(matches!(acquire(store, holder("http://b"), 1000, 999).await, Err(AcquireError::HeldBy { .. })));
    first.renew(500).await.unwrap();
    acquire(store, holder("http://b"), 1000, 1500).await.unwrap();
    assert!(matches!(first.renew(1501).await, Err(RenewError::Lost { .. })));
}

/// Of many that saw the lease end one takes over.
async fn leases_race(store: &Store) {
    acquire(store, holder("http://gone"), 1000, 0).await.unwrap();
    for round in 0..5 {
        let start = Arc::new(Barrier::new(6));
        let rivals = (0..6).map(|me| {
            let (store, start) = (store.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                let mut watch = Watch::new(store);
                assert!(watch.leader(0).await.unwrap().is_some());
                assert_eq!(watch.leader(1000).await.unwrap(), None);
                start.wait().await;
                watch.take_over(holder(&format!("http://{me}")), 1000, 0).await.is_ok()
            })
        });
        let mut winners = 0;
        for rival in rivals.collect::<Vec<_>>() {
            winners += usize::from(rival.await.unwrap());
        }
        assert_eq!(winners, 1, "round {round}");
    }
    assert!(store.list("leader").await.unwrap().len() <= 2, "old leases are removed");
}

async fn checkpoint(store: &Store) {
    let id = write_object(store, vec![7; 1000]).await.unwrap();
    let (name, dtype, blake3) = ("a".into(), "U8".into(), id.to_string());
    let manifest = Manifest {
        format: Manifest::FORMAT,
        job: "promises".into(),
        step: 3,
        epoch: 0,
        generation: 1,
        spec: serde_json::Value::Null,
        tensors: vec![TensorEntry { name, dtype, shape: vec![1000], blake3, bytes: 1000 }],
        created_unix_ms: 0,
        versions: BTreeMap::new(),
    };
    commit(store, &manifest).await.unwrap();
    assert_eq!(newest(store).await.unwrap().unwrap().manifest, manifest);
}

/// Objects in parts appear whole or not at all.
async fn uploads(store: &Store) {
    let mut upload = store.upload("tar").await.unwrap();
    for part in 0..3_u8 {
        upload.write(vec![part; 7 << 20]).await.unwrap();
    }
    assert_eq!(store.head("tar").await.unwrap(), None);
    upload.finish().await.unwrap();
    assert_eq!(store.head("tar").await.unwrap(), Some(21 << 20));
    assert_eq!(&store.get_range("tar", (14 << 20) - 1..(14 << 20) + 1).await.unwrap()[..], [1, 2]);
    let mut upload = store.upload("gone").await.unwrap();
    upload.write(vec![0; 9 << 20]).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.head("gone").await.unwrap(), None);
}
