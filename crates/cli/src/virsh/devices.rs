//! Devices that come and go: described by a file, or by options.

use libvirt_compat::rpc::types::Domain;
use libvirt_compat::xml::Element;

use super::domain::{affected, document_of};
use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, doing, read, unserved};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "attach-device",
        syntax: "<domain> <file> [--persistent] [--config] [--live] [--current]",
        summary: "attach device from an XML file",
        run: |shell, given| from_file(shell, given, "attach", Change::Attach),
    },
    Command {
        name: "attach-disk",
        syntax: "<domain> <source> <target> [--targetbus <string>] [--driver <string>] [--subdriver <string>] [--iothread <string>] [--cache <string>] [--io <string>] [--type <string>] [--mode <string>] [--sourcetype <string>] [--serial <string>] [--wwn <string>] [--alias <string>] [--rawio] [--address <string>] [--multifunction] [--print-xml] [--source-protocol <string>] [--source-host-name <string>] [--source-host-transport <string>] [--source-host-socket <string>] [--persistent] [--config] [--live] [--current]",
        summary: "attach disk device",
        run: attach_disk,
    },
    Command {
        name: "attach-interface",
        syntax: "<domain> <type> <source> [--target <string>] [--mac <string>] [--script <string>] [--model <string>] [--alias <string>] [--inbound <string>] [--outbound <string>] [--persistent] [--config] [--live] [--current] [--print-xml] [--managed]",
        summary: "attach network interface",
        run: attach_interface,
    },
    Command {
        name: "change-media",
        syntax: "<domain> <path> [<source>] [--eject] [--insert] [--update] [--current] [--live] [--config] [--force] [--print-xml] [--block]",
        summary: "Change media of CD or floppy drive",
        run: change_media,
    },
    Command {
        name: "detach-device",
        syntax: "<domain> <file> [--persistent] [--config] [--live] [--current]",
        summary: "detach device from an XML file",
        run: |shell, given| from_file(shell, given, "detach", Change::Detach),
    },
    Command {
        name: "detach-device-alias",
        syntax: "<domain> <alias> [--config] [--live] [--current]",
        summary: "detach device from an alias",
        run: |shell, given| {
            shell.domain(given)?;
            let alias = given.text("alias").unwrap_or_default();
            let mut trouble = unserved("virDomainDetachDeviceAlias");
            trouble.0.insert(0, format!("Failed to detach device with alias {alias}"));
            Err(trouble)
        },
    },
    Command {
        name: "detach-disk",
        syntax: "<domain> <target> [--persistent] [--config] [--live] [--current] [--print-xml]",
        summary: "detach disk device",
        run: detach_disk,
    },
    Command {
        name: "detach-interface",
        syntax: "<domain> <type> [--mac <string>] [--persistent] [--config] [--live] [--current] [--print-xml]",
        summary: "detach network interface",
        run: detach_interface,
    },
    Command {
        name: "domif-setlink",
        syntax: "<domain> <interface> <state> [--config] [--print-xml]",
        summary: "set link state of a virtual interface",
        run: set_link,
    },
    Command {
        name: "update-device",
        syntax: "<domain> <file> [--persistent] [--config] [--live] [--current] [--force]",
        summary: "update device from an XML file",
        run: |shell, given| from_file(shell, given, "update", Change::Update),
    },
];

#[derive(Clone, Copy)]
enum Change {
    Attach,
    Detach,
    Update,
}

/// What a change of devices acts on.
fn flags(given: &Given, domain: &Domain) -> Result<u32, Trouble> {
    given.exclusive(&[("persistent", "current"), ("current", "live"), ("current", "config")])?;
    let mut flags = affected(given);
    if given.has("persistent") {
        flags |= 2 | u32::from(domain.id >= 0);
    }
    Ok(flags)
}

fn apply(
    shell: &mut Shell,
    domain: Domain,
    change: Change,
    xml: String,
    flags: u32,
    given: &Given,
) -> libvirt_compat::Result<()> {
    let client = &mut shell.connection.client;
    // Without any word about it, the calls without flags are made, which only a running one takes.
    let is_plain = flags == 0 && !given.has("current");
    match change {
        Change::Attach if is_plain => client.domain_attach_device(domain, xml),
        Change::Detach if is_plain => client.domain_detach_device(domain, xml),
        Change::Attach => client.domain_attach_device_flags(domain, xml, flags),
        Change::Detach => client.domain_detach_device_flags(domain, xml, flags),
        Change::Update => client.domain_update_device_flags(domain, xml, flags),
    }
}

