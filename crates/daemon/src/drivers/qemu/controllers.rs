//! Controllers that a definition needs and does not name.

use libvirt_compat::xml::Element;

/// Units on one controller, by bus.
fn units_per_controller(bus: &str) -> u32 {
    match bus {
        "ide" => 4,
        "sata" => 6,
        "scsi" => 7,
        "fdc" => 2,
        _ => 1,
    }
}

/// The number of a disk's target: `vda` is 0, `sdaa` is 26.
pub fn disk_number(target: &str) -> u32 {
    let letters = target.get(2..).unwrap_or_default();
    let letters = if target.starts_with("xvd") { &letters[1..] } else { letters };
    let letters = letters.bytes().take_while(u8::is_ascii_lowercase).take(4);
    let number = letters.fold(0, |number, letter| number * 26 + u32::from(letter - b'a') + 1);
    number.saturating_sub(1)
}

pub fn has(devices: &Element, kind: &str, index: u32) -> bool {
    let index = index.to_string();
    devices.all("controller").any(|controller| {
        controller.is("type", kind) && controller.attribute("index").unwrap_or("0") == index
    })
}

/// Adds what is missing, in libvirt's order.
pub fn add(devices: &mut Element, x86: bool, q35: bool) {
    number(devices);
    let is_usb = |controller: &Element| controller.is("type", "usb");
    if !devices.all("controller").any(is_usb) {
        let model = if q35 || !x86 { "qemu-xhci" } else { "piix3-uhci" };
        let usb = Element::new("controller").with("type", "usb").with("index", 0);
        devices.push(usb.with("model", model));
    }
    for controller in devices.all_mut("controller").filter(|controller| is_usb(controller)) {
        controller.set_default("model", if q35 || !x86 { "qemu-xhci" } else { "piix3-uhci" });
    }
    if q35 && !has(devices, "sata", 0) {
        devices.push(Element::new("controller").with("type", "sata").with("index", 0));
    }
    if !has(devices, "pci", 0) {
        let model = if q35 || !x86 { "pcie-root" } else { "pci-root" };
        let root = Element::new("controller").with("type", "pci").with("index", 0);
        devices.push(root.with("model", model));
    }
    for bus in ["scsi", "fdc", "ide", "sata"] {
        add_for_disks(devices, bus);
    }
    for controller in devices.all_mut("controller") {
        if controller.is("type", "scsi") {
            controller.set_default("model", if q35 { "virtio-scsi" } else { "lsilogic" });
        }
    }
    let needs_serial_bus = devices.elements().any(|device| {
        (device.name == "channel" || device.name == "console")
            && device.attribute_at("target", "type") == Some("virtio")
    });
    if needs_serial_bus && !has(devices, "virtio-serial", 0) {
        let bus = Element::new("controller").with("type", "virtio-serial").with("index", 0);
        devices.push(bus);
    }
}

/// Controllers without an index count up within their kind.
pub fn number(devices: &mut Element) {
    let kinds: Vec<String> = devices
        .all("controller")
        .filter_map(|controller| controller.attribute("type").map(str::to_owned))
        .collect();
    for kind in kinds {
        let mut next = 0;
        for controller in devices.all_mut("controller").filter(|own| own.is("type", &kind)) {
            controller.set_default("index", next);
            let own = controller.attribute("index").and_then(|index| index.parse().ok());
            next = own.unwrap_or(next) + 1;
        }
    }
}

/// Brings controllers of one kind together, in the order of their indices.
pub fn group(devices: &mut Element) {
    let mut kinds: Vec<String> = Vec::new();
    for controller in devices.all("controller") {
        let kind = controller.attribute("type").unwrap_or_default();
        if !kinds.iter().any(|known| known == kind) {
            kinds.push(kind.to_owned());
        }
    }
    let rank = |controller: &Element| {
        let kind = controller.attribute("type").unwrap_or_default();
        let index: u32 = controller.attribute("index").and_then(|i| i.parse().ok()).unwrap_or(0);
        (kinds.iter().position(|known| known == kind), index)
    };
    let mut controllers: Vec<Element> = devices.all("controller").cloned().collect();
    devices.remove(|device| device.name == "controller");
    controllers.sort_by_key(rank);
    controllers.into_iter().for_each(|controller| devices.push(controller));
}

pub fn add_for_disks(devices: &mut Element, bus: &str) {
    let mut highest = None;
    for disk in devices.all("disk").filter(|disk| disk.attribute_at("target", "bus") == Some(bus)) {
        let given = disk.attribute_at("address", "controller").and_then(|text| text.parse().ok());
        let target = disk.attribute_at("target", "dev").unwrap_or_default();
        let index = given.unwrap_or_else(|| disk_number(target) / units_per_controller(bus));
        highest = highest.max(Some(index));
    }
    // More would be a mistake, and each costs a device.
    const CONTROLLERS_MAX: u32 = 64;
    let Some(highest) = highest else { return };
    for index in 0..=highest.min(CONTROLLERS_MAX) {
        if !has(devices, bus, index) {
            devices.push(Element::new("controller").with("type", bus).with("index", index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_count_like_letters() {
        for (target, number) in
            [("vda", 0), ("vdb", 1), ("sdz", 25), ("sdaa", 26), ("hdc", 2), ("x", 0)]
        {
            assert_eq!(disk_number(target), number, "{target}");
        }
    }
}
