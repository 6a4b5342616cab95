//! The machine's buses, addresses and drives: `query-pci`, and what people see of them.

use std::fmt::Write;
use std::sync::Arc;

use machine::{AddressSpace, Owner, PciBar, PciBridge, PciDevice, PropertyValue};
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, plain};
use crate::emulator::Emulator;

pub const COMMANDS: &[Command] = &[plain("query-pci", "{}", "[PciInfo]", pci)];

type Result<T> = std::result::Result<T, String>;

/// Classes by QEMU's words.
const CLASSES: &[(u16, &str)] = &[
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0106, "SATA controller"),
    (0x0180, "Storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0280, "Network controller"),
    (0x0300, "VGA controller"),
    (0x0380, "Display controller"),
    (0x0401, "Audio controller"),
    (0x0403, "Audio controller"),
    (0x0500, "RAM controller"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0604, "PCI bridge"),
    (0x0680, "Bridge"),
    (0x0700, "Serial port"),
    (0x0c03, "USB controller"),
    (0x0c05, "SMBus"),
];

fn class_name(class: u16) -> Option<&'static str> {
    CLASSES.iter().find(|(number, _)| *number == class).map(|(_, name)| *name)
}

fn described(device: &PciDevice) -> Value {
    let (vendor, number) = device.vendor;
    let mut id = json!({"vendor": vendor, "device": number});
    if device.bridge.is_none() {
        (id["subsystem-vendor"], id["subsystem"]) =
            (device.subsystem.0.into(), device.subsystem.1.into());
    }
    let mut class = json!({"class": device.class});
    if let Some(name) = class_name(device.class) {
        class["desc"] = name.into();
    }
    let region = |bar: &PciBar| {
        let kind = if bar.is_io { "io" } else { "memory" };
        let address: Value = bar.base.map_or((-1).into(), Value::from);
        let mut region =
            json!({"bar": bar.index, "type": kind, "address": address, "size": bar.bytes});
        if !bar.is_io {
            (region["prefetch"], region["mem_type_64"]) =
                (bar.prefetchable.into(), bar.is_wide.into());
        }
        region
    };
    let mut shown = json!({"bus": device.bus, "slot": device.slot, "function": device.function,
        "class_info": class, "id": id, "irq_pin": device.interrupt.1, "qdev_id": device.id,
        "regions": device.bars.iter().map(region).collect::<Vec<_>>()});
    if device.interrupt.1 != 0 {
        shown["irq"] = device.interrupt.0.into();
    }
    if let Some(PciBridge { buses, ports, memory, prefetchable, devices }) = &device.bridge {
        let range = |(base, limit): (u64, u64)| json!({"base": base, "limit": limit});
        let bus = json!({"number": buses.0, "secondary": buses.1, "subordinate": buses.2,
            "io_range": range(*ports), "memory_range": range(*memory),
            "prefetchable_range": range(*prefetchable)});
        shown["pci_bridge"] = json!({"bus": bus});
        if !devices.is_empty() {
            shown["pci_bridge"]["devices"] = devices.iter().map(described).collect();
        }
    }
    shown
}

fn pci(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let devices: Vec<Value> = emulator.machine.pci_devices().iter().map(described).collect();
    Ok(json!([{"bus": 0, "devices": devices}]))
}

/// `info pci`.
pub fn info_pci(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    let mut text = String::new();
    emulator.machine.pci_devices().iter().for_each(|device| pci_lines(device, &mut text));
    Ok(text)
}

fn pci_lines(device: &PciDevice, text: &mut String) {
    let PciDevice { bus, slot, function, class, vendor, subsystem, interrupt, id, .. } = device;
    _ = writeln!(text, "  Bus {bus:2}, device {slot:3}, function {function}:");
    let name = class_name(*class).map_or_else(|| format!("Class {class:04}"), str::to_owned);
    _ = writeln!(text, "    {name}: PCI device {:04x}:{:04x}", vendor.0, vendor.1);
    if device.bridge.is_none() {
        _ = writeln!(text, "      PCI subsystem {:04x}:{:04x}", subsystem.0, subsystem.1);
    }
    if interrupt.1 != 0 {
        let pin = char::from(b'A' + (interrupt.1 - 1) % 4);
        _ = writeln!(text, "      IRQ {}, pin {pin}", interrupt.0);
    }
    if let Some(PciBridge { buses, ports, memory, prefetchable, .. }) = &device.bridge {
        _ = writeln!(text, "      BUS {}.", buses.0);
        _ = writeln!(text, "      secondary bus {}.", buses.1);
        _ = writeln!(text, "      subordinate bus {}.", buses.2);
        _ = writeln!(text, "      IO range [{:#06x}, {:#06x}]", ports.0, ports.1);
        _ = writeln!(text, "      memory range [{:#010x}, {:#010x}]", memory.0, memory.1);
        let (base, limit) = prefetchable;
        _ = writeln!(text, "      prefetchable memory range [{base:#010x}, {limit:#010x}]");
    }
    for bar in &device.bars {
        let kind = match (bar.is_io, bar.is_wide, bar.prefetchable) {
            (true, ..) => "I/O".to_owned(),
            (_, wide, prefetchable) => {
                let bits = if wide { 64 } else { 32 };
                format!("{bits} bit {}memory", if prefetchable { "prefetchable " } else { "" })
            }
        };
        _ = match bar.base {
            None => writeln!(text, "      BAR{}: {kind} (not mapped)", bar.index),
            Some(base) => {
                let (last, wide) = (base + (bar.bytes - 1), if bar.is_io { 6 } else { 10 });
                writeln!(
                    text,
                    "      BAR{}: {kind} at {base:#0wide$x} [{last:#0wide$x}]",
                    bar.index
                )
            }
        };
    }
    _ = writeln!(text, "      id \"{id}\"");
    if let Some(bridge) = &device.bridge {
        bridge.devices.iter().for_each(|device| pci_lines(device, text));
    }
}