fn from_file(shell: &mut Shell, given: &Given, verb: &str, change: Change) -> Outcome {
    let domain = shell.domain(given)?;
    /// `VIR_DOMAIN_DEVICE_MODIFY_FORCE`.
    const FORCE: u32 = 4;
    let flags = flags(given, &domain)? | if given.has("force") { FORCE } else { 0 };
    let file = given.text("file").unwrap_or_default();
    let done = apply(shell, domain, change, read(file)?, flags, given);
    doing(format!("Failed to {verb} device from {file}"), done)?;
    let participle = if verb == "update" { "updated" } else { &format!("{verb}ed") };
    shell.extra(format!("Device {participle} successfully\n"))
}

/// A device in a document, from options that stand for its attributes.
fn with_options(mut element: Element, given: &Given, options: &[(&str, &str)]) -> Option<Element> {
    let mut is_any = false;
    for (option, attribute) in options {
        if let Some(text) = given.text(option) {
            element.set(attribute, text);
            is_any = true;
        }
    }
    is_any.then_some(element)
}

fn attach_disk(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let flags = flags(given, &domain)?;
    let disk = disk(given)?;
    if given.has("print-xml") {
        return Ok(disk.to_xml());
    }
    let done = apply(shell, domain, Change::Attach, disk.to_xml(), flags, given);
    doing("Failed to attach disk", done)?;
    shell.extra("Disk attached successfully\n".to_owned())
}

fn is_block_device(path: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|data| data.file_type().is_block_device())
}

fn disk(given: &Given) -> Result<Element, Trouble> {
    let mode = given.text("mode");
    if let Some(mode) = mode.filter(|mode| !["readonly", "shareable"].contains(mode)) {
        return Err(Trouble::new(format!("No support for {mode} in command 'attach-disk'")));
    }
    let path = given.text("source").unwrap_or_default();
    let kind = match given.text("sourcetype") {
        None if is_block_device(path) => "block",
        None => "file",
        Some(kind @ ("file" | "block" | "network")) => kind,
        Some(kind) => return Err(Trouble::new(format!("Unknown source type: '{kind}'"))),
    };
    let mut disk = Element::new("disk").with("type", kind);
    if let Some(device) = given.text("type") {
        disk.set("device", device);
    }
    if given.has("rawio") {
        disk.set("rawio", "yes");
    }
    const DRIVER: &[(&str, &str)] = &[
        ("driver", "name"),
        ("subdriver", "type"),
        ("iothread", "iothread"),
        ("cache", "cache"),
        ("io", "io"),
    ];
    if let Some(driver) = with_options(Element::new("driver"), given, DRIVER) {
        disk.push(driver);
    }
    disk.push(source(given, kind, path));
    let target = given.text("target").unwrap_or_default();
    let mut place = Element::new("target").with("dev", target);
    if let Some(bus) = given.text("targetbus") {
        place.set("bus", bus);
    }
    disk.push(place);
    if let Some(mode) = mode {
        disk.push(Element::new(mode));
    }
    for name in ["serial", "wwn"] {
        if let Some(text) = given.text(name) {
            disk.push(Element::with_text(name, text));
        }
    }
    if let Some(alias) = given.text("alias") {
        disk.push(Element::new("alias").with("name", alias));
    }
    if let Some(text) = given.text("address") {
        disk.push(address(text, target, given.has("multifunction"))?);
    }
    Ok(disk)
}

