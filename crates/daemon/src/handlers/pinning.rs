//! Which CPUs of the host a vCPU may run on.

use libvirt_compat::constants::affect;
use libvirt_compat::rpc::types::Domain;
use libvirt_compat::rpc::xdr::Opaque;
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};

use super::{Call, check_flags};
use crate::domains::{self, cpu_set};
use crate::node;

/// Bytes of one CPU map: libvirt's limit.
const MAP_BYTES_MAX: usize = 2048;

pub fn domain_pin_vcpu(call: &Call, dom: Domain, vcpu: u32, map: Opaque) -> Result<()> {
    domain_pin_vcpu_flags(call, dom, vcpu, map, affect::LIVE)
}

pub fn domain_pin_vcpu_flags(
    call: &Call,
    dom: Domain,
    vcpu: u32,
    map: Opaque,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 3, "qemuDomainPinVcpuFlags")?;
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let impact = domains::impact(&domain, flags)?;
    let host_cpus = node::host_info().cpus as usize;
    let cpus: Vec<usize> = (0..map.0.len().min(MAP_BYTES_MAX) * 8)
        .filter(|cpu| *cpu < host_cpus && map.0[cpu / 8] & 1 << (cpu % 8) != 0)
        .collect();
    if cpus.is_empty() {
        return Err(Error::new(Code::InvalidArg, "Empty cpu list for pinning"));
    }
    let summary = domain.state.lock().summary.clone();
    if vcpu >= summary.vcpus_max {
        let kind = if impact.live { "live" } else { "persistent" };
        let count = summary.vcpus;
        let text = format!("vcpu {vcpu} is out of range of {kind} cpu count {count}");
        return Err(Error::new(Code::InvalidArg, text));
    }
    let change = |document: &mut Element| {
        pin(document, vcpu, &cpu_set::to_text(&cpus));
        Ok(())
    };
    if impact.live {
        domain.machine()?.pin_vcpu(vcpu, &cpus)?;
        domains::change_live(&world, &domain, change)?;
    }
    if impact.config {
        domains::change_definition(&world, &domain, change)?;
    }
    Ok(())
}

fn pin(document: &mut Element, vcpu: u32, cpus: &str) {
    let tune = document.ensure("cputune");
    let vcpu = vcpu.to_string();
    tune.remove(|element| element.name == "vcpupin" && element.is("vcpu", &vcpu));
    tune.push(Element::new("vcpupin").with("vcpu", vcpu).with("cpuset", cpus));
}

pub fn domain_get_vcpu_pin_info(
    call: &Call,
    dom: Domain,
    count: i32,
    map_length: i32,
    flags: u32,
) -> Result<(Opaque, i32)> {
    let (_, domain) = call.domain(&dom)?;
    let impact = domains::impact(&domain, flags & 3)?;
    let document = if impact.live { domain.document()? } else { domain.definition()? };
    let vcpus = domain.state.lock().summary.vcpus_max.min(u32::try_from(count).unwrap_or(0));
    let maps = (0..vcpus).flat_map(|vcpu| vcpu_map(&document, vcpu, map_length));
    Ok((Opaque(maps.collect()), vcpus as i32))
}

/// The CPUs that a document allows a vCPU, as a map of this length; all, where it says nothing.
pub(super) fn vcpu_map(document: &Element, vcpu: u32, length: i32) -> Vec<u8> {
    let vcpu = vcpu.to_string();
    let tune = document.child("cputune");
    let mut pins = tune.into_iter().flat_map(|tune| tune.all("vcpupin"));
    let own = pins.find(|pin| pin.is("vcpu", &vcpu)).and_then(|pin| pin.attribute("cpuset"));
    let host_cpus = node::host_info().cpus as usize;
    let cpus = match own {
        Some(text) => cpu_set::parse(text),
        None => (0..host_cpus).collect(),
    };
    let mut map = vec![0; usize::try_from(length).unwrap_or(0).min(MAP_BYTES_MAX)];
    for cpu in cpus {
        if let Some(byte) = map.get_mut(cpu / 8) {
            *byte |= 1 << (cpu % 8);
        }
    }
    map
}
