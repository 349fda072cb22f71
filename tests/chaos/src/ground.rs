//! Where a run takes place, which decides what can go wrong there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use r2o_storage::Store;
use r2o_test_kit::{FleetOptions, NETWORK_NEEDS, Network};
use r2o_test_stores::Server;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use tempfile::TempDir;

use crate::fault::Kind;

/// Room for the demo's checkpoints.
const DISK: &str = "size=1500m";

/// A kind of ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// All processes on loopback; checkpoints in a folder, on a small disk of its own where one can be mounted.
    Disk,
    /// Every worker on a host of its own; journal and checkpoints on an S3 server.
    Hosts,
}

/// A place that was made ready.
#[derive(Debug)]
pub struct Ground {
    // The server ends, and the disk is let go, before the folder goes.
    pub(crate) server: Option<Server>,
    pub(crate) disk: Option<Disk>,
    pub(crate) network: bool,
    pub(crate) folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Ground {
    /// Makes a place ready, and says what a fleet there is started with. `Err` in the inner result: what the machine lacks.
    ///
    /// # Errors
    /// When the machine has what is needed, and it does not work.
    pub fn open(place: Place) -> Result<Result<(Self, FleetOptions), String>> {
        let folder = tempfile::tempdir()?;
        // A pair of hosts that are cut off from each other is found out by this alone.
        let coordinator = ["--stall-timeout", "10"].map(str::to_owned).to_vec();
        let mut options = FleetOptions { coordinator, ..FleetOptions::default() };
        if place == Place::Disk {
            let disk = Disk::mount(&folder.path().join("disk"))?;
            return Ok(Ok((Self { server: None, disk, network: false, folder, environment: Vec::new() }, options)));
        }
        let Some(program) = r2o_test_stores::program() else {
            return Ok(Err("needs the S3 server that `cargo xtask setup --s3` fetches".to_owned()));
        };
        let Some(network) = Network::create()? else { return Ok(Err(NETWORK_NEEDS.to_owned())) };
        let server = Server::start(&program, network.gateway())?;
        let environment: Vec<(String, String)> =
            server.environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        options.state = Some(format!("{}/state", server.url()));
        options.environment.clone_from(&environment);
        options.network = Some(network);
        Ok(Ok((Self { server: Some(server), disk: None, network: true, folder, environment }, options)))
    }

    /// Whether such a fault can happen here.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::CutWorker | Kind::CutPair => self.network,
            Kind::KillStorage => self.server.is_some(),
            Kind::FullDisk => self.disk.is_some(),
            Kind::StorageAway => self.server.is_none(),
            _ => true,
        }
    }

    /// Where a job of this name keeps its checkpoints.
    pub(crate) fn checkpoints(&self, name: &str) -> String {
        match (&self.server, &self.disk) {
            (Some(server), _) => format!("{}/{name}", server.url()),
            (None, Some(disk)) => disk.0.join(name).display().to_string(),
            (None, None) => self.folder.path().join(name).display().to_string(),
        }
    }

    pub(crate) fn store(&self, url: &str) -> Result<Store> {
        Ok(r2o_storage::open_with(url, &self.environment)?)
    }
}

/// A small file system in memory, mounted on a folder.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`: nobody may mount here.
    fn mount(folder: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "none"]).arg(folder);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        Ok(mounted.then(|| Self(folder.to_owned())))
    }

    /// Takes all the room that is left, or gives it back.
    pub(crate) fn fill(&self, full: bool) -> Result<()> {
        let path = self.0.join("filling");
        if !full {
            return std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()));
        }
        let file = rustix::fs::open(&path, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR)?;
        let mut end = 0;
        // Blocks get smaller until not even a page fits; what others write meanwhile fails, or fits.
        for block in [64 << 20, 1 << 20, 4096_u64] {
            loop {
                match rustix::fs::fallocate(&file, FallocateFlags::empty(), end, block) {
                    Ok(()) => end += block,
                    Err(rustix::io::Errno::NOSPC) => break,
                    Err(error) => bail!("cannot fill {}: {error}", path.display()),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may hold a file. Nobody is left to tell of more.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
