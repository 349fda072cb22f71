//! The TCP sockets of this process, from /proc/self/fd.

use std::fs;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

/// A connected socket: this process's descriptor and both ends.
pub(super) struct Connected {
    pub(super) fd: RawFd,
    pub(super) near: SocketAddr,
    pub(super) far: SocketAddr,
}

/// The addresses that this process listens on.
pub(super) fn listening() -> Result<Vec<SocketAddr>, String> {
    Ok(sockets()?.into_iter().filter(|&fd| listens(fd)).filter_map(near).collect())
}

/// The connected sockets of this process.
pub(super) fn connected() -> Result<Vec<Connected>, String> {
    let ends = |fd| Some(Connected { fd, near: near(fd)?, far: far(fd)? });
    Ok(sockets()?.into_iter().filter_map(ends).collect())
}

fn sockets() -> Result<Vec<RawFd>, String> {
    let folder = fs::read_dir("/proc/self/fd").map_err(|e| format!("cannot read /proc/self/fd: {e}"))?;
    let fds = folder.flatten().filter_map(|entry| {
        let is_socket = fs::read_link(entry.path()).ok()?.to_str()?.starts_with("socket:");
        if is_socket { entry.file_name().to_str()?.parse().ok() } else { None }
    });
    Ok(fds.collect())
}

fn listens(fd: RawFd) -> bool {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the buffer is an int of the given length; a closed descriptor makes the call fail.
    let rc =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut value).cast(), &raw mut len) };
    rc == 0 && value == 1
}

fn near(fd: RawFd) -> Option<SocketAddr> {
    name(fd, libc::getsockname)
}

fn far(fd: RawFd) -> Option<SocketAddr> {
    name(fd, libc::getpeername)
}

type Lookup = unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

/// One end of a socket, IPv4-mapped addresses as IPv4; none for other families and closed descriptors.
fn name(fd: RawFd, lookup: Lookup) -> Option<SocketAddr> {
    // SAFETY: all-zero bytes are a valid sockaddr_storage, whose size is passed along.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: as above.
    if unsafe { lookup(fd, (&raw mut storage).cast(), &raw mut len) } != 0 {
        return None;
    }
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the storage holds.
            let raw = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddr::from((ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr).to_canonical();
            Some(SocketAddr::from((ip, u16::from_be(raw.sin6_port))))
        }
        _ => None,
    }
}