fn source(given: &Given, kind: &str, path: &str) -> Element {
    let source = Element::new("source");
    if kind != "network" {
        return source.with(if kind == "block" { "dev" } else { "file" }, path);
    }
    const HOST: &[(&str, &str)] =
        &[("source-host-transport", "transport"), ("source-host-socket", "socket")];
    let mut source = match given.text("source-protocol") {
        Some(protocol) => source.with("protocol", protocol).with("name", path),
        None => source.with("name", path),
    };
    let mut host = Element::new("host");
    let name = given.text("source-host-name");
    if let Some(name) = name {
        // An IPv6 address has colons of its own.
        match name.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']')) {
            Some((name, port)) => host = host.with("name", name).with("port", port),
            None => host.set("name", name),
        }
    }
    match with_options(host.clone(), given, HOST) {
        Some(host) => source.push(host),
        None if name.is_some() => source.push(host),
        None => {}
    }
    source
}

/// `pci:0.0.5.0`, `scsi:0.0.1`, `ide:0.1.0`, `usb:1.2` as an element.
fn address(text: &str, target: &str, multifunction: bool) -> Result<Element, Trouble> {
    let invalid = || Trouble::new("Invalid address.");
    let (kind, numbers) = text.split_once(':').ok_or_else(invalid)?;
    let base = if kind == "pci" { 16 } else { 10 };
    let numbers = numbers.split('.').map(|number| u32::from_str_radix(number, base));
    let numbers: Vec<u32> = numbers.collect::<Result<_, _>>().map_err(|_| invalid())?;
    let expected = match target.get(..2) {
        Some("vd") => (&["pci", "ccw"][..], "a pci:0000.00.00.00 or ccw:00.0.0000"),
        Some("sd") => {
            (&["scsi", "usb", "sata"][..], "a scsi:00.00.00 or usb:00.00 or sata:00.00.00")
        }
        Some("hd") => (&["ide"][..], "an ide:00.00.00"),
        _ => (&["pci", "ccw", "scsi", "usb", "sata", "ide"][..], ""),
    };
    let element = Element::new("address");
    let element = match (kind, numbers.as_slice()) {
        ("pci", [domain, bus, slot, function]) => {
            let element = element
                .with("type", "pci")
                .with("domain", format!("0x{domain:04x}"))
                .with("bus", format!("0x{bus:02x}"))
                .with("slot", format!("0x{slot:02x}"))
                .with("function", format!("0x{function:x}"));
            if multifunction { element.with("multifunction", "on") } else { element }
        }
        ("scsi" | "sata" | "ide", [controller, bus, unit]) => element
            .with("type", "drive")
            .with("controller", controller)
            .with("bus", bus)
            .with("unit", unit),
        ("usb", [bus, port]) => element.with("type", "usb").with("bus", bus).with("port", port),
        ("ccw", [cssid, ssid, number]) => element
            .with("type", "ccw")
            .with("cssid", format!("0x{cssid:02x}"))
            .with("ssid", format!("0x{ssid:01x}"))
            .with("devno", format!("0x{number:04x}")),
        _ => return Err(invalid()),
    };
    if !expected.0.contains(&kind) {
        return Err(Trouble::new(format!("expecting {} address.", expected.1)));
    }
    Ok(element)
}

/// What a command that names a device finds in the document of what it acts on.
fn devices(shell: &mut Shell, domain: &Domain, given: &Given) -> Result<Vec<Element>, Trouble> {
    let is_persistent = given.has("config") || (given.has("persistent") && domain.id < 0);
    let document = document_of(shell, domain.clone(), if is_persistent { 2 } else { 0 })?;
    Ok(document.child("devices").into_iter().flat_map(Element::elements).cloned().collect())
}

/// Where a disk's content lies.
fn source_of(disk: &Element) -> Option<&str> {
    let source = disk.child("source")?;
    ["file", "dev", "dir", "name"].iter().find_map(|name| source.attribute(name))
}

fn find_disk(devices: Vec<Element>, path: &str, is_removable: bool) -> Result<Element, Trouble> {
    let is_it = |disk: &Element| {
        let kind = disk.attribute("device").unwrap_or("disk");
        disk.name == "disk"
            && (!is_removable || ["cdrom", "floppy"].contains(&kind))
            && (disk.attribute_at("target", "dev") == Some(path) || source_of(disk) == Some(path))
    };
    devices
        .into_iter()
        .find(is_it)
        .ok_or_else(|| Trouble::new(format!("No disk found whose source path or target is {path}")))
}

