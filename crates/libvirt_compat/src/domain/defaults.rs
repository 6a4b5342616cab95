//! What libvirt fills in for every hypervisor, and what it refuses in every document.

use super::{kibibytes, scaled_bytes};
use crate::xml::{Element, parse};
use crate::{Code, Error, Origin, Result, Uuid};

/// What a hypervisor chooses where a document says nothing.
pub struct Defaults<'a> {
    /// Fresh random bytes for UUIDs and MAC addresses.
    pub random: &'a mut dyn FnMut() -> [u8; 16],
    /// `<os><type>` when there is none.
    pub os_type: &'a str,
    /// The types (`qemu`, `kvm`) that the hypervisor runs.
    pub domain_types: &'a [&'a str],
    /// First three bytes of new MAC addresses.
    pub mac_prefix: [u8; 3],
}

/// Parses and completes a domain document.
pub fn complete(text: &str, defaults: &mut Defaults<'_>) -> Result<Element> {
    let mut domain = parse(text, "domain_definition")?;
    if domain.name != "domain" {
        return Err(xml(format!("unexpected root element <{}>, expecting <domain>", domain.name)));
    }
    check_type(&domain, defaults)?;
    name_and_uuid(&mut domain, defaults)?;
    memory(&mut domain)?;
    vcpus(&mut domain)?;
    operating_system(&mut domain, defaults)?;
    clock(&mut domain);
    for (name, action) in
        [("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")]
    {
        if domain.child(name).is_none() {
            domain.push(Element::with_text(name, action));
        }
    }
    domain.remove(|element| element.name == "features" && element.children.is_empty());
    let devices = domain.ensure("devices");
    for device in devices.elements_mut() {
        complete_device(device, defaults)?;
    }
    mirror_console(devices);
    number_by_position(devices);
    super::normal::normalize(&mut domain)?;
    Ok(domain)
}

fn xml(problem: impl Into<String>) -> Error {
    Error::new(Code::XmlError, problem).from(Origin::Domain)
}

fn unsupported(problem: impl Into<String>) -> Error {
    Error::new(Code::ConfigUnsupported, problem).from(Origin::Domain)
}

fn check_type(domain: &Element, defaults: &Defaults<'_>) -> Result<()> {
    let Some(kind) = domain.attribute("type") else {
        return Err(xml("Missing required attribute 'type' in element 'domain'"));
    };
    const ALL: [&str; 17] = [
        "qemu",
        "kqemu",
        "kvm",
        "xen",
        "lxc",
        "uml",
        "openvz",
        "test",
        "vmware",
        "hyperv",
        "vbox",
        "phyp",
        "parallels",
        "bhyve",
        "vz",
        "nvme",
        "hvf",
    ];
    if !ALL.contains(&kind) {
        return Err(xml(format!(
            "Invalid value for attribute 'type' in element 'domain': '{kind}'."
        )));
    }
    if !defaults.domain_types.contains(&kind) {
        return Err(Error::new(
            Code::InvalidArg,
            format!("could not find capabilities for domaintype={kind} "),
        )
        .from(Origin::Capabilities));
    }
    Ok(())
}

fn name_and_uuid(domain: &mut Element, defaults: &mut Defaults<'_>) -> Result<()> {
    let Some(name) = domain.child("name").map(Element::text).filter(|name| !name.is_empty()) else {
        return Err(Error::bare(Code::NoName).from(Origin::Domain));
    };
    check_name(&name)?;
    let uuid = match domain.text_at("uuid") {
        None => Uuid::from_random((defaults.random)()),
        Some(text) => Uuid::parse(&text)
            .ok_or_else(|| Error::new(Code::InternalError, "malformed uuid element"))?,
    };
    domain.ensure("uuid").set_text(uuid);
    if domain.child("title").is_some_and(|title| title.text().contains('\n')) {
        return Err(xml("Domain title can't contain newlines"));
    }
    Ok(())
}

/// Names become file names, so a slash would leave the folder.
fn check_name(name: &str) -> Result<()> {
    if name.contains('/') {
        return Err(xml(format!("name {name} cannot contain '/'")));
    }
    if name.contains('\n') {
        return Err(xml("name cannot contain '\\n'"));
    }
    if matches!(name, "." | "..") || name.len() > 200 {
        return Err(xml(format!("invalid name '{name}'")));
    }
    if name.trim().is_empty() {
        return Err(xml("name must contain at least one non-whitespace character"));
    }
    Ok(())
}