fn shown(value: &PropertyValue) -> String {
    match value {
        PropertyValue::Bool(on) => on.to_string(),
        PropertyValue::Unsigned(number) => format!("{number} ({number:#x})"),
        PropertyValue::Signed(number) => format!("{number} ({number:#x})"),
        PropertyValue::Text(text) => format!("\"{text}\""),
        PropertyValue::Mac(mac) => {
            let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\"{}\"", bytes.join(":"))
        }
        PropertyValue::PciAddress(slot, function) => format!("{slot:02x}.{function}"),
        PropertyValue::List(list) => {
            let list: Vec<String> = list.iter().map(shown).collect();
            format!("[{}]", list.join(", "))
        }
    }
}

/// `info qtree`: what is plugged in, bus by bus.
pub fn info_qtree(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    emulator.machine.with_parts(|parts| {
        let mut text = String::from("bus: main-system-bus\n  type System\n");
        let names: Vec<&str> = parts.iter().map(|part| part.bus.as_str()).collect();
        // Buses of the board are those that no part opens.
        let opens = |bus: &str| parts.iter().any(|part| part.bus_names().any(|own| own == bus));
        let mut roots: Vec<&str> = names.iter().copied().filter(|bus| !opens(bus)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots.iter().for_each(|bus| bus_lines(parts, bus, 2, &mut text));
        Ok(text)
    })
}

/// Buses in buses: no deeper.
const DEPTH_MAX: usize = 64;

fn bus_lines(parts: &[machine::Plugged], bus: &str, indent: usize, text: &mut String) {
    if indent > DEPTH_MAX {
        return;
    }
    if !bus.is_empty() {
        _ = writeln!(text, "{:indent$}bus: {bus}", "");
    }
    for part in parts.iter().filter(|part| part.bus == bus) {
        let id = if part.id.starts_with('#') { "" } else { &part.id };
        let (inner, deeper) = (indent + 2, indent + 4);
        _ = writeln!(text, "{:inner$}dev: {}, id \"{id}\"", "", part.model.name);
        for (name, value) in part.properties.iter() {
            _ = writeln!(text, "{:deeper$}{name} = {}", "", shown(value));
        }
        for own in part.bus_names() {
            bus_lines(parts, own, deeper, text);
        }
    }
}

/// `info mtree [-f]`: who answers at which addresses.
pub fn info_mtree(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let spaces = [("memory", emulator.machine.memory()), ("I/O", emulator.machine.ports())];
    let flat = line.split_whitespace().any(|word| word == "-f");
    let mut text = String::new();
    for (name, space) in spaces {
        _ = writeln!(text, "address-space: {name}");
        match flat {
            true => flat_lines(&space, &mut text),
            false => region_lines(&space, &mut text),
        }
        text.push('\n');
    }
    Ok(text)
}

fn kind(owner: &Owner) -> &'static str {
    match owner {
        Owner::Ram(_) => "ram",
        Owner::Rom(_) => "rom",
        Owner::RomDevice(..) => "romd",
        Owner::Io(_) => "i/o",
    }
}

fn region_lines(space: &AddressSpace, text: &mut String) {
    let mut regions = space.regions();
    regions.sort_by_key(|region| (region.start, region.priority));
    for region in regions.iter().filter(|region| region.length > 0) {
        let last = region.start.saturating_add(region.length - 1);
        let off = if region.enabled { "" } else { " [disabled]" };
        let (start, priority, kind) = (region.start, region.priority, kind(&region.owner));
        _ = writeln!(
            text,
            "  {start:016x}-{last:016x} (prio {priority}, {kind}): {}{off}",
            region.name
        );
    }
}

fn flat_lines(space: &AddressSpace, text: &mut String) {
    for range in space.view().ranges() {
        let (start, last, kind) = (range.start, range.last(), kind(&range.owner));
        let name = match &range.owner {
            Owner::Ram(ram) | Owner::Rom(ram) | Owner::RomDevice(ram, _) => match range.offset {
                0 => ram.name().to_owned(),
                offset => format!("{} @{offset:016x}", ram.name()),
            },
            Owner::Io(_) => {
                let here = |region: &machine::Region| {
                    let inside = start.wrapping_sub(region.start) < region.length;
                    region.enabled && inside && region.owner.is(&range.owner)
                };
                let regions = space.regions();
                let found = regions.iter().filter(|region| here(region));
                let found = found.max_by_key(|region| region.priority);
                found.map(|region| region.name.clone()).unwrap_or_default()
            }
        };
        _ = writeln!(text, "  {start:016x}-{last:016x} (prio 0, {kind}): {name}");
    }
}

