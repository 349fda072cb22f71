//! One suite of promises for every kind of store: whole objects, one winner, a fenced journal, a lease, checkpoints.
//!
//! S3 takes part where `R2O_TEST_S3_URL` names an empty prefix (`s3://bucket/prefix`, with the usual `AWS_*` variables), and Azure
//! where `R2O_TEST_AZURE_URL` does (`az://container/prefix`, with `AZURE_*`).

#![allow(clippy::unwrap_used)]

#[path = "promises/suite.rs"]
mod suite;

use r2o_storage::open;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    suite::all(&open(folder.path().to_str().unwrap()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_promises() {
    suite::all(&open("memory:///").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_promises() {
    let Ok(url) = std::env::var("R2O_TEST_S3_URL") else {
        println!("not run: storage on S3: needs an S3 server (R2O_TEST_S3_URL and AWS_*)");
        return;
    };
    below(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_the_promises() {
    let Ok(url) = std::env::var("R2O_TEST_AZURE_URL") else {
        println!(
            "not run: storage on Azure: needs Node and `npm ci --prefix tests/azure` (or R2O_TEST_AZURE_URL and AZURE_*)"
        );
        return;
    };
    below(&url).await;
}

/// In a folder of its own.
async fn below(url: &str) {
    suite::all(&open(&format!("{}/{}", url.trim_end_matches('/'), uuid::Uuid::new_v4())).unwrap()).await;
}
