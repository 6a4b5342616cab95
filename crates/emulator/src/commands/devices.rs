//! Devices: plugging in and out, what can be asked of them, and the tree of objects.

use std::sync::Arc;

use device::{PropertyKind, PropertyValue};
use machine::catalog::{self, Controls, Model};
use machine::{MachineError, Plugged, Unplug};
use qemu_compat::qmp::server::Refusal;
use qemu_compat::system::processors as models;
use serde_json::{Map, Value, json};

use super::{Answer, Arguments, Command, flag, plain, text};
use crate::emulator::{Emulator, connect_streams, free_streams};
use crate::options::Asked;
use crate::{errors, filters, objects, parts, processors};

pub const COMMANDS: &[Command] = &[
    plain("device_add", "any", "", add),
    plain("device_del", "{ id: str }", "", remove),
    plain("device-list-properties", "{ typename: str }", "[ObjectPropertyInfo]", properties),
    plain("qom-list-types", "{ implements?: str, abstract?: bool }", "[ObjectTypeInfo]", types),
    plain("qom-list-properties", "{ typename: str }", "[ObjectPropertyInfo]", properties),
    plain("qom-list", "{ path: str }", "[ObjectPropertyInfo]", list),
    plain("qom-get", "{ path: str, property: str }", "any", get),
    plain("qom-set", "{ path: str, property: str, value: any }", "", set),
    plain("object-add", "any", "", object_add),
    plain("object-del", "{ id: str }", "", object_remove),
    plain("netdev_add", "any", "", netdev_add),
    plain("netdev_del", "{ id: str }", "", netdev_remove),
    plain("set_link", "{ name: str, up: bool }", "", set_link),
    plain("balloon", "{ value: int }", "", balloon),
    plain("query-balloon", "{}", "BalloonInfo", query_balloon),
];

fn failed(text: String) -> Refusal {
    Refusal::new(text)
}

/// `device_add`.
pub fn add(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let asked = Asked { typed: String::new(), members: arguments.clone() };
    let mut part = parts::resolve(&asked, &emulator.options.globals).map_err(failed)?;
    if let Some(id) = &part.id
        && emulator.has_device(id)
    {
        return Err(failed(format!("Duplicate device ID '{id}'")));
    }
    free_streams(&emulator.backends);
    connect_streams(&mut part, &emulator.characters, &emulator.backends).map_err(failed)?;
    let plugged = emulator.machine.plug(&part);
    plugged.map_err(|error| match error {
        MachineError::Part { model, source, .. } => failed(errors::part(&model, *source)),
        other => failed(format!("{:#}", errors::machine(other, &[]))),
    })?;
    Ok(json!({}))
}

fn no_device(id: &str) -> Refusal {
    Refusal::of("DeviceNotFound", format!("Device '{id}' not found"))
}

/// `device_del`: the guest is asked where it could hold the device fast; the event comes when the
/// device is gone.
pub fn remove(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let id = text(arguments, "id");
    let id = id.rsplit('/').next().unwrap_or(id);
    match emulator.machine.request_unplug(id) {
        Unplug::NoSuchDevice => Err(no_device(id)),
        Unplug::NotHotpluggable => {
            Err(failed(format!("Bus of device '{id}' does not support hotplugging")))
        }
        Unplug::Done | Unplug::Asked => Ok(json!({})),
    }
}

/// How a property's type is called.
fn type_name(kind: PropertyKind) -> String {
    match kind {
        PropertyKind::Bool => "bool".to_owned(),
        PropertyKind::Auto => "OnOffAuto".to_owned(),
        PropertyKind::Unsigned(bits) => format!("uint{bits}"),
        PropertyKind::Signed(bits) => format!("int{bits}"),
        PropertyKind::BootIndex => "int32".to_owned(),
        PropertyKind::Size => "size".to_owned(),
        PropertyKind::List => "list".to_owned(),
        PropertyKind::Link(kind) => format!("link<{kind}>"),
        _ => "str".to_owned(),
    }
}

/// A value as QMP shows it.
fn shown(value: &PropertyValue) -> Value {
    match value {
        PropertyValue::Bool(on) => (*on).into(),
        PropertyValue::Unsigned(number) => (*number).into(),
        PropertyValue::Signed(number) => (*number).into(),
        PropertyValue::Text(text) => text.as_str().into(),
        PropertyValue::Mac(mac) => {
            let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(":").into()
        }
        PropertyValue::PciAddress(slot, function) => format!("{slot:02x}.{function}").into(),
        PropertyValue::List(list) => list.iter().map(shown).collect(),
    }
}

fn model(name: &str) -> Result<&'static Model, Refusal> {
    let none = || Refusal::of("DeviceNotFound", format!("Device '{name}' not found"));
    parts::model(name).ok_or_else(none)
}

