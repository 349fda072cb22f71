//! Process groups: collectives over all ranks of a generation.

mod plane;

use std::ffi::{CString, c_int};
use std::fmt;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tch::{Device, Tensor};

use self::plane::DataPlane;
use crate::error::Error;
use crate::store::Store;
use crate::{bridge, ffi};

/// How a Gloo group connects.
#[derive(Debug, Clone)]
pub struct GlooOptions {
    /// What this rank advertises to its peers: an address or host name of this machine, or the name of a network
    /// interface (`eth0`). Peers must be able to connect to it.
    pub address: String,
    /// How long forming the group, and then each collective, may take.
    pub timeout: Duration,
}

impl Default for GlooOptions {
    fn default() -> Self {
        Self { address: "127.0.0.1".to_owned(), timeout: Duration::from_secs(300) }
    }
}

/// How an NCCL group connects.
#[derive(Debug, Clone)]
pub struct NcclOptions {
    /// The CUDA device of this rank.
    pub device: usize,
    /// How long forming the group, and then each collective, may take.
    pub timeout: Duration,
}

/// The ranks of one generation, over ProcessGroupGloo (CPU tensors) or ProcessGroupNCCL (CUDA tensors).
///
/// A cheap handle: clones are the same group. Every rank calls the same collectives in the same order with tensors of
/// equal shapes; Gloo ends the process of a rank that receives more than it expects. Collectives block until done,
/// except that NCCL's only queue on the device: call [`ProcessGroup::check`] after the step's results have been read and
/// before they are used.
#[derive(Clone)]
pub struct ProcessGroup(Arc<Inner>);

struct Inner {
    raw: NonNull<ffi::Group>,
    rank: usize,
    world: usize,
    device: Device,
    aborted: AtomicBool,
    plane: Option<DataPlane>,
}

// SAFETY: c10d's backends lock for themselves; the pointer is released once, with the last handle.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: made by the shim and released once.
        unsafe { ffi::r2o_group_drop(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessGroup")
            .field("rank", &self.0.rank)
            .field("world", &self.0.world)
            .field("device", &self.0.device)
            .field("aborted", &self.aborted())
            .finish()
    }
}

impl ProcessGroup {
    /// Forms a group over Gloo; returns when every rank is connected to every other.
    ///
    /// # Errors
    /// When the address is not this machine's, a peer does not come within the timeout, or the store refuses (as it
    /// does when the generation is over).
    pub fn gloo(store: Arc<dyn Store>, rank: usize, world: usize, options: GlooOptions) -> Result<Self, Error> {
        let rendezvous = |reason| Error::Rendezvous { rank, world, timeout: options.timeout, reason };
        let device = plane::Listener::open(&options.address)
            .map_err(|reason| Error::Address { address: options.address.clone(), reason })?;
        plane::publish(&*store, rank, device.address()).map_err(rendezvous)?;
        let mut raw = null_mut();
        // SAFETY: the shim takes the exported store over; the device lives until the call returns.
        let made = unsafe {
            ffi::take(ffi::r2o_gloo_group(
                bridge::export(Arc::clone(&store)),
                device.as_ptr(),
                as_int(rank),
                as_int(world),
                as_millis(options.timeout),
                &raw mut raw,
            ))
        };
        made.map_err(rendezvous)?;
        let raw = NonNull::new(raw).ok_or_else(|| rendezvous("libtorch made no group".to_owned()))?;
        let mut group = Inner { raw, rank, world, device: Device::Cpu, aborted: AtomicBool::new(false), plane: None };
        let own = device.address();
        group.plane = Some(DataPlane::learn(&*store, own, rank, world, options.timeout).map_err(rendezvous)?);
        tracing::debug!(rank, world, address = %own, "formed a Gloo group");
        Ok(Self(Arc::new(group)))
    }

    /// Forms a group over NCCL. Communicators are made by the first collective, so a peer that does not come is noticed
    /// there.
    ///
    /// # Errors
    /// When the program was built without CUDA, the device does not exist, or the store refuses.
    pub fn nccl(store: Arc<dyn Store>, rank: usize, world: usize, options: NcclOptions) -> Result<Self, Error> {
        let raw = crate::nccl::form(store, rank, world, &options)?;
        let device = Device::Cuda(options.device);
        Ok(Self(Arc::new(Inner { raw, rank, world, device, aborted: AtomicBool::new(false), plane: None })))
    }

