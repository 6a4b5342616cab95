//! `-device help`, `-device MODEL,help`, `-object help`, `-machine BOARD,help`: lists in the shapes
//! that scripts read.

use std::fmt::Write;

use device::{PropertyKind, PropertyValue};
use machine::catalog::{self, BusKind, Category, Model};
use qemu_compat::system::processors;

use crate::{boards, objects, parts};

/// Headings in their order.
const HEADINGS: &[(Category, &str)] = &[
    (Category::Controller, "Controller/Bridge/Hub"),
    (Category::Usb, "USB"),
    (Category::Storage, "Storage"),
    (Category::Network, "Network"),
    (Category::Input, "Input"),
    (Category::Display, "Display"),
    (Category::Sound, "Sound"),
    (Category::Other, "Misc"),
    (Category::Watchdog, "Watchdog"),
];

fn bus(kind: BusKind) -> Option<&'static str> {
    Some(match kind {
        BusKind::Pci => "PCI",
        BusKind::Isa => "ISA",
        BusKind::Ata => "IDE",
        BusKind::Scsi => "SCSI",
        BusKind::Usb => "usb-bus",
        BusKind::Hda => "HDA",
        BusKind::VirtioSerial => "virtio-serial-bus",
        BusKind::VirtioMmio => "virtio-bus",
        BusKind::Board => return None,
    })
}

fn row(model: &Model) -> String {
    let mut line = format!("name \"{}\"", model.name);
    if let Some(bus) = bus(model.bus) {
        _ = write!(line, ", bus {bus}");
    }
    if let Some(alias) = parts::alias_of(model.name) {
        _ = write!(line, ", alias \"{alias}\"");
    }
    if !model.description.is_empty() {
        _ = write!(line, ", desc \"{}\"", model.description);
    }
    line
}

/// `-device help`.
pub fn devices() -> String {
    let mut sections = Vec::new();
    for (category, heading) in HEADINGS {
        let mut models: Vec<&Model> =
            catalog::models().filter(|model| model.category == *category).collect();
        models.sort_by_key(|model| parts::shown_name(model.name).to_lowercase());
        if !models.is_empty() {
            let rows: String = models.into_iter().map(|model| row(model) + "\n").collect();
            sections.push(format!("{heading} devices:\n{rows}"));
        }
    }
    let mut names: Vec<String> = processors::names().into_iter().map(|model| model.name).collect();
    names.extend(["base", "host", "max"].map(str::to_owned));
    names.sort();
    let rows: String = names.iter().map(|name| format!("name \"{name}-x86_64-cpu\"\n")).collect();
    sections.push(format!("CPU devices:\n{rows}"));
    sections.join("\n")
}

fn kind(kind: PropertyKind) -> &'static str {
    match kind {
        PropertyKind::Bool => "bool",
        PropertyKind::Auto => "OnOffAuto",
        PropertyKind::Unsigned(8) => "uint8",
        PropertyKind::Unsigned(16) => "uint16",
        PropertyKind::Unsigned(32) => "uint32",
        PropertyKind::Unsigned(_) => "uint64",
        PropertyKind::Signed(32) | PropertyKind::BootIndex => "int32",
        PropertyKind::Signed(_) => "int64",
        PropertyKind::Size => "size",
        _ => "str",
    }
}

fn default(value: PropertyValue) -> Option<String> {
    Some(match value {
        PropertyValue::Bool(on) => if on { "on" } else { "off" }.to_owned(),
        PropertyValue::Unsigned(number) => number.to_string(),
        PropertyValue::Signed(number) => number.to_string(),
        PropertyValue::Text(text) => text,
        _ => return None,
    })
}

/// One line of a list of properties.
fn line(name: &str, kind: &str, help: &str, default: Option<String>) -> String {
    let mut head = format!("{name}=<{kind}>");
    if !help.is_empty() || default.is_some() {
        head = format!("{head:<22} - {help}");
    }
    if let Some(default) = default {
        _ = write!(head, " (default: {default})");
    }
    format!("  {head}\n")
}

/// `-device MODEL,help`.
pub fn properties(name: &str) -> Result<String, String> {
    if name.ends_with("-x86_64-cpu") {
        let mut names = processors::usual_names();
        names.dedup();
        let rows: String = names.into_iter().map(|name| line(name, "bool", "", None)).collect();
        return Ok(format!("{name} options:\n{rows}"));
    }
    let model = parts::model(name).ok_or_else(|| format!("Device '{name}' not found"))?;
    let mut rows: Vec<String> = model
        .declared()
        .map(|property| {
            let help = match property.kind {
                PropertyKind::Bool if property.help.is_empty() => "on/off",
                PropertyKind::Auto if property.help.is_empty() => "on/off/auto",
                _ => property.help,
            };
            let default = property.default.and_then(|value| default(value.into()));
            line(property.name, kind(property.kind), help, default)
        })
        .collect();
    rows.sort();
    Ok(format!("{name} options:\n{}", rows.concat()))
}

/// `-object help`.
pub fn objects() -> String {
    let rows: String = objects::KINDS.iter().map(|kind| format!("  {kind}\n")).collect();
    format!("List of user creatable objects:\n{rows}")
}

/// `-machine BOARD,help`: the properties that boards have.
pub fn board(name: &str) -> Result<String, String> {
    const PROPERTIES: &[(&str, &str, &str)] = &[
        ("acpi", "OnOffAuto", "Enable ACPI"),
        ("dump-guest-core", "bool", "Include guest memory in a core dump"),
        ("graphics", "bool", "Set on/off to enable/disable graphics emulation"),
        ("hpet", "bool", "Enable/disable high precision event timer emulation"),
        ("i8042", "bool", "Enable/disable Intel 8042 PS/2 controller emulation"),
        ("mem-merge", "bool", "Enable/disable memory merge support"),
        ("memory-backend", "string", "Set RAM backend. Valid value is ID of hostmem based backend"),
        ("pflash0", "string", "Node name or ID of a block device to use as a backend"),
        ("pflash1", "string", "Node name or ID of a block device to use as a backend"),
        ("smm", "OnOffAuto", "Enable SMM"),
        ("usb", "bool", "Set on/off to enable/disable usb"),
        ("vmport", "OnOffAuto", "Enable vmport (pc & q35)"),
    ];
    let full = boards::full_name(name);
    let full = full.ok_or_else(|| format!("unsupported machine type: \"{name}\""))?;
    let rows: String =
        PROPERTIES.iter().map(|(name, kind, help)| line(name, kind, help, None)).collect();
    Ok(format!("{full}-machine options:\n{rows}"))
}
