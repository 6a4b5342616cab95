//! Keys and pointers.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use device::ABSOLUTE_MAX;
use machine::{Axis, Button, InputEvent};
use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, plain};
use crate::emulator::Emulator;
use crate::keys;

pub const COMMANDS: &[Command] = &[
    plain("send-key", "{ keys: [KeyValue], hold-time?: int }", "", send_keys),
    plain(
        "input-send-event",
        "{ device?: str, head?: int, events: [InputEvent] }",
        "",
        send_events,
    ),
    plain("query-mice", "{}", "[MouseInfo]", mice),
];

/// How long a key is held when nobody says.
const HOLD_MS: i64 = 100;
/// The longest that it is held.
const HOLD_MS_MAX: i64 = 60_000;
/// Keys of one stroke.
const KEYS_MAX: usize = 16;

/// A key by name or by scan code.
fn key(value: &Value) -> Result<u16, Refusal> {
    let data = &value["data"];
    let unknown = || Refusal::new(format!("the key {data} is not on a keyboard"));
    match (data.as_str(), data.as_u64()) {
        (Some(name), _) => keys::by_name(name).ok_or_else(unknown),
        (None, Some(number)) => {
            let code = u32::try_from(number).ok().and_then(display::keys::of_scan_code);
            code.ok_or_else(unknown)
        }
        (None, None) => Err(unknown()),
    }
}

fn press(emulator: &Emulator, keys: Vec<u16>, hold_ms: i64) -> Result<(), String> {
    let hold = u64::try_from(hold_ms.min(HOLD_MS_MAX)).unwrap_or(0);
    if keys.len() > KEYS_MAX {
        return Err(format!("at most {KEYS_MAX} keys are pressed together"));
    }
    emulator.typist.press(emulator.machine.inputs(), keys, Duration::from_millis(hold))
}

fn send_keys(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let list = arguments.get("keys").and_then(Value::as_array);
    let keys: Result<Vec<u16>, Refusal> = list.into_iter().flatten().map(key).collect();
    let hold = arguments.get("hold-time").and_then(Value::as_i64).unwrap_or(HOLD_MS);
    press(emulator, keys?, hold).map_err(Refusal::new)?;
    Ok(json!({}))
}

const BUTTONS: &[(&str, Button)] = &[
    ("left", Button::Left),
    ("middle", Button::Middle),
    ("right", Button::Right),
    ("wheel-up", Button::WheelUp),
    ("wheel-down", Button::WheelDown),
    ("wheel-left", Button::WheelLeft),
    ("wheel-right", Button::WheelRight),
    ("side", Button::Side),
    ("extra", Button::Extra),
];

/// An event whose form was checked against its declaration.
fn event(value: &Value) -> Result<InputEvent, Refusal> {
    let data = &value["data"];
    let is_down = data["down"].as_bool().unwrap_or_default();
    let axis = if data["axis"] == "y" { Axis::Y } else { Axis::X };
    let number = data["value"].as_i64().unwrap_or_default();
    Ok(match value["type"].as_str().unwrap_or_default() {
        "key" => InputEvent::Key { code: key(&data["key"])?, down: is_down },
        "btn" => {
            let found = BUTTONS.iter().find(|(name, _)| data["button"] == *name);
            let (_, button) = found.ok_or_else(|| Refusal::new("there is no such button"))?;
            InputEvent::Button { button: *button, down: is_down }
        }
        "rel" => {
            let by = number.clamp(i32::MIN.into(), i32::MAX.into());
            InputEvent::Relative { axis, by: i32::try_from(by).unwrap_or_default() }
        }
        _ => {
            let at = number.clamp(0, ABSOLUTE_MAX.into());
            InputEvent::Absolute { axis, at: u16::try_from(at).unwrap_or_default() }
        }
    })
}

fn send_events(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    if let Some(device) = arguments.get("device").and_then(Value::as_str)
        && !emulator.machine.screens().all().iter().any(|(id, _)| id == device)
    {
        return Err(Refusal::new(format!("Device '{device}' not found")));
    }
    let list = arguments.get("events").and_then(Value::as_array);
    let events: Result<Vec<InputEvent>, Refusal> = list.into_iter().flatten().map(event).collect();
    emulator.machine.inputs().send(&events?);
    Ok(json!({}))
}

