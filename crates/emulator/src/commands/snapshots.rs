//! Snapshots of machine and disks, inside the images.

use std::sync::{Arc, Weak};

use block::jobs::{Create, Parameters};
use block::snapshots::Snapshot;
use qemu_compat::image_tool::text as tool_text;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, jobs, plain, text};
use crate::emulator::Emulator;
use crate::snapshots;

pub const COMMANDS: &[Command] = &[
    plain(
        "snapshot-save",
        "{ job-id: str, tag: str, vmstate: str, devices: [str] }",
        "",
        |e, a| {
            let keeper = text(a, "vmstate").to_owned();
            start(e, a, "snapshot-save", move |emulator, tag, names| {
                snapshots::save(emulator, tag, Some((&keeper, names)))
            })
        },
    ),
    plain(
        "snapshot-load",
        "{ job-id: str, tag: str, vmstate: str, devices: [str] }",
        "",
        |e, a| {
            let keeper = text(a, "vmstate").to_owned();
            start(e, a, "snapshot-load", move |emulator, tag, names| {
                snapshots::load(emulator, tag, Some((&keeper, names)))
            })
        },
    ),
    plain("snapshot-delete", "{ job-id: str, tag: str, devices: [str] }", "", |e, a| {
        start(e, a, "snapshot-delete", |emulator, tag, names| {
            snapshots::delete(emulator, tag, Some(names))
        })
    }),
];

/// Begins a job that does something with a snapshot.
fn start(
    emulator: &Arc<Emulator>,
    arguments: &Arguments,
    kind: &'static str,
    action: impl Fn(&Emulator, &str, &[String]) -> Result<(), String> + Send + 'static,
) -> Answer {
    let id = text(arguments, "job-id").to_owned();
    let tag = text(arguments, "tag").to_owned();
    let names = arguments.get("devices").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<String> = names.filter_map(Value::as_str).map(str::to_owned).collect();
    let weak: Weak<Emulator> = Arc::downgrade(emulator);
    let work = move || match weak.upgrade() {
        Some(emulator) => action(&emulator, &tag, &names).map_err(block::Error::invalid),
        None => Ok(()),
    };
    let parameters = Parameters { id, kind, auto_finalize: true, auto_dismiss: false, speed: 0 };
    jobs::start(emulator, parameters, Create(work))
}

/// HMP's `savevm tag`.
pub fn save_line(emulator: &Arc<Emulator>, tag: &str) -> Result<String, String> {
    snapshots::save(emulator, &unquoted(tag), None).map(|()| String::new())
}

/// HMP's `loadvm tag`.
pub fn load_line(emulator: &Arc<Emulator>, tag: &str) -> Result<String, String> {
    snapshots::load(emulator, &unquoted(tag), None).map(|()| String::new())
}

/// HMP's `delvm tag`.
pub fn delete_line(emulator: &Arc<Emulator>, tag: &str) -> Result<String, String> {
    snapshots::delete(emulator, &unquoted(tag), None).map(|()| String::new())
}

/// A name that may stand between quotes.
fn unquoted(tag: &str) -> String {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let Some(inner) = inner else { return tag.to_owned() };
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

/// HMP's `info snapshots`.
pub fn info(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let list = snapshots::list(emulator)?;
    if list.is_empty() {
        return Ok("There is no snapshot available.\n".to_owned());
    }
    let mut text = format!("List of snapshots present on all disks:\n{}", tool_text::SNAPSHOT_HEAD);
    for snapshot in &list {
        text.push_str(&tool_text::snapshot_row(&row(snapshot)));
        text.push('\n');
    }
    Ok(text)
}

fn row(snapshot: &Snapshot) -> Value {
    let date = chrono::DateTime::from_timestamp(i64::from(snapshot.date_seconds), 0);
    let date = date.unwrap_or_default().with_timezone(&chrono::Local);
    // Numbers differ from disk to disk.
    json!({"id": "--", "name": snapshot.name, "vm-state-size": snapshot.vm_state_bytes,
        "date-text": date.format("%Y-%m-%d %H:%M:%S").to_string(),
        "vm-clock-sec": snapshot.vm_clock_ns / 1_000_000_000,
        "vm-clock-nsec": snapshot.vm_clock_ns % 1_000_000_000})
}
