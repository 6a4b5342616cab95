//! Dirty bitmaps: what has changed since some moment, for backups of differences.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::NodeRef;
use block::dirty::{DirtyMap, GRANULARITY, Tracker};
use block::root::Watcher;
use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, flag, plain, refusal, text};
use crate::blocks::Bitmap;
use crate::emulator::Emulator;

/// More bitmaps of one node are refused.
const BITMAPS_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 1023;

pub const COMMANDS: &[Command] = &[
    plain(
        "block-dirty-bitmap-add",
        "{ node: str, name: str, granularity?: int, persistent?: bool, disabled?: bool }",
        "",
        |emulator, arguments| change(emulator, "block-dirty-bitmap-add", arguments),
    ),
    plain("block-dirty-bitmap-remove", "{ node: str, name: str }", "", |emulator, arguments| {
        change(emulator, "block-dirty-bitmap-remove", arguments)
    }),
    plain("block-dirty-bitmap-clear", "{ node: str, name: str }", "", |emulator, arguments| {
        change(emulator, "block-dirty-bitmap-clear", arguments)
    }),
    plain("block-dirty-bitmap-enable", "{ node: str, name: str }", "", |emulator, arguments| {
        change(emulator, "block-dirty-bitmap-enable", arguments)
    }),
    plain("block-dirty-bitmap-disable", "{ node: str, name: str }", "", |emulator, arguments| {
        change(emulator, "block-dirty-bitmap-disable", arguments)
    }),
    plain(
        "block-dirty-bitmap-merge",
        "{ node: str, target: str, bitmaps: [any] }",
        "",
        |emulator, arguments| change(emulator, "block-dirty-bitmap-merge", arguments),
    ),
];

/// The node that a command means, with its name in the graph.
fn place(emulator: &Emulator, name: &str) -> Result<(NodeRef, String), Refusal> {
    let node = emulator.blocks.node(name).map_err(Refusal::new)?;
    let own = emulator.blocks.graph.name_of(&node).unwrap_or_else(|| name.to_owned());
    Ok((node, own))
}

/// A bitmap of a node. One that the image keeps is taken into memory when it is first asked for.
pub fn find(emulator: &Emulator, node: &str, name: &str) -> Result<Bitmap, Refusal> {
    let (node, own) = place(emulator, node)?;
    let missing = || Refusal::new(format!("Dirty bitmap '{name}' not found"));
    let known = emulator
        .blocks
        .bitmaps
        .lock()
        .get(&own)
        .and_then(|list| list.iter().find(|bitmap| bitmap.name == name).cloned());
    if let Some(bitmap) = known {
        return Ok(bitmap);
    }
    let stored = node.bitmaps().ok_or_else(missing)?;
    let info = stored.list().into_iter().find(|info| info.name == name).ok_or_else(missing)?;
    let mut map = DirtyMap::new(node.size(), info.granularity).map_err(refusal)?;
    for (start, length) in stored.dirty(name).map_err(refusal)? {
        map.mark(start, length);
    }
    Ok(Bitmap { name: name.to_owned(), tracker: Tracker::new(map, info.auto) })
}

/// Carries out a command, as itself or as an action of a transaction.
pub fn change(emulator: &Arc<Emulator>, command: &str, arguments: &Arguments) -> Answer {
    let (node, own) = place(emulator, text(arguments, "node"))?;
    let name = text(arguments, "name");
    let stored = node.bitmaps().filter(|all| all.list().iter().any(|info| info.name == name));
    match (command, stored) {
        ("block-dirty-bitmap-add", _) => add(emulator, &node, own, arguments)?,
        ("block-dirty-bitmap-merge", _) => merge(emulator, arguments)?,
        // The image's own bitmap follows writes by itself.
        ("block-dirty-bitmap-remove", Some(stored)) => stored.remove(name).map_err(refusal)?,
        ("block-dirty-bitmap-clear", Some(stored)) => stored.clear(name).map_err(refusal)?,
        ("block-dirty-bitmap-enable", Some(stored)) => {
            stored.enable(name, true).map_err(refusal)?;
        }
        ("block-dirty-bitmap-disable", Some(stored)) => {
            stored.enable(name, false).map_err(refusal)?;
        }
        ("block-dirty-bitmap-remove", None) => {
            let bitmap = find(emulator, text(arguments, "node"), name)?;
            let watcher = Arc::clone(&bitmap.tracker) as Arc<dyn Watcher>;
            emulator.blocks.roots_of(&node).iter().for_each(|root| root.unwatch(&watcher));
            let mut all = emulator.blocks.bitmaps.lock();
            if let Some(list) = all.get_mut(&own) {
                list.retain(|other| other.name != name);
            }
        }
        ("block-dirty-bitmap-clear", None) => {
            let bitmap = find(emulator, text(arguments, "node"), name)?;
            bitmap.tracker.with(DirtyMap::clear);
        }
        ("block-dirty-bitmap-enable", None) => {
            find(emulator, text(arguments, "node"), name)?.tracker.record(true);
        }
        ("block-dirty-bitmap-disable", None) => {
            find(emulator, text(arguments, "node"), name)?.tracker.record(false);
        }
        (other, _) => return Err(Refusal::new(format!("The action '{other}' is not known"))),
    }
    Ok(json!({}))
}

