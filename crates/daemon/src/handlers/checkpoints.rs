//! Checkpoints and backups.

use libvirt_compat::rpc::types::{Checkpoint, Domain};
use libvirt_compat::{Code, Error, Result};

use super::{Call, check_flags, counted};
use crate::domains;

/// `VIR_DOMAIN_CHECKPOINT_LIST_*`.
mod list {
    /// Of a domain's list: only those without a parent; of a checkpoint's: not only children.
    pub const ROOTS_OR_DESCENDANTS: u32 = 1;
    pub const TOPOLOGICAL: u32 = 2;
    pub const LEAVES: u32 = 4;
    pub const NO_LEAVES: u32 = 8;
}

/// `VIR_DOMAIN_CHECKPOINT_XML_*`.
mod show {
    pub const SECURE: u32 = 1;
    pub const NO_DOMAIN: u32 = 2;
}

fn select(call: &Call, dom: &Domain, parent: Option<&str>, flags: u32) -> Result<Vec<Checkpoint>> {
    use list::{LEAVES, NO_LEAVES, ROOTS_OR_DESCENDANTS, TOPOLOGICAL};
    let known = ROOTS_OR_DESCENDANTS | TOPOLOGICAL | LEAVES | NO_LEAVES;
    check_flags(flags, known, "qemuDomainListAllCheckpoints")?;
    let (_, domain) = call.domain(dom)?;
    if let Some(parent) = parent {
        domain.checkpoint(parent)?;
    }
    let reference = domain.reference();
    let state = domain.state.lock();
    let wide = flags & ROOTS_OR_DESCENDANTS != 0;
    let mut names: Vec<&String> = Vec::new();
    // Parents before children, whether that was asked for or not.
    let mut level: Vec<Option<&str>> = vec![parent];
    while let Some(above) = level.pop() {
        for own in state.checkpoints.values().filter(|own| own.parent.as_deref() == above) {
            // The tree is no larger than it has members.
            if names.len() < state.checkpoints.len() {
                names.push(&own.name);
                let deeper = if parent.is_some() { wide } else { !wide };
                level.extend(deeper.then_some(Some(own.name.as_str())));
            }
        }
    }
    let is_leaf =
        |name: &str| !state.checkpoints.values().any(|own| own.parent.as_deref() == Some(name));
    names.retain(|name| match flags & (LEAVES | NO_LEAVES) {
        LEAVES => is_leaf(name),
        NO_LEAVES => !is_leaf(name),
        _ => true,
    });
    Ok(names
        .into_iter()
        .map(|name| Checkpoint { name: name.clone(), dom: reference.clone() })
        .collect())
}

pub fn domain_list_all_checkpoints(
    call: &Call,
    dom: Domain,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Checkpoint>, i32)> {
    let (list, count) = counted(select(call, &dom, None, flags)?, need_results);
    Ok((list, count as i32))
}

pub fn domain_checkpoint_list_all_children(
    call: &Call,
    checkpoint: Checkpoint,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Checkpoint>, i32)> {
    let children = select(call, &checkpoint.dom, Some(&checkpoint.name), flags)?;
    let (list, count) = counted(children, need_results);
    Ok((list, count as i32))
}

pub fn domain_checkpoint_create_xml(
    call: &Call,
    dom: Domain,
    text: String,
    flags: u32,
) -> Result<Checkpoint> {
    // Redefine, quiesce, redefine with a check.
    check_flags(flags, 1 | 2 | 4, "qemuCheckpointCreateXML")?;
    let (world, domain) = call.domain(&dom)?;
    let checkpoint = domains::create_checkpoint(&world, &domain, &text, flags)?;
    Ok(Checkpoint { name: checkpoint.name, dom: domain.reference() })
}

pub fn domain_checkpoint_get_xml_desc(
    call: &Call,
    checkpoint: Checkpoint,
    flags: u32,
) -> Result<String> {
    check_flags(flags, show::SECURE | show::NO_DOMAIN, "qemuCheckpointGetXMLDesc")?;
    let (_, domain) = call.domain(&checkpoint.dom)?;
    let mut document = domain.checkpoint(&checkpoint.name)?.document;
    if flags & show::NO_DOMAIN != 0 {
        document.remove(|element| element.name == "domain");
    } else if flags & show::SECURE == 0
        && let Some(devices) = document.child_mut("domain").and_then(|own| own.child_mut("devices"))
    {
        devices.all_mut("graphics").for_each(|graphics| graphics.unset("passwd"));
    }
    Ok(document.to_xml())
}

pub fn domain_checkpoint_lookup_by_name(
    call: &Call,
    dom: Domain,
    name: String,
    _flags: u32,
) -> Result<Checkpoint> {
    let (_, domain) = call.domain(&dom)?;
    domain.checkpoint(&name)?;
    Ok(Checkpoint { name, dom: domain.reference() })
}

pub fn domain_checkpoint_get_parent(
    call: &Call,
    checkpoint: Checkpoint,
    _flags: u32,
) -> Result<Checkpoint> {
    let (_, domain) = call.domain(&checkpoint.dom)?;
    let parent = domain.checkpoint(&checkpoint.name)?.parent.ok_or_else(|| {
        let text = format!("checkpoint '{}' does not have a parent", checkpoint.name);
        Error::new(Code::NoDomainCheckpoint, text)
    })?;
    Ok(Checkpoint { name: parent, dom: domain.reference() })
}

pub fn domain_checkpoint_delete(call: &Call, checkpoint: Checkpoint, flags: u32) -> Result<()> {
    // With children, only what is known here, only children.
    check_flags(flags, 1 | 2 | 4, "qemuCheckpointDelete")?;
    let (world, domain) = call.domain(&checkpoint.dom)?;
    domains::delete_checkpoint(&world, &domain, &checkpoint.name, flags)
}

pub fn domain_backup_begin(
    call: &Call,
    dom: Domain,
    text: String,
    checkpoint: Option<String>,
    flags: u32,
) -> Result<()> {
    // Images that are there already.
    check_flags(flags, 1, "qemuDomainBackupBegin")?;
    let (world, domain) = call.domain(&dom)?;
    domains::begin_backup(&world, &domain, &text, checkpoint.as_deref(), flags)
}

pub fn domain_backup_get_xml_desc(call: &Call, dom: Domain, flags: u32) -> Result<String> {
    check_flags(flags, 0, "qemuDomainBackupGetXMLDesc")?;
    Ok(domains::backup(&call.domain(&dom)?.1)?.to_xml())
}

pub fn domain_abort_job(call: &Call, dom: Domain) -> Result<()> {
    domain_abort_job_flags(call, dom, 0)
}

pub fn domain_abort_job_flags(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, 0, "qemuDomainAbortJobFlags")?;
    let (_, domain) = call.domain(&dom)?;
    domain.machine()?;
    domains::abort_backup(&domain)
}
