//! Names of devices towards the monitor, as libvirt chooses them.

use libvirt_compat::xml::Element;

use super::complete::is_q35;
use super::controllers::disk_number;

/// Gives every device of a definition its alias.
pub fn assign(document: &mut Element) {
    let q35 = is_q35(document);
    let devices = document.ensure("devices");
    let kinds = [
        "filesystem",
        "interface",
        "serial",
        "parallel",
        "channel",
        "input",
        "sound",
        "video",
        "memballoon",
        "rng",
        "watchdog",
        "panic",
        "hub",
        "tpm",
        "redirdev",
        "vsock",
    ];
    for device in devices.all_mut("disk") {
        let alias = disk(device);
        set(device, alias);
    }
    for device in devices.all_mut("controller") {
        let alias = controller(device, q35);
        set(device, alias);
    }
    for kind in kinds {
        let name = prefix(kind);
        for (place, device) in devices.all_mut(kind).enumerate() {
            set(device, format!("{name}{place}"));
        }
    }
    console(devices);
}

/// The alias for a device that joins a running machine.
pub fn for_new(devices: &Element, device: &Element) -> String {
    if device.name == "disk" {
        return disk(device);
    }
    let name = prefix(&device.name);
    let free = (0..).map(|number| format!("{name}{number}")).find(|alias| {
        !devices.elements().any(|other| other.attribute_at("alias", "name") == Some(alias))
    });
    free.expect("numbers do not run out")
}

fn prefix(kind: &str) -> &str {
    match kind {
        "interface" => "net",
        "memballoon" => "balloon",
        "filesystem" => "fs",
        "redirdev" => "redir",
        other => other,
    }
}

fn set(device: &mut Element, alias: String) {
    // Users may name a device themselves, beginning with "ua-".
    let own = device.attribute_at("alias", "name").is_some_and(|name| name.starts_with("ua-"));
    if !own {
        device.ensure("alias").set("name", alias);
    }
}

fn disk(device: &Element) -> String {
    let bus = device.attribute_at("target", "bus").unwrap_or_default();
    let target = device.attribute_at("target", "dev").unwrap_or_default();
    let part = |name: &str| device.attribute_at("address", name).unwrap_or("0");
    match bus {
        "virtio" | "usb" => format!("{bus}-disk{}", disk_number(target)),
        "scsi" => {
            format!(
                "scsi{}-{}-{}-{}",
                part("controller"),
                part("bus"),
                part("target"),
                part("unit")
            )
        }
        _ => format!("{bus}{}-{}-{}", part("controller"), part("bus"), part("unit")),
    }
}

fn controller(device: &Element, q35: bool) -> String {
    let index = device.attribute("index").unwrap_or("0");
    match device.attribute("type").unwrap_or_default() {
        "pci" if index == "0" && q35 => "pcie.0".to_owned(),
        "pci" => format!("pci.{index}"),
        "usb" if index == "0" => "usb".to_owned(),
        // The board's own.
        "sata" if index == "0" && q35 => "ide".to_owned(),
        "ide" if index == "0" && !q35 => "ide".to_owned(),
        kind => format!("{kind}{index}"),
    }
}

/// The first console is the first serial port under another name.
fn console(devices: &mut Element) {
    let serials: Vec<Option<String>> = devices
        .all("serial")
        .map(|serial| serial.attribute_at("alias", "name").map(str::to_owned))
        .collect();
    for (place, console) in devices.all_mut("console").enumerate() {
        let is_serial = console.attribute_at("target", "type") == Some("serial");
        let alias = match serials.get(place) {
            Some(Some(alias)) if is_serial => alias.clone(),
            _ => format!("console{place}"),
        };
        set(console, alias);
    }
}
