//! External snapshots: a new image over each disk, so that the old one stays as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};

use super::blocks::{change_definition, change_disk, find, set_source};
use super::snapshots::{Snapshot, is_kept};
use super::{Domain, not_running};
use crate::agent;
use crate::drivers::{BlockJob, DiskChange, Overlay, disk_path};
use crate::storage;
use crate::world::World;

/// Merging an image has this long: a disk may be large.
const MERGE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Between looks at a merge.
const MERGE_PAUSE: Duration = Duration::from_millis(20);

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(Code::ConfigUnsupported, text)
}

/// What a disk-only snapshot makes.
pub struct Plan {
    overlays: Vec<Overlay>,
    /// The disks' files and formats before.
    before: Vec<(PathBuf, String)>,
}

/// Whether a snapshot has images of its own.
pub fn is_external(snapshot: &Snapshot) -> bool {
    let disks = snapshot.document.child("disks");
    disks
        .into_iter()
        .flat_map(|disks| disks.all("disk"))
        .any(|disk| disk.is("snapshot", "external"))
}

/// Decides which disk gets which image, and writes that into the snapshot's document.
pub fn plan(snapshot: &mut Snapshot, given: &Element, reuse: bool) -> Result<Plan> {
    let definition = snapshot.document.child("domain").cloned().unwrap_or_default();
    let wishes = given.child("disks");
    let mut plan = Plan { overlays: Vec::new(), before: Vec::new() };
    let mut disks = Element::new("disks");
    let all = definition.child("devices");
    for disk in all.into_iter().flat_map(|devices| devices.all("disk")) {
        let Some(target) = disk.attribute_at("target", "dev") else { continue };
        let own = disk_path(disk);
        let by_name = |wish: &&Element| {
            let name = wish.attribute("name").unwrap_or_default();
            name == target || own.as_deref() == Some(Path::new(name))
        };
        let wish = wishes.and_then(|wishes| wishes.all("disk").find(by_name));
        let kind = wish.and_then(|wish| wish.attribute("snapshot")).unwrap_or("external");
        let path = own.filter(|_| kind != "no" && kind != "manual" && is_kept(disk));
        let Some(path) = path else {
            disks.push(Element::new("disk").with("name", target).with("snapshot", "no"));
            continue;
        };
        if kind != "external" {
            let text = format!("{kind} snapshot for disk {target} unsupported with --disk-only");
            return Err(unsupported(text));
        }
        let file = wish.and_then(disk_path).unwrap_or_else(|| generated(&path, &snapshot.name));
        let wished = wish.and_then(|wish| wish.attribute_at("driver", "type"));
        let format = wished.unwrap_or("qcow2").to_owned();
        if !matches!(format.as_str(), "qcow2" | "qed") {
            let text =
                format!("external snapshot format for disk {target} is unsupported: {format}");
            return Err(unsupported(text));
        }
        if !reuse && fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
            let file = file.display();
            let text = format!(
                "external snapshot file for disk {target} already exists and is not a block device: {file}"
            );
            return Err(unsupported(text));
        }
        let shown = Element::new("disk")
            .with("name", target)
            .with("snapshot", "external")
            .with("type", "file")
            .with_child(Element::new("driver").with("type", &format))
            .with_child(Element::new("source").with("file", file.display()));
        disks.push(shown);
        let own_format = disk.attribute_at("driver", "type").unwrap_or("raw").to_owned();
        plan.before.push((path, own_format));
        plan.overlays.push(Overlay { target: target.to_owned(), file, format, index: 0 });
    }
    if plan.overlays.is_empty() {
        return Err(unsupported("nothing selected for snapshot"));
    }
    snapshot.document.remove(|element| element.name == "memory" || element.name == "disks");
    let place = snapshot.document.children.len().saturating_sub(1);
    snapshot.document.children.insert(place, libvirt_compat::xml::Node::Element(disks));
    let memory = Element::new("memory").with("snapshot", "no");
    snapshot.document.children.insert(place, libvirt_compat::xml::Node::Element(memory));
    Ok(plan)
}

/// libvirt puts the snapshot's name in the place of the file's extension.
fn generated(path: &Path, name: &str) -> PathBuf {
    path.with_extension(name)
}

