//! Snapshots.

use libvirt_compat::rpc::types::{Domain, Snapshot};
use libvirt_compat::{Code, Error, Result};

use super::{Call, at_most};
use crate::domains;

/// `VIR_DOMAIN_SNAPSHOT_LIST_*`.
mod list {
    /// Of a domain's list: only those without a parent; of a snapshot's: not only children.
    pub const ROOTS_OR_DESCENDANTS: u32 = 1;
    pub const LEAVES: u32 = 4;
    pub const NO_LEAVES: u32 = 8;
    pub const NO_METADATA: u32 = 16;
    pub const INACTIVE: u32 = 32;
    pub const ACTIVE: u32 = 64;
    pub const DISK_ONLY: u32 = 128;
    pub const INTERNAL: u32 = 256;
    pub const EXTERNAL: u32 = 512;
}

fn select(call: &Call, dom: &Domain, parent: Option<&str>, flags: u32) -> Result<Vec<Snapshot>> {
    let (_, domain) = call.domain(dom)?;
    let reference = domain.reference();
    let state = domain.state.lock();
    if let Some(parent) = parent.filter(|parent| !state.snapshots.contains_key(*parent)) {
        let text = format!("no domain snapshot with matching name '{parent}'");
        return Err(Error::new(Code::NoDomainSnapshot, text));
    }
    let wide = flags & list::ROOTS_OR_DESCENDANTS != 0;
    let below = |name: &str, parent: &str| {
        let mut at = state.snapshots.get(name).and_then(|snapshot| snapshot.parent.as_deref());
        // The tree is no deeper than it has members.
        for _ in 0..state.snapshots.len() {
            match at {
                Some(found) if found == parent => return true,
                Some(found) => {
                    at = state.snapshots.get(found).and_then(|up| up.parent.as_deref());
                }
                None => return false,
            }
        }
        false
    };
    let placed = |snapshot: &domains::Snapshot| match parent {
        None => !wide || snapshot.parent.is_none(),
        Some(parent) if wide => below(&snapshot.name, parent),
        Some(parent) => snapshot.parent.as_deref() == Some(parent),
    };
    let is_leaf = |snapshot: &domains::Snapshot| {
        !state.snapshots.values().any(|other| other.parent.as_ref() == Some(&snapshot.name))
    };
    let matches = |own: u32, group: u32| flags & group == 0 || flags & own != 0;
    let chosen = state.snapshots.values().filter(|snapshot| {
        let leaf = if is_leaf(snapshot) { list::LEAVES } else { list::NO_LEAVES };
        let own = match snapshot.state.as_str() {
            "shutoff" => list::INACTIVE,
            "disk-snapshot" => list::DISK_ONLY,
            _ => list::ACTIVE,
        };
        let external = domains::is_external(snapshot);
        let kind = if external { list::EXTERNAL } else { list::INTERNAL };
        placed(snapshot)
            && flags & list::NO_METADATA == 0
            && matches(leaf, list::LEAVES | list::NO_LEAVES)
            && matches(own, list::INACTIVE | list::ACTIVE | list::DISK_ONLY)
            && matches(kind, list::INTERNAL | list::EXTERNAL)
    });
    let list =
        chosen.map(|snapshot| Snapshot { name: snapshot.name.clone(), dom: reference.clone() });
    Ok(list.collect())
}

pub fn domain_snapshot_create_xml(
    call: &Call,
    dom: Domain,
    text: String,
    flags: u32,
) -> Result<Snapshot> {
    let (world, domain) = call.domain(&dom)?;
    let snapshot = domains::create_snapshot(&world, &domain, &text, flags)?;
    Ok(Snapshot { name: snapshot.name, dom: domain.reference() })
}

pub fn domain_snapshot_get_xml_desc(call: &Call, snap: Snapshot, _flags: u32) -> Result<String> {
    let (_, domain) = call.domain(&snap.dom)?;
    Ok(domain.snapshot(&snap.name)?.document.to_xml())
}

