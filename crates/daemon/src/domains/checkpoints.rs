//! Checkpoints: points in time since when disks remember what was written, as a tree; and backups,
//! which copy a disk, or what was written since a checkpoint.
//!
//! A checkpoint is a bitmap of its name in each qcow2 image. All bitmaps go on for as long as they
//! are there, so that one can go without its neighbours being merged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Result};

use super::snapshots::is_kept;
use super::{Domain, persist};
use crate::agent;
use crate::drivers::{BackupDisk, BackupServer, Bitmap, disk_path};
use crate::files::{definitions, set_aside};
use crate::storage;
use crate::world::World;

/// One checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub name: String,
    pub parent: Option<String>,
    /// As libvirt shows it, the domain's own document included.
    pub document: Element,
}

/// Checkpoints one domain may have: as many as a list may hold.
const CHECKPOINTS_MAX: usize = 16_384;

/// Flags of `virDomainCheckpointCreateXML`.
mod create_flags {
    pub const REDEFINE: u32 = 1;
    pub const QUIESCE: u32 = 2;
}

/// Flags of `virDomainCheckpointDelete`.
mod delete_flags {
    pub const CHILDREN: u32 = 1;
    pub const METADATA_ONLY: u32 = 2;
    pub const CHILDREN_ONLY: u32 = 4;
}

/// `VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL`.
const REUSE_EXTERNAL: u32 = 1;
/// Where NBD is served when nobody says otherwise.
const NBD_PORT: &str = "10809";

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(Code::ConfigUnsupported, text)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Checkpoint {
    /// The bitmaps that it consists of, by target.
    fn bitmaps(&self) -> Vec<Bitmap> {
        let disks = self.document.child("disks");
        let disks = disks.into_iter().flat_map(|disks| disks.all("disk"));
        let bitmap = |disk: &Element| {
            let (target, name) = (disk.attribute("name")?, disk.attribute("bitmap")?);
            Some(Bitmap { target: target.to_owned(), name: name.to_owned() })
        };
        disks.filter(|disk| disk.is("checkpoint", "bitmap")).filter_map(bitmap).collect()
    }

    fn move_to(&mut self, parent: Option<&str>) {
        self.parent = parent.map(str::to_owned);
        self.document.remove(|element| element.name == "parent");
        if let Some(parent) = parent {
            let element = Element::new("parent").with_child(Element::with_text("name", parent));
            self.document.children.insert(1, xml::Node::Element(element));
        }
    }
}

impl Domain {
    /// The checkpoint of this name.
    pub fn checkpoint(&self, name: &str) -> Result<Checkpoint> {
        let text = || format!("no domain checkpoint with matching name '{name}'");
        let found = self.state.lock().checkpoints.get(name).cloned();
        found.ok_or_else(|| Error::new(Code::NoDomainCheckpoint, text()))
    }
}

/// Reads a domain's checkpoints.
pub(super) fn load(domain: &Domain, folder: &Path) {
    for (path, checkpoint) in definitions(folder, |text| parse(xml::parse(text, "checkpoint")?)) {
        match checkpoint {
            Ok((checkpoint, current)) => {
                let mut state = domain.state.lock();
                if current {
                    state.current_checkpoint = Some(checkpoint.name.clone());
                }
                state.checkpoints.insert(checkpoint.name.clone(), checkpoint);
            }
            Err(error) => set_aside(&path, &error),
        }
    }
}

fn parse(mut document: Element) -> Result<(Checkpoint, bool)> {
    if document.name != "domaincheckpoint" {
        let text =
            format!("unexpected root element <{}>, expecting <domaincheckpoint>", document.name);
        return Err(Error::new(Code::XmlError, text));
    }
    let current = document.remove(|element| element.name == "active") > 0;
    let name = document.text_at("name").unwrap_or_default();
    super::snapshots::check_name(&name)?;
    Ok((Checkpoint { name, parent: document.text_at("parent/name"), document }, current))
}

