//! Connections that come to take the place of others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use r2o_coordinator::{Limits, Service};
use r2o_proto::v1::ListRequest;
use r2o_proto::v1::jobs_client::JobsClient;
use tonic::transport::Channel;

use super::kit::*;

const CROWD: usize = 10_000;

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

/// Waits until the peer closes.
fn must_close(stream: &mut TcpStream, within: Duration) {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("still open after {within:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn who_says_nothing_or_says_it_slowly_is_closed_and_who_is_let_in_stays() {
    let place = Place::new();
    let mut options = place.options();
    options.connections = Limits { strangers: Duration::from_millis(400), ..options.connections };
    let handle = Service::start(options).await.unwrap();
    let (grpc, web) = (address(&handle.url()), address(&handle.web_url().unwrap()));
    let mut let_in = JobsClient::connect(handle.url()).await.unwrap();
    let_in.list(ListRequest {}).await.unwrap();
    let strangers = tokio::task::spawn_blocking(move || {
        let mut silent = [grpc, web].map(|address| TcpStream::connect(address).unwrap());
        let mut slow = TcpStream::connect(web).unwrap();
        let begun = Instant::now();
        // Each byte comes long before any time-out between bytes would pass.
        let mut request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a'));
        while slow.write_all(&[*request.next().unwrap()]).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(20), "a slow request is read for ever");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        silent.iter_mut().for_each(|stream| must_close(stream, Duration::from_secs(20)));
    });
    strangers.await.unwrap();
    // On the same connection, long after a stranger's time.
    let_in.list(ListRequest {}).await.unwrap();
}

#[tokio::test]
async fn further_connections_than_the_limit_are_closed_and_the_others_go_on() {
    let place = Place::new();
    let mut options = place.options();
    options.connections.connections = 2;
    let handle = Service::start(options).await.unwrap();
    let mut let_in = JobsClient::connect(handle.url()).await.unwrap();
    let_in.list(ListRequest {}).await.unwrap();
    let grpc = address(&handle.url());
    let (kept, mut refused) = tokio::task::spawn_blocking(move || {
        let kept = TcpStream::connect(grpc).unwrap();
        (kept, TcpStream::connect(grpc).unwrap())
    })
    .await
    .unwrap();
    let refused = tokio::task::spawn_blocking(move || must_close(&mut refused, Duration::from_secs(10)));
    refused.await.unwrap();
    let_in.list(ListRequest {}).await.unwrap();
    drop(kept);
}

/// The program itself, which may open other files than the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[tokio::test]
async fn ten_thousand_idle_connections_keep_nobody_from_being_served() {
    let limits = Limits::of_process();
    let place = Place::new();
    let file = place.path("address");
    let mut program = Command::new(env!("CARGO_BIN_EXE_r2o-coordinator"));
    program.args(["--listen", "127.0.0.1:0", "--http", "off", "--state"]).arg(place.path("state"));
    program.arg("--address-file").arg(&file);
    let _program = Program(program.spawn().unwrap());
    let url = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match std::fs::read_to_string(&file) {
                Ok(url) => break url.trim().to_owned(),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .unwrap();
    let mut before: JobsClient<Channel> = JobsClient::connect(url.clone()).await.unwrap();
    before.list(ListRequest {}).await.unwrap();
    assert!(limits.connections > CROWD, "this process may open {} connections only", limits.connections);
    let address = address(&url);
    let mut crowd = tokio::task::spawn_blocking(move || -> Vec<TcpStream> {
        (0..CROWD).map(|_| TcpStream::connect(address).unwrap()).collect()
    })
    .await
    .unwrap();
    let asked = Instant::now();
    before.list(ListRequest {}).await.unwrap();
    JobsClient::connect(url.clone()).await.unwrap().list(ListRequest {}).await.unwrap();
    println!("served beside {CROWD} idle connections in {:?}", asked.elapsed());
    let close = move || crowd.iter_mut().for_each(|stream| must_close(stream, Duration::from_secs(60)));
    tokio::task::spawn_blocking(close).await.unwrap();
    before.list(ListRequest {}).await.unwrap();
}
