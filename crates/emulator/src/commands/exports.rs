//! Disks served to others.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use block::nbd::server::Export;
use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, flag, plain, text};
use crate::emulator::Emulator;
use crate::exports::{Door, Served};

pub const COMMANDS: &[Command] = &[
    plain(
        "nbd-server-start",
        "{ addr: any, tls-creds?: str, tls-authz?: str, max-connections?: int, \
         handshake-max-seconds?: int }",
        "",
        start,
    ),
    plain(
        "nbd-server-add",
        "{ device: str, name?: str, description?: str, writable?: bool, bitmap?: str }",
        "",
        add,
    ),
    plain("nbd-server-remove", "{ name: str, mode?: str }", "", |emulator, arguments| {
        remove(emulator, text(arguments, "name"))
    }),
    plain("nbd-server-stop", "{}", "", stop),
    plain("block-export-add", "any", "", export_add),
    plain("block-export-del", "{ id: str, mode?: str }", "", |emulator, arguments| {
        remove(emulator, text(arguments, "id"))
    }),
    plain("query-block-exports", "{}", "[BlockExportInfo]", list),
];

fn start(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    for name in ["tls-creds", "tls-authz", "max-connections", "handshake-max-seconds"] {
        if arguments.contains_key(name) {
            return Err(Refusal::new(format!("'{name}' is not built in Hostel")));
        }
    }
    let address = arguments.get("addr").cloned().unwrap_or_default();
    let kind = address.get("type").and_then(Value::as_str).unwrap_or_default();
    // Old clients put what follows into an object of its own.
    let members = address.get("data").unwrap_or(&address);
    let part = |name: &str| {
        let found = members.get(name).and_then(Value::as_str);
        found.ok_or_else(|| Refusal::new(format!("Parameter 'addr.{name}' is missing")))
    };
    let door = match kind {
        "unix" => {
            let path = PathBuf::from(part("path")?);
            _ = std::fs::remove_file(&path); // one that is left over would be in the way
            let listener = UnixListener::bind(&path).map_err(|error| {
                let reason = crate::character::reason(&error);
                Refusal::new(format!("Failed to bind socket to {}: {reason}", path.display()))
            })?;
            Door::Unix(listener, path)
        }
        "inet" => {
            let (host, port) = (part("host")?, part("port")?);
            let listener = TcpListener::bind(format!("{host}:{port}")).map_err(|error| {
                let reason = crate::character::reason(&error);
                Refusal::new(format!("Failed to find an available port on {host}:{port}: {reason}"))
            })?;
            Door::Tcp(listener)
        }
        other => {
            return Err(Refusal::new(format!("Sockets of type '{other}' are not built in Hostel")));
        }
    };
    emulator.blocks.exports.start(door).map_err(Refusal::new)?;
    Ok(json!({}))
}

fn serve(
    emulator: &Arc<Emulator>,
    id: &str,
    device: &str,
    arguments: &Arguments,
    bitmaps: Vec<String>,
) -> Answer {
    let current = emulator.blocks.node(device).map_err(Refusal::new)?;
    let name = arguments.get("name").and_then(Value::as_str).unwrap_or(device);
    let writable = flag(arguments, "writable");
    if writable && !current.writable() {
        return Err(Refusal::new("Block node is read-only"));
    }
    for bitmap in &bitmaps {
        super::bitmaps::find(emulator, device, bitmap)?;
        let stored =
            current.bitmaps().is_some_and(|all| all.list().iter().any(|info| info.name == *bitmap));
        if !stored {
            return Err(Refusal::new(format!(
                "Bitmap '{bitmap}' is only in memory; serving such ones is not built in Hostel"
            )));
        }
    }
    let node_name = emulator.blocks.graph.name_of(&current).unwrap_or_default();
    // Through the root, so that jobs see what clients write. Bitmaps are the node's own.
    let root = emulator.blocks.roots_of(&current).into_iter().next();
    let node = match root {
        Some(root) if bitmaps.is_empty() => root,
        _ => current,
    };
    let export = Export {
        name: name.to_owned(),
        description: arguments.get("description").and_then(Value::as_str).map(str::to_owned),
        node,
        writable,
        shared: !writable,
        bitmaps,
        allocation_depth: flag(arguments, "allocation-depth"),
    };
    let served = Served { export: Arc::new(export), node_name };
    emulator.blocks.exports.add(id, served).map_err(Refusal::new)?;
    Ok(json!({}))
}

fn add(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let device = text(arguments, "device");
    let id = arguments.get("name").and_then(Value::as_str).unwrap_or(device);
    let bitmap = arguments.get("bitmap").and_then(Value::as_str).map(str::to_owned);
    serve(emulator, id, device, arguments, bitmap.into_iter().collect())
}

fn export_add(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    const KNOWN: [&str; 9] = [
        "type",
        "id",
        "node-name",
        "name",
        "description",
        "writable",
        "bitmaps",
        "allocation-depth",
        "writethrough",
    ];
    if let Some(other) = arguments.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(Refusal::new(format!("Parameter '{other}' is unexpected")));
    }
    if text(arguments, "type") != "nbd" {
        return Err(Refusal::new(format!(
            "Exports of type '{}' are not built in Hostel",
            text(arguments, "type")
        )));
    }
    if flag(arguments, "writethrough") {
        return Err(Refusal::new("'writethrough' is not built in Hostel"));
    }
    let bitmaps = arguments.get("bitmaps").and_then(Value::as_array).cloned().unwrap_or_default();
    let bitmaps = bitmaps.iter().map(|bitmap| {
        let name = bitmap.as_str().or_else(|| bitmap.get("name").and_then(Value::as_str));
        name.map(str::to_owned).ok_or_else(|| Refusal::new("A bitmap has no name"))
    });
    let bitmaps = bitmaps.collect::<Result<Vec<_>, _>>()?;
    let (id, node) = (text(arguments, "id"), text(arguments, "node-name"));
    serve(emulator, id, node, arguments, bitmaps)
}

fn remove(emulator: &Arc<Emulator>, id: &str) -> Answer {
    emulator.blocks.exports.remove(id).map_err(Refusal::new)?;
    emulator.monitors.event("BLOCK_EXPORT_DELETED", json!({"id": id}));
    Ok(json!({}))
}

fn stop(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    for id in emulator.blocks.exports.stop().map_err(Refusal::new)? {
        emulator.monitors.event("BLOCK_EXPORT_DELETED", json!({"id": id}));
    }
    Ok(json!({}))
}

fn list(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let row = |(id, served): (String, Served)| json!({"id": id, "type": "nbd", "node-name": served.node_name, "shutting-down": false});
    Ok(emulator.blocks.exports.list().into_iter().map(row).collect())
}