/// The size is the sum of the NUMA cells and memory modules where there are cells.
fn memory(domain: &mut Element) -> Result<()> {
    let mut modules = 0u64;
    for module in domain.child("devices").iter().flat_map(|devices| devices.all("memory")) {
        let target = module.child("target");
        if let Some(size) = target.and_then(|target| target.child("size")) {
            modules = modules.saturating_add(kibibytes(size)?);
        }
    }
    let mut cells = 0u64;
    let numa = domain.child("cpu").and_then(|cpu| cpu.child("numa"));
    for cell in numa.iter().flat_map(|numa| numa.all("cell")) {
        if let Some(size) = cell.attribute("memory") {
            let unit = cell.attribute("unit").unwrap_or("KiB");
            let size = Element::with_text("memory", size).with("unit", unit);
            cells = cells.saturating_add(kibibytes(&size)?);
        }
    }
    let written = domain.child("memory").map(kibibytes).transpose()?.unwrap_or(0);
    let maximum = if cells > 0 { cells.saturating_add(modules) } else { written };
    if maximum < modules {
        return Err(xml("Total size of memory devices exceeds the total memory size"));
    }
    if maximum == modules {
        return Err(xml(
            "Memory size must be specified via <memory> or in the <numa> configuration",
        ));
    }
    let current = domain.child("currentMemory").map(kibibytes).transpose()?.unwrap_or(0);
    let current = if current == 0 { maximum } else { current.min(maximum) };
    for (name, size) in [("memory", maximum), ("currentMemory", current)] {
        let element = domain.ensure(name);
        element.set("unit", "KiB");
        element.set_text(size);
    }
    Ok(())
}

fn vcpus(domain: &mut Element) -> Result<()> {
    let vcpu = domain.ensure("vcpu");
    let text = vcpu.text();
    let text = text.trim();
    let maximum: u32 = if text.is_empty() {
        1
    } else {
        text.parse().map_err(|_| xml("maximum vcpus count must be an integer"))?
    };
    if maximum == 0 {
        return Err(unsupported("invalid maximum number of vCPUs '0'"));
    }
    if let Some(current) = vcpu.attribute("current") {
        let current: u32 =
            current.parse().map_err(|_| xml("current vcpus count must be an integer"))?;
        if current > maximum {
            return Err(xml(format!(
                "maxvcpus must not be less than current vcpus ({maximum} < {current})"
            )));
        }
        if current == maximum {
            vcpu.unset("current");
        }
    }
    vcpu.set_text(maximum);
    vcpu.set_default("placement", "static");
    Ok(())
}

fn operating_system(domain: &mut Element, defaults: &Defaults<'_>) -> Result<()> {
    if domain.child("os").is_none() && domain.child("bootloader").is_none() {
        return Err(xml("an os <type> must be specified"));
    }
    let os = domain.ensure("os");
    let kind = os.ensure("type");
    if kind.text().trim().is_empty() {
        kind.set_text(defaults.os_type);
    }
    let kind = kind.text();
    if kind.trim() != defaults.os_type
        && !matches!(kind.trim(), "hvm" | "xen" | "xenpvh" | "linux" | "exe")
    {
        return Err(Error::new(Code::OsType, kind).from(Origin::Domain));
    }
    Ok(())
}

fn clock(domain: &mut Element) {
    domain.ensure("clock").set_default("offset", "utc");
}

/// Completes one device, in a document or about to be attached.
pub fn complete_device(device: &mut Element, defaults: &mut Defaults<'_>) -> Result<()> {
    match device.name.as_str() {
        "disk" => disk(device),
        "interface" => interface(device, defaults),
        "graphics" => graphics(device),
        "controller" => controller(device),
        "memory" => memory_device(device),
        "serial" => {
            device.set_default("type", "pty");
            Ok(())
        }
        name if name == "emulator" || super::is_device(name) => Ok(()),
        name => Err(unsupported(format!("unknown device type '{name}'"))),
    }
}

fn disk(disk: &mut Element) -> Result<()> {
    disk.set_default("type", "file");
    disk.set_default("device", "disk");
    let kind = disk.attribute("device").unwrap_or_default().to_owned();
    if !matches!(kind.as_str(), "disk" | "cdrom" | "floppy" | "lun") {
        return Err(xml(format!(
            "Invalid value for attribute 'device' in element 'disk': '{kind}'."
        )));
    }
    let source_type = disk.attribute("type").unwrap_or_default();
    if !matches!(
        source_type,
        "file" | "block" | "dir" | "network" | "volume" | "nvme" | "vhostuser"
    ) {
        return Err(xml(format!(
            "Invalid value for attribute 'type' in element 'disk': '{source_type}'."
        )));
    }
    let Some(target) = disk.child("target").and_then(|target| target.attribute("dev")) else {
        let source = disk.child("source").and_then(|source| source.attributes.first());
        let name = source.map(|(_, value)| value.clone()).unwrap_or_default();
        return Err(Error::new(Code::NoTarget, name).from(Origin::Domain));
    };
    if target.contains('/') || target.is_empty() {
        return Err(xml(format!("Invalid harddisk device name: {target}")));
    }
    let bus = default_bus(target, &kind);
    disk.ensure("target").set_default("bus", bus);
    if kind == "cdrom" {
        disk.ensure("readonly");
    }
    let readable = disk.child("source").is_some() || kind != "disk";
    if !readable {
        return Err(unsupported_source(disk));
    }
    // An empty source says nothing.
    disk.remove(|element| {
        element.name == "source" && element.attributes.is_empty() && element.children.is_empty()
    });
    Ok(())
}