/// Pointers: their name, whether they take places, and whether they are in use.
fn pointers(emulator: &Emulator) -> Vec<(String, bool, bool)> {
    let mut pointers: Vec<(String, bool, bool)> = Vec::new();
    let mut current = None;
    for (id, device) in emulator.machine.inputs().all() {
        let kinds = device.kinds();
        if !kinds.relative && !kinds.absolute {
            continue;
        }
        if device.is_listening() {
            current = Some(pointers.len());
        }
        pointers.push((id, kinds.absolute, false));
    }
    let last = pointers.len().checked_sub(1);
    if let Some(at) = current.or(last) {
        pointers[at].2 = true;
    }
    pointers
}

fn mice(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let entry = |(index, (name, absolute, current)): (usize, (String, bool, bool))| json!({"name": name, "index": index, "current": current, "absolute": absolute});
    Ok(pointers(emulator).into_iter().enumerate().map(entry).collect())
}

pub fn info_mice(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let pointers = pointers(emulator);
    if pointers.is_empty() {
        return Ok("No mouse devices connected\n".to_owned());
    }
    let mut lines = String::new();
    for (index, (name, absolute, current)) in pointers.into_iter().enumerate() {
        let mark = if current { '*' } else { ' ' };
        let kind = if absolute { " (absolute)" } else { "" };
        _ = writeln!(lines, "{mark} Mouse #{index}: {name}{kind}");
    }
    Ok(lines)
}

/// `sendkey ctrl-alt-f1 [HOLD_MS]`.
pub fn send_line(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let keys = words.next().ok_or("keys are missing")?;
    let hold = words.next().map_or(Ok(HOLD_MS), str::parse);
    let hold = hold.map_err(|_| "hold_ms is not a number".to_owned())?;
    // A single dash stands between keys, and `-` itself has the name minus.
    let code = |name: &str| {
        let number = name.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let code = match number {
            Some(number) => display::keys::of_scan_code(number),
            None => keys::by_name(if name == "<" { "less" } else { name }),
        };
        code.ok_or_else(|| format!("invalid parameter: {name}"))
    };
    let keys: Result<Vec<u16>, String> = keys.split('-').map(code).collect();
    press(emulator, keys?, hold).map(|()| String::new())
}

fn numbers(line: &str) -> Result<Vec<i32>, String> {
    let number = |word: &str| word.parse().map_err(|_| format!("'{word}' is not a number"));
    line.split_whitespace().map(number).collect()
}

/// `mouse_move DX DY [DZ]`.
pub fn mouse_move(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let numbers = numbers(line)?;
    let ([x, y] | [x, y, _]) = numbers[..] else { return Err("dx and dy are needed".to_owned()) };
    let inputs = emulator.machine.inputs();
    let axis = |axis, by| InputEvent::Relative { axis, by };
    inputs.send(&[axis(Axis::X, x), axis(Axis::Y, y)]);
    if let Some(turns) = numbers.get(2).filter(|turns| **turns != 0) {
        let button = if *turns > 0 { Button::WheelUp } else { Button::WheelDown };
        for down in [true, false] {
            inputs.send(&[InputEvent::Button { button, down }]);
        }
    }
    Ok(String::new())
}

/// `mouse_button STATE`.
pub fn buttons(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    /// What the last such line left pressed.
    static PRESSED: AtomicU16 = AtomicU16::new(0);
    let numbers = numbers(line)?;
    let [state] = numbers[..] else { return Err("the buttons' state is needed".to_owned()) };
    let state = (state & 7) as u16;
    let changed = PRESSED.swap(state, Ordering::SeqCst) ^ state;
    let events: Vec<InputEvent> = [Button::Left, Button::Middle, Button::Right]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| changed >> bit & 1 != 0)
        .map(|(bit, button)| InputEvent::Button { button, down: state >> bit & 1 != 0 })
        .collect();
    emulator.machine.inputs().send(&events);
    Ok(String::new())
}
