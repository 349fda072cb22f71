//! What a web server's refusals mean.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;

use r2o_storage::{StorageError, Store, open};

/// A server that answers every request with the same status, until the test's process ends.
fn always(status: &'static str) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            _ = stream.read(&mut request);
            _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    open(&format!("http://127.0.0.1:{port}/set")).unwrap()
}

#[tokio::test]
async fn refusals_are_sorted_by_what_a_person_can_do() {
    let error = always("404 Not Found").get("index.json").await.unwrap_err();
    assert!(matches!(error, StorageError::NotFound { .. }), "{error:?}");
    let error = always("403 Forbidden").get("index.json").await.unwrap_err();
    assert!(matches!(error, StorageError::PermissionDenied { .. }), "{error:?}");
    let error = always("401 Unauthorized").get("index.json").await.unwrap_err();
    assert!(matches!(error, StorageError::Credentials { .. }), "{error:?}");
    let error = always("405 Method Not Allowed").put("index.json", "x").await.unwrap_err();
    assert!(matches!(error, StorageError::Unsupported { .. }), "{error:?}");
    let error = always("507 Insufficient Storage").put("index.json", "x").await.unwrap_err();
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error:?}");
    let error = always("503 Service Unavailable").get("index.json").await.unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
    for error in [error.to_string(), error.url().to_owned()] {
        assert!(error.contains("/set/index.json"), "{error}");
    }
}