fn detach_disk(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let flags = flags(given, &domain)?;
    let target = given.text("target").unwrap_or_default();
    let mut disk = find_disk(devices(shell, &domain, given)?, target, false)?;
    disk.remove(|part| part.name == "backingStore");
    if given.has("print-xml") {
        return Ok(disk.to_xml());
    }
    let done = apply(shell, domain, Change::Detach, disk.to_xml(), flags, given);
    doing("Failed to detach disk", done)?;
    shell.extra("Disk detached successfully\n".to_owned())
}

/// `average[,peak[,burst[,floor]]]`.
fn rate(name: &str, text: &str) -> Result<Element, Trouble> {
    const FIELDS: &[&str] = &["average", "peak", "burst", "floor"];
    let words: Vec<&str> = text.split(',').collect();
    if words.len() > FIELDS.len() {
        return Err(Trouble::new(format!("Rate string '{text}' has too many fields")));
    }
    let mut element = Element::new(name);
    for (field, word) in FIELDS.iter().zip(&words) {
        let number: u64 = match word.is_empty() {
            true => 0,
            false => {
                word.parse().map_err(|_| Trouble::new(format!("field '{field}' is malformed")))?
            }
        };
        if number > 0 {
            element.set(field, number);
        }
    }
    let has = |field: &str| element.attribute(field).is_some();
    match name {
        "inbound" if !has("average") && !has("floor") => {
            Err(Trouble::new("either inbound average or floor is mandatory"))
        }
        "outbound" if !has("average") => Err(Trouble::new("outbound average is mandatory")),
        "outbound" if has("floor") => Err(Trouble::new("outbound floor is unsupported yet")),
        _ => Ok(element),
    }
}

fn card(given: &Given) -> Result<Element, Trouble> {
    let kind = given.text("type").unwrap_or_default();
    if !["network", "bridge", "direct", "hostdev"].contains(&kind) {
        return Err(Trouble::new(format!("No support for {kind} in command 'attach-interface'")));
    }
    let mut bandwidth = Element::new("bandwidth");
    for name in ["inbound", "outbound"] {
        if let Some(text) = given.text(name) {
            bandwidth.push(rate(name, text)?);
        }
    }
    let mut card = Element::new("interface").with("type", kind);
    if given.has("managed") {
        card.set("managed", "yes");
    }
    let source = given.text("source").unwrap_or_default();
    card.push(match kind {
        "hostdev" => {
            let wrong = || {
                let text = format!("cannot parse pci address '{source}' for network interface");
                Trouble::new(text)
            };
            if source.split(':').count() != 3 {
                return Err(wrong());
            }
            let dotted = format!("pci:{}", source.replace(':', "."));
            Element::new("source").with_child(address(&dotted, "", false).map_err(|_| wrong())?)
        }
        "network" | "bridge" => Element::new("source").with(kind, source),
        _ => Element::new("source").with("dev", source),
    });
    for (option, name, attribute) in [
        ("target", "target", "dev"),
        ("mac", "mac", "address"),
        ("script", "script", "path"),
        ("model", "model", "type"),
        ("alias", "alias", "name"),
    ] {
        if let Some(text) = given.text(option) {
            card.push(Element::new(name).with(attribute, text));
        }
    }
    if bandwidth.elements().next().is_some() {
        card.push(bandwidth);
    }
    Ok(card)
}

fn attach_interface(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let flags = flags(given, &domain)?;
    let card = card(given)?;
    if given.has("print-xml") {
        return Ok(card.to_xml());
    }
    let done = apply(shell, domain, Change::Attach, card.to_xml(), flags, given);
    doing("Failed to attach interface", done)?;
    shell.extra("Interface attached successfully\n".to_owned())
}

fn find_card(domain_cards: Vec<Element>, given: &Given) -> Result<Element, Trouble> {
    let failed = |text: String| Trouble(vec![text, "Failed to detach interface".to_owned()]);
    let kind = given.text("type").unwrap_or_default();
    let is_it = |card: &Element| card.name == "interface" && card.is("type", kind);
    let mut found: Vec<Element> = domain_cards.into_iter().filter(is_it).collect();
    let Some(mac) = given.text("mac") else {
        return match found.len() {
            0 => Err(failed(format!("No interface found whose type is {kind}"))),
            1 => Ok(found.remove(0)),
            count => Err(failed(format!(
                "Domain has {count} interfaces. Please specify which one to detach using --mac"
            ))),
        };
    };
    let has_mac = |card: &Element| {
        card.attribute_at("mac", "address").is_some_and(|own| own.eq_ignore_ascii_case(mac))
    };
    match found.is_empty() {
        true => Err(failed(format!("No interface found whose type is {kind}"))),
        false => found
            .into_iter()
            .find(has_mac)
            .ok_or_else(|| failed(format!("No interface with MAC address {mac} was found"))),
    }
}

