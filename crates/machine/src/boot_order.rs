//! The boot order, as firmware wants it: a line a device, a path in Open Firmware's style.

use device::pci::spec;
use devices::catalog::Category;

use crate::parts::{Parts, Plugged};

/// The file's contents: the devices with a boot index, lowest first. None when none has one.
pub fn lines(parts: &Parts, kernel_rom: Option<&str>) -> Option<Vec<u8>> {
    let mut entries: Vec<(i64, String)> = Vec::new();
    for plugged in parts.all() {
        let index = plugged.properties.signed("bootindex").or_else(|| {
            plugged.properties.unsigned("bootindex").and_then(|index| i64::try_from(index).ok())
        });
        let Some(index) = index.filter(|index| *index >= 0) else { continue };
        entries.extend(path(parts, plugged).map(|path| (index, path)));
    }
    entries.sort();
    let kernel = kernel_rom.map(|rom| format!("/rom@genroms/{rom}"));
    let lines: Vec<String> =
        kernel.into_iter().chain(entries.into_iter().map(|(_, path)| path)).collect();
    if lines.is_empty() {
        return None;
    }
    let mut file = lines.join("\n").into_bytes();
    file.push(0);
    Some(file)
}

/// The path of what is booted from on a device.
fn path(parts: &Parts, plugged: &Plugged) -> Option<String> {
    if plugged.address.is_some() {
        let end = match plugged.model.category {
            Category::Storage => "disk@0,0",
            Category::Network => "ethernet-phy@0",
            _ => return node(parts, plugged),
        };
        return Some(format!("{}/{end}", node(parts, plugged)?));
    }
    let parent = parts.owner_of(&plugged.bus)?;
    let number: u32 = plugged.bus.rsplit('.').next()?.parse().ok()?;
    let unit = plugged.properties.unsigned("unit").unwrap_or(0);
    Some(format!("{}/drive@{number:x}/disk@{unit:x}", node(parts, parent)?))
}

/// The path of a PCI function.
fn node(parts: &Parts, plugged: &Plugged) -> Option<String> {
    let address = plugged.address?;
    let connection = plugged.pci_connection()?;
    let class = connection.config_read(spec::CLASS + 1, 2);
    let name = match class {
        0x0100 => "scsi".to_owned(),
        0x0101 => "ide".to_owned(),
        0x0200 => "ethernet".to_owned(),
        0x0300 => "display".to_owned(),
        0x0604 => "pci-bridge".to_owned(),
        0x0c03 => "usb".to_owned(),
        _ => {
            let identity = connection.config_read(spec::VENDOR, 4);
            format!("pci{:x},{:x}", identity & 0xffff, identity >> 16)
        }
    };
    let above = match parts.owner_of(&plugged.bus) {
        Some(bridge) => node(parts, bridge)?,
        None => "/pci@i0cf8".to_owned(),
    };
    let function = match address.function {
        0 => String::new(),
        function => format!(",{function:x}"),
    };
    Some(format!("{above}/{name}@{:x}{function}", address.slot))
}