fn store(world: &World, domain: &Domain, checkpoint: &Checkpoint, current: bool) -> Result<()> {
    let mut document = checkpoint.document.clone();
    if current {
        document.push(Element::with_text("active", 1));
    }
    persist::write_checkpoint(world, domain, &checkpoint.name, &document.to_xml())
}

fn keep(world: &World, domain: &Domain, checkpoint: Checkpoint) -> Result<()> {
    store(world, domain, &checkpoint, true)?;
    let before = {
        let mut state = domain.state.lock();
        let name = checkpoint.name.clone();
        state.checkpoints.insert(name.clone(), checkpoint);
        state.current_checkpoint.replace(name.clone()).filter(|before| *before != name)
    };
    match before.and_then(|name| domain.checkpoint(&name).ok()) {
        Some(before) => store(world, domain, &before, false),
        None => Ok(()),
    }
}

/// Makes a checkpoint of a running domain, or takes over the document of one.
pub fn create(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    text: &str,
    flags: u32,
) -> Result<Checkpoint> {
    let _job = domain.begin()?;
    let given = xml::parse(text, "domaincheckpoint")?;
    if flags & create_flags::REDEFINE != 0 {
        let (checkpoint, _) = parse(given)?;
        keep(world, domain, checkpoint.clone())?;
        return Ok(checkpoint);
    }
    let checkpoint = describe(domain, &given)?;
    let machine = domain.machine()?;
    let quiesce = flags & create_flags::QUIESCE != 0;
    if quiesce {
        agent::ask(domain, "guest-fsfreeze-freeze", None)?;
    }
    let made = machine.add_bitmaps(&domain.document()?, &checkpoint.bitmaps());
    if quiesce {
        agent::ask(domain, "guest-fsfreeze-thaw", None)?;
    }
    made?;
    keep(world, domain, checkpoint.clone())?;
    Ok(checkpoint)
}

/// The document of a new checkpoint, in libvirt's order.
fn describe(domain: &Domain, given: &Element) -> Result<Checkpoint> {
    if given.name != "domaincheckpoint" {
        parse(given.clone())?;
    }
    if !domain.is_active() {
        let text = "cannot create checkpoint for inactive domain";
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    let name = given.text_at("name").filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| now().to_string());
    super::snapshots::check_name(&name)?;
    let parent = {
        let state = domain.state.lock();
        if state.checkpoints.contains_key(&name) {
            let text = format!("domain moment {name} already exists");
            return Err(Error::new(Code::OperationFailed, text));
        }
        if state.checkpoints.len() >= CHECKPOINTS_MAX {
            return Err(Error::new(Code::OperationFailed, "too many checkpoints"));
        }
        state.current_checkpoint.clone()
    };
    let mut document = Element::new("domaincheckpoint");
    document.push(Element::with_text("name", &name));
    document.children.extend(given.child("description").cloned().map(xml::Node::Element));
    let mut checkpoint = Checkpoint { name, parent: None, document };
    checkpoint.document.push(Element::with_text("creationTime", now()));
    let definition = domain.document()?;
    checkpoint.document.push(disks(given.child("disks"), &definition, &checkpoint.name)?);
    checkpoint.document.push(definition);
    checkpoint.move_to(parent.as_deref());
    Ok(checkpoint)
}

