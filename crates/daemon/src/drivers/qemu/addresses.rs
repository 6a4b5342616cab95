//! Where devices sit: drive units, USB ports, ports of serial buses, PCI slots.

use std::collections::BTreeSet;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};

use super::controllers::disk_number;

/// A PCI function: bus, slot, function.
type Function = (u32, u8, u8);

/// Gives an address to every device that has none.
pub fn assign(devices: &mut Element, q35: bool) -> Result<()> {
    drives(devices)?;
    usb_ports(devices);
    serial_ports(devices);
    Pci::new(devices, q35)?.assign(devices)
}

/// The same for a device that joins a running machine, which gets no new root port.
pub fn assign_for_one(devices: &mut Element, q35: bool) -> Result<()> {
    drives(devices)?;
    usb_ports(devices);
    serial_ports(devices);
    Pci { spare: false, ..Pci::new(devices, q35)? }.assign(devices)
}

pub fn drives(devices: &mut Element) -> Result<()> {
    let mut taken = BTreeSet::new();
    for disk in devices.all_mut("disk") {
        let bus = disk.attribute_at("target", "bus").unwrap_or_default().to_owned();
        let number = disk_number(disk.attribute_at("target", "dev").unwrap_or_default());
        let (controller, line, unit) = match bus.as_str() {
            "ide" => (number / 4, number % 4 / 2, number % 2),
            "sata" => (number / 6, 0, number % 6),
            "scsi" => (number / 7, 0, number % 7),
            "fdc" => (number / 2, 0, number % 2),
            _ => continue,
        };
        if disk.child("address").is_none() {
            let address = Element::new("address")
                .with("type", "drive")
                .with("controller", controller)
                .with("bus", line)
                .with("target", 0)
                .with("unit", unit);
            disk.push(address);
        }
        let part = |name| disk.attribute_at("address", name).unwrap_or("0").to_owned();
        let own = (bus, part("controller"), part("bus"), part("target"), part("unit"));
        if !taken.insert(own.clone()) {
            let (bus, controller, line, target, unit) = own;
            let text = format!(
                "Found duplicate drive address for disk with target name '{}' controller='{controller}' bus='{line}' target='{target}' unit='{unit}' on bus '{bus}'",
                disk.attribute_at("target", "dev").unwrap_or_default()
            );
            return Err(Error::new(Code::XmlError, text));
        }
    }
    Ok(())
}

fn usb_ports(devices: &mut Element) {
    let mut next = 1;
    for device in devices.elements_mut() {
        let on_usb = (device.name == "input" && device.is("bus", "usb"))
            || (device.name == "disk" && device.attribute_at("target", "bus") == Some("usb"));
        if !on_usb || device.child("address").is_some() {
            continue;
        }
        let address = Element::new("address").with("type", "usb").with("bus", 0);
        device.push(address.with("port", next));
        next += 1;
    }
}

fn serial_ports(devices: &mut Element) {
    let on_bus = |device: &Element| {
        matches!(device.name.as_str(), "channel" | "console")
            && device.attribute_at("target", "type") == Some("virtio")
    };
    let given = |device: &Element| -> Option<u32> {
        device.attribute_at("address", "port").and_then(|port| port.parse().ok())
    };
    let mut taken: BTreeSet<u32> =
        devices.elements().filter(|device| on_bus(device)).filter_map(given).collect();
    for device in devices.elements_mut().filter(|device| on_bus(device)) {
        if device.child("address").is_some() {
            continue;
        }
        let port = (1..).find(|port| !taken.contains(port)).expect("numbers do not run out");
        taken.insert(port);
        let address = Element::new("address")
            .with("type", "virtio-serial")
            .with("controller", 0)
            .with("bus", 0)
            .with("port", port);
        device.push(address);
    }
}

/// A number in an address, written in any base C knows.
pub fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The PCI function that a device names.
pub fn pci_function(device: &Element) -> Option<Function> {
    let address = device.child("address").filter(|address| address.is("type", "pci"))?;
    let part = |name: &str| number(address.attribute(name).unwrap_or("0"));
    let slot = u8::try_from(part("slot")?).ok()?;
    Some((part("bus")?, slot, u8::try_from(part("function")?).ok()?))
}

/// Slots on a conventional bus, and functions in a slot.
const SLOTS: u8 = 32;
const FUNCTIONS: u8 = 8;

