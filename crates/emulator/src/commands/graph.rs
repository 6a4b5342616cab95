//! Changes of the block graph: snapshots outside of images, backing files, several changes at once.

use std::sync::Arc;

use block::open::OpenContext;
use block::root::Held;
use block::{CreateOptions, NodeRef, OpenOptions};
use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, bitmaps, jobs, plain, refusal, text};
use crate::emulator::Emulator;

pub const COMMANDS: &[Command] = &[
    plain("blockdev-snapshot", "{ node: str, overlay: str }", "", |emulator, arguments| {
        at_once(emulator, vec![snapshot(emulator, arguments)?])
    }),
    plain(
        "blockdev-snapshot-sync",
        "{ device?: str, node-name?: str, snapshot-file: str, snapshot-node-name?: str, \
         format?: str, mode?: NewImageMode }",
        "",
        |emulator, arguments| at_once(emulator, vec![snapshot_sync(emulator, arguments)?]),
    ),
    plain("transaction", "{ actions: [any], properties?: any }", "", transaction),
    plain(
        "change-backing-file",
        "{ device: str, image-node-name: str, backing-file: str }",
        "",
        change_backing_file,
    ),
    plain("blockdev-reopen", "{ options: [any] }", "", reopen),
    plain("block_set_io_throttle", "any", "", throttle),
];

/// A disk that is to go on in an overlay.
struct Overlay {
    node: NodeRef,
    overlay: NodeRef,
    /// The overlay's header already says what is below it.
    is_described: bool,
}

fn node(emulator: &Emulator, name: &str) -> Result<NodeRef, Refusal> {
    emulator.blocks.node(name).map_err(Refusal::new)
}

fn snapshot(emulator: &Arc<Emulator>, arguments: &Arguments) -> Result<Overlay, Refusal> {
    let below = node(emulator, text(arguments, "node"))?;
    let name = text(arguments, "overlay");
    let overlay = node(emulator, name)?;
    if overlay.backing().is_some() {
        return Err(Refusal::new("The overlay already has a backing image"));
    }
    if !overlay.supports_backing() {
        return Err(Refusal::new("The overlay does not support backing images"));
    }
    if emulator.backends.drives.user(name).is_some() {
        return Err(Refusal::new("The overlay is already in use"));
    }
    Ok(Overlay { node: below, overlay, is_described: true })
}

fn snapshot_sync(emulator: &Arc<Emulator>, arguments: &Arguments) -> Result<Overlay, Refusal> {
    let optional = |name: &str| arguments.get(name).and_then(Value::as_str);
    let name = optional("device").or(optional("node-name")).unwrap_or_default();
    let below = node(emulator, name)?;
    let file = text(arguments, "snapshot-file");
    let driver = optional("format").unwrap_or("qcow2");
    let Some(format) = block::formats::find(driver) else {
        return Err(Refusal::new(format!("Invalid snapshot format '{driver}'")));
    };
    if optional("node-name").is_some() && optional("snapshot-node-name").is_none() {
        return Err(Refusal::new("New overlay node-name missing"));
    }
    let new = optional("mode") != Some("existing");
    if new {
        let make = format.create.ok_or_else(|| Refusal::new("Operation not supported"))?;
        let mut options = CreateOptions::new();
        options.set("size", below.size().to_string());
        options.set("backing_file", below.filename());
        options.set("backing_fmt", below.driver());
        make(file, &options, &OpenContext::default()).map_err(refusal)?;
    }
    let mut options = OpenOptions::new();
    options.set("driver", driver);
    options.set("backing", Value::Null);
    if let Some(name) = optional("snapshot-node-name") {
        options.set("node-name", name);
    }
    let overlay = emulator.blocks.graph.open(Some(file), options);
    let overlay =
        overlay.map_err(|error| Refusal::new(format!("Could not open '{file}': {error}")))?;
    if !overlay.supports_backing() {
        return Err(Refusal::new("The overlay does not support backing images"));
    }
    emulator.blocks.register();
    Ok(Overlay { node: below, overlay, is_described: new })
}

/// Lets all disks go on in their overlays at one moment.
fn at_once(emulator: &Arc<Emulator>, overlays: Vec<Overlay>) -> Answer {
    let places: Vec<_> =
        overlays.iter().map(|change| emulator.blocks.roots_of(&change.node)).collect();
    let mut held: Vec<Vec<Held<'_>>> =
        places.iter().map(|roots| roots.iter().map(|root| root.hold()).collect()).collect();
    // What can fail comes first, while everything can still stay as it is.
    for change in &overlays {
        change.node.flush().map_err(refusal)?;
    }
    for (number, change) in overlays.iter().enumerate() {
        if let Err(error) = change.overlay.set_backing(Some(Arc::clone(&change.node))) {
            for done in &overlays[..number] {
                _ = done.overlay.set_backing(None); // as it was before
            }
            return Err(refusal(error));
        }
    }
    for (change, held) in overlays.iter().zip(&mut held) {
        held.iter_mut().for_each(|root| root.exchange(Arc::clone(&change.overlay)));
    }
    drop(held);
    for Overlay { node, overlay, is_described } in overlays {
        debug_assert!(is_described || overlay.backing().is_some());
        emulator.blocks.moved(&node, &overlay);
        // Nobody writes there any more; one that cannot say so stays writable.
        _ = node.set_writable(false);
    }
    Ok(json!({}))
}

/// An action with its arguments.
fn action(value: &Value) -> Result<(&str, Arguments), Refusal> {
    let kind = value.get("type").and_then(Value::as_str);
    let data = value.get("data").and_then(Value::as_object).cloned();
    match (kind, data) {
        (Some(kind), Some(data)) => Ok((kind, data)),
        _ => Err(Refusal::new("Parameter 'type' is missing")),
    }
}

