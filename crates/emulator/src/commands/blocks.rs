//! Disks: the block graph and the drives on it.

use std::sync::Arc;

use block::graph::Named;
use block::open::full_backing_name;
use block::snapshots::Snapshot;
use block::{NodeRef, Preallocation};
use machine::catalog::DriveControl;
use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, flag, plain, refusal, text};
use crate::emulator::Emulator;

pub const COMMANDS: &[Command] = &[
    plain("query-block", "{}", "[any]", drives),
    plain("query-blockstats", "{ query-nodes?: bool }", "[any]", statistics),
    plain("query-named-block-nodes", "{ flat?: bool }", "[any]", nodes),
    plain("blockdev-add", "any", "", add),
    plain("blockdev-del", "{ node-name: str }", "", remove),
    plain("block_resize", "{ device?: str, node-name?: str, size: int }", "", resize),
    plain("eject", "{ device?: str, id?: str, force?: bool }", "", eject),
    plain("blockdev-open-tray", "{ device?: str, id?: str, force?: bool }", "", open_tray),
    plain("blockdev-close-tray", "{ device?: str, id?: str }", "", close_tray),
    plain("blockdev-remove-medium", "{ id: str }", "", remove_medium),
    plain("blockdev-insert-medium", "{ id: str, node-name: str }", "", insert_medium),
    plain(
        "blockdev-change-medium",
        "{ device?: str, id?: str, filename: str, format?: str, force?: bool, \
         read-only-mode?: BlockdevChangeReadOnlyMode }",
        "",
        change_medium,
    ),
];

fn failed(text: String) -> Refusal {
    Refusal::new(text)
}

fn add(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let mut members = arguments.clone();
    emulator.passed.paths(&mut members).map_err(failed)?;
    emulator.blocks.add(&members).map_err(failed)?;
    Ok(json!({}))
}

fn remove(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    emulator.blocks.remove(text(arguments, "node-name")).map_err(failed)?;
    Ok(json!({}))
}

/// What `qemu-img info` says, as far as monitors show it.
fn image(node: &NodeRef, flat: bool) -> Value {
    let mut image = json!({"filename": node.filename(), "format": node.driver(),
        "virtual-size": node.size(), "dirty-flag": false});
    if let Some(bytes) = node.allocated_bytes() {
        image["actual-size"] = bytes.into();
    }
    if let Some(bytes) = node.cluster_bytes() {
        image["cluster-size"] = bytes.into();
    }
    let Ok(info) = node.info() else { return image };
    image["dirty-flag"] = info.dirty.into();
    if info.encrypted {
        image["encrypted"] = true.into();
    }
    if let Some(backing) = info.backing_file {
        let full = full_backing_name(node).ok().flatten();
        image["full-backing-filename"] = full.unwrap_or_else(|| backing.clone()).into();
        image["backing-filename"] = backing.into();
        if let Some(format) = info.backing_format {
            image["backing-filename-format"] = format.into();
        }
    }
    if let Some(specific) = info.specific {
        image["format-specific"] = json!({"type": specific.kind, "data": specific.data});
    }
    let snapshots = node.snapshots().map(|all| all.list()).unwrap_or_default();
    if !snapshots.is_empty() {
        let row = |snapshot: &Snapshot| {
            json!({"id": snapshot.id, "name": snapshot.name,
                "vm-state-size": snapshot.vm_state_bytes, "date-sec": snapshot.date_seconds,
                "date-nsec": snapshot.date_nanoseconds,
                "vm-clock-sec": snapshot.vm_clock_ns / 1_000_000_000,
                "vm-clock-nsec": snapshot.vm_clock_ns % 1_000_000_000})
        };
        image["snapshots"] = snapshots.iter().map(row).collect();
    }
    if let Some(below) = node.backing().filter(|_| !flat) {
        image["backing-image"] = self::image(&below, false);
    }
    image
}

fn depth(node: &NodeRef) -> usize {
    let mut depth = 0;
    let mut node = node.backing();
    while let Some(below) = node {
        depth += 1;
        node = below.backing();
    }
    depth
}

/// The names of a node's children in the graph.
fn children(emulator: &Emulator, node: &NodeRef) -> Vec<Value> {
    let mut rows = Vec::new();
    let below = node.backing().map(|below| ("backing", below));
    for (name, child) in node.children().into_iter().chain(below) {
        if let Some(node_name) = emulator.blocks.graph.name_of(&child) {
            rows.push(json!({"node-name": node_name, "child": name}));
        }
    }
    rows
}

