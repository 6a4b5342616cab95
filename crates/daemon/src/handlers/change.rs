//! Changing domains: memory, vCPUs, devices, metadata.

use libvirt_compat::constants::affect;
use libvirt_compat::domain::Summary;
use libvirt_compat::event::DomainEvent;
use libvirt_compat::rpc::types::{Domain, TypedParameter};
use libvirt_compat::xml::{self, Element, Node};
use libvirt_compat::{Code, Error, Result};

use super::info::{live_summary, namespace};
use super::{Call, check_flags};
use crate::agent::not_configured;
use crate::domains;

pub fn domain_set_memory(call: &Call, dom: Domain, memory: u64) -> Result<()> {
    domain_set_memory_flags(call, dom, memory, affect::LIVE)
}

pub fn domain_set_max_memory(call: &Call, dom: Domain, memory: u64) -> Result<()> {
    domain_set_memory_flags(call, dom, memory, MEMORY_MAXIMUM)
}

/// `VIR_DOMAIN_MEM_MAXIMUM`.
const MEMORY_MAXIMUM: u32 = 4;

pub fn domain_set_memory_flags(call: &Call, dom: Domain, memory: u64, flags: u32) -> Result<()> {
    check_flags(flags, 7, "qemuDomainSetMemoryFlags")?;
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let impact = domains::impact(&domain, flags & 3)?;
    if flags & MEMORY_MAXIMUM != 0 {
        if impact.live {
            let text = "cannot resize the maximum memory on an active domain";
            return Err(Error::new(Code::OperationInvalid, text));
        }
        return domains::change_definition(&world, &domain, |document| {
            document.ensure("memory").set_text(memory);
            if Summary::of(document).memory_kib > memory {
                document.ensure("currentMemory").set_text(memory);
            }
            Ok(())
        });
    }
    let too_much = |summary: &Summary| memory > summary.memory_kib_max;
    let refusal = || Error::new(Code::InvalidArg, "cannot set memory higher than max memory");
    if impact.live {
        let summary = live_summary(&domain.state.lock());
        if too_much(&summary) {
            return Err(refusal());
        }
        domain.machine()?.set_memory(memory)?;
    }
    if impact.config {
        let summary = domain.state.lock().summary.clone();
        if too_much(&summary) {
            return Err(refusal());
        }
        domains::change_definition(&world, &domain, |document| {
            document.ensure("currentMemory").set_text(memory);
            Ok(())
        })?;
    }
    Ok(())
}

pub fn domain_set_memory_stats_period(
    call: &Call,
    dom: Domain,
    period: i32,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 3, "qemuDomainSetMemoryStatsPeriod")?;
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let impact = domains::impact(&domain, flags)?;
    let change = |document: &mut Element| {
        let balloon = document.ensure("devices").ensure("memballoon");
        balloon.ensure("stats").set("period", period);
        Ok(())
    };
    if impact.live {
        domain.machine()?.set_memory_stats_period(period)?;
        domains::change_live(&world, &domain, change)?;
    }
    if impact.config {
        domains::change_definition(&world, &domain, change)?;
    }
    Ok(())
}

pub fn domain_set_vcpus(call: &Call, dom: Domain, count: u32) -> Result<()> {
    domain_set_vcpus_flags(call, dom, count, affect::LIVE)
}

/// `VIR_DOMAIN_VCPU_*`.
mod vcpu_flags {
    pub const MAXIMUM: u32 = 4;
    pub const GUEST: u32 = 8;
}

pub fn domain_set_vcpus_flags(call: &Call, dom: Domain, count: u32, flags: u32) -> Result<()> {
    check_flags(flags, 0x1f, "qemuDomainSetVcpusFlags")?;
    if flags & vcpu_flags::GUEST != 0 {
        return Err(not_configured());
    }
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let impact = domains::impact(&domain, flags & 3)?;
    if count == 0 {
        return Err(Error::new(Code::InvalidArg, "vcpu count must be greater than zero"));
    }
    let maximum = flags & vcpu_flags::MAXIMUM != 0;
    let check = |summary: &Summary| {
        if !maximum && count > summary.vcpus_max {
            let text = format!(
                "requested vcpus is greater than max allowable vcpus for the {} domain: {count} > {}",
                if impact.live { "live" } else { "persistent" },
                summary.vcpus_max
            );
            return Err(Error::new(Code::InvalidArg, text));
        }
        Ok(())
    };
    if impact.live {
        if maximum {
            let text = "maximum vcpu count of a live domain can't be modified";
            return Err(Error::new(Code::InvalidArg, text));
        }
        let summary = live_summary(&domain.state.lock());
        check(&summary)?;
        domain.machine()?.set_vcpus(count)?;
        domains::change_live(&world, &domain, |document| set_current(document, count))?;
    }
    if impact.config {
        let summary = domain.state.lock().summary.clone();
        check(&summary)?;
        domains::change_definition(&world, &domain, |document| {
            if !maximum {
                return set_current(document, count);
            }
            let vcpu = document.ensure("vcpu");
            if summary.vcpus >= count {
                vcpu.unset("current");
            } else {
                vcpu.set("current", summary.vcpus);
            }
            vcpu.set_text(count);
            Ok(())
        })?;
    }
    Ok(())
}

