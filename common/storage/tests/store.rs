//! Stores by their URLs, and errors that name what and where. What every store promises is in promises.rs.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use r2o_storage::{StorageError, Store, open};

fn folder() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path().to_str().unwrap()).unwrap();
    (dir, store)
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

#[test]
fn a_url_with_credentials_in_it_is_refused_and_not_repeated() {
    for url in [
        "s3://key:secret-word@bucket/set",
        "https://host/set?X-Amz-Signature=secret-word",
        "az://secret-word@container/set",
        "abfss://container:secret-word@account.dfs.core.windows.net/set",
    ] {
        let refused = r2o_storage::open(url).unwrap_err().to_string();
        assert!(
            refused.contains("environment") && refused.contains("/set") && !refused.contains("secret-word"),
            "{refused}"
        );
    }
    let variables = [("AZURE_STORAGE_ACCOUNT_KEY".to_owned(), "a2V5".to_owned())];
    r2o_storage::open_with("abfss://container@account.dfs.core.windows.net/set", &variables).unwrap();
}
