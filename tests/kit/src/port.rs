//! Ports that a program may come back to.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

use anyhow::{Result, bail};

/// First port that is tried; those below belong to well-known services.
const FIRST: u16 = 10_000;

/// The fewest ports to choose from, whatever the kernel gives to connections.
const FEWEST: u16 = 10_000;

/// A loopback port that was free a moment ago, and that the kernel gives to no connection.
///
/// A port that the kernel chose (0) is one that it also gives to connections: between the end of a program and its next
/// start, somebody else's connection may leave from it, and the program cannot listen there again.
pub fn free_port() -> Result<u16> {
    let range = listeners();
    for _ in 0..1000 {
        let drawn = RandomState::new().hash_one(0) % u64::from(range.end - range.start);
        let port = range.start + u16::try_from(drawn)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free loopback port among {range:?}")
}

/// The ports below those of connections.
fn listeners() -> Range<u16> {
    let connections = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = connections.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(32_768_u16);
    FIRST..first.max(FIRST + FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_leaves_from_a_free_port() {
        let port = free_port().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        // The kernel's choice for a listener comes from the range of connections.
        let chosen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        assert!(port < chosen, "{port} may be given to a connection, as {chosen} was to a listener");
        drop(listener);
    }
}
