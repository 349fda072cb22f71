//! Servers that data comes from in tests: SeaweedFS as an S3 server, which may be killed and started again (`cargo xtask setup
//! --s3` fetches the program), [`Azurite`], and [`Faulty`], which is late and fails as it is told.

mod azure;
mod faulty;

use std::{
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

pub use azure::Azurite;
pub use faulty::{Behind, Faults, Faulty};

/// Environment variable that names the server's program, for tests that start one of their own.
pub const PROGRAM: &str = "R2O_S3_SERVER";

const BUCKET: &str = "r2o-tests";
const KEY: &str = "r2o-test-key";
const SECRET: &str = "r2o-test-secret";

/// How long the server may take to come up on a busy machine.
const START: Duration = Duration::from_secs(90);

/// The server's program, if [`PROGRAM`] names one.
#[must_use]
pub fn program() -> Option<PathBuf> {
    env::var_os(PROGRAM).map(PathBuf::from).filter(|path| path.is_file())
}

/// A server with an empty bucket. Dropping it ends it, and its data goes.
#[derive(Debug)]
pub struct Server {
    child: Child,
    program: PathBuf,
    address: Ipv4Addr,
    ports: [u16; 4],
    // Goes after the process.
    folder: TempDir,
}

impl Server {
    /// Starts the server at an address of this machine and makes its bucket.
    ///
    /// # Errors
    /// When it cannot be started, or does not come up in time.
    pub fn start(program: &Path, address: Ipv4Addr) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("r2o-s3-").tempdir()?;
        let identities = serde_json::json!({"identities": [{
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        fs::write(folder.path().join("identities.json"), identities.to_string())?;
        let ports = ports(address)?;
        let child = launch(program, address, ports, folder.path())?;
        let mut server = Self { child, program: program.to_owned(), address, ports, folder };
        server.wait_until_up()?;
        Ok(server)
    }

    /// Kills it at once. What it had acknowledged is on its disk.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill(&mut self) -> Result<()> {
        kill_process_group(self.group(), Signal::KILL).context("the S3 server was gone already")?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again on its old data and ports, after [`Server::kill`].
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.child = launch(&self.program, self.address, self.ports, self.folder.path())?;
        self.wait_until_up()
    }

    /// The process group of the server.
    #[must_use]
    pub fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The URL of an empty prefix in its bucket.
    #[must_use]
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/tests")
    }

    /// What programs must know to reach it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}:{}", self.address, self.ports[3])),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// A bucket is a folder of the server's filer, made with its first object, which is taken once the volumes are up.
    fn wait_until_up(&mut self) -> Result<()> {
        let [_, _, filer, port] = self.ports;
        let start = Instant::now();
        let (_never, tick) = mpsc::channel::<()>();
        while start.elapsed() < START {
            let up = put((self.address, filer), &format!("/buckets/{BUCKET}/first"))
                && TcpStream::connect((self.address, port)).is_ok();
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
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
    }
}

fn launch(program: &Path, address: Ipv4Addr, [master, volume, filer, port]: [u16; 4], folder: &Path) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(["server", "-filer", "-s3", "-master.telemetry=false"]);
    command.args([format!("-ip={address}"), format!("-ip.bind={address}")]);
    command.args(["-master.volumeSizeLimitMB=64", "-volume.max=100"]);
    // Two services that nothing here uses, on fixed ports.
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
    command.arg(format!("-dir={}", folder.display()));
    command.arg(format!("-s3.config={}", folder.join("identities.json").display()));
    for (name, port) in [("master", master), ("volume", volume), ("filer", filer), ("s3", port)] {
        command.arg(format!("-{name}.port={port}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// Puts a file of one byte and says whether that succeeded.
fn put(to: (Ipv4Addr, u16), path: &str) -> bool {
    let send = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.starts_with(b"HTTP/1.1 2"))
    };
    send().unwrap_or(false)
}

/// Four free ports. The server takes each one's sum with 10000 too.
fn ports(address: Ipv4Addr) -> Result<[u16; 4]> {
    let free = |port: u16| TcpListener::bind((address, port)).is_ok();
    // Two runs at the same time begin at different places.
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    let found: Vec<u16> = (first..40_000).filter(|port| free(*port) && free(port + 10_000)).take(4).collect();
    found.try_into().ok().context("no four free ports for the S3 server")
}
