//! An HTTP server in front of a folder or of another server: late, failing, stalling and lying as it is told.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Result;

/// Where the bytes are.
#[derive(Debug)]
pub enum Behind {
    /// Files of a folder, by GET with a range and HEAD.
    Folder(PathBuf),
    /// A server, to which requests go on as they are.
    Server(SocketAddr),
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Before each answer.
    pub delay: Duration,
    /// Requests in a thousand that fail: one half with status 500, the other by a cut in the middle of the answer.
    pub failing: u64,
    /// Requests in a thousand that are ten times as late.
    pub straggling: u64,
    /// Answers in a thousand that have a wrong bit, in a folder's files.
    pub lying: u64,
}

#[derive(Debug)]
struct Shared {
    behind: Behind,
    faults: Faults,
    /// Requests that begin like this are held back.
    held: Mutex<Option<String>>,
    released: Condvar,
    ended: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    waiting: AtomicU64,
    sent: AtomicU64,
    ranges: Mutex<Vec<String>>,
}

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct Faulty {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Faulty {
    /// Starts it at a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(behind: Behind, faults: Faults) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            behind,
            faults,
            held: Mutex::default(),
            released: Condvar::new(),
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
        Ok(Self { address, shared })
    }

    /// Where it is, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds back the answers to all requests that begin like this, such as `GET /photo.jpg`; to all, if it is empty.
    pub fn hold(&self, requests: &str) {
        *locked(&self.shared.held) = Some(requests.to_owned());
        self.shared.released.notify_all();
    }

    /// Lets all go on.
    pub fn release(&self) {
        *locked(&self.shared.held) = None;
        self.shared.released.notify_all();
    }

    /// What was asked for by ranges, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<String> {
        locked(&self.shared.ranges).clone()
    }

    /// Requests that came, that were made to fail, that are held back; and bytes of bodies sent.
    #[must_use]
    pub fn seen(&self) -> [u64; 4] {
        let Shared { requests, failed, waiting, sent, .. } = &*self.shared;
        [requests, failed, waiting, sent].map(|count| count.load(SeqCst))
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.release();
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// One request to a connection: a client that keeps none open is the harder one to serve.
    fn serve(&self, mut client: TcpStream) -> Result<()> {
        let mut head = Vec::new();
        let mut reader = BufReader::new(client.try_clone()?);
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let number = self.requests.fetch_add(1, SeqCst);
        let mut dice = Dice(number);
        let late = if dice.below(1000) < self.faults.straggling { 10 } else { 1 };
        let (_never, answer) = mpsc::channel::<()>();
        let _ = answer.recv_timeout(self.faults.delay * late);
        self.wait_until_released(&head);
        // An index is read by plain clients, which are not on trial here.
        let chunk = head.to_ascii_lowercase().contains("\r\nrange:");
        if chunk {
            let range = head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:")).unwrap_or_default();
            locked(&self.ranges).push(format!("{} {range}", head.lines().next().unwrap_or_default()));
        }
        let fails = chunk && dice.below(1000) < self.faults.failing;
        self.failed.fetch_add(u64::from(fails), SeqCst);
        if fails && dice.below(2) == 0 {
            let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return Ok(client.write_all(answer)?);
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
        Ok(client.write_all(&answer)?)
    }

    fn wait_until_released(&self, head: &str) {
        let held = |held: &mut Option<String>| held.as_ref().is_some_and(|requests| head.starts_with(requests));
        self.waiting.fetch_add(1, SeqCst);
        drop(self.released.wait_while(locked(&self.held), held));
        self.waiting.fetch_sub(1, SeqCst);
    }
}

/// A holder that panicked left the value whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers drawn from a request's own number, by SplitMix64 (Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
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

fn from_folder(folder: &Path, head: &str) -> Result<Vec<u8>> {
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Ok(file) = File::open(folder.join(path.trim_start_matches('/'))) else {
        return Ok(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec());
    };
    let size = file.metadata()?.len();
    let range =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let range = range.as_deref().and_then(|range| range.split_once('-'));
    let (from, to) = match range {
        Some((from, to)) => (from.parse()?, to.parse::<u64>()? + 1),
        None => (0, size),
    };
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
