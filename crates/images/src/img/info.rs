//! `qemu-img info`.

use std::collections::HashSet;

use block::open::{OpenMode, full_backing_name};
use block::snapshots::Snapshot;
use block::{NodeRef, node};
use chrono::{DateTime, Local};
use qemu_compat::image_tool::arguments::Typed;
use qemu_compat::image_tool::text;
use qemu_compat::json;
use serde_json::{Map, Value, json};

use super::failure::{Failure, Outcome};
use super::{fail, opening};

pub fn run(typed: &Typed) -> Outcome {
    let name = opening::one_operand(typed)?;
    let as_json = opening::wants_json(typed)?;
    if typed.has("limits") {
        return Err(fail("--limits is not supported"));
    }
    let chain = typed.has("backing-chain");
    let images = collect(typed, name, typed.value("format"), chain)?;
    if as_json {
        let list = if chain {
            Value::Array(images)
        } else {
            images.into_iter().next().unwrap_or_default()
        };
        println!("{}", json::pretty(&list));
        return Ok(0);
    }
    for (number, image) in images.iter().enumerate() {
        if number > 0 {
            println!();
        }
        print!("{}", human(image, 0, "/"));
    }
    Ok(0)
}

fn human(image: &Value, indent: usize, path: &str) -> String {
    let mut out = text::info(&with_dates(image), indent, path != "/");
    for child in image["children"].as_array().into_iter().flatten() {
        let name = child["name"].as_str().unwrap_or_default();
        out.push_str(&format!("{}Child node '{path}{name}':\n", " ".repeat(indent)));
        let below = format!("{path}{name}/");
        out.push_str(&human(&child["info"], indent + 4, &below));
    }
    out
}

/// People read dates in their own time zone.
fn with_dates(image: &Value) -> Value {
    let mut image = image.clone();
    for row in image.get_mut("snapshots").and_then(Value::as_array_mut).into_iter().flatten() {
        row["date-text"] = Value::from(local_date(row["date-sec"].as_i64().unwrap_or(0)));
    }
    image
}

/// A moment in local time.
pub fn local_date(seconds: i64) -> String {
    let moment = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    moment.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

fn collect(
    typed: &Typed,
    name: &str,
    format: Option<&str>,
    chain: bool,
) -> Result<Vec<Value>, Failure> {
    let mut images = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some((name.to_string(), format.map(str::to_string)));
    let mut first = true;
    while let Some((name, format)) = next.take() {
        if !seen.insert(name.clone()) {
            return Err(fail(format!("Backing file '{name}' creates an infinite loop.")));
        }
        let mode = OpenMode { no_backing: true, no_data: true, ..OpenMode::default() };
        let node = if first {
            opening::open(typed, &name, format.as_deref(), &mode)?
        } else {
            let mut mode = mode.clone();
            mode.force_share = typed.has("force-share");
            opening::open_named(&name, format.as_deref(), &mode)?
        };
        first = false;
        let image = describe(&node)?;
        if chain && let Some(backing) = image.get("backing-filename").and_then(Value::as_str) {
            let full = image.get("full-backing-filename").and_then(Value::as_str);
            let Some(full) = full else {
                return Err(fail(format!(
                    "Could not determine absolute backing filename, but backing filename '{backing}' present"
                )));
            };
            let format = image.get("backing-filename-format").and_then(Value::as_str);
            next = Some((full.to_string(), format.map(str::to_string)));
        }
        images.push(image);
    }
    Ok(images)
}

/// The tree that both outputs are made of.
pub fn describe(node: &NodeRef) -> Result<Value, Failure> {
    let info = node.info()?;
    let mut map = Map::new();
    map.insert("filename".into(), Value::from(node.filename()));
    map.insert("format".into(), Value::from(node.driver()));
    map.insert("virtual-size".into(), Value::from(node.size()));
    map.insert("dirty-flag".into(), Value::from(info.dirty));
    if let Some(bytes) = node.allocated_bytes() {
        map.insert("actual-size".into(), Value::from(bytes));
    }
    if info.encrypted {
        map.insert("encrypted".into(), Value::from(true));
    }
    if info.compressed {
        map.insert("compressed".into(), Value::from(true));
    }
    if let Some(cluster) = node.cluster_bytes() {
        map.insert("cluster-size".into(), Value::from(cluster));
    }
    if let Some(backing) = &info.backing_file {
        map.insert("backing-filename".into(), Value::from(backing.clone()));
        if let Ok(Some(full)) = full_backing_name(node) {
            map.insert("full-backing-filename".into(), Value::from(full));
        }
        if let Some(format) = &info.backing_format {
            map.insert("backing-filename-format".into(), Value::from(format.clone()));
        }
    }
    if let Some(snapshots) = node.snapshots() {
        let list: Vec<Value> = snapshots.list().iter().map(snapshot_value).collect();
        if !list.is_empty() {
            map.insert("snapshots".into(), Value::Array(list));
        }
    }
    let specific = match info.specific {
        Some(specific) => Some((specific.kind, Value::Object(specific.data))),
        None if node.driver() == "file" => Some(("file", json!({}))),
        None => None,
    };
    if let Some((kind, data)) = specific {
        map.insert("format-specific".into(), json!({"type": kind, "data": data}));
    }
    let mut children = Vec::new();
    for (name, child) in node::Node::children(&**node) {
        children.push(json!({"name": name, "info": describe(&child)?}));
    }
    map.insert("children".into(), Value::Array(children));
    Ok(Value::Object(map))
}

/// A snapshot as JSON shows it.
pub fn snapshot_value(snapshot: &Snapshot) -> Value {
    let mut value = json!({
        "id": snapshot.id,
        "name": snapshot.name,
        "vm-state-size": snapshot.vm_state_bytes,
        "date-sec": snapshot.date_seconds,
        "date-nsec": snapshot.date_nanoseconds,
        "vm-clock-sec": snapshot.vm_clock_ns / 1_000_000_000,
        "vm-clock-nsec": snapshot.vm_clock_ns % 1_000_000_000,
    });
    if let Some(count) = snapshot.icount {
        value["icount"] = Value::from(count);
    }
    value
}