fn set_current(document: &mut Element, count: u32) -> Result<()> {
    let maximum = Summary::of(document).vcpus_max;
    let vcpu = document.ensure("vcpu");
    if count == maximum {
        vcpu.unset("current");
    } else {
        vcpu.set("current", count);
    }
    Ok(())
}

pub fn domain_attach_device(call: &Call, dom: Domain, text: String) -> Result<()> {
    domain_attach_device_flags(call, dom, text, affect::LIVE)
}

pub fn domain_attach_device_flags(
    call: &Call,
    dom: Domain,
    text: String,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 3, "qemuDomainAttachDeviceFlags")?;
    let (world, domain) = call.domain(&dom)?;
    domains::attach_device(&world, &domain, &text, flags)
}

pub fn domain_detach_device(call: &Call, dom: Domain, text: String) -> Result<()> {
    domain_detach_device_flags(call, dom, text, affect::LIVE)
}

pub fn domain_detach_device_flags(
    call: &Call,
    dom: Domain,
    text: String,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 3, "qemuDomainDetachDeviceFlags")?;
    let (world, domain) = call.domain(&dom)?;
    domains::detach_device(&world, &domain, &text, flags)
}

pub fn domain_update_device_flags(
    call: &Call,
    dom: Domain,
    text: String,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 7, "qemuDomainUpdateDeviceFlags")?;
    let (world, domain) = call.domain(&dom)?;
    domains::update_device(&world, &domain, &text, flags)
}

pub fn domain_set_metadata(
    call: &Call,
    dom: Domain,
    kind: i32,
    metadata: Option<String>,
    key: Option<String>,
    uri: Option<String>,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 3, "qemuDomainSetMetadata")?;
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let impact = domains::impact(&domain, flags)?;
    let change = |document: &mut Element| {
        let (key, uri) = (key.as_deref(), uri.as_deref());
        set_metadata(document, kind, metadata.as_deref(), key, uri)
    };
    if impact.live {
        domains::change_live(&world, &domain, change)?;
    }
    if impact.config {
        domains::change_definition(&world, &domain, change)?;
    }
    domains::emit(&world, &domain, DomainEvent::MetadataChange(kind, uri.clone()));
    Ok(())
}

fn set_metadata(
    document: &mut Element,
    kind: i32,
    text: Option<&str>,
    key: Option<&str>,
    uri: Option<&str>,
) -> Result<()> {
    if kind < 2 {
        let name = if kind == 1 { "title" } else { "description" };
        match text.filter(|text| !text.is_empty()) {
            Some(text) => document.ensure(name).set_text(text),
            None => _ = document.remove(|element| element.name == name),
        }
        return Ok(());
    }
    let uri = uri.unwrap_or_default();
    let own = |element: &Element| namespace(element) == uri;
    let metadata = document.ensure("metadata");
    metadata.remove(own);
    if let Some(text) = text {
        let mut element = xml::parse(text, "metadata_xml")?;
        if let Some(key) = key {
            prefix(&mut element, key);
            element.attributes.insert(0, (format!("xmlns:{key}"), uri.to_owned()));
        }
        metadata.push(element);
    }
    document.remove(|element| element.name == "metadata" && element.children.is_empty());
    Ok(())
}

/// Puts an application's prefix on an element and all unprefixed ones below it.
fn prefix(element: &mut Element, key: &str) {
    if !element.name.contains(':') {
        element.name = format!("{key}:{}", element.name);
    }
    for node in &mut element.children {
        if let Node::Element(child) = node {
            prefix(child, key);
        }
    }
}

pub fn domain_block_resize(
    call: &Call,
    dom: Domain,
    disk: String,
    size: u64,
    flags: u32,
) -> Result<()> {
    // Size in bytes rather than KiB.
    check_flags(flags, 1, "qemuDomainBlockResize")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let bytes = if flags & 1 != 0 { Some(size) } else { size.checked_mul(1024) };
    let bytes = bytes.ok_or_else(|| {
        Error::new(Code::Overflow, format!("size must be less than {}", u64::MAX / 1024))
    })?;
    let document = domain.document()?;
    let target = disk_target(&document, &disk)?;
    domain.machine()?.block_resize(&document, &target, bytes)
}

/// The target of the disk that a client names by target or by path.
pub(super) fn disk_target(document: &Element, name: &str) -> Result<String> {
    let devices = document.child("devices");
    let mut disks = devices.into_iter().flat_map(|devices| devices.all("disk"));
    let found = disks.find(|disk| {
        disk.attribute_at("target", "dev") == Some(name)
            || crate::drivers::disk_path(disk).is_some_and(|path| path.as_os_str() == name)
    });
    let target = found.and_then(|disk| disk.attribute_at("target", "dev"));
    target.map(str::to_owned).ok_or_else(|| {
        Error::new(Code::InvalidArg, format!("invalid path {name} not assigned to domain"))
    })
}

pub fn domain_set_block_io_tune(
    call: &Call,
    dom: Domain,
    disk: String,
    params: Vec<TypedParameter>,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 3, "qemuDomainSetBlockIoTune")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let impact = domains::impact(&domain, flags)?;
    if impact.config {
        let text = "changing stored I/O limits is not supported";
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    let document = domain.document()?;
    let target = disk_target(&document, &disk)?;
    domain.machine()?.block_throttle(&document, &target, &params)
}