struct Pci {
    q35: bool,
    taken: BTreeSet<Function>,
    /// Root ports, by bus number.
    ports: BTreeSet<u32>,
    added: u32,
    /// Whether a port stays free for a device that is plugged in later.
    spare: bool,
}

impl Pci {
    /// Notes what is taken, by definition or by the board.
    fn new(devices: &Element, q35: bool) -> Result<Self> {
        let mut taken = BTreeSet::new();
        for device in devices.elements() {
            let Some(function) = pci_function(device) else { continue };
            if !taken.insert(function) {
                let (bus, slot, function) = function;
                let text = format!(
                    "Attempted double use of PCI Address 0000:{bus:02x}:{slot:02x}.{function:x}"
                );
                return Err(Error::new(Code::XmlError, text));
            }
        }
        // The host bridge, and the multi-function south bridge.
        let fixed: &[Function] = if q35 {
            &[(0, 0, 0), (0, 0x1f, 0), (0, 0x1f, 3)]
        } else {
            &[(0, 0, 0), (0, 1, 0), (0, 1, 3)]
        };
        taken.extend(fixed);
        let ports = devices.all("controller").filter(|controller| {
            controller.is("type", "pci") && controller.is("model", "pcie-root-port")
        });
        let ports = ports.filter_map(|controller| number(controller.attribute("index")?)).collect();
        Ok(Self { q35, taken, ports, added: 0, spare: true })
    }

    fn assign(mut self, devices: &mut Element) -> Result<()> {
        self.board_devices(devices);
        self.root_port_addresses(devices)?;
        type Test = fn(&Element) -> bool;
        const ORDER: [Test; 11] = [
            |d| d.name == "filesystem",
            |d| d.name == "interface",
            |d| d.name == "sound",
            is_pci_controller,
            |d| d.name == "disk" && d.attribute_at("target", "bus") == Some("virtio"),
            |d| d.name == "memballoon" && !d.is("model", "none"),
            |d| d.name == "rng" && d.is("model", "virtio"),
            |d| d.name == "watchdog" && d.is("model", "i6300esb"),
            |d| d.name == "video" && d.attribute_at("model", "type") != Some("none"),
            |d| d.name == "input" && d.is("bus", "virtio"),
            |d| d.name == "vsock",
        ];
        for test in ORDER {
            for device in devices.elements_mut() {
                if test(device) && device.child("address").is_none() {
                    let function = self.choose(device)?;
                    device.push(address(function));
                }
            }
        }
        if self.q35 && self.added > 0 && self.spare {
            self.new_port();
        }
        self.push_new_ports(devices);
        Ok(())
    }

    /// Places that the board fixes.
    fn board_devices(&mut self, devices: &mut Element) {
        let q35 = self.q35;
        let mut first_video = true;
        for device in devices.elements_mut() {
            let fixed = match device.name.as_str() {
                "controller" if device.is("type", "sata") && q35 && device.is("index", "0") => {
                    Some((0, 0x1f, 2))
                }
                "controller" if device.is("type", "ide") && !q35 => Some((0, 1, 1)),
                "controller"
                    if device.is("type", "usb") && device.is("model", "piix3-uhci") && !q35 =>
                {
                    Some((0, 1, 2))
                }
                "video" if device.attribute_at("model", "type") != Some("none") => {
                    let primary = std::mem::replace(&mut first_video, false);
                    primary.then_some((0, if q35 { 1 } else { 2 }, 0))
                }
                "sound" if device.is("model", "ich9") && q35 => Some((0, 0x1b, 0)),
                _ => None,
            };
            let Some(function) = fixed else { continue };
            if device.child("address").is_none() && self.taken.insert(function) {
                device.push(address(function));
            }
        }
    }

    fn choose(&mut self, device: &Element) -> Result<Function> {
        if self.q35 && is_express(device) {
            let free = self.ports.iter().find(|bus| !self.is_used(**bus)).copied();
            let bus = free.unwrap_or_else(|| self.new_port());
            self.taken.insert((bus, 0, 0));
            return Ok((bus, 0, 0));
        }
        self.free_slot()
    }

    fn is_used(&self, bus: u32) -> bool {
        self.taken.range((bus, 0, 0)..=(bus, u8::MAX, u8::MAX)).next().is_some()
    }

    fn free_slot(&mut self) -> Result<Function> {
        let slot = (1..SLOTS)
            .find(|slot| self.taken.range((0, *slot, 0)..=(0, *slot, u8::MAX)).next().is_none());
        let slot =
            slot.ok_or_else(|| Error::new(Code::InternalError, "No more available PCI slots"))?;
        self.taken.insert((0, slot, 0));
        Ok((0, slot, 0))
    }

