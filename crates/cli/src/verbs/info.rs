//! `info`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::arguments::{Format, Info};
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::guest;
use crate::machine::{Machine, State};
use crate::output::List;
use crate::way::{self, Way};

const PATIENCE: Duration = Duration::from_millis(500);

/// `hostel info`.
pub fn run(what: &Info) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machines = match what.names.is_empty() {
        true => connection.machines()?,
        false => {
            what.names.iter().map(|name| connection.any_machine(name)).collect::<Result<_, _>>()?
        }
    };
    let rows: Vec<Map<String, Value>> =
        machines.iter().map(|machine| row(&connection, machine)).collect();
    if what.format == Format::Table {
        let texts: Vec<String> = rows.iter().map(text).collect();
        match texts.is_empty() {
            true => println!("No machines. 'hostel launch' makes one."),
            false => print!("{}", texts.join("\n")),
        }
        return Ok(0);
    }
    let columns = &[("Name", "name"), ("State", "state"), ("Release", "release")];
    List { name: "machines", columns, rows, empty: "" }.print(what.format)?;
    Ok(0)
}

fn row(connection: &Connection, machine: &Machine) -> Map<String, Value> {
    let note = machine.note().unwrap_or_default();
    let definition = &machine.definition;
    let memory = definition.text_at("memory").and_then(|text| text.parse::<u64>().ok());
    let translated = definition.is("type", "qemu");
    let ports: Vec<String> =
        note.ports.iter().map(|(host, guest)| format!("{host}:{guest}")).collect();
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| _ = row.insert(name.to_owned(), value);
    put("name", machine.name().into());
    put("state", machine.state.name().into());
    put("image", note.image.into());
    put("image_release", note.release.into());
    put("accelerator", if translated { "translator" } else { "kvm" }.into());
    put("cpus", json!(definition.text_at("vcpu").and_then(|text| text.parse::<u32>().ok())));
    put("memory", json!(memory.map(|kibibytes| kibibytes << 10)));
    put("ports", json!(ports));
    put("ports_automatic", json!(note.forwards_all));
    let mounts: Vec<String> = note
        .shares
        .iter()
        .map(|share| format!("{} at {}", share.source.display(), share.target))
        .collect();
    put("mounts", json!(mounts));
    if machine.state != State::Running {
        return row;
    }
    let Some(info) = guest::quick_info(&machine.socket(connection), PATIENCE) else {
        put("levels", json!([]));
        let note = machine.note().unwrap_or_default();
        put("way", way::find_without_agent(&machine.socket(connection), &note).to_string().into());
        return row;
    };
    put("way", Way::Agent.to_string().into());
    put("levels", json!(info.levels));
    put("release", info.release.into());
    put("kernel", info.kernel.into());
    put("uptime_seconds", json!(info.uptime_seconds));
    put("load", json!(info.load));
    put("memory_total", json!(info.memory.total));
    put("memory_available", json!(info.memory.available));
    put("disk_total", json!(info.disk.total));
    put("disk_used", json!(info.disk.used));
    put("addresses", json!(info.addresses));
    put("listening", json!(info.ports));
    put("problems", json!(info.problems));
    row
}

fn text(row: &Map<String, Value>) -> String {
    let mebibytes = |name: &str| row.get(name).and_then(Value::as_u64).map(|bytes| bytes >> 20);
    let texts = |name: &str| {
        let list = row.get(name).and_then(Value::as_array).into_iter().flatten();
        list.map(|value| value.as_str().map_or(value.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let plain = |name: &str| match row.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(value) => value.to_string(),
    };
    let used = |total: &str, used: Option<u64>| match (mebibytes(total), used) {
        (Some(total), Some(used)) => format!("{used} of {total} MiB"),
        _ => String::new(),
    };
    let memory = mebibytes("memory_total")
        .zip(mebibytes("memory_available"))
        .map(|(total, available)| total.saturating_sub(available));
    let lines = [
        ("Name", plain("name")),
        ("State", plain("state")),
        ("Reached", texts("levels")),
        ("Way in", plain("way")),
        ("Image", format!("{} {}", plain("image"), plain("image_release")).trim().to_owned()),
        ("Release", plain("release")),
        ("Kernel", plain("kernel")),
        ("Runs on", plain("accelerator")),
        ("CPUs", plain("cpus")),
        ("Load", texts("load")),
        (
            "Memory",
            match used("memory_total", memory) {
                text if text.is_empty() => {
                    mebibytes("memory").map_or(String::new(), |size| format!("{size} MiB"))
                }
                text => text,
            },
        ),
        ("Disk", used("disk_total", mebibytes("disk_used"))),
        ("Addresses", texts("addresses")),
        ("Ports", texts("ports")),
        ("Mounts", texts("mounts")),
        ("Listening", texts("listening")),
        ("Problems", texts("problems")),
    ];
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{:<11}{value}\n", format!("{name}:"))).collect()
}