fn add(
    emulator: &Arc<Emulator>,
    node: &NodeRef,
    own: String,
    arguments: &Arguments,
) -> Result<(), Refusal> {
    let name = text(arguments, "name");
    if name.is_empty() {
        return Err(Refusal::new("Bitmap name cannot be empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Refusal::new(format!("Bitmap name too long (max is {NAME_BYTES_MAX} bytes)")));
    }
    if find(emulator, text(arguments, "node"), name).is_ok() {
        return Err(Refusal::new(format!("Bitmap already exists: {name}")));
    }
    let granularity = arguments.get("granularity").and_then(Value::as_u64).unwrap_or(GRANULARITY);
    let recording = !flag(arguments, "disabled");
    if flag(arguments, "persistent") {
        let stored = node.bitmaps().ok_or_else(|| {
            Refusal::new(format!(
                "Cannot store dirty bitmaps in file '{}' of format '{}'",
                node.filename(),
                node.driver()
            ))
        })?;
        return stored.add(name, granularity, recording).map_err(refusal);
    }
    let tracker =
        Tracker::new(DirtyMap::new(node.size(), granularity).map_err(refusal)?, recording);
    let mut all = emulator.blocks.bitmaps.lock();
    let list = all.entry(own).or_default();
    if list.len() >= BITMAPS_MAX {
        return Err(Refusal::new(format!("There are {BITMAPS_MAX} bitmaps already")));
    }
    for root in emulator.blocks.roots_of(node) {
        root.watch(Arc::clone(&tracker) as Arc<dyn Watcher>);
    }
    list.push(Bitmap { name: name.to_owned(), tracker });
    Ok(())
}

fn merge(emulator: &Arc<Emulator>, arguments: &Arguments) -> Result<(), Refusal> {
    let node_name = text(arguments, "node");
    let target_name = text(arguments, "target");
    let target = find(emulator, node_name, target_name)?;
    let sources = arguments.get("bitmaps").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut ranges = Vec::new();
    for source in &sources {
        let bitmap = match source {
            Value::String(name) => find(emulator, node_name, name)?,
            other => {
                let part = |name: &str| other.get(name).and_then(Value::as_str);
                let name =
                    part("name").ok_or_else(|| Refusal::new("Parameter 'name' is missing"))?;
                find(emulator, part("node").unwrap_or(node_name), name)?
            }
        };
        ranges.extend(bitmap.tracker.with(|map| map.ranges()));
    }
    let (node, _) = place(emulator, node_name)?;
    match node.bitmaps().filter(|all| all.list().iter().any(|info| info.name == target_name)) {
        Some(stored) => stored.mark(target_name, &ranges).map_err(refusal),
        None => {
            target.tracker.with(|map| ranges.iter().for_each(|(at, bytes)| map.mark(*at, *bytes)));
            Ok(())
        }
    }
}

/// Bitmaps as they were, for a transaction that comes to nothing.
pub type Saved = BTreeMap<String, Vec<(Bitmap, DirtyMap, bool)>>;

/// All bitmaps in memory.
pub fn save(emulator: &Emulator) -> Saved {
    let all = emulator.blocks.bitmaps.lock();
    let row = |bitmap: &Bitmap| {
        let map = bitmap.tracker.with(|map| map.clone());
        (bitmap.clone(), map, bitmap.tracker.is_recording())
    };
    all.iter().map(|(node, list)| (node.clone(), list.iter().map(row).collect())).collect()
}

/// As they were. What was written since then stays marked.
pub fn restore(emulator: &Emulator, saved: Saved) {
    let mut all = emulator.blocks.bitmaps.lock();
    all.clear();
    for (node, list) in saved {
        let bitmaps = list.into_iter().map(|(bitmap, map, recording)| {
            bitmap.tracker.with(|now| now.merge(&map));
            bitmap.tracker.record(recording);
            bitmap
        });
        all.insert(node, bitmaps.collect());
    }
}

/// What `query-block` shows of a node's bitmaps.
pub fn describe(emulator: &Emulator, name: &str, node: &NodeRef) -> Vec<Value> {
    let row = |name: &str, recording: bool, count: u64, granularity: u64, persistent: bool| {
        json!({"name": name, "recording": recording, "busy": false, "persistent": persistent,
            "count": count, "granularity": granularity})
    };
    let mut rows: Vec<Value> = Vec::new();
    for bitmap in emulator.blocks.bitmaps.lock().get(name).into_iter().flatten() {
        let (count, granularity) = bitmap.tracker.with(|map| (map.count(), map.granularity()));
        rows.push(row(&bitmap.name, bitmap.tracker.is_recording(), count, granularity, false));
    }
    if let Some(stored) = node.bitmaps() {
        for info in stored.list() {
            let ranges = stored.dirty(&info.name).unwrap_or_default();
            let count = ranges.iter().map(|(_, length)| length).sum();
            rows.push(row(&info.name, info.auto, count, info.granularity, true));
        }
    }
    rows
}
