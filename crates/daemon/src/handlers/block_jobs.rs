//! Block jobs: pull, commit, copy, and what is asked of them while they run.

use std::path::Path;

use libvirt_compat::rpc::types::{Domain, TypedParameter, Value};
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Result};

use super::{Call, check_flags};
use crate::drivers::{BlockJob, disk_path};
use crate::storage;

/// Flags of these calls, by their libvirt names.
mod flag {
    pub const ABORT_ASYNC: u32 = 1;
    pub const ABORT_PIVOT: u32 = 2;
    pub const INFO_BANDWIDTH_BYTES: u32 = 1;
    pub const REBASE_SHALLOW: u32 = 1;
    pub const REBASE_REUSE_EXT: u32 = 2;
    pub const REBASE_COPY_RAW: u32 = 4;
    pub const REBASE_COPY: u32 = 8;
    pub const PULL_BANDWIDTH_BYTES: u32 = 64;
    pub const COMMIT_SHALLOW: u32 = 1;
    pub const COMMIT_ACTIVE: u32 = 4;
    pub const COMMIT_BANDWIDTH_BYTES: u32 = 16;
    pub const COPY_SHALLOW: u32 = 1;
    pub const COPY_REUSE_EXT: u32 = 2;
    pub const COPY_TRANSIENT_JOB: u32 = 4;
}

/// The target of the disk that a client names by target or by path.
fn disk_target(document: &Element, name: &str) -> Result<String> {
    super::change::disk_target(document, name)
        .map_err(|_| Error::new(Code::InvalidArg, format!("disk '{name}' not found in domain")))
}

/// Bytes per second; without the flag it is MiB.
fn speed(bandwidth: u64, in_bytes: bool) -> Result<u64> {
    let bytes = if in_bytes { Some(bandwidth) } else { bandwidth.checked_mul(1 << 20) };
    bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| {
        let text = format!("bandwidth must be less than {}", i64::MAX >> 20);
        Error::new(Code::Overflow, text)
    })
}

fn begin(call: &Call, dom: &Domain, disk: &str, job: &BlockJob) -> Result<()> {
    let (_, domain) = call.domain(dom)?;
    let _job = domain.begin()?;
    let machine = domain.machine()?;
    let document = domain.document()?;
    machine.block_job_start(&document, &disk_target(&document, disk)?, job)
}

pub fn domain_block_pull(
    call: &Call,
    dom: Domain,
    path: String,
    bandwidth: u64,
    flags: u32,
) -> Result<()> {
    check_flags(flags, flag::PULL_BANDWIDTH_BYTES, "qemuDomainBlockPull")?;
    let speed = speed(bandwidth, flags & flag::PULL_BANDWIDTH_BYTES != 0)?;
    begin(call, &dom, &path, &BlockJob::Pull { base: None, speed })
}

pub fn domain_block_rebase(
    call: &Call,
    dom: Domain,
    path: String,
    base: Option<String>,
    bandwidth: u64,
    flags: u32,
) -> Result<()> {
    let known = flag::REBASE_SHALLOW
        | flag::REBASE_REUSE_EXT
        | flag::REBASE_COPY
        | flag::REBASE_COPY_RAW
        | flag::PULL_BANDWIDTH_BYTES;
    check_flags(flags, known, "qemuDomainBlockRebase")?;
    let speed = speed(bandwidth, flags & flag::PULL_BANDWIDTH_BYTES != 0)?;
    if flags & flag::REBASE_COPY == 0 {
        return begin(call, &dom, &path, &BlockJob::Pull { base, speed });
    }
    let file = base.ok_or_else(|| Error::new(Code::InvalidArg, "a copy needs a destination"))?;
    let format = (flags & flag::REBASE_COPY_RAW != 0).then(|| "raw".to_owned());
    copy(call, &dom, &path, file, format, speed, flags)
}

pub fn domain_block_commit(
    call: &Call,
    dom: Domain,
    disk: String,
    base: Option<String>,
    top: Option<String>,
    bandwidth: u64,
    flags: u32,
) -> Result<()> {
    let known = flag::COMMIT_SHALLOW | flag::COMMIT_ACTIVE | flag::COMMIT_BANDWIDTH_BYTES;
    check_flags(flags, known, "qemuDomainBlockCommit")?;
    let speed = speed(bandwidth, flags & flag::COMMIT_BANDWIDTH_BYTES != 0)?;
    let (_, domain) = call.domain(&dom)?;
    let document = domain.document()?;
    let target = disk_target(&document, &disk)?;
    let own = source(&document, &target)?;
    let active = top.as_ref().is_none_or(|top| *top == own);
    if active && flags & flag::COMMIT_ACTIVE == 0 {
        let text = format!("commit of '{target}' active layer requires active flag");
        return Err(Error::new(Code::InvalidArg, text));
    }
    if !active && flags & flag::COMMIT_ACTIVE != 0 {
        let text =
            format!("active commit requested but '{}' is not active", top.unwrap_or_default());
        return Err(Error::new(Code::InvalidArg, text));
    }
    let chain = storage::chain(Path::new(&own))?;
    let names: Vec<String> = chain.iter().map(|(file, _)| file.display().to_string()).collect();
    for name in top.iter().chain(&base).filter(|name| **name != own) {
        if !names.contains(name) {
            let text = format!("could not find image '{name}' in chain for '{target}'");
            return Err(Error::new(Code::InvalidArg, text));
        }
    }
    let below = match &top {
        Some(top) if !active => names.iter().position(|name| name == top).map_or(0, |at| at + 1),
        _ => 0,
    };
    let Some(next) = names.get(below) else {
        let text = format!("top '{own}' in chain for '{own}' has no backing file");
        return Err(Error::new(Code::InvalidArg, text));
    };
    let base = match base {
        None if flags & flag::COMMIT_SHALLOW != 0 => Some(next.clone()),
        base => base,
    };
    begin(call, &dom, &disk, &BlockJob::Commit { top, base, active, speed })
}