/// Makes the images, and has the domain write to them from now on.
pub fn make(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    mut plan: Plan,
    (reuse, quiesce): (bool, bool),
) -> Result<()> {
    let machine = domain.machine().ok();
    if quiesce && machine.is_none() {
        return Err(not_running());
    }
    if quiesce {
        agent::ask(domain, "guest-fsfreeze-freeze", None)?;
    }
    let mut made: Vec<PathBuf> = Vec::new();
    let result = (|| {
        for (overlay, (path, format)) in plan.overlays.iter().zip(&plan.before) {
            if !reuse {
                let backing = Some((path.as_path(), format.as_str()));
                let size = storage::probe(path)?.capacity;
                storage::create_image(&overlay.file, &overlay.format, backing, size)?;
                made.push(overlay.file.clone());
            }
        }
        let Some(machine) = machine else { return Ok(()) };
        machine.overlay(&domain.document()?, &mut plan.overlays)
    })();
    let thawed =
        if quiesce { agent::ask(domain, "guest-fsfreeze-thaw", None).map(|_| ()) } else { Ok(()) };
    if let Err(error) = result {
        for path in made {
            _ = fs::remove_file(path);
        }
        return Err(error);
    }
    let active = domain.is_active();
    for overlay in &plan.overlays {
        let (file, format) = (overlay.file.clone(), overlay.format.clone());
        if active {
            let change = DiskChange::Source { file, format, index: Some(overlay.index) };
            change_disk(world, domain, &overlay.target, &change);
        } else {
            replace(world, domain, &overlay.target, &file, &format)?;
        }
    }
    thawed
}

fn replace(world: &World, domain: &Domain, target: &str, file: &Path, format: &str) -> Result<()> {
    change_definition(world, domain, |definition| match find(definition, target) {
        Some(disk) => {
            set_source(disk, file, format);
            true
        }
        None => false,
    })
}

/// Deletes a snapshot's images: what was written to them goes into those beneath.
pub fn delete(world: &Arc<World>, domain: &Arc<Domain>, snapshot: &Snapshot) -> Result<()> {
    let disks = snapshot.document.child("disks");
    for disk in disks.into_iter().flat_map(|disks| disks.all("disk")) {
        let external = disk.is("snapshot", "external");
        let (Some(target), Some(file)) = (disk.attribute("name"), disk_path(disk)) else {
            continue;
        };
        if external {
            merge(world, domain, target, &file)?;
            _ = fs::remove_file(&file);
        }
    }
    Ok(())
}

fn merge(world: &Arc<World>, domain: &Arc<Domain>, target: &str, file: &Path) -> Result<()> {
    let mut document = domain.document()?;
    let own = find(&mut document, target).and_then(|disk| disk_path(disk));
    let own = own.ok_or_else(|| {
        let text =
            format!("disk '{target}' referenced by snapshot not found in the current definition");
        Error::new(Code::OperationFailed, text)
    })?;
    let chain = storage::chain(&own)?;
    let is_top = own == file;
    let place = chain.iter().position(|(below, _)| below == file);
    let beneath = if is_top { chain.first() } else { place.and_then(|at| chain.get(at + 1)) };
    let Some((base, base_format)) = beneath.cloned() else {
        let text = format!(
            "snapshot disk source and parent disk source are not the same: '{}' is not in use",
            file.display()
        );
        return Err(Error::new(Code::OperationFailed, text));
    };
    let Ok(machine) = domain.machine() else {
        let above = match place {
            Some(0) => Some(own.clone()),
            Some(at) => chain.get(at - 1).map(|(above, _)| above.clone()),
            None => None,
        };
        storage::merge_image(file, &base, above.as_deref(), &base_format)?;
        return if is_top { replace(world, domain, target, &base, &base_format) } else { Ok(()) };
    };
    let job = BlockJob::Commit {
        top: (!is_top).then(|| file.display().to_string()),
        base: Some(base.display().to_string()),
        active: is_top,
        speed: 0,
    };
    machine.block_job_start(&document, target, &job)?;
    let deadline = Instant::now() + MERGE_TIMEOUT;
    while let Some(info) = machine.block_job_info(target)? {
        if is_top && info.done == info.total {
            return machine.block_job_end(target, true, true);
        }
        if Instant::now() > deadline {
            machine.block_job_end(target, false, true)?;
            return Err(Error::new(Code::OperationTimeout, "merging a snapshot takes too long"));
        }
        thread::sleep(MERGE_PAUSE);
    }
    Ok(())
}