fn described(emulator: &Emulator, named: &Named, flat: bool) -> Value {
    let Named { name, node, mode } = named;
    let encrypted = node.info().is_ok_and(|info| info.encrypted);
    let mut value = json!({"node-name": name, "drv": node.driver(), "ro": !node.writable(),
        "file": node.filename(), "encrypted": encrypted,
        "detect_zeroes": mode.detect_zeroes.name(), "write_threshold": 0,
        "backing_file_depth": if flat { 0 } else { depth(node) }, "image": image(node, flat),
        "active": true, "children": children(emulator, node),
        "cache": {"no-flush": mode.no_flush, "direct": mode.direct,
            "writeback": !mode.write_through}});
    if let Ok(Some(backing)) = full_backing_name(node)
        && node.backing().is_some()
    {
        value["backing_file"] = backing.into();
    }
    let limits = emulator.blocks.roots_of(node).into_iter().find_map(|root| root.limits());
    let wanted = limits.as_ref().map(|group| group.limits()).unwrap_or_default();
    let words = ["iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"];
    for (word, limit) in words.into_iter().zip(wanted.buckets) {
        value[word] = limit.average.into();
        if limits.is_some() {
            value[format!("{word}_max")] = limit.maximum.into();
        }
    }
    if let Some(group) = limits {
        value["group"] = group.name().into();
        value["iops_size"] = wanted.operation_bytes.into();
    }
    let bitmaps = super::bitmaps::describe(emulator, name, node);
    if !bitmaps.is_empty() {
        value["dirty-bitmaps"] = bitmaps.into();
    }
    value
}

fn nodes(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let flat = flag(arguments, "flat");
    let list = emulator.blocks.graph.list();
    Ok(list.iter().map(|named| described(emulator, named, flat)).collect())
}

/// A device with a drive.
struct Drive {
    id: String,
    /// The name of its back end.
    backend: Option<String>,
    control: Option<Arc<dyn DriveControl>>,
}

fn all(emulator: &Emulator) -> Vec<Drive> {
    emulator.machine.with_parts(|parts| {
        let drive = |part: &machine::Plugged| {
            let has_drive = part.model.declared().any(|property| property.name == "drive");
            // What it was plugged in with may have moved to another node.
            let now = emulator.backends.drives.used_by(&part.id);
            has_drive.then(|| Drive {
                id: part.id.clone(),
                backend: now.or_else(|| part.properties.text("drive").map(str::to_owned)),
                control: part.controls.drive.clone(),
            })
        };
        parts.iter().filter_map(drive).collect()
    })
}

fn node_of(emulator: &Emulator, backend: &str) -> Option<Named> {
    let node = emulator.backends.drives.get(backend)?.file()?;
    let list = emulator.blocks.graph.list();
    list.into_iter().find(|named| Arc::ptr_eq(&named.node, &node))
}

/// `query-block`.
pub fn drives(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let entry = |drive: Drive| {
        let control = drive.control.as_ref();
        let removable = control.is_some_and(|control| control.is_removable());
        let path = match drive.id.strip_prefix('#') {
            None => format!("/machine/peripheral/{}", drive.id),
            Some(_) => format!("/machine/peripheral-anon/{}", drive.id),
        };
        // The name of a `-drive`; a node has none of this kind.
        let device = drive.backend.clone().filter(|name| emulator.blocks.graph.get(name).is_none());
        let mut entry = json!({"device": device.unwrap_or_default(), "qdev": path, "removable": removable,
            "locked": control.is_some_and(|control| control.is_locked()), "type": "unknown"});
        if let Some(open) = control.and_then(|control| control.tray()) {
            entry["tray_open"] = open.into();
        }
        if let Some(named) = drive.backend.as_deref().and_then(|name| node_of(emulator, name)) {
            entry["inserted"] = described(emulator, &named, false);
            entry["io-status"] = "ok".into();
        }
        entry
    };
    Ok(all(emulator).into_iter().map(entry).collect())
}

/// `query-blockstats`.
pub fn statistics(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let counted = |name: &str, node: &NodeRef| {
        let counters = emulator.blocks.counters(name);
        json!({"node-name": name, "stats": counters.to_json(node)})
    };
    if flag(arguments, "query-nodes") {
        let list = emulator.blocks.graph.list();
        return Ok(list.iter().map(|named| counted(&named.name, &named.node)).collect());
    }
    let entry = |drive: Drive| {
        let named = drive.backend.as_deref().and_then(|name| node_of(emulator, name))?;
        let backend = drive.backend.unwrap_or_default();
        let mut entry = counted(&backend, &named.node);
        entry["node-name"] = named.name.into();
        entry["device"] = "".into();
        entry["qdev"] = format!("/machine/peripheral/{}", drive.id).into();
        Some(entry)
    };
    Ok(all(emulator).into_iter().filter_map(entry).collect())
}

/// The drive that a command names by its device, or by its back end.
fn named(emulator: &Emulator, arguments: &Arguments) -> Result<Drive, Refusal> {
    let id = match text(arguments, "id") {
        "" => text(arguments, "device"),
        id => id,
    };
    let found = all(emulator)
        .into_iter()
        .find(|drive| drive.id == id || drive.backend.as_deref() == Some(id));
    found.ok_or_else(|| Refusal::of("DeviceNotFound", format!("Device '{id}' not found")))
}

