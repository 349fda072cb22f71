//! An S3 server on loopback for as long as the tests run.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::setup;

const BUCKET: &str = "r2o-tests";
const KEY: &str = "r2o-test-key";
const SECRET: &str = "r2o-test-secret";

/// How long the server may take to come up on a busy machine.
const START: Duration = Duration::from_secs(90);

/// A running server with an empty bucket. Dropping this ends it.
pub(super) struct Server {
    child: Child,
    port: u16,
    // Goes after the process.
    _folder: TempDir,
}

impl Server {
    /// Starts the server that `setup --s3` fetched. `None`: there is none, or the environment names another.
    pub(super) fn start() -> Result<Option<Self>> {
        if env::var_os("R2O_TEST_S3_URL").is_some() {
            return Ok(None);
        }
        let Some(program) = setup::s3_server() else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("r2o-s3-").tempdir()?;
        let identities = serde_json::json!({"identities": [{
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let configuration = folder.path().join("identities.json");
        fs::write(&configuration, identities.to_string())?;
        let [master, volume, filer, port] = ports()?;
        let mut command = Command::new(&program);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false"]);
        command.args(["-master.volumeSizeLimitMB=64", "-volume.max=100"]);
        // Two services that nothing here uses, on fixed ports.
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.arg(format!("-dir={}", folder.path().display()));
        command.arg(format!("-s3.config={}", configuration.display()));
        for (name, port) in [("master", master), ("volume", volume), ("filer", filer), ("s3", port)] {
            command.arg(format!("-{name}.port={port}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let group = Pid::from_child(&child);
        let mut server = Self { child, port, _folder: folder };
        // An interrupted run leaves no server behind.
        ctrlc::set_handler(move || {
            let _ = kill_process_group(group, Signal::KILL);
            std::process::exit(130);
        })?;
        server.make_bucket(filer)?;
        Ok(Some(server))
    }

    /// What tests must know of it.
    pub(super) fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("R2O_TEST_S3_URL", format!("s3://{BUCKET}/tests")),
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// A bucket is a folder of the server's filer, made with its first object, which is taken once the volumes are up.
    fn make_bucket(&mut self, filer: u16) -> Result<()> {
        let start = Instant::now();
        let (_never, tick) = mpsc::channel::<()>();
        while start.elapsed() < START {
            let up = put(filer, &format!("/buckets/{BUCKET}/first"))
                && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            if up {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the S3 server for tests ended ({status})");
            }
            let _ = tick.recv_timeout(Duration::from_millis(100));
        }
        bail!("the S3 server for tests did not come up in {} s", START.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already, and nobody is left to tell.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Puts a file of one byte and says whether that succeeded.
fn put(port: u16, path: &str) -> bool {
    let send = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.starts_with(b"HTTP/1.1 2"))
    };
    send().unwrap_or(false)
}

/// Four free ports. The server takes each one's sum with 10000 too.
fn ports() -> Result<[u16; 4]> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    // Two runs at the same time begin at different places.
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    let found: Vec<u16> = (first..40_000).filter(|port| free(*port) && free(port + 10_000)).take(4).collect();
    found.try_into().ok().context("no four free loopback ports for the S3 server")
}
