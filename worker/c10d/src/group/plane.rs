//! The data plane of a Gloo group: which of this process's sockets belong to it, and how to shut them down.
//!
//! Gloo waits for its whole timeout on a peer that hangs, and has no call that wakes it. `shutdown(2)` on its own
//! sockets does, but for sends that it loses sight of (cpp/abortable.cpp). They are found by address: every group has a
//! listener of its own, each rank leaves the listener's address in the store, and a connected socket is the group's when
//! its own end is our listener's address (accepted) or its far end a peer's (connected). Other sockets of the process,
//! such as the coordinator's streams, are never touched.

use std::collections::HashSet;
use std::ffi::c_void;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ffi;
use crate::group::c_string;
use crate::store::Store;

mod socket;

/// Held while a listener is opened, so that two groups of a process never take each other's for their own.
static OPENING: Mutex<()> = Mutex::new(());

/// A Gloo device, and the address that it listens on.
pub(super) struct Listener {
    raw: *mut c_void,
    address: SocketAddr,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: made by the shim, released once; the group has its own reference.
        unsafe { ffi::r2o_gloo_device_drop(self.raw) };
    }
}

impl Listener {
    /// Opens a device on an address, host name or interface of this machine.
    pub(super) fn open(address: &str) -> Result<Self, String> {
        let is_interface = !address.contains('/') && Path::new("/sys/class/net").join(address).exists();
        let name = c_string(address);
        let _held = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let before: HashSet<_> = socket::listening()?.into_iter().collect();
        let mut raw = null_mut();
        // SAFETY: the name outlives the call.
        unsafe { ffi::take(ffi::r2o_gloo_device(name.as_ptr(), is_interface, &raw mut raw)) }?;
        let after = socket::listening();
        let mut device = Self { raw, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        device.address = after?
            .into_iter()
            .find(|address| !before.contains(address))
            .ok_or_else(|| format!("Gloo opened no listener on {address}"))?;
        Ok(device)
    }

    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.raw
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn key(rank: usize) -> String {
    format!("data-plane/{rank}")
}

/// Leaves this rank's listener address for its peers.
pub(super) fn publish(store: &dyn Store, rank: usize, address: SocketAddr) -> Result<(), String> {
    store.set(&key(rank), address.to_string().as_bytes())
}

/// The addresses by which a group's sockets are known.
pub(super) struct DataPlane {
    own: SocketAddr,
    peers: HashSet<SocketAddr>,
}

impl DataPlane {
    /// Reads the peers' addresses from the store.
    pub(super) fn learn(
        store: &dyn Store,
        own: SocketAddr,
        rank: usize,
        world: usize,
        timeout: Duration,
    ) -> Result<Self, String> {
        let mut peers = HashSet::new();
        for peer in (0..world).filter(|&peer| peer != rank) {
            let text = store.get(&key(peer), timeout)?;
            let text = String::from_utf8_lossy(&text);
            let address = text.parse().map_err(|_| format!("rank {peer} advertises no address but `{text}`"))?;
            peers.insert(address);
        }
        Ok(Self { own, peers })
    }

    /// Shuts down the group's connections; how many there were.
    pub(super) fn shut_down(&self) -> usize {
        let sockets = socket::connected().unwrap_or_else(|reason| {
            tracing::error!(reason, "cannot look for the group's sockets: its collectives run into their timeout");
            Vec::new()
        });
        sockets.into_iter().filter(|s| s.near == self.own || self.peers.contains(&s.far)).map(|s| shut(s.fd)).sum()
    }
}

fn shut(fd: RawFd) -> usize {
    // SAFETY: shutdown on a descriptor that was closed meanwhile fails with EBADF or ENOTSOCK and does no harm.
    usize::from(unsafe { libc::shutdown(fd, libc::SHUT_RDWR) } == 0)
}