fn transaction(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let mode = arguments.get("properties").and_then(|p| p.get("completion-mode"));
    if mode.and_then(Value::as_str).is_some_and(|mode| mode != "individual") {
        return Err(Refusal::new("'completion-mode': 'grouped' is not built in Hostel"));
    }
    let actions = arguments.get("actions").and_then(Value::as_array).cloned().unwrap_or_default();
    let actions: Vec<_> = actions.iter().map(action).collect::<Result<_, _>>()?;
    let before = bitmaps::save(emulator);
    let (mut overlays, mut last) = (Vec::new(), Vec::new());
    let mut prepare = || -> Result<(), Refusal> {
        for (kind, data) in &actions {
            match *kind {
                "blockdev-snapshot" => overlays.push(snapshot(emulator, data)?),
                "blockdev-snapshot-sync" => overlays.push(snapshot_sync(emulator, data)?),
                "blockdev-backup" | "drive-backup" => last.push((*kind, data)),
                "abort" => return Err(Refusal::new("Transaction aborted using Abort action")),
                kind if kind.starts_with("block-dirty-bitmap-") => {
                    bitmaps::change(emulator, kind, data)?;
                }
                other => {
                    return Err(Refusal::new(format!(
                        "The transaction's action '{other}' is not built in Hostel"
                    )));
                }
            }
        }
        Ok(())
    };
    let mut done = prepare();
    if done.is_ok() {
        done = at_once(emulator, overlays).map(|_| ());
    }
    let mut started = Vec::new();
    for (kind, data) in last {
        if done.is_err() {
            break;
        }
        let begun = match kind {
            "blockdev-backup" => jobs::backup(emulator, data),
            _ => jobs::drive_backup(emulator, data),
        };
        done = begun.map(|_| ());
        let id = data.get("job-id").or_else(|| data.get("device")).and_then(Value::as_str);
        started.extend(id.map(str::to_owned));
    }
    if let Err(error) = done {
        bitmaps::restore(emulator, before);
        for id in started {
            if let Some(job) = emulator.blocks.jobs.get(&id) {
                _ = job.cancel(true); // it may have ended already
            }
        }
        return Err(error);
    }
    Ok(json!({}))
}

fn change_backing_file(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    node(emulator, text(arguments, "device"))?;
    let image = node(emulator, text(arguments, "image-node-name"))?;
    let Some(backing) = image.backing() else {
        return Err(Refusal::new(
            "not allowing backing file change on an image without a backing file",
        ));
    };
    let was_writable = image.writable();
    image.set_writable(true).map_err(refusal)?;
    let changed =
        image.change_backing_file(Some(text(arguments, "backing-file")), Some(backing.driver()));
    if !was_writable {
        image.set_writable(false).map_err(refusal)?;
    }
    changed.map_err(refusal)?;
    Ok(json!({}))
}

/// Changes options of open nodes: whether they can be written, and what stands below them.
fn reopen(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let list = arguments.get("options").and_then(Value::as_array).cloned().unwrap_or_default();
    for options in &list {
        let text = |name: &str| options.get(name).and_then(Value::as_str);
        let name = text("node-name").ok_or_else(|| Refusal::new("node-name not specified"))?;
        let graph = &emulator.blocks.graph;
        let node = graph
            .get(name)
            .ok_or_else(|| Refusal::new(format!("Failed to find node with node-name='{name}'")))?;
        if let Some(driver) = text("driver")
            && driver != node.driver()
        {
            return Err(Refusal::new("Cannot change the option 'driver'"));
        }
        if let Some(read_only) = options.get("read-only").and_then(Value::as_bool) {
            node.set_writable(!read_only).map_err(refusal)?;
        }
        match options.get("backing") {
            None => {}
            Some(Value::Null) => node.set_backing(None).map_err(refusal)?,
            Some(Value::String(below)) => {
                let below = graph.get(below).ok_or_else(|| {
                    Refusal::new(format!("Cannot find device='{below}' nor node-name='{below}'"))
                })?;
                node.set_backing(Some(below)).map_err(refusal)?;
            }
            Some(_) => return Err(Refusal::new("'backing' can only refer to a node by its name")),
        }
        if let Some(Value::String(file)) = options.get("file") {
            let same = node.file().and_then(|own| graph.name_of(&own)).as_deref() == Some(file);
            if !same {
                return Err(Refusal::new("Changing 'file' is not built in Hostel"));
            }
        }
    }
    Ok(json!({}))
}

/// `block_set_io_throttle`.
fn throttle(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    use block::filters::throttle::{Group, Limits};
    let optional = |name: &str| arguments.get(name).and_then(Value::as_str);
    let name = optional("id").or(optional("device")).unwrap_or_default();
    let node = node(emulator, name)?;
    let mut limits = Limits::default();
    for (key, value) in arguments {
        if ["id", "device", "group"].contains(&key.as_str()) {
            continue;
        }
        // `bps_rd_max_length` is `bps-read-max-length` elsewhere, `iops` is `iops-total`.
        let mut words: Vec<&str> = key.split('_').collect();
        match words.get(1) {
            Some(&"rd") => words[1] = "read",
            Some(&"wr") => words[1] = "write",
            Some(&"size") => {}
            _ => words.insert(1, "total"),
        }
        limits.set(&words.join("-"), &value.to_string()).map_err(refusal)?;
    }
    limits.check().map_err(refusal)?;
    let group = Group::get(optional("group").unwrap_or(name));
    group.set(limits).map_err(refusal)?;
    for root in emulator.blocks.roots_of(&node) {
        root.limit((!limits.is_empty()).then(|| Arc::clone(&group)));
    }
    Ok(json!({}))
}