fn unsupported_source(disk: &Element) -> Error {
    let target = disk.attribute_at("target", "dev").unwrap_or_default();
    Error::new(Code::NoSource, target).from(Origin::Domain)
}

/// The bus that a disk's target names: `vda` is virtio, `hdc` is IDE.
pub fn default_bus(target: &str, kind: &str) -> &'static str {
    let prefix = target.trim_end_matches(|c: char| c.is_ascii_digit());
    match prefix.get(..2) {
        _ if kind == "floppy" => "fdc",
        Some("fd") => "fdc",
        Some("hd") => "ide",
        Some("sd") => "scsi",
        Some("vd") => "virtio",
        Some("xv") => "xen",
        Some("ub") => "usb",
        _ => "ide",
    }
}

fn interface(interface: &mut Element, defaults: &mut Defaults<'_>) -> Result<()> {
    let Some(kind) = interface.attribute("type") else {
        return Err(xml("Missing required attribute 'type' in element 'interface'"));
    };
    const TYPES: [&str; 14] = [
        "user",
        "ethernet",
        "vhostuser",
        "server",
        "client",
        "mcast",
        "network",
        "bridge",
        "internal",
        "direct",
        "hostdev",
        "udp",
        "vdpa",
        "null",
    ];
    if !TYPES.contains(&kind) {
        return Err(xml(format!(
            "Invalid value for attribute 'type' in element 'interface': '{kind}'."
        )));
    }
    if kind == "network" && interface.attribute_at("source", "network").is_none() {
        return Err(xml("Missing required attribute 'network' in element 'source'"));
    }
    if kind == "bridge" && interface.attribute_at("source", "bridge").is_none() {
        return Err(xml("Missing required attribute 'bridge' in element 'source'"));
    }
    let mac = match interface.attribute_at("mac", "address") {
        Some(mac) => {
            canonical_mac(mac).ok_or_else(|| xml(format!("unable to parse mac address '{mac}'")))?
        }
        None => {
            let [a, b, c] = defaults.mac_prefix;
            let random = (defaults.random)();
            let [d, e, f, ..] = random;
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        }
    };
    interface.ensure("mac").set("address", mac);
    Ok(())
}

fn canonical_mac(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> =
        text.trim().split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let bytes = bytes.filter(|bytes| bytes.len() == 6 && bytes[0] & 1 == 0)?;
    let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(parts.join(":"))
}

fn graphics(graphics: &mut Element) -> Result<()> {
    let Some(kind) = graphics.attribute("type").map(str::to_owned) else {
        return Err(xml("Missing required attribute 'type' in element 'graphics'"));
    };
    if !matches!(kind.as_str(), "vnc" | "spice") {
        return Ok(());
    }
    let by_socket = graphics
        .child("listen")
        .is_some_and(|listen| listen.is("type", "socket") || listen.is("type", "none"));
    if by_socket {
        return Ok(());
    }
    let automatic = match graphics.attribute("port") {
        None | Some("-1") => !graphics.is("autoport", "no"),
        Some(_) => graphics.is("autoport", "yes"),
    };
    if automatic {
        graphics.set("port", "-1");
    }
    if kind == "vnc" {
        graphics.set_default("port", "-1");
    }
    let automatic = if automatic { "yes" } else { "no" };
    if kind == "spice" && automatic == "yes" {
        graphics.unset("port");
        graphics.unset("tlsPort");
    }
    graphics.set("autoport", automatic);
    let address = graphics.attribute("listen").map(str::to_owned);
    if graphics.child("listen").is_none() {
        let mut listen = Element::new("listen").with("type", "address");
        if let Some(address) = &address {
            listen.set("address", address);
        }
        graphics.push(listen);
    } else if let Some(listen) = graphics.child("listen") {
        // The attribute on <graphics> repeats the first listening address.
        if let Some(address) = listen.attribute("address").map(str::to_owned) {
            graphics.set("listen", address);
        }
    }
    Ok(())
}