pub fn domain_snapshot_num(call: &Call, dom: Domain, flags: u32) -> Result<i32> {
    Ok(select(call, &dom, None, flags)?.len() as i32)
}

pub fn domain_snapshot_list_names(
    call: &Call,
    dom: Domain,
    maximum: i32,
    flags: u32,
) -> Result<Vec<String>> {
    let names = select(call, &dom, None, flags)?.into_iter().map(|snapshot| snapshot.name);
    Ok(at_most(names.collect(), maximum))
}

pub fn domain_list_all_snapshots(
    call: &Call,
    dom: Domain,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Snapshot>, i32)> {
    let (list, count) = super::counted(select(call, &dom, None, flags)?, need_results);
    Ok((list, count as i32))
}

pub fn domain_snapshot_num_children(call: &Call, snap: Snapshot, flags: u32) -> Result<i32> {
    Ok(select(call, &snap.dom, Some(&snap.name), flags)?.len() as i32)
}

pub fn domain_snapshot_list_children_names(
    call: &Call,
    snap: Snapshot,
    maximum: i32,
    flags: u32,
) -> Result<Vec<String>> {
    let children = select(call, &snap.dom, Some(&snap.name), flags)?;
    Ok(at_most(children.into_iter().map(|snapshot| snapshot.name).collect(), maximum))
}

pub fn domain_snapshot_list_all_children(
    call: &Call,
    snap: Snapshot,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Snapshot>, i32)> {
    let children = select(call, &snap.dom, Some(&snap.name), flags)?;
    let (list, count) = super::counted(children, need_results);
    Ok((list, count as i32))
}

pub fn domain_snapshot_lookup_by_name(
    call: &Call,
    dom: Domain,
    name: String,
    _flags: u32,
) -> Result<Snapshot> {
    let (_, domain) = call.domain(&dom)?;
    domain.snapshot(&name)?;
    Ok(Snapshot { name, dom: domain.reference() })
}

pub fn domain_has_current_snapshot(call: &Call, dom: Domain, _flags: u32) -> Result<i32> {
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(i32::from(state.current_snapshot.is_some()))
}

pub fn domain_snapshot_current(call: &Call, dom: Domain, _flags: u32) -> Result<Snapshot> {
    let (_, domain) = call.domain(&dom)?;
    let current = domain.state.lock().current_snapshot.clone();
    let name = current.ok_or_else(|| {
        Error::new(Code::NoDomainSnapshot, "the domain does not have a current snapshot")
    })?;
    Ok(Snapshot { name, dom: domain.reference() })
}

pub fn domain_snapshot_get_parent(call: &Call, snap: Snapshot, _flags: u32) -> Result<Snapshot> {
    let (_, domain) = call.domain(&snap.dom)?;
    let parent = domain.snapshot(&snap.name)?.parent.ok_or_else(|| {
        let text = format!("snapshot '{}' does not have a parent", snap.name);
        Error::new(Code::NoDomainSnapshot, text)
    })?;
    Ok(Snapshot { name: parent, dom: domain.reference() })
}

pub fn domain_snapshot_is_current(call: &Call, snap: Snapshot, _flags: u32) -> Result<i32> {
    let (_, domain) = call.domain(&snap.dom)?;
    domain.snapshot(&snap.name)?;
    let state = domain.state.lock();
    Ok(i32::from(state.current_snapshot.as_ref() == Some(&snap.name)))
}

pub fn domain_snapshot_has_metadata(call: &Call, snap: Snapshot, _flags: u32) -> Result<i32> {
    call.domain(&snap.dom)?.1.snapshot(&snap.name)?;
    Ok(1)
}

pub fn domain_revert_to_snapshot(call: &Call, snap: Snapshot, flags: u32) -> Result<()> {
    let (world, domain) = call.domain(&snap.dom)?;
    domains::revert_to_snapshot(&world, &domain, &snap.name, flags)
}

pub fn domain_snapshot_delete(call: &Call, snap: Snapshot, flags: u32) -> Result<()> {
    let (world, domain) = call.domain(&snap.dom)?;
    domains::delete_snapshot(&world, &domain, &snap.name, flags)
}
