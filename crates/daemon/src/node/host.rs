//! Figures of the host, from `/proc` and `/sys`.

use std::env::consts::ARCH;
use std::fs;

use libvirt_compat::rpc::types::NamedCount;
use libvirt_compat::rpc::xdr::Model;

/// `virNodeInfo`.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub model: String,
    pub memory_kib: u64,
    pub cpus: i32,
    pub mhz: i32,
    pub nodes: i32,
    pub sockets: i32,
    pub cores: i32,
    pub threads: i32,
}

/// The wire's order of these figures.
pub type WireInfo = (Model, u64, i32, i32, i32, i32, i32, i32);

impl NodeInfo {
    pub fn to_wire(&self) -> WireInfo {
        (
            Model::new(&self.model),
            self.memory_kib,
            self.cpus,
            self.mhz,
            self.nodes,
            self.sockets,
            self.cores,
            self.threads,
        )
    }
}

/// The machine this runs on.
pub fn host_info() -> NodeInfo {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let values = |key: &str| -> Vec<String> {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.filter(|(name, _)| name.trim() == key);
        lines.map(|(_, value)| value.trim().to_owned()).collect()
    };
    let cpus = values("processor").len().max(1) as i32;
    let mut packages = values("physical id");
    packages.sort();
    packages.dedup();
    let sockets = packages.len().max(1) as i32;
    let number = |key: &str| values(key).first().and_then(|value| value.parse::<f64>().ok());
    let cores = number("cpu cores").map_or(1, |cores| cores as i32).max(1);
    let siblings = number("siblings").map_or(cores, |siblings| siblings as i32);
    let threads = (siblings / cores).max(1);
    let consistent = sockets * cores * threads == cpus;
    NodeInfo {
        model: ARCH.to_owned(),
        memory_kib: meminfo("MemTotal"),
        cpus,
        mhz: number("cpu MHz").map_or(0, |mhz| mhz as i32),
        nodes: 1,
        sockets: if consistent { sockets } else { 1 },
        cores: if consistent { cores } else { cpus },
        threads: if consistent { threads } else { 1 },
    }
}

/// A line of `/proc/meminfo` in KiB.
fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Bytes of free memory.
pub fn free_memory() -> u64 {
    meminfo("MemFree") * 1024
}

fn count(field: &str, value: u64) -> NamedCount {
    NamedCount { field: field.to_owned(), value }
}

/// Memory figures in KiB.
pub fn memory_stats() -> Vec<NamedCount> {
    [("total", "MemTotal"), ("free", "MemFree"), ("buffers", "Buffers"), ("cached", "Cached")]
        .map(|(field, key)| count(field, meminfo(key)))
        .to_vec()
}

/// CPU time in ns of one CPU, or of all with -1.
pub fn cpu_stats(cpu: i32) -> Option<Vec<NamedCount>> {
    /// The kernel counts in hundredths of a second.
    const NS_PER_TICK: u64 = 10_000_000;
    let text = fs::read_to_string("/proc/stat").ok()?;
    let name = if cpu < 0 { "cpu".to_owned() } else { format!("cpu{cpu}") };
    let line = text.lines().find(|line| line.split(' ').next() == Some(&name))?;
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let at = |place: usize| ticks.get(place).copied().unwrap_or(0);
    let kernel = at(2) + at(5) + at(6);
    Some(vec![
        count("kernel", kernel * NS_PER_TICK),
        count("user", (at(0) + at(1)) * NS_PER_TICK),
        count("idle", at(3) * NS_PER_TICK),
        count("iowait", at(4) * NS_PER_TICK),
    ])
}

/// The host's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