/// What becomes of each disk.
fn disks(wishes: Option<&Element>, definition: &Element, name: &str) -> Result<Element> {
    let mut list = Element::new("disks");
    let all = definition.child("devices");
    for disk in all.into_iter().flat_map(|devices| devices.all("disk")) {
        let Some(target) = disk.attribute_at("target", "dev") else { continue };
        let wish = wishes.map(|wishes| find(wishes, target, disk));
        let kind = match &wish {
            // A list that leaves a disk out leaves it alone.
            Some(None) => "no",
            Some(Some(wish)) => wish.attribute("checkpoint").unwrap_or("bitmap"),
            None if is_kept(disk) => "bitmap",
            None => "no",
        };
        let mut shown = Element::new("disk").with("name", target).with("checkpoint", kind);
        if kind == "bitmap" {
            if !is_kept(disk) {
                return Err(unsupported(format!("disk '{target}' is empty or readonly")));
            }
            let format = disk.attribute_at("driver", "type").unwrap_or("raw");
            if format != "qcow2" {
                let text =
                    format!("checkpoint for disk {target} unsupported for storage type {format}");
                return Err(unsupported(text));
            }
            let own = wish.flatten().and_then(|wish| wish.attribute("bitmap"));
            if own.is_some_and(|own| own != name) {
                let text =
                    format!("bitmap for disk '{target}' must match checkpoint name '{name}'");
                return Err(unsupported(text));
            }
            shown.set("bitmap", name);
        } else if kind != "no" {
            return Err(unsupported(format!("unknown disk checkpoint setting '{kind}'")));
        }
        list.push(shown);
    }
    if !list.all("disk").any(|disk| disk.is("checkpoint", "bitmap")) {
        return Err(unsupported("nothing selected for checkpoint"));
    }
    Ok(list)
}

/// The entry about a disk, by its target or its file.
fn find<'a>(wishes: &'a Element, target: &str, disk: &Element) -> Option<&'a Element> {
    let own = disk_path(disk);
    wishes.all("disk").find(|wish| {
        let name = wish.attribute("name").unwrap_or_default();
        name == target || own.as_deref() == Some(Path::new(name))
    })
}

/// All that grew from a checkpoint, leaves first.
fn descendants(domain: &Domain, name: &str) -> Vec<String> {
    let state = domain.state.lock();
    let mut found = vec![name.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let children = state.checkpoints.values();
        let children = children.filter(|own| own.parent.as_ref() == Some(&found[at]));
        let new: Vec<_> =
            children.map(|c| c.name.clone()).filter(|child| !found.contains(child)).collect();
        found.extend(new);
        at += 1;
    }
    found.remove(0);
    found.reverse();
    found
}