fn controller(controller: &mut Element) -> Result<()> {
    let Some(kind) = controller.attribute("type") else {
        return Err(xml("Missing required attribute 'type' in element 'controller'"));
    };
    const TYPES: [&str; 10] =
        ["ide", "fdc", "scsi", "sata", "virtio-serial", "ccid", "usb", "pci", "xenbus", "isa"];
    if !TYPES.contains(&kind) {
        return Err(xml(format!(
            "Invalid value for attribute 'type' in element 'controller': '{kind}'."
        )));
    }
    if let Some(index) = controller.attribute("index") {
        index.parse::<u16>().map_err(|_| {
            xml(format!("Invalid value for attribute 'index' in element 'controller': '{index}'. Expected non-negative integer value"))
        })?;
    }
    Ok(())
}

fn memory_device(device: &mut Element) -> Result<()> {
    let Some(size) = device.child_mut("target").and_then(|target| target.child_mut("size")) else {
        return Ok(());
    };
    let value = size.text().trim().parse().map_err(|_| xml("invalid memory device size"))?;
    let bytes = scaled_bytes(value, size.attribute("unit"), 1024)?;
    size.set("unit", "KiB");
    size.set_text(bytes.div_ceil(1024));
    Ok(())
}

/// The first `<serial>` and the first `<console>` are two names of one device.
fn mirror_console(devices: &mut Element) {
    let serial = devices.child("serial").cloned();
    let console = devices.child("console").cloned();
    match (serial, console) {
        (Some(serial), None) => {
            let mut console = Element { name: "console".into(), ..serial };
            console.remove(|element| matches!(element.name.as_str(), "target" | "alias"));
            console.push(Element::new("target").with("type", "serial").with("port", 0));
            devices.push(console);
        }
        (None, Some(console)) => {
            let kind = console.attribute_at("target", "type").unwrap_or("serial");
            if kind != "serial" {
                return;
            }
            let mut serial = Element { name: "serial".into(), ..console };
            serial.remove(|element| element.name == "target");
            serial.push(Element::new("target").with("port", 0));
            devices.push(serial);
        }
        _ => {}
    }
}

/// Ports of character devices count from 0 in the order of the document.
fn number_by_position(devices: &mut Element) {
    for name in ["serial", "parallel", "console"] {
        for (position, device) in devices.all_mut(name).enumerate() {
            let target = device.ensure("target");
            if name == "console" {
                target.set_default("type", "serial");
            }
            target.set_default("port", position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Element> {
        let mut next = 0;
        let mut random = || {
            next += 1;
            [next; 16]
        };
        complete(
            text,
            &mut Defaults {
                random: &mut random,
                os_type: "hvm",
                domain_types: &["qemu"],
                mac_prefix: [0x52, 0x54, 0],
            },
        )
    }

    fn domain(inside: &str) -> String {
        format!(
            "<domain type='qemu'><name>a</name><memory unit='MiB'>1</memory><os><type>hvm</type></os>{inside}</domain>"
        )
    }

    #[test]
    fn a_short_document_gets_what_libvirt_gives_it() {
        let done = run(&domain("<devices><interface type='user'/><serial type='pty'/></devices>"));
        let done = done.unwrap();
        for (path, text) in [
            ("uuid", "01010101-0101-4101-8101-010101010101"),
            ("memory", "1024"),
            ("currentMemory", "1024"),
            ("vcpu", "1"),
            ("on_crash", "destroy"),
        ] {
            assert_eq!(done.text_at(path).as_deref(), Some(text), "{path}");
        }
        assert_eq!(done.attribute_at("clock", "offset"), Some("utc"));
        assert_eq!(
            done.attribute_at("devices/interface/mac", "address"),
            Some("52:54:00:02:02:02")
        );
        assert_eq!(done.attribute_at("devices/console/target", "type"), Some("serial"));
    }

    #[test]
    fn refusals_have_libvirts_texts() {
        for (text, message) in [
            ("<x/>".to_owned(), "XML error: unexpected root element <x>, expecting <domain>"),
            ("<domain type='qemu'/>".to_owned(), "missing name information"),
            (
                domain("<name>x</name>").replace("<name>a</name>", "<name>../a</name>"),
                "XML error: name ../a cannot contain '/'",
            ),
            (
                domain("").replace("<memory unit='MiB'>1</memory>", ""),
                "XML error: Memory size must be specified via <memory> or in the <numa> configuration",
            ),
            (
                domain("<devices><nonsense/></devices>"),
                "unsupported configuration: unknown device type 'nonsense'",
            ),
            (
                domain("<devices><disk><source file='/x'/></disk></devices>"),
                "missing target information for device /x",
            ),
        ] {
            assert_eq!(run(&text).unwrap_err().message(), message);
        }
    }
}
