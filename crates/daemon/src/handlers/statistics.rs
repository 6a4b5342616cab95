//! Figures of running domains.

use std::sync::Arc;

use libvirt_compat::constants::state;
use libvirt_compat::rpc::types::{
    Domain, DomainInterface, IpAddress, MemoryStat, StatsRecord, TypedParameter, Value, VcpuInfo,
};
use libvirt_compat::rpc::xdr::Opaque;
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};

use super::change::disk_target;
use super::info::{is_listed, live_summary};
use super::pinning::vcpu_map;
use super::{Call, check_flags};
use crate::domains;
use crate::drivers::{BlockStats, Machine};
use crate::storage;

pub fn domain_memory_stats(
    call: &Call,
    dom: Domain,
    maximum: u32,
    _flags: u32,
) -> Result<Vec<MemoryStat>> {
    let stats = call.domain(&dom)?.1.machine()?.memory_stats()?;
    let stats = stats.into_iter().map(|(tag, value)| MemoryStat { tag, value });
    Ok(stats.take(maximum as usize).collect())
}

fn disk_stats(call: &Call, dom: &Domain, path: &str) -> Result<BlockStats> {
    let (_, domain) = call.domain(dom)?;
    let machine = domain.machine()?;
    let document = domain.document()?;
    let all = machine.block_stats(&document)?;
    if path.is_empty() {
        // All disks together.
        return Ok(all.into_iter().fold(BlockStats::default(), |sum, (_, disk)| BlockStats {
            read_requests: sum.read_requests + disk.read_requests,
            read_bytes: sum.read_bytes + disk.read_bytes,
            read_ns: sum.read_ns + disk.read_ns,
            write_requests: sum.write_requests + disk.write_requests,
            write_bytes: sum.write_bytes + disk.write_bytes,
            write_ns: sum.write_ns + disk.write_ns,
            flush_requests: sum.flush_requests + disk.flush_requests,
            flush_ns: sum.flush_ns + disk.flush_ns,
            write_highest: 0,
        }));
    }
    let target = disk_target(&document, path)?;
    let found = all.into_iter().find(|(name, _)| *name == target);
    found.map(|(_, stats)| stats).ok_or_else(|| {
        Error::new(Code::InvalidArg, format!("invalid path {path} not assigned to domain"))
    })
}

pub fn domain_block_stats(
    call: &Call,
    dom: Domain,
    path: String,
) -> Result<(i64, i64, i64, i64, i64)> {
    let stats = disk_stats(call, &dom, &path)?;
    let number = |value: u64| value as i64;
    Ok((
        number(stats.read_requests),
        number(stats.read_bytes),
        number(stats.write_requests),
        number(stats.write_bytes),
        -1,
    ))
}

pub fn domain_block_stats_flags(
    call: &Call,
    dom: Domain,
    path: String,
    count: i32,
    _flags: u32,
) -> Result<(Vec<TypedParameter>, i32)> {
    let stats = disk_stats(call, &dom, &path)?;
    let fields = [
        ("wr_bytes", stats.write_bytes),
        ("wr_operations", stats.write_requests),
        ("rd_bytes", stats.read_bytes),
        ("rd_operations", stats.read_requests),
        ("flush_operations", stats.flush_requests),
        ("wr_total_times", stats.write_ns),
        ("rd_total_times", stats.read_ns),
        ("flush_total_times", stats.flush_ns),
    ];
    if count == 0 {
        return Ok((Vec::new(), fields.len() as i32));
    }
    let parameters = fields
        .into_iter()
        .map(|(name, value)| TypedParameter::new(name, Value::Long(value as i64)))
        .take(count.max(0) as usize);
    Ok((parameters.collect(), 0))
}

pub fn domain_get_block_info(
    call: &Call,
    dom: Domain,
    path: String,
    _flags: u32,
) -> Result<(u64, u64, u64)> {
    let (_, domain) = call.domain(&dom)?;
    let document = domain.document()?;
    let target = disk_target(&document, &path)?;
    if let Ok(machine) = domain.machine()
        && let Some(info) = machine.block_info(&document, &target)?
    {
        return Ok((info.allocation, info.capacity, info.physical));
    }
    let file = disk_file(&document, &target).ok_or_else(|| {
        Error::new(
            Code::InvalidArg,
            format!("disk '{path}' does not currently have a source assigned"),
        )
    })?;
    let volume = storage::Volume::open("", &file)?;
    Ok((volume.allocation, volume.capacity, volume.physical))
}