fn properties(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    if text(arguments, "typename").ends_with("x86_64-cpu") {
        let all = processors::properties(&emulator.processors.processor);
        let property = |(name, value): (&String, &Value)| json!({"name": name, "type": processors::kind_of(value)});
        return Ok(all.iter().map(property).collect());
    }
    let model = model(text(arguments, "typename"))?;
    let property = |declared: &device::Property| {
        let mut entry = json!({"name": declared.name, "type": type_name(declared.kind)});
        if !declared.help.is_empty() {
            entry["description"] = declared.help.into();
        }
        if let Some(default) = declared.default {
            entry["default-value"] = shown(&default.into());
        }
        entry
    };
    Ok(model.declared().map(property).collect())
}

/// Models that are no rows of the table.
const PROCESSORS: [&str; 3] = ["max", "host", "base"];

fn model_names() -> impl Iterator<Item = String> {
    models::names().into_iter().map(|model| model.name)
}

fn types(_: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let implements = text(arguments, "implements");
    let mut list: Vec<Value> = Vec::new();
    let mut put = |name: &str, parent: &str| {
        if implements.is_empty() || implements == parent || implements == "object" {
            list.push(json!({"name": name, "parent": parent}));
        }
    };
    for model in catalog::models() {
        put(parts::shown_name(model.name), "device");
    }
    for (name, ..) in crate::boards::all() {
        put(&format!("{name}-machine"), "machine");
    }
    for name in objects::KINDS {
        put(name, "object");
    }
    put("x86_64-cpu", "cpu");
    for name in PROCESSORS.into_iter().map(str::to_owned).chain(model_names()) {
        put(&format!("{name}-x86_64-cpu"), "x86_64-cpu");
    }
    Ok(list.into())
}

/// What a path of the tree leads to.
enum Place<'a> {
    Root,
    Machine,
    /// `/machine/peripheral`, `/machine/peripheral-anon`, `/machine/unattached`.
    Folder(&'a str),
    Device(&'a str),
    Processor(u32),
}

fn place(path: &str) -> Option<Place<'_>> {
    let path = path.trim_end_matches('/');
    let path = path.strip_prefix("/machine").map_or(path, |rest| rest);
    Some(match path {
        "" => Place::Machine,
        "/" => Place::Root,
        "/peripheral" | "/peripheral-anon" | "/unattached" => Place::Folder(&path[1..]),
        _ => {
            if let Some(number) = path.strip_prefix("/unattached/device[") {
                let number: Option<u32> = number.strip_suffix(']')?.parse().ok();
                return number.map(Place::Processor);
            }
            let name = path
                .strip_prefix("/peripheral/")
                .or_else(|| path.strip_prefix("/peripheral-anon/"))
                .unwrap_or(path);
            (!name.is_empty() && !name.contains('/')).then_some(Place::Device(name))?
        }
    })
}

fn no_path(path: &str) -> Refusal {
    Refusal::of("DeviceNotFound", format!("Device '{path}' not found"))
}

/// See its row.
pub fn list(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let path = text(arguments, "path");
    let entry = |name: &str, kind: &str| json!({"name": name, "type": kind});
    Ok(match place(path).ok_or_else(|| no_path(path))? {
        Place::Root => json!([entry("machine", "child<machine>")]),
        Place::Machine => json!([
            entry("type", "string"),
            entry("peripheral", "child<container>"),
            entry("peripheral-anon", "child<container>"),
            entry("unattached", "child<container>"),
        ]),
        Place::Folder("unattached") => {
            let kind = format!("child<{}>", emulator.processors.type_name());
            let count = emulator.options.board.topology.count;
            (0..count).map(|index| entry(&format!("device[{index}]"), &kind)).collect()
        }
        Place::Folder(folder) => emulator.machine.with_parts(|parts| {
            let named = |part: &&Plugged| part.id.starts_with('#') == (folder != "peripheral");
            let kind = json!({"name": "type", "type": "string"});
            let child = |part: &Plugged| entry(&part.id, &format!("child<{}>", part.model.name));
            std::iter::once(kind).chain(parts.iter().filter(named).map(child)).collect()
        }),
        Place::Device(id) => emulator.machine.with_parts(|parts| {
            let part = parts.iter().find(|part| part.id == id).ok_or_else(|| no_path(path))?;
            let mut list = vec![entry("type", "string")];
            for declared in part.model.declared() {
                list.push(entry(declared.name, &type_name(declared.kind)));
            }
            if part.controls.balloon.is_some() {
                list.push(entry("guest-stats", "guest statistics"));
                list.push(entry("guest-stats-polling-interval", "int"));
            }
            Ok::<_, Refusal>(Value::from(list))
        })?,
        Place::Processor(index) => {
            let object = processor(emulator, index).ok_or_else(|| no_path(path))?;
            object.iter().map(|(name, value)| entry(name, processors::kind_of(value))).collect()
        }
    })
}

