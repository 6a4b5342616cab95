//! Character devices.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use qemu_compat::qmp::server::Refusal;
use qemu_compat::system::character;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, plain, refusal, text};
use crate::emulator::{Emulator, free_streams};

pub const COMMANDS: &[Command] = &[
    plain("query-chardev", "{}", "[ChardevInfo]", list),
    plain("query-chardev-backends", "{}", "[ChardevBackendInfo]", kinds),
    plain("chardev-add", "{ id: str, backend: ChardevBackend }", "ChardevReturn", add),
    plain("chardev-remove", "{ id: str }", "", remove),
    plain("ringbuf-read", "{ device: str, size: int, format?: DataFormat }", "str", read_ring),
    plain("ringbuf-write", "{ device: str, data: str, format?: DataFormat }", "", write_ring),
];

fn list(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let list = emulator.characters.list();
    let entry = |(label, filename, used): (String, String, bool)| json!({"frontend-open": used, "filename": filename, "label": label});
    Ok(list.into_iter().map(entry).collect())
}

fn kinds(_: &Arc<Emulator>, _: &Arguments) -> Answer {
    let kinds = ["file", "null", "pipe", "pty", "ringbuf", "socket", "stdio"];
    Ok(kinds.iter().map(|name| json!({"name": name})).collect())
}

fn add(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let backend = arguments.get("backend").unwrap_or(&Value::Null);
    let character = character::from_json(text(arguments, "id"), backend).map_err(refusal)?;
    let pty = emulator.characters.add(&character).map_err(refusal)?;
    Ok(pty.map_or(json!({}), |pty| json!({"pty": pty})))
}

fn remove(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    free_streams(&emulator.backends);
    emulator.characters.remove(text(arguments, "id")).map_err(refusal)?;
    Ok(json!({}))
}

fn read_ring(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let device = text(arguments, "device");
    let ring = emulator.characters.ring(device).ok_or_else(|| no_ring(emulator, device))?;
    let size = arguments.get("size").and_then(Value::as_i64).unwrap_or_default();
    let size = usize::try_from(size).ok().filter(|size| *size > 0);
    let size = size.ok_or_else(|| Refusal::new("size must be greater than zero"))?;
    let bytes = ring.read(size);
    Ok(match text(arguments, "format") {
        "base64" => BASE64.encode(&bytes).into(),
        _ => String::from_utf8_lossy(&bytes).into_owned().into(),
    })
}

fn write_ring(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let device = text(arguments, "device");
    let ring = emulator.characters.ring(device).ok_or_else(|| no_ring(emulator, device))?;
    let data = text(arguments, "data");
    match text(arguments, "format") {
        "base64" => {
            let bytes = BASE64.decode(data).map_err(|_| Refusal::new("invalid base64 data"))?;
            device::Stream::write(&*ring, &bytes);
        }
        _ => _ = device::Stream::write(&*ring, data.as_bytes()),
    }
    Ok(json!({}))
}

fn no_ring(emulator: &Emulator, device: &str) -> Refusal {
    match emulator.characters.contains(device) {
        true => Refusal::new(format!("{device} is not a ringbuf device")),
        false => Refusal::new(format!("Device '{device}' not found")),
    }
}