fn detach_interface(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let flags = flags(given, &domain)?;
    let card = find_card(devices(shell, &domain, given)?, given)?;
    if given.has("print-xml") {
        return Ok(card.to_xml());
    }
    let done = apply(shell, domain, Change::Detach, card.to_xml(), flags, given);
    doing("Failed to detach interface", done)?;
    shell.extra("Interface detached successfully\n".to_owned())
}

fn change_media(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[
        ("eject", "insert"),
        ("eject", "update"),
        ("insert", "update"),
        ("eject", "block"),
        ("current", "live"),
        ("current", "config"),
    ])?;
    let domain = shell.domain(given)?;
    let path = given.text("path").unwrap_or_default();
    let new = given.text("source");
    let eject = given.has("eject");
    let (verb, done) = match (eject, given.has("insert")) {
        (true, _) => ("eject", "ejected"),
        (_, true) => ("insert", "inserted"),
        _ => ("update", "updated"),
    };
    if !eject && new.is_none() {
        return Err(Trouble::new("New disk media source was not specified"));
    }
    let mut disk = find_disk(devices(shell, &domain, given)?, path, true)?;
    let old = source_of(&disk).map(str::to_owned);
    if eject && old.is_none() {
        return Err(Trouble::new(format!("The disk device '{path}' doesn't have media")));
    }
    if let Some(old) = old.filter(|_| verb == "insert") {
        let text = format!("The disk device '{path}' already has media");
        let _ = old;
        return Err(Trouble::new(text));
    }
    disk.remove(|part| part.name == "source");
    if let Some(new) = new.filter(|_| !eject) {
        let is_block = given.has("block") || is_block_device(new);
        disk.set("type", if is_block { "block" } else { "file" });
        disk.push(Element::new("source").with(if is_block { "dev" } else { "file" }, new));
    }
    if given.has("print-xml") {
        return Ok(disk.to_xml());
    }
    const FORCE: u32 = 4;
    let flags = affected(given) | if given.has("force") { FORCE } else { 0 };
    let changed = apply(shell, domain, Change::Update, disk.to_xml(), flags, given);
    doing(format!("Failed to complete action {verb} on media"), changed)?;
    Ok(format!("Successfully {done} media."))
}

fn set_link(shell: &mut Shell, given: &Given) -> Outcome {
    let state = given.text("state").unwrap_or_default();
    if !["up", "down"].contains(&state) {
        return Err(Trouble::new(format!("invalid link state '{state}'")));
    }
    let domain = shell.domain(given)?;
    let interface = given.text("interface").unwrap_or_default();
    let devices = devices(shell, &domain, given)?;
    let mut card = find_interface(devices, interface)
        .ok_or_else(|| Trouble::new(format!("interface '{interface}' not found")))?;
    card.ensure("link").set("state", state);
    if given.has("print-xml") {
        return Ok(card.to_xml());
    }
    // VIR_DOMAIN_AFFECT_CONFIG and VIR_DOMAIN_AFFECT_LIVE.
    let flags = if given.has("config") || domain.id < 0 { 2 } else { 1 };
    let done = apply(shell, domain, Change::Update, card.to_xml(), flags, given);
    doing("Failed to update interface link state", done)?;
    shell.extra("Device updated successfully\n".to_owned())
}

/// A card by its MAC address or the name of its device on the host.
pub fn find_interface(devices: Vec<Element>, called: &str) -> Option<Element> {
    devices.into_iter().find(|card| {
        let mac = card.attribute_at("mac", "address");
        card.name == "interface"
            && (card.attribute_at("target", "dev") == Some(called)
                || mac.is_some_and(|mac| mac.eq_ignore_ascii_case(called)))
    })
}
