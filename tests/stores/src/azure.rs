//! Azurite as a server of Azure's blobs. `npm ci --prefix tests/azure` installs it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

const CONTAINER: &str = "r2o-tests";
/// The emulator's, which everybody knows.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server with an empty container. Dropping it ends it, and its data goes.
#[derive(Debug)]
pub struct Azurite {
    child: Child,
    port: u16,
    // Goes after the process.
    _folder: TempDir,
}

impl Azurite {
    /// Starts the server that is installed in this folder, tests/azure of the repository. `None`: it is not, or there is no Node.
    ///
    /// # Errors
    /// When it cannot be started, or does not come up.
    pub fn start(installed: &Path) -> Result<Option<Self>> {
        let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
        if !node || !installed.join("node_modules/azurite").is_dir() {
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("r2o-azure-").tempdir()?;
        let log = folder.path().join("log");
        let [port, ..] = crate::ports(Ipv4Addr::LOCALHOST)?;
        let mut command = Command::new("node");
        command.arg(installed.join("serve.mjs")).arg(port.to_string()).arg(folder.path().join("data")).arg(CONTAINER);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&log)?).process_group(0);
        let mut child = command.spawn().context("cannot start Azurite")?;
        let mut line = String::new();
        let output = child.stdout.take().context("Azurite has no output")?;
        let server = Self { child, port, _folder: folder };
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "Azurite did not come up: {line}{}", fs::read_to_string(&log)?);
        Ok(Some(server))
    }

    /// The process group of the server.
    #[must_use]
    pub fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The URL of an empty prefix in its container.
    #[must_use]
    pub fn url(&self) -> String {
        format!("az://{CONTAINER}/tests")
    }

    /// What programs must know to reach it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AZURE_STORAGE_ENDPOINT", format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
        ]
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // It may be gone already, and nobody is left to tell.
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
    }
}
