//! Devices that come and go while the machine runs.

use std::thread;
use std::time::Duration;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};
use qemu_compat::emit::{self, Backing};
use serde_json::{Value, json};
use spec::device::{Device, Image, Kind, Wire};

use super::complete::unsupported;
use super::describe::Networks;
use super::machine::Machine;
use super::taps::Taps;
use super::{aliases, describe, process};

/// The image in the disk with this target.
pub fn image_of(domain: &Element, target: &str) -> Result<Option<Image>> {
    describe::image(find_disk(domain, target)?)
}

/// The name of the disk with this target.
pub fn alias_of(domain: &Element, target: &str) -> Result<String> {
    let alias = find_disk(domain, target)?.attribute_at("alias", "name");
    Ok(alias.unwrap_or_default().to_owned())
}

fn find_disk<'a>(domain: &'a Element, target: &str) -> Result<&'a Element> {
    let devices = domain.child("devices");
    let mut disks = devices.into_iter().flat_map(|devices| devices.all("disk"));
    disks
        .find(|disk| disk.attribute_at("target", "dev") == Some(target))
        .ok_or_else(|| Error::new(Code::InvalidArg, format!("disk '{target}' not found in domain")))
}

/// A number that no disk's nodes have.
fn free_index(domain: &Element) -> usize {
    let devices = domain.child("devices");
    let disks = devices.into_iter().flat_map(|devices| devices.all("disk"));
    let used = disks.filter_map(|disk| disk.attribute_at("source", "index")?.parse::<usize>().ok());
    used.max().unwrap_or(0) + 1
}

