//! What libvirt fills into a definition of the test world: the controllers that devices sit on,
//! the units of disks, a screen for a graphics server, names of network interfaces.

use libvirt_compat::Result;
use libvirt_compat::xml::Element;

use crate::drivers::qemu::{addresses, controllers};

/// Fills in everything.
pub fn fill(domain: &mut Element) -> Result<()> {
    let devices = domain.ensure("devices");
    controllers::number(devices);
    for bus in ["scsi", "fdc", "ide", "sata"] {
        controllers::add_for_disks(devices, bus);
    }
    let on_serial_bus = |device: &Element| {
        matches!(device.name.as_str(), "channel" | "console")
            && device.attribute_at("target", "type") == Some("virtio")
    };
    let has_serial_bus = devices.elements().any(on_serial_bus);
    let has_smartcard = devices.child("smartcard").is_some();
    for (kind, needed) in [("virtio-serial", has_serial_bus), ("ccid", has_smartcard)] {
        if needed && !controllers::has(devices, kind, 0) {
            devices.push(Element::new("controller").with("type", kind).with("index", 0));
        }
    }
    addresses::drives(devices)?;
    if devices.child("graphics").is_some() && devices.child("video").is_none() {
        let model = Element::new("model")
            .with("type", "cirrus")
            .with("vram", 16_384)
            .with("heads", 1)
            .with("primary", "yes");
        devices.push(Element::new("video").with_child(model));
    }
    name_interfaces(devices);
    Ok(())
}

/// `testnet0` and so on, the lowest that is free.
fn name_interfaces(devices: &mut Element) {
    let given = |device: &Element| device.attribute_at("target", "dev").map(str::to_owned);
    let mut taken: Vec<String> = devices.all("interface").filter_map(given).collect();
    for interface in devices.all_mut("interface") {
        if interface.attribute_at("target", "dev").is_none() {
            let free = (0..).map(|number| format!("testnet{number}"));
            let free = free.into_iter().find(|name| !taken.contains(name));
            let name = free.expect("numbers do not run out");
            interface.ensure("target").set("dev", &name);
            taken.push(name);
        }
    }
}
