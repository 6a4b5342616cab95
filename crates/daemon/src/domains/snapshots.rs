//! Snapshots: states of a domain that it can go back to, as a tree.
//!
//! The state itself lies inside the disk images (QEMU's internal snapshots); here is the tree and
//! the document of each.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use libvirt_compat::constants::{lifecycle, state};
use libvirt_compat::event::DomainEvent;
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Result};

use super::lifecycle::{StartOptions, emit, start_in_job, stop_in_job};
use super::{Domain, external, persist};
use crate::files::{definitions, set_aside};
use crate::world::World;

/// One snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub name: String,
    pub parent: Option<String>,
    /// As libvirt shows it, without the domain's own document.
    pub document: Element,
    /// `running`, `paused`, `shutoff`.
    pub state: String,
}

/// Snapshots one domain may have: as many as a list may hold.
const SNAPSHOTS_MAX: usize = 16_384;

/// Flags of `virDomainSnapshotCreateXML`.
mod create_flags {
    pub const CURRENT: u32 = 2;
    pub const REDEFINE: u32 = 1;
    pub const NO_METADATA: u32 = 4;
    pub const HALT: u32 = 8;
    pub const DISK_ONLY: u32 = 16;
    pub const REUSE_EXT: u32 = 32;
    pub const QUIESCE: u32 = 64;
}

fn not_found(name: &str) -> Error {
    Error::new(Code::NoDomainSnapshot, format!("no domain snapshot with matching name '{name}'"))
}

impl Snapshot {
    fn set_state(&mut self, state: &str) {
        state.clone_into(&mut self.state);
        self.document.ensure("state").set_text(state);
    }
}

/// Whether a snapshot lies in images of its own.
pub fn is_external(snapshot: &Snapshot) -> bool {
    external::is_external(snapshot)
}

impl Domain {
    /// The snapshot of this name.
    pub fn snapshot(&self, name: &str) -> Result<Snapshot> {
        self.state.lock().snapshots.get(name).cloned().ok_or_else(|| not_found(name))
    }
}

/// Reads a domain's snapshots.
pub(super) fn load(domain: &Domain, folder: &Path) {
    let make = |text: &str| parse(xml::parse(text, "domainsnapshot")?);
    for (path, snapshot) in definitions(folder, make) {
        match snapshot {
            Ok((snapshot, current)) => {
                let mut state = domain.state.lock();
                if current {
                    state.current_snapshot = Some(snapshot.name.clone());
                }
                state.snapshots.insert(snapshot.name.clone(), snapshot);
            }
            Err(error) => set_aside(&path, &error),
        }
    }
}

fn parse(mut document: Element) -> Result<(Snapshot, bool)> {
    let current = document.remove(|element| element.name == "active") > 0;
    let name = document.text_at("name").unwrap_or_default();
    check_name(&name)?;
    let snapshot = Snapshot {
        name,
        parent: document.text_at("parent/name"),
        state: document.text_at("state").unwrap_or_else(|| "shutoff".into()),
        document,
    };
    Ok((snapshot, current))
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty() || name.contains('/') || name.starts_with('.') || name.len() > 200;
    if bad {
        let text =
            format!("invalid snapshot name '{name}': name can't contain '/' or start with '.'");
        return Err(Error::new(Code::XmlError, text));
    }
    Ok(())
}

fn store(world: &World, domain: &Domain, snapshot: &Snapshot, current: bool) -> Result<()> {
    let mut document = snapshot.document.clone();
    if current {
        document.push(Element::with_text("active", 1));
    }
    persist::write_snapshot(world, domain, &snapshot.name, &document.to_xml())
}

/// Makes a snapshot.
pub fn create(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    text: &str,
    flags: u32,
) -> Result<Snapshot> {
    let _job = domain.begin()?;
    let given = xml::parse(text, "domainsnapshot")?;
    if given.name != "domainsnapshot" {
        let text = format!("unexpected root element <{}>, expecting <domainsnapshot>", given.name);
        return Err(Error::new(Code::XmlError, text));
    }
    if flags & create_flags::REDEFINE != 0 {
        return redefine(world, domain, given, flags & create_flags::CURRENT != 0);
    }
    let mut snapshot = describe(domain, &given)?;
    let disk_only = flags & create_flags::DISK_ONLY != 0;
    let reuse = flags & create_flags::REUSE_EXT != 0;
    let plan = if disk_only { Some(external::plan(&mut snapshot, &given, reuse)?) } else { None };
    let (active, count, duplicate) = {
        let state = domain.state.lock();
        let duplicate = state.snapshots.contains_key(&snapshot.name);
        (state.live.is_some(), state.snapshots.len(), duplicate)
    };
    if duplicate {
        let text = format!("domain moment {} already exists", snapshot.name);
        return Err(Error::new(Code::OperationFailed, text));
    }
    if count >= SNAPSHOTS_MAX {
        return Err(Error::new(Code::OperationFailed, "too many snapshots"));
    }
    if flags & create_flags::QUIESCE != 0 && !disk_only {
        let text = "quiesce requires disk-only snapshot";
        return Err(Error::new(Code::InvalidArg, text));
    }
    let memory = given.attribute_at("memory", "snapshot");
    if memory == Some("external") {
        let text = "external snapshots of memory are not supported";
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    if let Some(plan) = plan {
        external::make(world, domain, plan, (reuse, flags & create_flags::QUIESCE != 0))?;
        if active {
            snapshot.set_state("disk-snapshot");
        }
    } else if active {
        let machine = domain.machine()?;
        machine.snapshot_save(&snapshot.name)?;
        if flags & create_flags::HALT != 0 {
            let (reason, detail) =
                (state::shutoff::FROM_SNAPSHOT, lifecycle::stopped::FROM_SNAPSHOT);
            stop_in_job(world, domain, false, reason, detail)?;
        }
    } else {
        world.driver.snapshot_offline(&domain.definition()?, &snapshot.name, Offline::Create)?;
    }
    if flags & create_flags::NO_METADATA == 0 {
        keep(world, domain, snapshot.clone(), true)?;
    }
    Ok(snapshot)
}

/// What to do with a snapshot inside the images of a domain that is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offline {
    Create,
    Apply,
    Delete,
}