/// `info block`.
pub fn info_block(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    let drives = super::blocks::drives(emulator, &Arguments::new());
    let drives = drives.map_err(|refusal| refusal.description)?;
    let mut text = String::new();
    for drive in drives.as_array().into_iter().flatten() {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (path, inserted) = (word(&drive["qdev"]), &drive["inserted"]);
        let node = word(&inserted["node-name"]);
        if !text.is_empty() {
            text.push('\n');
        }
        let (device, shown) =
            (word(&drive["device"]), if node.is_empty() { path.clone() } else { node });
        let name = if device.is_empty() { shown } else { format!("{device} ({shown})") };
        if inserted.is_null() {
            _ = writeln!(text, "{name}: [not inserted]");
        } else {
            let read_only = if inserted["ro"] == true { ", read-only" } else { "" };
            let (file, format) = (word(&inserted["file"]), word(&inserted["drv"]));
            _ = writeln!(text, "{name}: {file} ({format}{read_only})");
        }
        _ = writeln!(text, "    Attached to:      {path}");
        if drive["removable"] == true {
            let lock = if drive["locked"] == true { "" } else { "not " };
            let tray = if drive["tray_open"] == true { "open" } else { "closed" };
            _ = writeln!(text, "    Removable device: {lock}locked, tray {tray}");
        }
        if !inserted.is_null() {
            let mode =
                if inserted["cache"]["direct"] == true { "writeback, direct" } else { "writeback" };
            _ = writeln!(text, "    Cache mode:       {mode}");
        }
    }
    Ok(text)
}

/// `info blockstats`.
pub fn info_block_statistics(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    const SHOWN: [&str; 11] = [
        "rd_bytes",
        "wr_bytes",
        "rd_operations",
        "wr_operations",
        "flush_operations",
        "wr_total_time_ns",
        "rd_total_time_ns",
        "flush_total_time_ns",
        "rd_merged",
        "wr_merged",
        "idle_time_ns",
    ];
    let drives = super::blocks::statistics(emulator, &Arguments::new());
    let drives = drives.map_err(|refusal| refusal.description)?;
    let mut text = String::new();
    for drive in drives.as_array().into_iter().flatten() {
        let name = ["device", "node-name", "qdev"]
            .into_iter()
            .find_map(|key| drive[key].as_str().filter(|name| !name.is_empty()));
        let stats =
            SHOWN.iter().map(|key| format!("{key}={}", drive["stats"][key].as_u64().unwrap_or(0)));
        let stats: Vec<String> = stats.collect();
        _ = writeln!(text, "{}: {}", name.unwrap_or_default(), stats.join(" "));
    }
    Ok(text)
}

/// `info jit`.
pub fn info_translator(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    let Some(translator) = emulator.machine.translator() else {
        return Ok("Error: JIT information is only available with accel=tcg\n".to_owned());
    };
    let counters = translator.counters();
    Ok(format!("Translation buffer state:\n{counters:#?}\n"))
}

/// `info memory_size_summary`.
pub fn info_memory_size(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    Ok(format!("base memory: {}\nplugged memory: 0\n", emulator.options.board.ram_bytes))
}

/// `info hotpluggable-cpus`.
pub fn info_slots(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    let slots = super::run::slots(emulator, &Arguments::new());
    let slots = slots.map_err(|refusal| refusal.description)?;
    let mut text = String::from("Hotpluggable CPUs:\n");
    for slot in slots.as_array().into_iter().flatten() {
        _ = writeln!(text, "  type: {}", slot["type"]);
        _ = writeln!(text, "  vcpus_count: \"{}\"", slot["vcpus-count"]);
        if let Some(path) = slot.get("qom-path") {
            _ = writeln!(text, "  qom_path: {path}");
        }
        text.push_str("  CPUInstance Properties:\n");
        for name in ["node-id", "socket-id", "die-id", "module-id", "core-id", "thread-id"] {
            if let Some(number) = slot["props"].get(name) {
                _ = writeln!(text, "    {name}: \"{number}\"");
            }
        }
    }
    Ok(text)
}

/// `info qom-tree`: the paths of objects.
pub fn info_objects(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    let mut text = format!("/machine ({}-machine)\n", emulator.options.board.name);
    emulator.machine.with_parts(|parts| {
        for (folder, named) in [("peripheral", true), ("peripheral-anon", false)] {
            _ = writeln!(text, "  /{folder} (container)");
            for part in parts.iter().filter(|part| part.id.starts_with('#') != named) {
                _ = writeln!(text, "    /{} ({})", part.id, part.model.name);
            }
        }
    });
    text.push_str("  /unattached (container)\n");
    for index in 0..emulator.options.board.topology.count {
        _ = writeln!(text, "    /device[{index}] ({})", emulator.processors.type_name());
    }
    Ok(text)
}