    /// This process's rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.rank
    }

    /// Ranks in the group.
    #[must_use]
    pub fn world(&self) -> usize {
        self.0.world
    }

    /// Where the group's tensors live: the CPU for Gloo, this rank's GPU for NCCL.
    #[must_use]
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// Replaces a tensor of any shape by its sum over the ranks, the same bits on each.
    ///
    /// # Errors
    /// When a peer is lost, the timeout passes, or the group is aborted.
    pub fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<(), Error> {
        // SAFETY: both pointers are live for the call.
        self.run("all-reduce", || unsafe { ffi::r2o_group_all_reduce(self.raw(), tensor.as_mut_ptr()) })
    }

    /// Replaces a tensor by that of `root`. Memory formats must agree.
    ///
    /// # Errors
    /// When a peer is lost, the timeout passes, or the group is aborted.
    pub fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), Error> {
        // SAFETY: as above.
        self.run("broadcast", || unsafe { ffi::r2o_group_broadcast(self.raw(), tensor.as_mut_ptr(), as_int(root)) })
    }

    /// Returns the tensors of all ranks, by rank. Shapes must agree.
    ///
    /// # Errors
    /// When a peer is lost, the timeout passes, or the group is aborted.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, Error> {
        let mut out = vec![null_mut(); self.0.world];
        // SAFETY: `out` has room for one pointer per rank.
        self.run("all-gather", || unsafe { ffi::r2o_group_all_gather(self.raw(), tensor.as_ptr(), out.as_mut_ptr()) })?;
        // SAFETY: the shim filled every entry with a tensor that this side owns.
        Ok(out.into_iter().map(|raw| unsafe { Tensor::from_ptr(raw) }).collect())
    }

    /// Returns when every rank has come here.
    ///
    /// # Errors
    /// When a peer is lost, the timeout passes, or the group is aborted.
    pub fn barrier(&self) -> Result<(), Error> {
        let device = match self.0.device {
            Device::Cuda(index) => as_int(index),
            _ => -1,
        };
        // SAFETY: the group is live.
        self.run("barrier", || unsafe { ffi::r2o_group_barrier(self.raw(), device) })
    }

    /// Makes every collective of this group, running or to come, fail at once on this rank, and soon on its peers.
    /// Called from any thread, any number of times; there is no way back but a new group.
    pub fn abort(&self) {
        if self.0.aborted.swap(true, Ordering::SeqCst) {
            return;
        }
        // Sockets first: peers learn of it by them, and most of what hangs inside Gloo ends with them.
        let sockets = self.0.plane.as_ref().map(DataPlane::shut_down);
        // SAFETY: the group is live; backends are aborted from any thread.
        if let Err(reason) = unsafe { ffi::take(ffi::r2o_group_abort(self.raw())) } {
            tracing::error!(reason, "cannot abort the process group");
        }
        tracing::info!(rank = self.0.rank, world = self.0.world, sockets, "aborted a process group");
    }

    /// Whether [`ProcessGroup::abort`] was called.
    #[must_use]
    pub fn aborted(&self) -> bool {
        self.0.aborted.load(Ordering::SeqCst)
    }

    /// Refuses what an aborted group may have left half done: an aborted NCCL kernel returns without an error and
    /// leaves rubbish in its buffers, so a step is good only if its group still is.
    ///
    /// # Errors
    /// When the group was aborted.
    pub fn check(&self, operation: &'static str) -> Result<(), Error> {
        if self.aborted() { Err(Error::Aborted { operation }) } else { Ok(()) }
    }

    pub(crate) fn raw(&self) -> *mut ffi::Group {
        self.0.raw.as_ptr()
    }

    /// Runs a call of the shim; the error of an aborted group says so, whatever its sockets said.
    pub(crate) fn run(&self, operation: &'static str, call: impl FnOnce() -> ffi::Message) -> Result<(), Error> {
        self.check(operation)?;
        // SAFETY: the call's message is the shim's and fresh.
        unsafe { ffi::take(call()) }.map_err(|reason| {
            if self.aborted() {
                Error::Aborted { operation }
            } else {
                Error::Collective { operation, rank: self.0.rank, world: self.0.world, reason }
            }
        })
    }
}

pub(crate) fn as_int(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

pub(crate) fn as_millis(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// A string for C; addresses never hold a zero byte, and one that does is cut there.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}
