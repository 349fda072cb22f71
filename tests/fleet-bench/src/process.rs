//! What a process has used, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks of `/proc/PID/stat` in a second: Linux shows 100 to user space on all architectures that we run on.
const TICKS: f64 = 100.0;

pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_mib: f64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc(5): fields 14 and 15, counted after the name, which may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')').context("no such stat")?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = memory.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(Self { cpu_seconds: (ticks(11) + ticks(12)) / TICKS, memory_mib: kib / 1024.0 })
    }
}