fn resize(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let name = match text(arguments, "node-name") {
        "" => text(arguments, "device"),
        name => name,
    };
    let user = all(emulator)
        .into_iter()
        .find(|drive| drive.id == name || drive.backend.as_deref() == Some(name));
    let backend = user.as_ref().and_then(|drive| drive.backend.clone());
    let backend = backend.unwrap_or_else(|| name.to_owned());
    let node = emulator.blocks.node(&backend).map_err(Refusal::new)?;
    let size = arguments.get("size").and_then(Value::as_u64);
    let size = size.ok_or_else(|| Refusal::new("Parameter 'size' expects a >0 size"))?;
    node.resize(size, Preallocation::Off).map_err(refusal)?;
    if let Some(control) = user.and_then(|drive| drive.control) {
        control.resized();
    }
    Ok(json!({}))
}

fn removable(drive: &Drive) -> Result<&Arc<dyn DriveControl>, Refusal> {
    let control = drive.control.as_ref().filter(|control| control.is_removable());
    control.ok_or_else(|| Refusal::new(format!("Device '{}' is not removable", drive.id)))
}

fn open_tray(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let drive = named(emulator, arguments)?;
    if !removable(&drive)?.open_tray(flag(arguments, "force")) {
        let id = &drive.id;
        return Err(Refusal::new(format!(
            "Device '{id}' is locked and force was not specified, wait for tray to open and try \
             again"
        )));
    }
    Ok(json!({}))
}

fn close_tray(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    removable(&named(emulator, arguments)?)?.close_tray();
    Ok(json!({}))
}

fn remove_medium(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let drive = named(emulator, arguments)?;
    let control = removable(&drive)?;
    if control.tray() == Some(false) {
        return Err(Refusal::new(format!("Tray of device '{}' is not open", drive.id)));
    }
    control.set_medium(None);
    emulator.backends.drives.release(&drive.id);
    Ok(json!({}))
}

fn insert_medium(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let drive = named(emulator, arguments)?;
    let control = removable(&drive)?;
    let name = text(arguments, "node-name");
    let node = emulator.backends.drives.get(name);
    let node = node.ok_or_else(|| Refusal::new(format!("Node '{name}' not found")))?;
    if control.tray() == Some(false) {
        return Err(Refusal::new(format!("Tray of device '{}' is not open", drive.id)));
    }
    claimed(emulator, &drive, name)?;
    control.set_medium(Some(node));
    Ok(json!({}))
}

/// A medium is a drive's from now on.
fn claimed(emulator: &Emulator, drive: &Drive, name: &str) -> Result<(), Refusal> {
    let claimed = emulator.backends.drives.claim_named(&drive.id, "drive", name);
    claimed.map(|_| ()).map_err(refusal)
}

/// `blockdev-change-medium`: what was in the drive is closed, and a file opened instead.
pub fn change_medium(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    if text(arguments, "read-only-mode") == "read-write" {
        return Err(Refusal::new("a medium that can be written to is not built in Hostel"));
    }
    let drive = named(emulator, arguments)?;
    let control = removable(&drive)?;
    let format = arguments.get("format").and_then(Value::as_str);
    let file = text(arguments, "filename");
    // Opened before anything changes, and called by the drive and a number nobody has.
    let id = drive.id.trim_start_matches('#');
    let names = emulator.backends.drives.names();
    let others = (1..).map(|number| format!("{id}-medium{number}"));
    let mut all = std::iter::once(id.to_owned()).chain(others);
    let name = all.find(|name| !names.contains(name)).unwrap_or_default();
    let file = emulator.passed.path(file).map_err(failed)?;
    emulator.blocks.open_medium(&name, &file, format).map_err(failed)?;
    if let Err(locked) = open_tray(emulator, arguments) {
        emulator.blocks.close_medium(&name);
        return Err(locked);
    }
    take_out(emulator, &drive);
    claimed(emulator, &drive, &name)?;
    control.set_medium(emulator.backends.drives.get(&name));
    control.close_tray();
    Ok(json!({}))
}

/// The drive is empty. What no `-blockdev` has made goes with it.
fn take_out(emulator: &Emulator, drive: &Drive) {
    if let Some(control) = &drive.control {
        control.set_medium(None);
    }
    let old = emulator.backends.drives.used_by(&drive.id);
    emulator.backends.drives.release(&drive.id);
    if let Some(old) = old.filter(|name| emulator.blocks.graph.get(name).is_none()) {
        emulator.blocks.close_medium(&old);
    }
}

/// `eject`.
pub fn eject(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    open_tray(emulator, arguments)?;
    let drive = named(emulator, arguments)?;
    removable(&drive)?;
    take_out(emulator, &drive);
    Ok(json!({}))
}
