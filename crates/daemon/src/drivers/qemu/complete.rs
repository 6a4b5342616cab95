//! What libvirt's QEMU driver fills into a definition.

use std::env::consts::ARCH;
use std::path::Path;

use libvirt_compat::domain::{self, Defaults};
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};

use super::probe::{Emulator, Emulators};
use super::{addresses, controllers, firmware};
use crate::confine;
use crate::random;

fn with_defaults<R>(kvm: bool, work: impl FnOnce(&mut Defaults<'_>) -> R) -> R {
    work(&mut Defaults {
        random: &mut random::bytes,
        os_type: "hvm",
        domain_types: if kvm { &["qemu", "kvm"] } else { &["qemu"] },
        mac_prefix: [0x52, 0x54, 0x00],
    })
}

/// "unsupported configuration: ..."
pub fn unsupported(text: impl Into<String>) -> Error {
    Error::new(Code::ConfigUnsupported, text).from(Origin::Qemu)
}

/// Parses a definition and fills in everything.
pub fn domain(text: &str, emulators: &Emulators, nvram: &Path) -> Result<Element> {
    let kvm = text.contains("kvm") && emulators.kvm_runs();
    let mut document = with_defaults(kvm, |defaults| domain::complete(text, defaults))?;
    refuse_unknown(&document)?;
    let emulator = emulators.of(&document)?;
    machine(&mut document, &emulator)?;
    let name = document.child("name").map(Element::text).unwrap_or_default();
    firmware::fill(document.ensure("os"), &emulator.arch, &name, nvram)?;
    processor(&mut document, &emulator)?;
    let x86 = matches!(emulator.arch.as_str(), "x86_64" | "i686");
    let q35 = is_q35(&document);
    let path = emulator.path.display().to_string();
    let devices = document.ensure("devices");
    if devices.child("emulator").is_none() {
        devices.push(Element::with_text("emulator", path));
    }
    for device in devices.elements_mut() {
        own_device(device)?;
    }
    controllers::add(devices, x86, x86 && !emulator.is_ours, q35);
    implicit_devices(devices, x86, emulator.is_ours);
    addresses::assign(devices, q35)?;
    controllers::group(devices);
    Ok(document)
}

/// Fills in a device that is to join a domain.
pub fn device(domain: &Element, device: &mut Element) -> Result<()> {
    with_defaults(true, |defaults| domain::complete_device(device, defaults))?;
    own_device(device)?;
    let mut devices = domain.child("devices").cloned().unwrap_or_default();
    if device.name == "disk" || device.name == "interface" {
        // Other buses need no controller that is not there yet.
        devices.push(device.clone());
        let before = devices.all("controller").count();
        addresses::assign_for_one(&mut devices, is_q35(domain))?;
        if devices.all("controller").count() != before {
            let text = "No more available PCI slots";
            return Err(Error::new(Code::InternalError, text).from(Origin::Qemu));
        }
        let last = devices.all(&device.name).next_back();
        *device = last.expect("the device was pushed").clone();
    }
    Ok(())
}

/// Whether the board has PCI Express.
pub fn is_q35(domain: &Element) -> bool {
    domain.attribute_at("os/type", "machine").is_some_and(|name| name.contains("q35"))
}

/// Elements of `<domain>` that change how a machine runs and that nobody here obeys.
const UNKNOWN: [&str; 9] = [
    "launchSecurity",
    "keywrap",
    "idmap",
    "bootloader",
    "bootloader_args",
    "crypto",
    "numatune",
    "iothreads",
    "iothreadids",
];

fn refuse_unknown(document: &Element) -> Result<()> {
    confine::check_limits(document)?;
    match UNKNOWN.iter().find(|name| document.child(name).is_some()) {
        Some(name) => Err(unsupported(format!("element <{name}> is not supported"))),
        None => Ok(()),
    }
}

fn machine(document: &mut Element, emulator: &Emulator) -> Result<()> {
    let os = document.ensure("os");
    let kind = os.ensure("type");
    kind.set_default("arch", &emulator.arch);
    let arch = kind.attribute("arch").unwrap_or_default();
    if arch != emulator.arch {
        let path = emulator.path.display();
        let text = format!("Emulator '{path}' does not support arch '{arch}'");
        return Err(unsupported(text));
    }
    let found = match kind.attribute("machine") {
        Some(name) => emulator.machine(name).ok_or_else(|| {
            let path = emulator.path.display();
            unsupported(format!("Emulator '{path}' does not support machine type '{name}'"))
        })?,
        None => {
            emulator.default_machine().ok_or_else(|| unsupported("the emulator has no machine"))?
        }
    };
    kind.set("machine", &found.name);
    let ordered = document
        .child("devices")
        .is_some_and(|devices| devices.elements().any(|device| device.child("boot").is_some()));
    let os = document.ensure("os");
    if os.child("boot").is_none() && !ordered {
        os.push(Element::new("boot").with("dev", "hd"));
    }
    Ok(())
}

fn processor(document: &mut Element, emulator: &Emulator) -> Result<()> {
    let translated = document.is("type", "qemu");
    let Some(cpu) = document.child_mut("cpu") else {
        let kind = document.attribute_at("os/type", "machine").and_then(|m| emulator.machine(m));
        let model = kind.and_then(|machine| machine.default_cpu.clone());
        let model = model.map(|name| {
            let suffix = name.find(&format!("-{}-cpu", emulator.arch)).unwrap_or(name.len());
            name[..suffix].to_owned()
        });
        if let Some(model) = model.filter(|_| translated) {
            let model = Element::with_text("model", model).with("fallback", "forbid");
            let cpu = Element::new("cpu")
                .with("mode", "custom")
                .with("match", "exact")
                .with("check", "none");
            document.push(cpu.with_child(model));
        }
        return Ok(());
    };
    if cpu.attribute("mode").is_none() && cpu.child("model").is_some() {
        cpu.set("mode", "custom");
    }
    match cpu.attribute("mode").unwrap_or("custom") {
        mode @ ("host-passthrough" | "host-model") if translated => {
            let arch = &emulator.arch;
            let text = format!(
                "CPU mode '{mode}' for {arch} qemu domain on {ARCH} host is not supported by hypervisor"
            );
            return Err(unsupported(text));
        }
        "host-passthrough" | "maximum" => {
            cpu.set_default("check", "none");
            cpu.set_default("migratable", "on");
        }
        "host-model" => cpu.set_default("check", "partial"),
        "custom" => {
            if cpu.child("model").is_some() {
                cpu.set_default("match", "exact");
                cpu.set_default("check", "partial");
            }
            if let Some(model) = cpu.child_mut("model") {
                let name = model.text().trim().to_owned();
                if !emulator.cpu_models.contains(&name) {
                    return Err(unsupported(format!(
                        "CPU model '{name}' is not supported by hypervisor"
                    )));
                }
                model.set_default("fallback", "allow");
            }
        }
        other => {
            let text = format!("Invalid value for attribute 'mode' in element 'cpu': '{other}'.");
            return Err(Error::new(Code::XmlError, text).from(Origin::Domain));
        }
    }
    Ok(())
}

/// Defaults of one device that are QEMU's.
fn own_device(device: &mut Element) -> Result<()> {
    match device.name.as_str() {
        "disk" => {
            if device.child("backingStore").is_some_and(|store| store.children.is_empty()) {
                device.remove(|element| element.name == "backingStore");
            }
            let driver = device.ensure("driver");
            driver.set_default("name", "qemu");
            driver.set_default("type", "raw");
        }
        "interface" => device.ensure("model").set_default("type", "rtl8139"),
        "serial" => {
            let target = device.ensure("target");
            target.set_default("type", "isa-serial");
            let model = target.attribute("type").unwrap_or_default().to_owned();
            target.ensure("model").set_default("name", model);
        }
        "channel" if device.is("type", "unix") => {
            device
                .remove(|element| element.name == "source" && element.attribute("path").is_none());
        }
        "memballoon" => device.set_default("model", "virtio"),
        "video" => {
            let model = device.ensure("model");
            model.set_default("type", "cirrus");
            let memory = match model.attribute("type").unwrap_or_default() {
                "cirrus" | "vga" | "bochs" | "vmvga" => Some(16384),
                _ => None,
            };
            if let Some(memory) = memory {
                model.set_default("vram", memory);
            }
            if model.attribute("type") != Some("none") {
                model.set_default("heads", 1);
            }
        }
        "watchdog" => device.set_default("action", "reset"),
        "vsock" => {
            device.set_default("model", "virtio");
            let cid = device.ensure("cid");
            let auto = if cid.attribute("address").is_some() { "no" } else { "yes" };
            cid.set_default("auto", auto);
        }
        _ => {}
    }
    Ok(())
}

/// Devices that every machine of QEMU has.
fn implicit_devices(devices: &mut Element, x86: bool, ours: bool) {
    let has_screen = devices.all("graphics").next().is_some();
    if has_screen && devices.child("video").is_none() {
        // libvirt takes what the emulator has; ours has no Cirrus card.
        let model = match (x86, ours) {
            (true, true) => "vga",
            (true, false) => "cirrus",
            (false, _) => "virtio",
        };
        let mut model = Element::new("model").with("type", model);
        if x86 {
            model.set("vram", 16384);
        }
        devices.push(Element::new("video").with_child(model.with("heads", 1)));
    }
    if let Some(model) = devices.child_mut("video").and_then(|video| video.child_mut("model"))
        && !model.is("type", "none")
    {
        model.set_default("primary", "yes");
    }
    if x86 {
        for kind in ["mouse", "keyboard"] {
            let has =
                devices.all("input").any(|input| input.is("type", kind) && input.is("bus", "ps2"));
            if !has {
                devices.push(Element::new("input").with("type", kind).with("bus", "ps2"));
            }
        }
        if devices.child("audio").is_none() {
            devices.push(Element::new("audio").with("id", 1).with("type", "none"));
        }
    }
    if devices.child("memballoon").is_none() {
        devices.push(Element::new("memballoon").with("model", "virtio"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_obeys_is_refused_by_name() {
        for name in ["numatune", "iothreads", "iothreadids"] {
            let document = Element::new("domain").with_child(Element::new(name));
            let error = refuse_unknown(&document).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let tune = |name: &str| {
            let tune = Element::new("cputune").with_child(Element::new(name));
            refuse_unknown(&Element::new("domain").with_child(tune))
        };
        assert!(tune("vcpupin").is_ok());
        assert!(tune("vcpusched").unwrap_err().to_string().contains("vcpusched"));
    }
}
