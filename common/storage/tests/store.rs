//! The store's own promises, on a folder: whole objects, one winner, errors that name what and where.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use r2o_storage::{Put, StorageError, Store, open};

fn folder() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path().to_str().unwrap()).unwrap();
    (dir, store)
}

#[tokio::test]
async fn what_is_put_is_listed_and_read() {
    let (_dir, root) = folder();
    let store = root.child("runs/a b");
    assert_eq!(store.list("").await.unwrap(), []);
    store.put("x/2", "two").await.unwrap();
    store.put("x/1", "first").await.unwrap();
    store.put("y", "").await.unwrap();
    let listed = store.list("").await.unwrap();
    assert_eq!(listed, [("x/1".into(), 5), ("x/2".into(), 3), ("y".into(), 0)]);
    assert_eq!(store.list("x").await.unwrap().len(), 2);
    assert_eq!(root.list("runs/a b/x").await.unwrap().len(), 2);
    assert_eq!(&store.get("x/1").await.unwrap()[..], b"first");
    assert_eq!(&store.get_range("x/1", 1..3).await.unwrap()[..], b"ir");
    assert_eq!(store.head("x/1").await.unwrap(), Some(5));
    assert_eq!(store.head("z").await.unwrap(), None);
    store.delete("x/1").await.unwrap();
    store.delete("x/1").await.unwrap();
    assert_eq!(store.head("x/1").await.unwrap(), None);
}

#[tokio::test]
async fn plain_paths_and_file_urls_are_the_same_place() {
    let (dir, store) = folder();
    store.put("k", "v").await.unwrap();
    let by_url = open(store.url()).unwrap();
    assert!(by_url.url().starts_with("file:///"));
    assert_eq!(&by_url.get("k").await.unwrap()[..], b"v");
    assert_eq!(by_url.folder(), Some(dir.path()));
    let dotted = open(dir.path().join("sub/..").to_str().unwrap()).unwrap();
    assert_eq!(&dotted.get("k").await.unwrap()[..], b"v");
}

#[tokio::test]
async fn uploads_appear_whole_or_not_at_all() {
    let (_dir, store) = folder();
    let mut upload = store.upload("big").await.unwrap();
    upload.write(vec![1; 5 << 20]).await.unwrap();
    upload.write(vec![2; 9 << 20]).await.unwrap();
    assert_eq!(store.head("big").await.unwrap(), None);
    upload.finish().await.unwrap();
    assert_eq!(store.head("big").await.unwrap(), Some(14 << 20));
    let mut upload = store.upload("gone").await.unwrap();
    upload.write("some").await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 1);
}

#[test]
fn of_many_creators_one_wins() {
    let (_dir, store) = folder();
    let start = Arc::new(std::sync::Barrier::new(8));
    for round in 0..20 {
        let key = format!("leader/{round}");
        let threads: Vec<_> = (0..8)
            .map(|me: u8| {
                let (store, key, start) = (store.clone(), key.clone(), Arc::clone(&start));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    start.wait();
                    let put = runtime.block_on(store.put_if_absent(&key, vec![me; 1000])).unwrap();
                    (me, put)
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let winners: Vec<u8> = results.iter().filter(|(_, put)| *put == Put::Created).map(|(me, _)| *me).collect();
        assert_eq!(winners.len(), 1, "round {round}: {results:?}");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(&runtime.block_on(store.get(&key)).unwrap()[..], &[winners[0]; 1000]);
    }
}

#[tokio::test]
async fn unusable_urls_and_keys_are_refused_with_a_reason() {
    for url in ["", "s3:/", "ftp://host/x", "file://host/x", "s4://bucket"] {
        let error = open(url).map(|s| s.url().to_owned());
        if url.contains("://") || url.is_empty() {
            let message = error.unwrap_err().to_string();
            assert!(message.contains(url) && message.contains("s3://bucket/prefix"), "{message}");
        }
    }
    let (_dir, store) = folder();
    for key in ["", "a//b", "../x", "a/./b", "unfinished#1"] {
        let error = store.put(key, "x").await.unwrap_err();
        assert!(matches!(error, StorageError::InvalidKey { .. }), "{key}: {error}");
    }
}

#[tokio::test]
async fn missing_objects_and_odd_folders_are_named() {
    let (dir, store) = folder();
    let error = store.get("manifests/1.json").await.unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().contains(&store.url_of("manifests/1.json")), "{error}");
    assert!(!error.to_string().contains("os error"), "the source is not repeated: {error}");
    // A file where a folder should be.
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let error = open(dir.path().join("file").to_str().unwrap()).unwrap().put("k", "v").await.unwrap_err();
    assert!(error.to_string().contains("file/k"), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_reported_in_bounded_time() {
    // A port that was free a moment ago: nothing listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let store = open(&format!("http://127.0.0.1:{port}/data")).unwrap();
    let start = Instant::now();
    let error = store.get("index.json").await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient());
    let message = error.to_string();
    assert!(message.contains(&format!("127.0.0.1:{port}/data/index.json")) && message.contains("check"), "{message}");
}
