//! Storage that is late, fails, stalls or lies: the batches are the same, and memory stays within its bound.
#![allow(clippy::unwrap_used)]

#[path = "kit/streaming.rs"]
mod streaming;
#[path = "kit/synthetic.rs"]
mod synthetic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use r2o_data::{LoaderStats, StreamOptions};
use r2o_storage::ReadOptions;
use r2o_test_stores::{Behind, Faults, Faulty};
use streaming::{Set, child, digests, in_child, opened, started, wait_until};

/// Bytes of a step's members, at most.
const STEP_BYTES: u64 = 64 * 4096;

fn bound(options: &StreamOptions) -> u64 {
    options.memory_bytes + 3 * STEP_BYTES
}

fn reads(stats: &LoaderStats) -> [u64; 3] {
    let reads = stats.reads();
    [&reads.requests, &reads.retries, &reads.hedges].map(|count| count.load(SeqCst))
}

#[test]
fn late_failing_and_straggling_storage_gives_the_same_batches() {
    let set = Set::small();
    let faults = Faults { delay: Duration::from_millis(20), failing: 50, straggling: 50, lying: 10 };
    let server = Faulty::start(Behind::Folder(set.folder()), faults).unwrap();
    // As many hedges as there are stragglers, and a budget that holds less than a window.
    let reads_of = ReadOptions { hedge_percentile: 90, hedge_percent: 20, ..ReadOptions::default() };
    let options = StreamOptions { memory_bytes: 20 * set.chunk_bytes(), reads: reads_of, cache: None };
    let mut loader = started(&opened(&server.url(), options.clone()), 0);
    assert_eq!(digests(&mut loader, set.steps()), set.digests());
    let ([requests, retries, hedges], [_, failed, ..]) = (reads(&loader.stats()), server.seen());
    println!("{requests} requests, {failed} failed, {retries} retries, {hedges} hedges");
    assert!(failed > 0 && retries > 0 && hedges > 0, "{failed} {retries} {hedges}");
    assert!(hedges * 100 <= requests * 20, "{hedges} hedges of {requests} requests are more than asked");
    assert!(loader.stats().buffered_most() <= bound(&options), "{}", loader.stats().buffered_most());
}

#[test]
fn a_store_that_stays_down_is_reported_and_one_that_comes_back_is_not() {
    let set = Set::small();
    let down = Faults { failing: 1000, ..Faults::default() };
    let server = Faulty::start(Behind::Folder(set.folder()), down).unwrap();
    let impatient = ReadOptions { patience: Duration::from_millis(300), ..ReadOptions::default() };
    let options = StreamOptions { reads: impatient, ..StreamOptions::default() };
    let error = started(&opened(&server.url(), options.clone()), 0).next().unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(text.contains("cannot be reached") && text.contains("shard-"), "{text}");
    // Half of all requests fail, far beyond the share of retries: it takes longer, and goes on.
    let server = Faulty::start(Behind::Folder(set.folder()), Faults { failing: 500, ..Faults::default() }).unwrap();
    let quick = ReadOptions { backoff_most: Duration::from_millis(50), ..ReadOptions::default() };
    let options = StreamOptions { reads: quick, ..StreamOptions::default() };
    let mut loader = started(&opened(&server.url(), options), 0);
    assert_eq!(digests(&mut loader, set.steps()), set.digests());
}

#[test]
fn memory_is_bounded_whatever_the_storage_does() {
    let set = Set::small();
    let server = Faulty::start(Behind::Folder(set.folder()), Faults::default()).unwrap();
    for chunks in [1, 3, 12, 200] {
        let options = StreamOptions { memory_bytes: chunks * set.chunk_bytes(), ..StreamOptions::default() };
        let concurrent = options.reads.concurrent as u64;
        // Storage as fast as it gets, and nobody takes a batch.
        let dataset = opened(&server.url(), options.clone());
        let loader = started(&dataset, 0);
        wait_until("batches are ready and nothing moves", || {
            let before = server.seen();
            loader.ready() == 1 && before[2] == 0 && server.seen() == before
        });
        let most = loader.stats().buffered_most();
        assert!(most <= bound(&options), "{chunks} chunks: {most} bytes");
        drop(loader);
        // Storage that stalls: what is asked for is bounded by the budget and by the number of reads at a time.
        server.hold("");
        let loader = started(&dataset, 0);
        let expected = concurrent.min(chunks);
        wait_until("reads are held back", || server.seen()[2] >= expected);
        let stats = loader.stats();
        // Second requests for what does not come have a bound of their own.
        let [_, _, hedges] = reads(&stats);
        assert!(server.seen()[2] <= concurrent + hedges, "{chunks} chunks: {:?}, {hedges} hedges", server.seen());
        assert!(stats.buffered() <= options.memory_bytes, "{chunks} chunks: {} bytes", stats.buffered());
        server.release();
        wait_until("it goes on", || loader.ready() == 1);
        // A loader that nobody wants any more leaves a store that stalls.
        drop(loader);
        wait_until("all is given back", || stats.buffered() <= 2 * STEP_BYTES);
        // With the least memory the batches are the same.
        let mut loader = started(&dataset, 0);
        assert_eq!(digests(&mut loader, 8), set.digests()[..8], "{chunks} chunks");
        let most = loader.stats().buffered_most();
        assert!(most <= bound(&options), "{chunks} chunks: {most} bytes");
    }
}

