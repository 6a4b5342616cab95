//! How the guest is.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use agent::{FrameKind, Info, Listening, Memory, Usage};
use parking_lot::Mutex;

use crate::session::{Failed, Host};

static LEVELS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static PROBLEMS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Whoever has so many problems needs no more.
const PROBLEMS_MAX: usize = 100;

/// Something went wrong while the guest was set up.
pub fn problem(text: String) {
    eprintln!("hostel-agent: {text}");
    let mut problems = PROBLEMS.lock();
    if problems.len() < PROBLEMS_MAX {
        problems.push(text);
    }
}

/// The guest has come so far.
pub fn reached(level: &str) {
    let mut levels = LEVELS.lock();
    if !levels.iter().any(|known| known == level) {
        levels.push(level.to_owned());
    }
}

/// All of it.
pub fn collect() -> Info {
    let system = rustix::system::uname();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut load = [0.0; 3];
    for (place, word) in load.iter_mut().zip(text("/proc/loadavg").split_whitespace()) {
        *place = word.parse().unwrap_or(0.0);
    }
    let uptime = text("/proc/uptime");
    let uptime = uptime.split_whitespace().next().and_then(|word| word.parse().ok());
    let addresses = addresses();
    if !addresses.is_empty() {
        reached("reachable");
    }
    // cloud-init leaves this behind when all is done. As the first process we know ourselves; where
    // there is neither, nothing is left to do.
    let has_cloud_init = Path::new("/usr/bin/cloud-init").exists();
    let is_finished = Path::new("/var/lib/cloud/instance/boot-finished").exists();
    let is_first = std::process::id() == 1;
    if !is_first && (!has_cloud_init || is_finished) {
        reached("provisioned");
    }
    let mut problems = PROBLEMS.lock().clone();
    problems.extend(cloud_init_errors(&text("/run/cloud-init/result.json")));
    Info {
        hostname: system.nodename().to_string_lossy().into_owned(),
        release: release(&text("/etc/os-release")),
        kernel: system.release().to_string_lossy().into_owned(),
        uptime_seconds: uptime.unwrap_or(0.0),
        load,
        memory: memory(&text("/proc/meminfo")),
        disk: disk(),
        addresses,
        levels: LEVELS.lock().clone(),
        ports: ports(&(text("/proc/net/tcp") + &text("/proc/net/tcp6")), false),
        problems,
    }
}

/// What cloud-init reports at its end.
fn cloud_init_errors(text: &str) -> Vec<String> {
    let result: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let errors = result["v1"]["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error.as_str().map_or(error.to_string(), str::to_owned)).collect()
}

fn release(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

fn memory(text: &str) -> Memory {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kibibytes = line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        kibibytes.unwrap_or(0).saturating_mul(1024)
    };
    Memory { total: value("MemTotal:"), available: value("MemAvailable:") }
}

fn disk() -> Usage {
    let Ok(root) = rustix::fs::statvfs("/") else { return Usage::default() };
    let total = root.f_blocks.saturating_mul(root.f_frsize);
    Usage { total, used: total.saturating_sub(root.f_bfree.saturating_mul(root.f_frsize)) }
}

/// From the routing tables, which need no netlink.
fn addresses() -> Vec<String> {
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    let mut last = "";
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address;
        } else if line.starts_with("/32 host LOCAL")
            && !last.starts_with("127.")
            && !found.iter().any(|known| known == last)
        {
            found.push(last.to_owned());
        }
    }
    let six = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    for line in six.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Scope 0 is global; link-local addresses are of no use to a host.
        if let [digits, _, _, "00", ..] = fields.as_slice()
            && let Ok(number) = u128::from_str_radix(digits, 16)
        {
            found.push(std::net::Ipv6Addr::from(number).to_string());
        }
    }
    found
}

/// Tells of ports whenever there are others than before. The kernel tells nobody, so this looks.
pub fn tell_listening(host: &Host) -> Result<(), Failed> {
    const PAUSE: Duration = Duration::from_millis(500);
    /// So many looks without news, and the host hears that somebody is still here.
    const QUIET_MAX: u32 = 20;
    let (mut known, mut quiet) = (None, 0);
    loop {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let now = Some(ports(&(text("/proc/net/tcp") + &text("/proc/net/tcp6")), true));
        quiet = if now == known { quiet + 1 } else { 0 };
        let sent = match quiet {
            // An empty frame says nothing, and shows whether the host is still there.
            1.. if quiet % QUIET_MAX == 0 => host.send(FrameKind::Output, &[]),
            1.. => Ok(()),
            0 => {
                let listening = Listening { ports: now.clone().unwrap_or_default() };
                host.send(FrameKind::Answer, &serde_json::to_vec(&listening).unwrap_or_default())
            }
        };
        if sent.is_err() {
            return Ok(());
        }
        known = now;
        thread::sleep(PAUSE);
    }
}

/// Listening ports that others can reach, and if wanted those that only the guest itself can.
fn ports(table: &str, with_loopback: bool) -> Vec<u16> {
    const LISTENING: &str = "0A";
    let mut found: Vec<u16> = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&LISTENING)) = (fields.get(1), fields.get(3)) else { continue };
        let Some((address, port)) = local.split_once(':') else { continue };
        let is_loopback = address == "0100007F" || address == "00000000000000000000000001000000";
        if let (false, Ok(port)) = (is_loopback && !with_loopback, u16::from_str_radix(port, 16)) {
            found.push(port);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