fn disk_file(document: &Element, target: &str) -> Option<std::path::PathBuf> {
    let mut disks = document.child("devices")?.all("disk");
    let disk = disks.find(|disk| disk.attribute_at("target", "dev") == Some(target))?;
    crate::drivers::disk_path(disk)
}

/// Eight counters of a host interface, seen from the guest: what the host received, it sent.
fn interface_counters(device: &str) -> Option<[i64; 8]> {
    let text = std::fs::read_to_string("/proc/net/dev").ok()?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    let all: Vec<i64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let at = |place: usize| all.get(place).copied().unwrap_or(0);
    Some([at(8), at(9), at(10), at(11), at(0), at(1), at(2), at(3)])
}

/// Receive: bytes, packets, errors, drops; then the same for transmit.
pub type InterfaceStats = (i64, i64, i64, i64, i64, i64, i64, i64);

pub fn domain_interface_stats(call: &Call, dom: Domain, device: String) -> Result<InterfaceStats> {
    let (_, domain) = call.domain(&dom)?;
    domain.machine()?;
    let found = domains::live_device(&domain, |interface| {
        interface.name == "interface"
            && (interface.attribute_at("target", "dev") == Some(&device)
                || interface.attribute_at("mac", "address") == Some(&device))
    })?;
    let Some(interface) = found else {
        let text = format!("'{device}' is not a known interface");
        return Err(Error::new(Code::InvalidArg, text));
    };
    let host = interface.attribute_at("target", "dev").unwrap_or_default();
    match interface_counters(host) {
        Some([a, b, c, d, e, f, g, h]) => Ok((a, b, c, d, e, f, g, h)),
        None => Err(Error::new(Code::InternalError, "Interface not found")),
    }
}

pub fn domain_interface_addresses(
    call: &Call,
    dom: Domain,
    source: u32,
    _flags: u32,
) -> Result<Vec<DomainInterface>> {
    let (world, domain) = call.domain(&dom)?;
    domain.machine()?;
    match source {
        0 => leased_addresses(&world, &domain.document()?),
        // The ARP table knows nothing of guests behind the user-mode network.
        2 => Ok(Vec::new()),
        1 => super::agent::interfaces(&domain),
        _ => Err(Error::new(
            Code::ArgumentUnsupported,
            format!("Unknown IP address data source {source}"),
        )),
    }
}

/// The addresses that a network's DHCP server has given to a domain's interfaces.
fn leased_addresses(
    world: &crate::world::World,
    document: &Element,
) -> Result<Vec<DomainInterface>> {
    let devices = document.child("devices");
    let mut list = Vec::new();
    for interface in devices.into_iter().flat_map(|devices| devices.all("interface")) {
        let Some(name) = interface.attribute_at("source", "network") else { continue };
        let mac = interface.attribute_at("mac", "address").unwrap_or_default();
        let network = world.networks.by_name(name)?;
        let leases = world.networks.leases(name);
        let own = leases.iter().filter(|lease| lease.mac.to_string().eq_ignore_ascii_case(mac));
        let addrs: Vec<IpAddress> = own
            .map(|lease| IpAddress {
                kind: 0,
                addr: lease.address.to_string(),
                prefix: network.prefix(),
            })
            .collect();
        if !addrs.is_empty() {
            list.push(DomainInterface {
                name: interface.attribute_at("target", "dev").unwrap_or_default().to_owned(),
                hwaddr: Some(mac.to_owned()),
                addrs,
            });
        }
    }
    Ok(list)
}

/// A bitmap of host CPUs with all of them set.
fn all_cpus() -> Vec<u8> {
    let cpus = crate::node::host_info().cpus as usize;
    (0..cpus.div_ceil(8))
        .map(|byte| (0..8).filter(|bit| byte * 8 + bit < cpus).fold(0, |map, bit| map | 1 << bit))
        .collect()
}

pub fn domain_get_vcpus(
    call: &Call,
    dom: Domain,
    maximum: i32,
    map_length: i32,
) -> Result<(Vec<VcpuInfo>, Opaque)> {
    let (_, domain) = call.domain(&dom)?;
    let vcpus = domain.machine().map_err(|_| {
        Error::new(Code::OperationInvalid, "cannot retrieve vcpu information for inactive domain")
    })?;
    let vcpus = super::at_most(vcpus.vcpus()?, maximum);
    let document = domain.document()?;
    let maps = vcpus.iter().flat_map(|vcpu| vcpu_map(&document, vcpu.number, map_length)).collect();
    let info = vcpus.into_iter().map(|vcpu| VcpuInfo {
        number: vcpu.number,
        state: 1,
        cpu_time: vcpu.time_ns,
        cpu: vcpu.host_cpu,
    });
    Ok((info.collect(), Opaque(maps)))
}