fn redefine(world: &World, domain: &Domain, given: Element, current: bool) -> Result<Snapshot> {
    let (snapshot, _) = parse(given)?;
    keep(world, domain, snapshot.clone(), current)?;
    Ok(snapshot)
}

fn keep(world: &World, domain: &Domain, snapshot: Snapshot, current: bool) -> Result<()> {
    store(world, domain, &snapshot, current)?;
    let before = {
        let mut state = domain.state.lock();
        let name = snapshot.name.clone();
        state.snapshots.insert(name.clone(), snapshot);
        if current { state.current_snapshot.replace(name) } else { None }
    };
    match before.map(|name| domain.snapshot(&name)) {
        Some(Ok(before)) => store(world, domain, &before, false),
        _ => Ok(()),
    }
}

/// The document of a new snapshot, in libvirt's order.
fn describe(domain: &Domain, given: &Element) -> Result<Snapshot> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let name = given.text_at("name").filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| now.to_string());
    check_name(&name)?;
    let (active, paused, parent) = {
        let state = domain.state.lock();
        let paused = state.state.0 == state::PAUSED;
        (state.live.is_some(), paused, state.current_snapshot.clone())
    };
    let state = match (active, paused) {
        (false, _) => "shutoff",
        (true, true) => "paused",
        (true, false) => "running",
    };
    let mut document = Element::new("domainsnapshot");
    document.push(Element::with_text("name", &name));
    if let Some(description) = given.child("description") {
        document.push(description.clone());
    }
    document.push(Element::with_text("state", state));
    if let Some(parent) = &parent {
        let parent = Element::with_text("name", parent);
        document.push(Element::new("parent").with_child(parent));
    }
    document.push(Element::with_text("creationTime", now));
    let memory = if active { "internal" } else { "no" };
    document.push(Element::new("memory").with("snapshot", memory));
    let definition = domain.document()?;
    let mut disks = Element::new("disks");
    for disk in definition.child("devices").into_iter().flat_map(|devices| devices.all("disk")) {
        let Some(target) = disk.attribute_at("target", "dev") else { continue };
        let kept = if is_kept(disk) { "internal" } else { "no" };
        disks.push(Element::new("disk").with("name", target).with("snapshot", kept));
    }
    document.push(disks);
    document.push(definition);
    Ok(Snapshot { name, parent, document, state: state.into() })
}

/// Whether a disk takes part: writable, with something in it.
pub(super) fn is_kept(disk: &Element) -> bool {
    disk.is("device", "disk") && disk.child("readonly").is_none() && disk.child("source").is_some()
}

/// Flags of `virDomainRevertToSnapshot`.
mod revert_flags {
    pub const RUNNING: u32 = 1;
    pub const PAUSED: u32 = 2;
}

/// Goes back to a snapshot.
pub fn revert(world: &Arc<World>, domain: &Arc<Domain>, name: &str, flags: u32) -> Result<()> {
    let _job = domain.begin()?;
    let snapshot = domain.snapshot(name)?;
    if is_external(&snapshot) {
        let text = "revert to external snapshot not supported yet";
        return Err(Error::new(Code::ConfigUnsupported, text));
    }
    let runs = snapshot.state != "shutoff";
    let wanted = runs || flags & (revert_flags::RUNNING | revert_flags::PAUSED) != 0;
    let paused = match flags {
        flags if flags & revert_flags::PAUSED != 0 => true,
        flags if flags & revert_flags::RUNNING != 0 => false,
        _ => snapshot.state == "paused",
    };
    if domain.is_active() {
        let (reason, detail) = (state::shutoff::FROM_SNAPSHOT, lifecycle::stopped::FROM_SNAPSHOT);
        stop_in_job(world, domain, false, reason, detail)?;
    }
    let document = snapshot.document.child("domain").cloned();
    if !runs {
        let definition = domain.definition()?;
        world.driver.snapshot_offline(&definition, name, Offline::Apply)?;
    }
    if wanted {
        let options = StartOptions {
            paused,
            snapshot: runs.then(|| name.to_owned()),
            document: document.map(without_live_parts),
            restore: None,
        };
        start_in_job(world, domain, options)?;
    } else {
        domain.state.lock().state = (state::SHUTOFF, state::shutoff::FROM_SNAPSHOT);
        let detail = lifecycle::stopped::FROM_SNAPSHOT;
        emit(world, domain, DomainEvent::Lifecycle(lifecycle::STOPPED, detail));
    }
    keep(world, domain, snapshot, true)
}