/// Deletes checkpoints with their bitmaps.
pub fn delete(world: &Arc<World>, domain: &Arc<Domain>, name: &str, flags: u32) -> Result<()> {
    let _job = domain.begin()?;
    let top = domain.checkpoint(name)?;
    let metadata_only = flags & delete_flags::METADATA_ONLY != 0;
    if !metadata_only && !domain.is_active() {
        let text = "cannot delete checkpoint for inactive domain";
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    let mut doomed = Vec::new();
    if flags & (delete_flags::CHILDREN | delete_flags::CHILDREN_ONLY) != 0 {
        doomed = descendants(domain, name);
    }
    if flags & delete_flags::CHILDREN_ONLY == 0 {
        doomed.push(name.to_owned());
    }
    for name in &doomed {
        if !metadata_only {
            let bitmaps = domain.checkpoint(name)?.bitmaps();
            domain.machine()?.remove_bitmaps(&domain.document()?, &bitmaps)?;
        }
        persist::remove_checkpoint(world, domain, name)?;
    }
    let changed = {
        let mut state = domain.state.lock();
        state.checkpoints.retain(|name, _| !doomed.contains(name));
        let mut changed = Vec::new();
        if state.current_checkpoint.as_ref().is_some_and(|current| doomed.contains(current)) {
            let next = if doomed.contains(&top.name) { top.parent.clone() } else { Some(top.name) };
            changed.extend(next.clone());
            state.current_checkpoint = next;
        }
        for child in state.checkpoints.values_mut() {
            if child.parent.as_ref().is_some_and(|parent| doomed.contains(parent)) {
                child.move_to(top.parent.as_deref());
                changed.push(child.name.clone());
            }
        }
        changed
    };
    for name in changed {
        let current = domain.state.lock().current_checkpoint.as_ref() == Some(&name);
        store(world, domain, &domain.checkpoint(&name)?, current)?;
    }
    Ok(())
}

/// Begins a backup, and makes a checkpoint at the same moment if one is described.
pub fn begin_backup(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    text: &str,
    checkpoint: Option<&str>,
    flags: u32,
) -> Result<()> {
    let _job = domain.begin()?;
    let mut given = xml::parse(text, "domainbackup")?;
    if given.name != "domainbackup" {
        let text = format!("unexpected root element <{}>, expecting <domainbackup>", given.name);
        return Err(Error::new(Code::XmlError, text));
    }
    let server = server(&given)?;
    let Ok(machine) = domain.machine() else {
        let text = "cannot perform disk backup for inactive domain";
        return Err(Error::new(Code::OperationUnsupported, text));
    };
    if domain.state.lock().backup.is_some() {
        return Err(Error::new(Code::OperationInvalid, "another backup job is already running"));
    }
    let checkpoint = match checkpoint {
        Some(text) => Some(describe(domain, &xml::parse(text, "domaincheckpoint")?)?),
        None => None,
    };
    let document = domain.document()?;
    let suffix = checkpoint.as_ref().map_or_else(|| now().to_string(), |own| own.name.clone());
    let plan = plan(domain, &mut given, &document, &suffix)?;
    let reuse = flags & REUSE_EXTERNAL != 0;
    let mut made: Vec<PathBuf> = Vec::new();
    let bitmaps = checkpoint.as_ref().map(Checkpoint::bitmaps).unwrap_or_default();
    domain.state.lock().backup = Some(given);
    let begun = (|| {
        for disk in plan.iter().filter(|_| !reuse) {
            if std::fs::metadata(&disk.file).is_ok_and(|file| file.len() > 0) {
                let text = format!(
                    "store '{}' for backup of '{}' exists",
                    disk.file.display(),
                    disk.target
                );
                return Err(Error::new(Code::InvalidArg, text));
            }
            storage::create_image(&disk.file, &disk.format, None, disk.bytes)?;
            made.push(disk.file.clone());
        }
        machine.begin_backup(&document, &plan, server.as_ref(), &bitmaps)
    })();
    if let Err(error) = begun {
        domain.state.lock().backup = None;
        for path in made {
            _ = std::fs::remove_file(path);
        }
        return Err(error);
    }
    if server.is_some() {
        domain.state.lock().scratch = made;
    }
    match checkpoint {
        Some(checkpoint) => keep(world, domain, checkpoint),
        None => Ok(()),
    }
}

/// Where a backup that others read is served.
fn server(given: &Element) -> Result<Option<BackupServer>> {
    match given.attribute("mode").unwrap_or("push") {
        "push" => return Ok(None),
        "pull" => {}
        other => {
            let text =
                format!("Invalid value for attribute 'mode' in element 'domainbackup': '{other}'.");
            return Err(Error::new(Code::XmlError, text));
        }
    }
    let own = |name| given.attribute_at("server", name).map(str::to_owned);
    if given.attribute_at("server", "tls") == Some("yes") {
        return Err(unsupported("backups by TLS are not supported"));
    }
    let server = match (own("transport").as_deref(), own("socket"), own("name"), own("port")) {
        (Some("unix"), Some(socket), ..) => BackupServer::Unix(socket.into()),
        (None | Some("tcp"), _, Some(name), port) => {
            BackupServer::Tcp(name, port.unwrap_or_else(|| NBD_PORT.to_owned()))
        }
        _ => return Err(unsupported("a backup of mode 'pull' needs a server")),
    };
    Ok(Some(server))
}

/// Decides which disk goes where, and writes that into the backup's document.
fn plan(
    domain: &Domain,
    given: &mut Element,
    document: &Element,
    suffix: &str,
) -> Result<Vec<BackupDisk>> {
    let pulled = given.is("mode", "pull");
    given.set("mode", if pulled { "pull" } else { "push" });
    let (role, other_role) = if pulled { ("scratch", "target") } else { ("target", "scratch") };
    let since = given.text_at("incremental");
    let wishes = given.child("disks").cloned();
    let mut list = Element::new("disks");
    let mut plan = Vec::new();
    for disk in document.child("devices").into_iter().flat_map(|devices| devices.all("disk")) {
        let Some(target) = disk.attribute_at("target", "dev") else { continue };
        let wish = wishes.as_ref().map(|wishes| find(wishes, target, disk));
        let wanted = match &wish {
            Some(None) => false,
            Some(Some(wish)) => !wish.is("backup", "no"),
            None => is_kept(disk),
        };
        let Some(path) = disk_path(disk).filter(|_| wanted) else {
            list.push(Element::new("disk").with("name", target).with("backup", "no"));
            continue;
        };
        let wish = wish.flatten().cloned().unwrap_or_else(|| Element::new("disk"));
        if !matches!(wish.attribute("type"), None | Some("file" | "block")) {
            return Err(unsupported(format!("backup of '{target}' to a network is not supported")));
        }
        let place = |name| wish.attribute_at(role, name).map(PathBuf::from);
        let generated = || PathBuf::from(format!("{}.{suffix}", path.display()));
        let file = place("file").or_else(|| place("dev")).unwrap_or_else(generated);
        if wish.child(other_role).is_some() {
            let text = format!("<{other_role}> is not for backups of this mode");
            return Err(unsupported(text));
        }
        let format = wish.attribute_at("driver", "type").unwrap_or("qcow2").to_owned();
        let full = wish.is("backupmode", "full");
        let own = wish.attribute("incremental").map(str::to_owned).or_else(|| since.clone());
        let since = own.filter(|_| !full);
        if let Some(name) = &since {
            domain.checkpoint(name).map_err(|_| {
                let text = format!(
                    "Checkpoint '{name}' for incremental backup of disk '{target}' not found"
                );
                Error::new(Code::NoDomainCheckpoint, text)
            })?;
        }
        let name = wish.attribute("exportname").unwrap_or(target).to_owned();
        let bytes = storage::probe(&path)?.capacity;
        let export = pulled.then_some(name);
        let planned = BackupDisk { target: target.to_owned(), file, format, bytes, since, export };
        list.push(shown(&planned, role));
        plan.push(planned);
    }
    if plan.is_empty() {
        return Err(unsupported("no disks selected for backup"));
    }
    given.remove(|element| element.name == "disks");
    given.push(list);
    Ok(plan)
}

/// The document of the backup that is being made.
pub fn backup(domain: &Domain) -> Result<Element> {
    let backup = domain.state.lock().backup.clone();
    backup.ok_or_else(|| Error::new(Code::NoDomainBackup, "no domain backup job present"))
}

/// A disk as the backup's document shows it.
fn shown(disk: &BackupDisk, role: &str) -> Element {
    let mut shown = Element::new("disk")
        .with("name", &disk.target)
        .with("backup", "yes")
        .with("type", "file")
        .with("backupmode", if disk.since.is_some() { "incremental" } else { "full" });
    if let Some(name) = &disk.since {
        shown.set("incremental", name);
    }
    if let Some(name) = &disk.export {
        shown.set("exportname", name);
    }
    shown.push(Element::new("driver").with("type", &disk.format));
    shown.push(Element::new(role).with("file", disk.file.display()));
    shown
}

/// Removes the images that were made for serving disks.
pub fn clean_up(files: Vec<PathBuf>) {
    for file in files {
        _ = std::fs::remove_file(file);
    }
}

/// Gives up the backup that is being made.
pub fn abort_backup(domain: &Domain) -> Result<()> {
    if domain.state.lock().backup.is_none() {
        return Err(Error::new(Code::OperationInvalid, "no job is active on the domain"));
    }
    domain.machine()?.abort_backup()
}