pub fn domain_get_emulator_pin_info(
    call: &Call,
    dom: Domain,
    map_length: i32,
    flags: u32,
) -> Result<(Opaque, i32)> {
    let (_, domain) = call.domain(&dom)?;
    domains::impact(&domain, flags & 3)?;
    let mut map = all_cpus();
    map.resize(usize::try_from(map_length).unwrap_or(0).min(2048), 0);
    Ok((Opaque(map), 1))
}

pub fn domain_get_cpu_stats(
    call: &Call,
    dom: Domain,
    count: u32,
    start: i32,
    _cpus: u32,
    _flags: u32,
) -> Result<(Vec<TypedParameter>, i32)> {
    let machine = call.domain(&dom)?.1.machine()?;
    if start >= 0 {
        let text = "per-CPU accounting needs a cgroup, which this daemon does not make";
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    let (total, user, system) = machine.cpu_time();
    let all = [("cpu_time", total), ("user_time", user), ("system_time", system)];
    if count == 0 {
        return Ok((Vec::new(), all.len() as i32));
    }
    let parameters =
        all.map(|(name, value)| TypedParameter::new(name, Value::ULong(value))).to_vec();
    let known = parameters.len().min(count as usize);
    Ok((parameters.into_iter().take(known).collect(), known as i32))
}

/// `VIR_DOMAIN_STATS_*`.
mod groups {
    pub const STATE: u32 = 1;
    pub const CPU_TOTAL: u32 = 2;
    pub const BALLOON: u32 = 4;
    pub const VCPU: u32 = 8;
    pub const INTERFACE: u32 = 16;
    pub const BLOCK: u32 = 32;
    pub const ALL: u32 = 0x3ff;
}

/// Statistics are only read for those that the list flags select; `ENFORCE` and `NOWAIT` are ours
/// to ignore because every group is served and nothing waits.
const LIST_FLAGS: u32 = 0xffff;
/// `VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS`.
const ENFORCE: u32 = 1 << 31;

pub fn connect_get_all_domain_stats(
    call: &Call,
    doms: Vec<Domain>,
    wanted: u32,
    flags: u32,
) -> Result<Vec<StatsRecord>> {
    let world = call.world()?;
    let wanted = if wanted == 0 { groups::ALL } else { wanted };
    if flags & ENFORCE != 0 && wanted & !groups::ALL != 0 {
        let unknown = wanted & !groups::ALL;
        let text = format!("Stats types bits 0x{unknown:x} are not supported by this daemon");
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let all = if doms.is_empty() {
        world.domains.all()
    } else {
        doms.iter().filter_map(|dom| world.domains.by_uuid(dom.uuid)).collect()
    };
    let records = all.iter().filter_map(|domain| {
        let listed = is_listed(&domain.state.lock(), flags & LIST_FLAGS);
        listed.then(|| StatsRecord { dom: domain.reference(), params: record(domain, wanted) })
    });
    Ok(records.collect())
}

fn record(domain: &Arc<domains::Domain>, wanted: u32) -> Vec<TypedParameter> {
    let mut all = Vec::new();
    let mut add = |name: &str, value: Value| all.push(TypedParameter::new(name, value));
    let (own_state, summary, balloon, live) = {
        let state = domain.state.lock();
        let live = state.live.as_ref().map(|live| (live.machine.clone(), live.document.clone()));
        (state.state, live_summary(&state), state.balloon_kib, live)
    };
    if wanted & groups::STATE != 0 {
        add("state.state", Value::Int(own_state.0));
        add("state.reason", Value::Int(own_state.1));
    }
    if let (Some((machine, _)), true) = (&live, wanted & groups::CPU_TOTAL != 0) {
        let (total, user, system) = machine.cpu_time();
        add("cpu.time", Value::ULong(total));
        add("cpu.user", Value::ULong(user));
        add("cpu.system", Value::ULong(system));
    }
    if wanted & groups::BALLOON != 0 {
        let current = balloon.unwrap_or(summary.memory_kib);
        add("balloon.current", Value::ULong(current));
        add("balloon.maximum", Value::ULong(summary.memory_kib_max));
        if let Some((machine, _)) = &live {
            for (tag, value) in machine.memory_stats().unwrap_or_default() {
                if let Some(name) = balloon_name(tag) {
                    add(name, Value::ULong(value));
                }
            }
        }
    }
    if wanted & groups::VCPU != 0 {
        add("vcpu.current", Value::UInt(summary.vcpus));
        add("vcpu.maximum", Value::UInt(summary.vcpus_max));
        for vcpu in live.iter().flat_map(|(machine, _)| machine.vcpus().unwrap_or_default()) {
            add(&format!("vcpu.{}.state", vcpu.number), Value::Int(1));
            add(&format!("vcpu.{}.time", vcpu.number), Value::ULong(vcpu.time_ns));
        }
    }
    if let Some((machine, document)) = &live {
        if wanted & groups::INTERFACE != 0 {
            interfaces(document, &mut add);
        }
        if wanted & groups::BLOCK != 0 {
            disks(&**machine, document, &mut add);
        }
        all.extend(machine.statistics(document, wanted));
    } else if wanted & groups::BLOCK != 0
        && own_state.0 == state::SHUTOFF
        && let Ok(document) = domain.definition()
    {
        let devices = document.child("devices");
        let count = devices.map_or(0, |devices| devices.all("disk").count());
        add("block.count", Value::UInt(count as u32));
    }
    all
}

fn balloon_name(tag: i32) -> Option<&'static str> {
    const NAMES: [Option<&str>; 14] = [
        Some("balloon.swap_in"),
        Some("balloon.swap_out"),
        Some("balloon.major_fault"),
        Some("balloon.minor_fault"),
        Some("balloon.unused"),
        Some("balloon.available"),
        None,
        Some("balloon.rss"),
        Some("balloon.usable"),
        Some("balloon.last-update"),
        Some("balloon.disk_caches"),
        Some("balloon.hugetlb_pgalloc"),
        Some("balloon.hugetlb_pgfail"),
        None,
    ];
    NAMES.get(usize::try_from(tag).ok()?).copied().flatten()
}

fn interfaces(document: &Element, add: &mut impl FnMut(&str, Value)) {
    let devices = document.child("devices");
    let all: Vec<_> = devices.into_iter().flat_map(|devices| devices.all("interface")).collect();
    add("net.count", Value::UInt(all.len() as u32));
    for (place, interface) in all.into_iter().enumerate() {
        let Some(device) = interface.attribute_at("target", "dev") else { continue };
        let Some(counters) = interface_counters(device) else { continue };
        add(&format!("net.{place}.name"), Value::Text(device.to_owned()));
        let names = [
            "rx.bytes", "rx.pkts", "rx.errs", "rx.drop", "tx.bytes", "tx.pkts", "tx.errs",
            "tx.drop",
        ];
        for (name, value) in names.into_iter().zip(counters) {
            add(&format!("net.{place}.{name}"), Value::ULong(value as u64));
        }
    }
}

fn disks(machine: &dyn Machine, document: &Element, add: &mut impl FnMut(&str, Value)) {
    let stats = machine.block_stats(document).unwrap_or_default();
    let devices = document.child("devices");
    let all: Vec<_> = devices.into_iter().flat_map(|devices| devices.all("disk")).collect();
    add("block.count", Value::UInt(all.len() as u32));
    for (place, disk) in all.into_iter().enumerate() {
        let Some(target) = disk.attribute_at("target", "dev") else { continue };
        let name = |field: &str| format!("block.{place}.{field}");
        add(&name("name"), Value::Text(target.to_owned()));
        if let Some(path) = crate::drivers::disk_path(disk) {
            add(&name("path"), Value::Text(path.to_string_lossy().into_owned()));
        }
        if let Some((_, stats)) = stats.iter().find(|(own, _)| own == target) {
            for (field, value) in [
                ("rd.reqs", stats.read_requests),
                ("rd.bytes", stats.read_bytes),
                ("rd.times", stats.read_ns),
                ("wr.reqs", stats.write_requests),
                ("wr.bytes", stats.write_bytes),
                ("wr.times", stats.write_ns),
                ("fl.reqs", stats.flush_requests),
                ("fl.times", stats.flush_ns),
            ] {
                add(&name(field), Value::ULong(value));
            }
        }
        if let Ok(Some(info)) = machine.block_info(document, target) {
            add(&name("allocation"), Value::ULong(info.allocation));
            add(&name("capacity"), Value::ULong(info.capacity));
            add(&name("physical"), Value::ULong(info.physical));
        }
    }
}

pub fn qemu_domain_monitor_command(
    call: &Call,
    dom: Domain,
    command: String,
    flags: u32,
) -> Result<String> {
    check_flags(flags, 1, "qemuDomainQemuMonitorCommand")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    domain.machine()?.monitor_command(&command, flags & 1 != 0)
}

pub fn qemu_domain_agent_command(
    call: &Call,
    dom: Domain,
    command: String,
    timeout: i32,
    _flags: u32,
) -> Result<Option<String>> {
    crate::agent::pass(&call.domain(&dom)?.1, &command, timeout).map(Some)
}
