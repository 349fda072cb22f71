//! Hosts of our own: network namespaces on one bridge, which tests can cut off from each other. Needs root and iproute2.
//!
//! A cut is silent, as that of a cable or a switch: packets go nowhere, and no side is told.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

/// The program that runs others in a namespace.
const IP: &str = "/usr/sbin/ip";
const BRIDGE: &str = "/usr/sbin/bridge";
/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// What a machine lacks that has no namespaces for tests.
pub const NEEDS: &str = "needs root and iproute2 (network namespaces)";

/// Networks of this process, each with a prefix of its own.
static NETWORKS: AtomicU16 = AtomicU16::new(0);

/// Hosts on one bridge. Dropping it takes them away.
#[derive(Debug)]
pub struct Network {
    /// Unique on this machine, and short enough for names of interfaces.
    id: String,
    prefix: [u8; 3],
    hosts: Vec<Host>,
}

/// One network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name for `ip netns exec`.
    pub namespace: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The bridge's end of its cable.
    port: String,
}

impl Host {
    /// The program and the arguments that run `program` on this host.
    #[must_use]
    pub fn command(&self, program: &Path) -> (&'static Path, Vec<String>) {
        let words = ["netns", "exec", &self.namespace].map(str::to_owned);
        (Path::new(IP), words.into_iter().chain([program.display().to_string()]).collect())
    }
}

impl Network {
    /// A bridge without hosts. `None`: this machine or this user cannot have one; see [`NEEDS`].
    ///
    /// # Errors
    /// When the machine could, and does not.
    pub fn create() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() || ![IP, BRIDGE].iter().all(|program| Path::new(program).is_file()) {
            return Ok(None);
        }
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let id = format!("r2o{}x{number}", process % 100_000);
        // A part of 198.18.0.0/15, which RFC 2544 sets aside for tests of networks.
        let [_, _, high, low] = ((process * 8 + u32::from(number)) % 512).to_be_bytes();
        let network = Self { prefix: [198, 18 + high, low], hosts: Vec::new(), id };
        if ip(&["link", "add", &network.id, "type", "bridge"]).is_err() {
            return Ok(None);
        }
        ip(&["address", "add", &format!("{}/24", network.gateway()), "dev", &network.id])?;
        ip(&["link", "set", &network.id, "up"])?;
        Ok(Some(network))
    }

    /// The address of this machine as hosts see it.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }

    /// One more host.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn add(&mut self) -> Result<Host> {
        let number = u8::try_from(self.hosts.len()).ok().filter(|n| *n < 250).context("a network has 250 hosts")?;
        let host = Host {
            namespace: format!("{}-{number}", self.id),
            address: self.address(number + 2),
            port: format!("{}v{number}", self.id),
        };
        let Host { namespace, address, port } = &host;
        ip(&["netns", "add", namespace])?;
        self.hosts.push(host.clone());
        ip(&["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
        ip(&["link", "set", port, "master", &self.id, "up"])?;
        ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// Cuts a host off from everybody, or connects it again.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn cut(&self, host: &Host, cut: bool) -> Result<()> {
        // As the kernel numbers a port's states: disabled, forwarding.
        call(BRIDGE, &["link", "set", "dev", &host.port, "state", if cut { "0" } else { "3" }])
    }

    /// Cuts two hosts off from each other, and from nobody else, or connects them again.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn cut_pair(&self, one: &Host, other: &Host, cut: bool) -> Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            let address = to.address.to_string();
            if cut {
                let wrong = ["neigh", "replace", &address, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"];
                ip(&[&["-n", &from.namespace][..], &wrong].concat())?;
            } else {
                ip(&["-n", &from.namespace, "neigh", "del", &address, "dev", "eth0"])?;
            }
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What is gone already needs no removal, and nobody is left to tell.
        for host in &self.hosts {
            let _ = ip(&["netns", "del", &host.namespace]);
        }
        let _ = ip(&["link", "del", &self.id]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    call(IP, arguments)
}

fn call(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::{not_run, wait_until};

    /// Whether `host` can open a connection within half a second.
    fn reaches(host: &Host, address: Ipv4Addr, port: u16) -> bool {
        let (program, mut arguments) = host.command(Path::new("timeout"));
        arguments.extend(["0.5", "bash", "-c", &format!("exec 3<>/dev/tcp/{address}/{port}")].map(str::to_owned));
        Command::new(program).args(arguments).output().unwrap().status.success()
    }

    #[tokio::test]
    async fn hosts_are_cut_off_and_connected_again() -> Result<()> {
        let Some(mut network) = Network::create()? else {
            not_run(NEEDS);
            return Ok(());
        };
        let (one, other) = (network.add()?, network.add()?);
        let listener = TcpListener::bind((network.gateway(), 0))?;
        let port = listener.local_addr()?.port();
        let home = network.gateway();
        let reaches_home = |host: Host| async move { Ok(reaches(&host, home, port).then_some(())) };
        wait_until("a host reaches home", Duration::from_secs(20), || reaches_home(one.clone())).await?;
        network.cut(&one, true)?;
        assert!(!reaches(&one, home, port) && reaches(&other, home, port));
        network.cut(&one, false)?;
        wait_until("a connected host reaches home", Duration::from_secs(20), || reaches_home(one.clone())).await?;
        network.cut_pair(&one, &other, true)?;
        assert!(reaches(&one, home, port) && reaches(&other, home, port));
        network.cut_pair(&one, &other, false)?;
        Ok(())
    }
}
