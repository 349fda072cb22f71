//! Who holds a lease, precisely enough to know when that process is gone for good.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// A process that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Where it serves, for messages: `http://host:7070`.
    pub url: String,
    /// Its machine's name.
    pub host: String,
    /// Its process id, as it sees itself.
    pub pid: u32,
    /// The start of its process in clock ticks since boot; empty where unknown.
    #[serde(default)]
    pub started: String,
    /// The boot of its machine and its process-id namespace; empty where unknown.
    #[serde(default)]
    pub machine: String,
}

impl Holder {
    /// This process, serving at `url`.
    pub fn this_process(url: impl Into<String>) -> Self {
        let pid = std::process::id();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Self {
            url: url.into(),
            host,
            pid,
            started: started(pid).unwrap_or_default(),
            machine: machine().unwrap_or_default(),
        }
    }

    /// Whether the process has certainly ended: it ran under this same kernel boot and process-id namespace, and no
    /// process of that id and start time is there now. In all other cases (another machine, another container, not Linux)
    /// nothing is certain, and the answer is no.
    pub fn is_dead(&self) -> bool {
        if self.machine.is_empty() || self.started.is_empty() || machine().as_deref() != Some(self.machine.as_str()) {
            return false;
        }
        started(self.pid).is_none_or(|now| now != self.started)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, process {} on {}", self.url, self.pid, self.host)
    }
}

/// The boot id tells kernels and their reboots apart; process ids mean something only within their namespace.
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Field 22 of `/proc/PID/stat` (proc(5)), counted after the parenthesised name, which may hold spaces. A zombie has
/// ended: it does nothing any more.
pub(super) fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}
