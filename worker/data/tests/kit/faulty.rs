//! An HTTP server in front of a folder or of another server: late, failing, stalling and lying as it is told.
// Each test program uses its own part.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use r2o_types::Keyed;

/// Where the bytes are.
pub(crate) enum Behind {
    /// Files of a folder, by GET with a range and HEAD.
    Folder(PathBuf),
    /// A server, to which requests go on as they are.
    Server(SocketAddr),
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Before each answer.
    pub(crate) delay: Duration,
    /// Requests in a thousand that fail: one half with status 500, the other by a cut in the middle of the answer.
    pub(crate) failing: u64,
    /// Requests in a thousand that are ten times as late.
    pub(crate) straggling: u64,
    /// Answers in a thousand that have a wrong bit, in a folder's files.
    pub(crate) lying: u64,
}

struct Shared {
    behind: Behind,
    faults: Faults,
    open: Mutex<bool>,
    opened: Condvar,
    ended: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    waiting: AtomicU64,
    sent: AtomicU64,
    ranges: Mutex<Vec<String>>,
}

/// The server. Dropping it ends it.
pub(crate) struct Faulty {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Faulty {
    pub(crate) fn start(behind: Behind, faults: Faults) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behind,
            faults,
            open: Mutex::new(true),
            opened: Condvar::new(),
            ended: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            ranges: Mutex::default(),
        });
        let of = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of.ended.load(SeqCst) {
                    return;
                }
                let of = Arc::clone(&of);
                // A client that went away needs no answer.
                std::thread::spawn(move || drop(of.serve(stream)));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds all answers back, or lets them go.
    pub(crate) fn hold(&self, hold: bool) {
        *self.shared.open.lock().unwrap() = !hold;
        self.shared.opened.notify_all();
    }

    /// What was asked for by ranges, in order.
    pub(crate) fn ranges(&self) -> Vec<String> {
        self.shared.ranges.lock().unwrap().clone()
    }

    /// Requests that came, that were made to fail, that are held back; and bytes of bodies sent.
    pub(crate) fn seen(&self) -> [u64; 4] {
        let Shared { requests, failed, waiting, sent, .. } = &*self.shared;
        [requests, failed, waiting, sent].map(|count| count.load(SeqCst))
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.hold(false);
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// One request to a connection: a client that keeps none open is the harder one to serve.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        let mut reader = BufReader::new(client.try_clone()?);
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let number = self.requests.fetch_add(1, SeqCst);
        let mut dice = Keyed::new("faults", &[number]);
        let late = if dice.below(1000) < self.faults.straggling { 10 } else { 1 };
        let (_never, answer) = mpsc::channel::<()>();
        let _ = answer.recv_timeout(self.faults.delay * late);
        self.wait_until_open();
        // An index is read by plain clients, which are not on trial here.
        let chunk = head.to_ascii_lowercase().contains("\r\nrange:");
        if chunk {
            let range = head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:")).unwrap_or_default();
            self.ranges.lock().unwrap().push(format!("{} {range}", head.lines().next().unwrap_or_default()));
        }
        let fails = chunk && dice.below(1000) < self.faults.failing;
        self.failed.fetch_add(u64::from(fails), SeqCst);
        if fails && dice.below(2) == 0 {
            return client
                .write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let mut answer = match &self.behind {
            Behind::Folder(folder) => from_folder(folder, &head)?,
            Behind::Server(address) => from_server(*address, &head)?,
        };
        if chunk && dice.below(1000) < self.faults.lying {
            let last = answer.len() - 1;
            answer[last] ^= 1;
        }
        if fails {
            answer.truncate(answer.len() / 2);
        }
        self.sent.fetch_add(answer.len() as u64, SeqCst);
        client.write_all(&answer)
    }

    fn wait_until_open(&self) {
        self.waiting.fetch_add(1, SeqCst);
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        self.waiting.fetch_sub(1, SeqCst);
    }
}

/// The whole answer of the server behind.
fn from_server(address: SocketAddr, head: &str) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(address)?;
    let (line, rest) = head.split_once("\r\n").unwrap_or((head, ""));
    // No signature covers this header.
    write!(server, "{line}\r\nConnection: close\r\n{rest}")?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

fn from_folder(folder: &std::path::Path, head: &str) -> io::Result<Vec<u8>> {
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Ok(file) = File::open(folder.join(path.trim_start_matches('/'))) else {
        return Ok(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec());
    };
    let size = file.metadata()?.len();
    let range =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let range = range.as_deref().and_then(|range| range.split_once('-'));
    let (from, to) = range.map_or((0, size), |(from, to)| (from.parse().unwrap(), to.parse::<u64>().unwrap() + 1));
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{size}\r\nETag: \"1\"\r\n\
         Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT\r\nConnection: close\r\n\r\n",
        to - from,
        to - 1
    )
    .into_bytes();
    if method == "GET" {
        let start = answer.len();
        answer.resize(start + (to - from) as usize, 0);
        file.read_exact_at(&mut answer[start..], from)?;
    }
    Ok(answer)
}