#[test]
fn memory_for_a_window_reads_every_chunk_once() {
    let set = Set::small();
    let server = Faulty::start(Behind::Folder(set.folder()), Faults::default()).unwrap();
    // No second requests for what is slow on a busy machine.
    let reads = ReadOptions { hedge_percentile: 100, ..ReadOptions::default() };
    let options = StreamOptions { memory_bytes: 40 * set.chunk_bytes(), reads, ..StreamOptions::default() };
    let mut loader = started(&opened(&server.url(), options), 0);
    // The first quarter of an epoch: what is left of it is more than memory can hold, which so does not reach the next.
    digests(&mut loader, set.steps() / 4);
    drop(loader);
    let mut asked = server.ranges();
    let all = asked.len();
    asked.sort_unstable();
    asked.dedup();
    assert!(asked.len() == all && all as u64 >= set.chunks() / 4, "{all} requests for {} chunks", asked.len());
}

#[test]
fn a_fleet_reads_one_copy_of_the_set_an_epoch() {
    const EPOCHS: usize = 4;
    let set = Set::small();
    let server = Faulty::start(Behind::Folder(set.folder()), Faults::default()).unwrap();
    let reads = ReadOptions { hedge_percentile: 100, ..ReadOptions::default() };
    // Of a window, and some to read ahead.
    let chunks = 12;
    let options = StreamOptions { memory_bytes: chunks * set.chunk_bytes(), reads, ..StreamOptions::default() };
    let mut fleet: Vec<_> =
        (0..2).map(|lane| streaming::of_lanes(&opened(&server.url(), options.clone()), vec![lane], 0)).collect();
    for loader in &mut fleet {
        digests(loader, EPOCHS * set.steps());
    }
    drop(fleet);
    // Nobody knows that no epoch follows: so much is read ahead.
    let (asked, needed) = (server.ranges().len() as u64, EPOCHS as u64 * set.chunks());
    assert!((needed..=needed + 2 * chunks).contains(&asked), "{asked} requests for {needed} chunks");
}

#[test]
fn s3_with_latency_and_failures_gives_the_same_batches() {
    const NAME: &str = "s3_with_latency_and_failures_gives_the_same_batches";
    if let Some(url) = in_child() {
        let mut loader = started(&opened(&url, StreamOptions::default()), 0);
        let steps = streaming::SMALL.steps();
        println!("digests {:?}", digests(&mut loader, steps));
        println!("buffered {}", loader.stats().buffered_most());
        return;
    }
    let (Ok(url), Ok(endpoint)) = (std::env::var("R2O_TEST_S3_URL"), std::env::var("AWS_ENDPOINT")) else {
        println!("not run: streaming from S3: needs an S3 server (R2O_TEST_S3_URL and AWS_*)");
        return;
    };
    let set = Set::small();
    let url = format!("{}/{}", url.trim_end_matches('/'), uuid::Uuid::new_v4());
    streaming::upload(&set.folder(), &url);
    let address: SocketAddr = endpoint.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let faults = Faults { delay: Duration::from_millis(50), failing: 10, ..Faults::default() };
    let server = Faulty::start(Behind::Server(address), faults).unwrap();
    let out = child(NAME, &url).env("AWS_ENDPOINT", server.url()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains(&format!("digests {:?}", set.digests())), "{text}");
    let buffered: u64 = text.split("buffered ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(buffered <= bound(&StreamOptions::default()), "{buffered}");
    let [requests, failed, ..] = server.seen();
    println!("{requests} requests, {failed} failed");
    assert!(failed > 0, "no request of {requests} failed");
}

#[test]
fn a_missing_file_is_not_asked_for_again_and_again() {
    let set = Set::small();
    let server = Faulty::start(Behind::Folder(set.folder()), Faults::default()).unwrap();
    let dataset = opened(&server.url(), StreamOptions::default());
    let shards: Vec<PathBuf> = std::fs::read_dir(set.folder()).unwrap().map(|e| e.unwrap().path()).collect();
    shards.iter().filter(|p| p.extension().is_some_and(|e| e == "tar")).for_each(|p| std::fs::remove_file(p).unwrap());
    let mut loader = started(&dataset, 0);
    let text = format!("{:#}", anyhow::Error::new(loader.next().unwrap_err()));
    assert!(text.contains("does not exist") && text.contains(".tar"), "{text}");
    assert_eq!(reads(&loader.stats())[1], 0, "retries");
}