/// A vCPU's object.
fn processor(emulator: &Emulator, index: u32) -> Option<Map<String, Value>> {
    let topology = &emulator.options.board.topology;
    let apic = topology.neutral().apic_id(index as usize);
    let place = topology.place(index);
    (index < topology.count).then(|| emulator.processors.object(&place, apic))
}

fn no_property(path: &str, property: &str) -> Refusal {
    Refusal::new(format!("Property '{path}.{property}' not found"))
}

/// See its row.
pub fn get(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let (path, property) = (text(arguments, "path"), text(arguments, "property"));
    match (place(path).ok_or_else(|| no_path(path))?, property) {
        (Place::Machine, "type") => Ok(format!("{}-machine", emulator.options.board.name).into()),
        (Place::Processor(index), _) => {
            let mut object = processor(emulator, index).ok_or_else(|| no_path(path))?;
            let kind = emulator.processors.type_name();
            object.remove(property).ok_or_else(|| no_property(&kind, property))
        }
        (Place::Folder(_), "type") => Ok("container".into()),
        (Place::Device(id), _) => emulator.machine.with_parts(|parts| {
            let part = parts.iter().find(|part| part.id == id).ok_or_else(|| no_path(path))?;
            match (property, &part.controls.balloon) {
                ("type", _) => Ok(part.model.name.into()),
                ("guest-stats-polling-interval", Some(balloon)) => Ok(balloon.polling().into()),
                ("guest-stats", Some(balloon)) => {
                    let (stats, seconds) = balloon.statistics();
                    let stats: Map<String, Value> = stats
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value.into()))
                        .collect();
                    Ok(json!({"stats": stats, "last-update": seconds}))
                }
                _ => {
                    let value = part.properties.get(property).map(shown);
                    value.ok_or_else(|| no_property(part.model.name, property))
                }
            }
        }),
        _ => Err(no_property(path, property)),
    }
}

fn set(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let (path, property) = (text(arguments, "path"), text(arguments, "property"));
    let value = arguments.get("value").unwrap_or(&Value::Null);
    let Some(Place::Device(id)) = place(path) else { return Err(no_property(path, property)) };
    let controls = controls(emulator, id).ok_or_else(|| no_path(path))?;
    match (property, controls.balloon, value.as_u64()) {
        ("guest-stats-polling-interval", Some(balloon), Some(seconds)) => {
            balloon.set_polling(seconds);
            Ok(json!({}))
        }
        _ => Err(Refusal::new(format!("Property '{path}.{property}' cannot be set"))),
    }
}

fn controls(emulator: &Emulator, id: &str) -> Option<Controls> {
    emulator.machine.with_parts(|parts| {
        parts.iter().find(|part| part.id == id).map(|part| part.controls.clone())
    })
}

/// See its row.
pub fn object_add(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let Emulator { backends, options, networks, .. } = &**emulator;
    if filters::is_filter(arguments) {
        filters::add(networks, arguments).map_err(failed)?;
        return Ok(json!({}));
    }
    objects::add(backends, arguments, options).map_err(failed)?;
    Ok(json!({}))
}

/// See its row.
pub fn object_remove(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let id = text(arguments, "id");
    if emulator.networks.end_capture(id) {
        return Ok(json!({}));
    }
    objects::remove(&emulator.backends, id).map_err(failed)?;
    Ok(json!({}))
}

/// See its row.
pub fn netdev_add(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    emulator.networks.add(arguments).map_err(failed)?;
    Ok(json!({}))
}

/// See its row.
pub fn netdev_remove(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let id = text(arguments, "id");
    emulator.networks.remove(id).map_err(|text| Refusal::of("DeviceNotFound", text))?;
    Ok(json!({}))
}

/// `set_link`: a card by its own name, or by its back end's.
pub fn set_link(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let name = text(arguments, "name");
    let card = emulator.backends.networks.user(name).unwrap_or_else(|| name.to_owned());
    let link = controls(emulator, &card).and_then(|controls| controls.link);
    link.ok_or_else(|| no_device(name))?.set_link(flag(arguments, "up"));
    Ok(json!({}))
}

fn first_balloon(emulator: &Emulator) -> Result<Arc<dyn catalog::Balloon>, Refusal> {
    let found = emulator
        .machine
        .with_parts(|parts| parts.iter().find_map(|part| part.controls.balloon.clone()));
    found.ok_or_else(|| Refusal::of("DeviceNotActive", "No balloon device has been activated"))
}

/// `balloon`.
pub fn balloon(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let balloon = first_balloon(emulator)?;
    let target = arguments.get("value").and_then(Value::as_u64).filter(|bytes| *bytes > 0);
    let target = target.ok_or_else(|| Refusal::new("Parameter 'target' expects a size"))?;
    balloon.set_target(target);
    Ok(json!({}))
}

/// See its row.
pub fn query_balloon(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(json!({"actual": first_balloon(emulator)?.actual()}))
}