/// Plugs a device in.
pub fn attach(machine: &Machine, domain: &Element, device: &mut Element) -> Result<()> {
    let hotpluggable = matches!(
        device.name.as_str(),
        "disk" | "interface" | "input" | "rng" | "channel" | "watchdog" | "sound" | "controller"
    );
    if !hotpluggable {
        let text = format!("live attach of device '{}' is not supported", device.name);
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    let devices = domain.child("devices").cloned().unwrap_or_default();
    let alias = aliases::for_new(&devices, device);
    device.ensure("alias").set("name", alias);
    if device.name == "disk" {
        process::fill_disk(device, free_index(domain))?;
    }
    let mut taps = Taps::default();
    if device.name == "interface" {
        taps.add(device)?;
    }
    let mut described = describe::device(domain, &Networks::new(), device)?
        .ok_or_else(|| unsupported(format!("device '{}' cannot be plugged in", device.name)))?;
    machine.open_device(device)?;
    machine.move_sockets(&mut described);
    if let (Some(tap), Kind::Network(network)) = (taps.descriptors().next(), &mut described.kind) {
        let descriptor = format!("tapfd-{}", described.id);
        let name = json!({"fdname": descriptor});
        machine.monitor().execute_with("getfd", name, tap)?;
        network.backend = Wire::TapDescriptor { descriptor };
    }
    let plugged = plug(machine, &described);
    if plugged.is_err() {
        machine.close_device(domain, device);
    }
    plugged
}

/// Makes what backs the device, then the device; undoes the first when the second fails.
fn plug(machine: &Machine, device: &Device) -> Result<()> {
    let monitor = machine.monitor();
    let mut made: Vec<(&str, Value)> = Vec::new();
    let undo = |made: Vec<(&str, Value)>| {
        for (command, arguments) in made.into_iter().rev() {
            // The first error is the one to report.
            _ = monitor.execute(command, Some(arguments));
        }
    };
    for backing in emit::backends(device) {
        let (command, arguments, removal) = match backing {
            Backing::Block(value) => {
                let name = json!({"node-name": value["node-name"]});
                ("blockdev-add", value, ("blockdev-del", name))
            }
            Backing::Network(value) => {
                let id = json!({"id": value["id"]});
                ("netdev_add", value, ("netdev_del", id))
            }
            Backing::Character(_, value) => {
                let id = json!({"id": value["id"]});
                ("chardev-add", value, ("chardev-remove", id))
            }
            Backing::Object(value) => {
                let id = json!({"id": value["id"]});
                ("object-add", value, ("object-del", id))
            }
            Backing::Audio(_) | Backing::Option(..) => continue,
        };
        if let Err(error) = monitor.execute(command, Some(arguments)) {
            undo(made);
            return Err(error);
        }
        made.push(removal);
    }
    for arguments in emit::device_arguments(device) {
        if let Err(error) = monitor.execute("device_add", Some(arguments)) {
            undo(made);
            return Err(error);
        }
    }
    Ok(())
}

/// Asks the guest to let a device go, and cleans up behind it.
pub fn detach(machine: &Machine, domain: &Element, device: &Element) -> Result<bool> {
    let monitor = machine.monitor();
    let described = describe::device(domain, &Networks::new(), device)?
        .ok_or_else(|| unsupported(format!("device '{}' cannot be unplugged", device.name)))?;
    monitor.execute("device_del", Some(json!({"id": described.id})))?;
    if !machine.wait_removed(&described.id) {
        return Ok(false);
    }
    for backing in emit::backends(&described).into_iter().rev() {
        let (command, arguments) = match backing {
            Backing::Block(value) => ("blockdev-del", json!({"node-name": value["node-name"]})),
            Backing::Network(value) => ("netdev_del", json!({"id": value["id"]})),
            Backing::Character(_, value) => ("chardev-remove", json!({"id": value["id"]})),
            Backing::Object(value) => ("object-del", json!({"id": value["id"]})),
            Backing::Audio(_) | Backing::Option(..) => continue,
        };
        monitor.execute(command, Some(arguments))?;
    }
    machine.close_device(domain, device);
    Ok(true)
}

/// Changes a device in place: another medium, a link, a password.
pub fn update(machine: &Machine, domain: &Element, old: &Element, new: &mut Element) -> Result<()> {
    let monitor = machine.monitor();
    match new.name.as_str() {
        "disk" if old.is("device", "cdrom") || old.is("device", "floppy") => {
            change_medium(machine, domain, old, new)
        }
        "interface" => {
            let up = new.attribute_at("link", "state") != Some("down");
            let name = old.attribute_at("alias", "name").unwrap_or_default();
            monitor.execute("set_link", Some(json!({"name": name, "up": up})))?;
            Ok(())
        }
        "graphics" => {
            let password = new.attribute("passwd").unwrap_or_default();
            let arguments = json!({"protocol": "vnc", "password": password});
            monitor.execute("set_password", Some(arguments))?;
            for name in ["port", "listen"] {
                if let Some(value) = old.attribute(name) {
                    new.set(name, value);
                }
            }
            Ok(())
        }
        name => {
            let text = format!("live update of device '{name}' is not supported");
            Err(Error::new(Code::OperationUnsupported, text))
        }
    }
}

/// How often a tray is opened anew, and how long the guest is left alone in between.
const TRAY_TRIES: u32 = 10;
const TRAY_PAUSE: Duration = Duration::from_millis(100);

/// Opens the tray and does something that needs it open. A guest that is just looking at its drives
/// (firmware at boot, for one) may close it again in between.
fn with_open_tray(machine: &Machine, id: &str, command: &str, arguments: &Value) -> Result<()> {
    let monitor = machine.monitor();
    let mut tries = 0;
    loop {
        monitor.execute("blockdev-open-tray", Some(json!({"id": id, "force": true})))?;
        tries += 1;
        match monitor.execute(command, Some(arguments.clone())) {
            Ok(_) => return Ok(()),
            Err(error) if tries < TRAY_TRIES && error.to_string().contains("is not open") => {
                thread::sleep(TRAY_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

fn change_medium(
    machine: &Machine,
    domain: &Element,
    old: &Element,
    new: &mut Element,
) -> Result<()> {
    let monitor = machine.monitor();
    let id = old.attribute_at("alias", "name").unwrap_or_default().to_owned();
    for (name, value) in &old.attributes {
        new.set_default(name, value);
    }
    new.ensure("driver").set_default("name", "qemu");
    new.ensure("driver").set_default("type", "raw");
    if old.is("device", "cdrom") {
        new.ensure("readonly");
    }
    with_open_tray(machine, &id, "blockdev-remove-medium", &json!({"id": id}))?;
    if let Some(image) = describe::image(old)? {
        for node in [image.node.clone(), image.node.replace("-format", "-storage")] {
            monitor.execute("blockdev-del", Some(json!({"node-name": node})))?;
        }
    }
    machine.close_device(domain, old);
    process::fill_disk(new, free_index(domain))?;
    machine.open_device(new)?;
    if let Some(Device { kind: Kind::Disk(disk), .. }) =
        describe::device(domain, &Networks::new(), new)?
        && let Some(image) = &disk.image
    {
        let device = Device {
            id: id.clone(),
            place: None,
            boot_index: None,
            kind: Kind::Disk(disk.clone()),
        };
        for backing in emit::backends(&device) {
            if let Backing::Block(value) = backing {
                monitor.execute("blockdev-add", Some(value))?;
            }
        }
        let arguments = json!({"id": id, "node-name": image.node});
        with_open_tray(machine, &id, "blockdev-insert-medium", &arguments)?;
    }
    monitor.execute("blockdev-close-tray", Some(json!({"id": id})))?;
    Ok(())
}

/// Plugs vCPUs in until there are so many.
pub fn set_vcpus(machine: &Machine, count: u32) -> Result<()> {
    let monitor = machine.monitor();
    let reply = monitor.execute("query-hotpluggable-cpus", None)?;
    let mut slots = reply.as_array().cloned().unwrap_or_default();
    // QEMU lists the last first.
    slots.reverse();
    let present = slots.iter().filter(|slot| slot["qom-path"].is_string()).count() as u32;
    if count < present {
        let text =
            "failed to find appropriate hotpluggable vcpus to reach the desired target vcpu count";
        return Err(Error::new(Code::OperationUnsupported, text));
    }
    let free = slots.iter().filter(|slot| !slot["qom-path"].is_string());
    for (place, slot) in free.take((count - present) as usize).enumerate() {
        let mut arguments = slot["props"].clone();
        arguments["driver"] = slot["type"].clone();
        arguments["id"] = format!("vcpu{}", present as usize + place).into();
        monitor.execute("device_add", Some(arguments))?;
    }
    machine.read_vcpus()
}