/// A live document as it would be stored.
pub fn without_live_parts(mut document: Element) -> Element {
    document.unset("id");
    document.remove(|element| {
        let chosen = element.name == "seclabel" && element.is("type", "dynamic");
        chosen || element.name == "resource"
    });
    for device in document.ensure("devices").elements_mut() {
        device.remove(|element| element.name == "alias" || element.name == "backingStore");
        match device.name.as_str() {
            "serial" | "console" if device.is("type", "pty") => {
                device.unset("tty");
                device.remove(|element| element.name == "source");
            }
            "graphics" if device.is("autoport", "yes") => device.set("port", -1),
            "disk" => {
                if let Some(source) = device.child_mut("source") {
                    source.unset("index");
                }
            }
            "interface" if made_by_daemon(device) => {
                device.remove(|element| element.name == "target");
            }
            _ => {}
        }
    }
    document
}

/// Whether an interface's device on the host was made for one run.
fn made_by_daemon(interface: &Element) -> bool {
    interface.attribute_at("target", "dev").is_some_and(|device| device.starts_with("vnet"))
}

/// Flags of `virDomainSnapshotDelete`.
mod delete_flags {
    pub const CHILDREN: u32 = 1;
    pub const METADATA_ONLY: u32 = 2;
    pub const CHILDREN_ONLY: u32 = 4;
}

/// Deletes a snapshot, alone or with what grew from it.
pub fn delete(world: &Arc<World>, domain: &Arc<Domain>, name: &str, flags: u32) -> Result<()> {
    let _job = domain.begin()?;
    let snapshot = domain.snapshot(name)?;
    let with_children = flags & (delete_flags::CHILDREN | delete_flags::CHILDREN_ONLY) != 0;
    let mut doomed = Vec::new();
    if with_children {
        doomed = descendants(domain, name);
    }
    if flags & delete_flags::CHILDREN_ONLY == 0 {
        doomed.push(name.to_owned());
    }
    for name in &doomed {
        let one = domain.snapshot(name)?;
        if flags & delete_flags::METADATA_ONLY == 0 && is_external(&one) {
            if with_children {
                let text =
                    "deletion of external and internal children disk snapshots not supported";
                return Err(Error::new(Code::ConfigUnsupported, text));
            }
            external::delete(world, domain, &one)?;
        } else if flags & delete_flags::METADATA_ONLY == 0 {
            match domain.machine() {
                Ok(machine) => machine.snapshot_delete(name)?,
                Err(_) => {
                    let definition = domain.definition()?;
                    world.driver.snapshot_offline(&definition, name, Offline::Delete)?;
                }
            }
        }
        persist::remove_snapshot(world, domain, name)?;
    }
    for child in forget(domain, &doomed, &snapshot) {
        store(world, domain, &child, false)?;
    }
    Ok(())
}

/// All that grew from a snapshot, leaves first.
fn descendants(domain: &Domain, name: &str) -> Vec<String> {
    let state = domain.state.lock();
    let mut found = vec![name.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at].clone();
        let children = state.snapshots.values().filter(|s| s.parent.as_ref() == Some(&parent));
        let children: Vec<_> = children.map(|child| child.name.clone()).collect();
        found.extend(
            children.into_iter().filter(|child| !found.contains(child)).collect::<Vec<_>>(),
        );
        at += 1;
    }
    found.remove(0);
    found.reverse();
    found
}

/// Takes snapshots out of the tree; their children move up. Returns those that changed.
fn forget(domain: &Domain, doomed: &[String], top: &Snapshot) -> Vec<Snapshot> {
    let mut state = domain.state.lock();
    state.snapshots.retain(|name, _| !doomed.contains(name));
    if state.current_snapshot.as_ref().is_some_and(|current| doomed.contains(current)) {
        let parent = top.parent.clone().filter(|parent| state.snapshots.contains_key(parent));
        state.current_snapshot = parent;
    }
    let mut changed = Vec::new();
    for child in state.snapshots.values_mut() {
        if child.parent.as_ref().is_some_and(|parent| doomed.contains(parent)) {
            child.parent = top.parent.clone();
            child.document.remove(|element| element.name == "parent");
            if let Some(parent) = &top.parent {
                let parent = Element::with_text("name", parent);
                child.document.push(Element::new("parent").with_child(parent));
            }
            changed.push(child.clone());
        }
    }
    changed
}