    fn new_port(&mut self) -> u32 {
        let bus = (1..).find(|bus| !self.ports.contains(bus)).expect("numbers do not run out");
        self.ports.insert(bus);
        self.added += 1;
        bus
    }

    /// Root ports that a definition names without an address, and the targets of all.
    fn root_port_addresses(&mut self, devices: &mut Element) -> Result<()> {
        for controller in devices.all_mut("controller") {
            if !controller.is("model", "pcie-root-port") {
                continue;
            }
            if controller.child("address").is_none() {
                let function = self.port_function()?;
                controller.push(address(function));
            }
            finish_port(controller);
        }
        mark_multifunction(devices);
        Ok(())
    }

    /// The next function for a root port: eight share a slot.
    fn port_function(&mut self) -> Result<Function> {
        let first = self.free_slot_from_ports();
        if let Some(function) = first {
            self.taken.insert(function);
            return Ok(function);
        }
        self.free_slot()
    }

    /// A free function in the last slot that holds nothing but root ports.
    fn free_slot_from_ports(&self) -> Option<Function> {
        let slot = PORT_SLOTS.into_iter().find(|slot| {
            let used = self.taken.range((0, *slot, 0)..=(0, *slot, u8::MAX)).count();
            used < usize::from(FUNCTIONS)
        })?;
        let function = (0..FUNCTIONS).find(|f| !self.taken.contains(&(0, slot, *f)))?;
        Some((0, slot, function))
    }

    fn push_new_ports(&mut self, devices: &mut Element) {
        let known: BTreeSet<u32> = devices
            .all("controller")
            .filter(|controller| controller.is("type", "pci"))
            .filter_map(|controller| number(controller.attribute("index")?))
            .collect();
        for bus in self.ports.clone() {
            if known.contains(&bus) {
                continue;
            }
            let Ok(function) = self.port_function() else { return };
            let mut port = Element::new("controller")
                .with("type", "pci")
                .with("index", bus)
                .with("model", "pcie-root-port");
            port.push(address(function));
            finish_port(&mut port);
            devices.push(port);
        }
        mark_multifunction(devices);
    }
}

/// Slots of the root bus where root ports go: behind the first graphics card.
const PORT_SLOTS: std::ops::Range<u8> = 2..0x1b;

fn finish_port(controller: &mut Element) {
    let index = controller.attribute("index").unwrap_or("1").to_owned();
    controller.ensure("model").set_default("name", "pcie-root-port");
    let Some((_, slot, function)) = pci_function(controller) else { return };
    let target = controller.ensure("target");
    target.set_default("chassis", index);
    target.set_default("port", format!("0x{:x}", u32::from(slot) << 3 | u32::from(function)));
}

fn mark_multifunction(devices: &mut Element) {
    for controller in devices.all_mut("controller") {
        let first = pci_function(controller).is_some_and(|(_, _, function)| function == 0);
        if first && controller.is("model", "pcie-root-port") {
            controller.ensure("address").set_default("multifunction", "on");
        }
    }
}

fn address((bus, slot, function): Function) -> Element {
    Element::new("address")
        .with("type", "pci")
        .with("domain", "0x0000")
        .with("bus", format!("0x{bus:02x}"))
        .with("slot", format!("0x{slot:02x}"))
        .with("function", format!("0x{function:x}"))
}

fn is_pci_controller(device: &Element) -> bool {
    device.name == "controller"
        && matches!(device.attribute("type"), Some("scsi" | "usb" | "virtio-serial" | "sata"))
}

/// Whether a device is at home behind a root port; others sit on the root bus itself.
fn is_express(device: &Element) -> bool {
    let model = |path: &str| device.attribute_at(path, "type").unwrap_or_default();
    match device.name.as_str() {
        "interface" => matches!(model("model"), "virtio" | "e1000e" | "virtio-net-pci" | "igb"),
        "controller" => match device.attribute("type") {
            Some("usb") => device.is("model", "qemu-xhci") || device.is("model", "nec-xhci"),
            Some("scsi") => !device.is("model", "lsilogic"),
            Some("virtio-serial") => true,
            _ => false,
        },
        "sound" | "watchdog" => false,
        "video" => model("model") == "virtio",
        _ => true,
    }
}
