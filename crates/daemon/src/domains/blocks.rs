//! What block jobs and overlays leave behind in a domain's documents.

use std::path::Path;
use std::sync::Arc;

use libvirt_compat::Result;
use libvirt_compat::domain::arrange;
use libvirt_compat::xml::{self, Element};

use super::{Domain, persist};
use crate::drivers::{DiskChange, disk_path};
use crate::storage;
use crate::world::World;

/// Obeys a change of a running domain's disk, and of the stored definition's if it is the same.
pub fn change_disk(world: &World, domain: &Domain, target: &str, change: &DiskChange) {
    let mut before = None;
    {
        let mut state = domain.state.lock();
        let Some(live) = &mut state.live else { return };
        if let Some(disk) = find(&mut live.document, target) {
            before = disk_path(disk);
            apply(disk, change);
        }
        arrange(&mut live.document);
    }
    persist::try_write_status(world, domain);
    let DiskChange::Source { file, format, .. } = change else { return };
    let changed = change_definition(world, domain, |definition| {
        let Some(disk) = find(definition, target) else { return false };
        if disk_path(disk) != before {
            return false;
        }
        set_source(disk, file, format);
        true
    });
    if let Err(error) = changed {
        eprintln!("warning: Cannot store a moved disk of '{}': {error}", domain.name());
    }
}

/// Changes the stored definition, if there is one and `change` says that it did.
pub fn change_definition(
    world: &World,
    domain: &Domain,
    change: impl FnOnce(&mut Element) -> bool,
) -> Result<()> {
    let text = domain.state.lock().definition.clone();
    let Some(text) = text else { return Ok(()) };
    let mut definition = xml::parse(&text, "domain_definition")?;
    if !change(&mut definition) {
        return Ok(());
    }
    let text: Arc<str> = definition.to_xml().into();
    persist::write_definition(world, domain, &text)?;
    domain.state.lock().definition = Some(text);
    Ok(())
}

/// The disk of this target.
pub fn find<'a>(document: &'a mut Element, target: &str) -> Option<&'a mut Element> {
    let devices = document.child_mut("devices")?;
    devices.all_mut("disk").find(|disk| disk.attribute_at("target", "dev") == Some(target))
}

/// Another file in a disk.
pub fn set_source(disk: &mut Element, file: &Path, format: &str) {
    disk.set("type", "file");
    let source = disk.ensure("source");
    source.unset("dev");
    source.set("file", file.display());
    disk.ensure("driver").set("type", format);
    disk.remove(|element| element.name == "backingStore");
}

fn apply(disk: &mut Element, change: &DiskChange) {
    if let DiskChange::Source { file, format, index } = change {
        set_source(disk, file, format);
        let source = disk.ensure("source");
        match index {
            Some(index) => source.set("index", index),
            None => source.unset("index"),
        }
    }
    disk.remove(|element| element.name == "backingStore");
    let chain = disk_path(disk).and_then(|path| storage::chain(&path).ok()).unwrap_or_default();
    disk.push(stores(&chain));
}

/// What lies beneath a disk, as libvirt shows it: one in the other, the last empty.
fn stores(chain: &[(std::path::PathBuf, String)]) -> Element {
    let mut store = Element::new("backingStore");
    if let [(file, format), below @ ..] = chain {
        store.set("type", "file");
        store.push(Element::new("format").with("type", format));
        store.push(Element::new("source").with("file", file.display()));
        store.push(stores(below));
    }
    store
}