pub fn domain_block_copy(
    call: &Call,
    dom: Domain,
    path: String,
    destination: String,
    params: Vec<TypedParameter>,
    flags: u32,
) -> Result<()> {
    let known = flag::COPY_SHALLOW | flag::COPY_REUSE_EXT | flag::COPY_TRANSIENT_JOB;
    check_flags(flags, known, "qemuDomainBlockCopy")?;
    let mut speed = 0;
    for parameter in params {
        match (parameter.field.as_str(), &parameter.value) {
            ("bandwidth", Value::ULong(bytes)) => speed = *bytes,
            (field, _) => {
                let text = format!("parameter '{field}' is not supported");
                return Err(Error::new(Code::InvalidArg, text));
            }
        }
    }
    let disk = xml::parse(&destination, "disk_definition")?;
    let file = disk_path(&disk).ok_or_else(|| {
        Error::new(Code::InvalidArg, "the destination of a block copy has to be a file")
    })?;
    let format = disk.attribute_at("driver", "type").map(str::to_owned);
    copy(call, &dom, &path, file.display().to_string(), format, speed, flags)
}

fn copy(
    call: &Call,
    dom: &Domain,
    disk: &str,
    file: String,
    format: Option<String>,
    speed: u64,
    flags: u32,
) -> Result<()> {
    let (_, domain) = call.domain(dom)?;
    domain.machine()?;
    let document = domain.document()?;
    let own = source(&document, &disk_target(&document, disk)?)?;
    if domain.is_persistent() && flags & flag::COPY_TRANSIENT_JOB == 0 {
        return Err(Error::new(Code::OperationInvalid, "domain is not transient"));
    }
    let probed = storage::probe(Path::new(&own))?;
    if flags & flag::COPY_SHALLOW != 0 && probed.backing.is_some() {
        let text = "a shallow copy of a disk with a backing file is not supported";
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    let reuse = flags & flag::COPY_REUSE_EXT != 0;
    let there = Path::new(&file).exists();
    let format = match format {
        Some(format) => format,
        None if reuse && there => storage::probe(Path::new(&file))?.format.name().to_owned(),
        None => probed.format.name().to_owned(),
    };
    if reuse && !there {
        let text = format!("missing destination file for disk {disk}: {file}");
        return Err(Error::new(Code::OperationFailed, text));
    }
    if there && !reuse && std::fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
        let text = format!(
            "external destination file for disk {disk} already exists and is not a block device: {file}"
        );
        return Err(Error::new(Code::ConfigUnsupported, text));
    }
    if !reuse {
        storage::create_image(Path::new(&file), &format, None, probed.capacity)?;
    }
    let begun = begin(call, dom, disk, &BlockJob::Copy { file: file.clone(), format, speed });
    if begun.is_err() && !reuse && !there {
        _ = std::fs::remove_file(&file);
    }
    begun
}

fn source(document: &Element, target: &str) -> Result<String> {
    let mut disks = document.child("devices").into_iter().flat_map(|devices| devices.all("disk"));
    let disk = disks.find(|disk| disk.attribute_at("target", "dev") == Some(target));
    let path = disk.and_then(disk_path).ok_or_else(|| {
        Error::new(Code::OperationInvalid, format!("disk '{target}' has no source"))
    })?;
    Ok(path.display().to_string())
}

pub fn domain_get_block_job_info(
    call: &Call,
    dom: Domain,
    path: String,
    flags: u32,
) -> Result<(i32, i32, u64, u64, u64)> {
    check_flags(flags, flag::INFO_BANDWIDTH_BYTES, "qemuDomainGetBlockJobInfo")?;
    let (_, domain) = call.domain(&dom)?;
    let machine = domain.machine()?;
    let target = disk_target(&domain.document()?, &path)?;
    let Some(info) = machine.block_job_info(&target)? else { return Ok((0, 0, 0, 0, 0)) };
    let in_bytes = flags & flag::INFO_BANDWIDTH_BYTES != 0;
    let bandwidth = if in_bytes { info.bandwidth } else { info.bandwidth.div_ceil(1 << 20) };
    Ok((1, info.kind, bandwidth, info.done, info.total))
}

pub fn domain_block_job_set_speed(
    call: &Call,
    dom: Domain,
    path: String,
    bandwidth: u64,
    flags: u32,
) -> Result<()> {
    check_flags(flags, flag::INFO_BANDWIDTH_BYTES, "qemuDomainBlockJobSetSpeed")?;
    let speed = speed(bandwidth, flags & flag::INFO_BANDWIDTH_BYTES != 0)?;
    let (_, domain) = call.domain(&dom)?;
    let machine = domain.machine()?;
    machine.block_job_set_speed(&disk_target(&domain.document()?, &path)?, speed)
}

pub fn domain_block_job_abort(call: &Call, dom: Domain, path: String, flags: u32) -> Result<()> {
    check_flags(flags, flag::ABORT_ASYNC | flag::ABORT_PIVOT, "qemuDomainBlockJobAbort")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let machine = domain.machine()?;
    let target = disk_target(&domain.document()?, &path)?;
    let (pivot, wait) = (flags & flag::ABORT_PIVOT != 0, flags & flag::ABORT_ASYNC == 0);
    machine.block_job_end(&target, pivot, wait)
}
