//! The same promises on an S3 server: one winner, a fenced journal, a lease, checkpoints, uploads in parts. Runs where
//! `R2O_TEST_S3_URL` names an empty prefix (`s3://bucket/prefix`, with the usual `AWS_*` variables).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use r2o_storage::checkpoint::{Manifest, TensorEntry, commit, newest, write_object};
use r2o_storage::journal::{AppendError, Journal};
use r2o_storage::leader::{AcquireError, Holder, RenewError, acquire};
use r2o_storage::{Put, Store, open};

fn server() -> Option<Store> {
    let Ok(url) = std::env::var("R2O_TEST_S3_URL") else {
        println!("not run: storage on S3: needs an S3 server (R2O_TEST_S3_URL and AWS_*)");
        return None;
    };
    Some(open(&format!("{}/{}", url.trim_end_matches('/'), uuid::Uuid::new_v4())).unwrap())
}

#[tokio::test]
async fn s3_keeps_the_stores_promises() {
    let Some(store) = server() else { return };
    one_winner(&store.child("race")).await;
    journal(&store.child("journal")).await;
    lease(&store.child("lease")).await;
    checkpoint(&store.child("run")).await;
    large(&store.child("large")).await;
}

async fn one_winner(store: &Store) {
    for round in 0..5 {
        let puts = (0..8_u8).map(|me| {
            let store = store.clone();
            tokio::spawn(async move { store.put_if_absent(&format!("{round}"), vec![me; 100]).await.unwrap() })
        });
        let mut winners = 0;
        for put in puts.collect::<Vec<_>>() {
            winners += usize::from(put.await.unwrap() == Put::Created);
        }
        assert_eq!(winners, 1);
    }
    assert_eq!(store.list("").await.unwrap().len(), 5);
    assert!(store.get("none").await.unwrap_err().is_not_found());
    assert_eq!(store.head("none").await.unwrap(), None);
    store.delete("none").await.unwrap();
    assert_eq!(store.get_range("0", 3..7).await.unwrap().len(), 4);
}

async fn journal(store: &Store) {
    let (mut old, _) = Journal::open(store).await.unwrap();
    old.append(0, b"zero").await.unwrap();
    let (mut new, replay) = Journal::open(store).await.unwrap();
    assert_eq!(replay, [(0, b"zero".to_vec())]);
    new.append(1, b"one").await.unwrap();
    assert!(matches!(old.append(1, b"one").await, Err(AppendError::LostLeadership { .. })));
}

async fn lease(store: &Store) {
    let holder = |url: &str| Holder { machine: String::new(), ..Holder::this_process(url) };
    let mut first = acquire(store, holder("http://a"), 1000, 0).await.unwrap();
    assert!(matches!(acquire(store, holder("http://b"), 1000, 999).await, Err(AcquireError::HeldBy { .. })));
    first.renew(500).await.unwrap();
    acquire(store, holder("http://b"), 1000, 1500).await.unwrap();
    assert!(matches!(first.renew(1501).await, Err(RenewError::Lost { .. })));
}

async fn checkpoint(store: &Store) {
    let bytes = vec![7; 1000];
    let id = write_object(store, bytes).await.unwrap();
    let (name, dtype, blake3) = ("a".into(), "U8".into(), id.to_string());
    let manifest = Manifest {
        format: Manifest::FORMAT,
        job: "s3".into(),
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

async fn large(store: &Store) {
    let mut upload = store.upload("tar").await.unwrap();
    for part in 0..3_u8 {
        upload.write(vec![part; 7 << 20]).await.unwrap();
    }
    upload.finish().await.unwrap();
    assert_eq!(store.head("tar").await.unwrap(), Some(21 << 20));
    assert_eq!(&store.get_range("tar", (14 << 20) - 1..(14 << 20) + 1).await.unwrap()[..], [1, 2]);
    let mut upload = store.upload("gone").await.unwrap();
    upload.write(vec![0; 9 << 20]).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.head("gone").await.unwrap(), None);
}
