//! What the host and its emulators can do, as documents.

use std::env::consts::ARCH;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result, Uuid};

use super::firmware;
use super::probe::{ARCHITECTURES, Emulator, Emulators};
use crate::confine::{self, Confinement};
use crate::drivers::CapabilitiesRequest;
use crate::node::host_info;
use crate::paths::Paths;

/// A list of values a client may use.
fn choices(name: &str, values: &[&str]) -> Element {
    values.iter().fold(Element::new("enum").with("name", name), |list, value| {
        list.with_child(Element::with_text("value", value))
    })
}

/// The host's UUID: made once, so that it stays the same.
fn host_uuid(paths: &Paths) -> Uuid {
    let file = paths.state.join("host-uuid");
    let known = std::fs::read_to_string(&file).ok();
    if let Some(uuid) = known.and_then(|text| Uuid::parse(&text)) {
        return uuid;
    }
    let uuid = crate::random::uuid();
    if let Err(error) = crate::files::write_atomically(&file, uuid.to_string().as_bytes()) {
        eprintln!("warning: {error}");
    }
    uuid
}

/// `virConnectGetCapabilities`.
pub fn host(emulators: &Emulators, paths: &Paths, confinement: &Confinement) -> Element {
    let info = host_info();
    let topology = Element::new("topology")
        .with("sockets", info.sockets)
        .with("dies", 1)
        .with("cores", info.cores)
        .with("threads", info.threads);
    let cpu = Element::new("cpu")
        .with_child(Element::with_text("arch", ARCH))
        .with_child(Element::with_text("model", "qemu64"))
        .with_child(topology)
        .with_child(Element::new("pages").with("unit", "KiB").with("size", 4));
    let power = Element::new("power_management").with_child(Element::new("suspend_mem"));
    let transports = Element::new("uri_transports")
        .with_child(Element::with_text("uri_transport", "tcp"))
        .with_child(Element::with_text("uri_transport", "rdma"));
    let migration =
        Element::new("migration_features").with_child(Element::new("live")).with_child(transports);
    let mut cpus = Element::new("cpus").with("num", info.cpus);
    for number in 0..info.cpus {
        let cpu = Element::new("cpu")
            .with("id", number)
            .with("socket_id", 0)
            .with("die_id", 0)
            .with("core_id", number / info.threads)
            .with("siblings", number);
        cpus.push(cpu);
    }
    let cell = Element::new("cell")
        .with("id", 0)
        .with_child(Element::with_text("memory", info.memory_kib).with("unit", "KiB"))
        .with_child(cpus);
    let cells = Element::new("cells").with("num", 1).with_child(cell);
    let mut host = Element::new("host")
        .with_child(Element::with_text("uuid", host_uuid(paths)))
        .with_child(cpu)
        .with_child(power)
        .with_child(Element::new("iommu").with("support", "no"))
        .with_child(migration)
        .with_child(Element::new("topology").with_child(cells));
    security_models(confinement).into_iter().for_each(|model| host.push(model));
    let mut document = Element::new("capabilities").with_child(host);
    let mut architectures = ARCHITECTURES.to_vec();
    architectures.sort_unstable();
    for (arch, bits) in architectures {
        if let Some(emulator) = emulators.path_for(arch).and_then(|path| emulators.at(&path).ok()) {
            document.push(guest(emulators, &emulator, arch, bits));
        }
    }
    document
}

/// How machines are kept from each other.
fn security_models(confinement: &Confinement) -> Vec<Element> {
    let model = |name: &str| {
        Element::new("secmodel")
            .with_child(Element::with_text("model", name))
            .with_child(Element::with_text("doi", 0))
    };
    if !confinement.is_on() {
        return vec![model("none")];
    }
    let label =
        |kind: &str| Element::with_text("baselabel", confinement.base_label()).with("type", kind);
    let own = model(confine::MODEL).with_child(label("kvm")).with_child(label("qemu"));
    vec![model("none"), own]
}

fn guest(emulators: &Emulators, emulator: &Emulator, arch: &str, bits: u32) -> Element {
    let mut own = Element::new("arch").with("name", arch);
    own.push(Element::with_text("wordsize", bits));
    own.push(Element::with_text("emulator", emulator.path.display()));
    // The default comes first: clients take the first one.
    let mut machines: Vec<_> = emulator.machines.iter().collect();
    machines.sort_by_key(|machine| !machine.is_default);
    for machine in machines {
        let entry =
            |name: &str| Element::with_text("machine", name).with("maxCpus", machine.cpus_max);
        own.push(entry(&machine.name));
        if let Some(alias) = &machine.alias {
            let mut entry = entry(alias);
            entry.attributes.insert(0, ("canonical".into(), machine.name.clone()));
            own.push(entry);
        }
    }
    own.push(Element::new("domain").with("type", "qemu"));
    let native = arch == ARCH || arch == "i686";
    if native && emulators.kvm_works() {
        own.push(Element::new("domain").with("type", "kvm"));
    }
    let mut features = Element::new("features");
    if matches!(arch, "i686" | "x86_64") {
        if arch == "i686" {
            features.push(Element::new("pae"));
            features.push(Element::new("nonpae"));
        }
        features.push(Element::new("acpi").with("default", "on").with("toggle", "yes"));
        features.push(Element::new("apic").with("default", "on").with("toggle", "no"));
    }
    features.push(Element::new("cpuselection"));
    features.push(Element::new("deviceboot"));
    features.push(Element::new("disksnapshot").with("default", "on").with("toggle", "no"));
    Element::new("guest")
        .with_child(Element::with_text("os_type", "hvm"))
        .with_child(own)
        .with_child(features)
}

/// `virConnectGetDomainCapabilities`.
pub fn domain(emulators: &Emulators, request: &CapabilitiesRequest) -> Result<Element> {
    let arch = request.arch.as_deref().unwrap_or(ARCH);
    let emulator = match &request.emulator {
        Some(path) => emulators.at(path.as_ref())?,
        None => emulators.for_arch(arch)?,
    };
    let kvm = emulators.kvm_works() && arch == ARCH;
    let virt_type = request.virt_type.as_deref().unwrap_or(if kvm { "kvm" } else { "qemu" });
    if !matches!(virt_type, "qemu" | "kvm") {
        let text = format!("unknown virttype: {virt_type}");
        return Err(Error::new(Code::InvalidArg, text));
    }
    if virt_type == "kvm" && !kvm {
        let text = format!(
            "the accel 'kvm' is not supported by '{}' on this host",
            emulator.path.display()
        );
        return Err(Error::new(Code::InvalidArg, text));
    }
    let machine = match &request.machine {
        Some(name) => emulator.machine(name).ok_or_else(|| {
            let path = emulator.path.display();
            let text = format!("the machine '{name}' is not supported by emulator '{path}'");
            Error::new(Code::InvalidArg, text)
        })?,
        None => emulator
            .default_machine()
            .ok_or_else(|| Error::new(Code::InternalError, "the emulator has no machine"))?,
    };
    let document = Element::new("domainCapabilities")
        .with_child(Element::with_text("path", emulator.path.display()))
        .with_child(Element::with_text("domain", virt_type))
        .with_child(Element::with_text("machine", &machine.name))
        .with_child(Element::with_text("arch", arch))
        .with_child(Element::new("vcpu").with("max", machine.cpus_max))
        .with_child(Element::new("iothreads").with("supported", "no"))
        .with_child(operating_system(arch, &machine.name))
        .with_child(cpu(&emulator, virt_type))
        .with_child(Element::new("memoryBacking").with("supported", "no"))
        .with_child(devices(&emulator));
    Ok(document.with_child(features()))
}

fn operating_system(arch: &str, board: &str) -> Element {
    let efi: &[&str] = if firmware::choose(arch, board).is_some() { &["efi"] } else { &[] };
    let loader = Element::new("loader")
        .with("supported", "yes")
        .with_child(choices("type", &["rom", "pflash"]))
        .with_child(choices("readonly", &["yes", "no"]))
        .with_child(choices("secure", &["no"]));
    Element::new("os")
        .with("supported", "yes")
        .with_child(choices("firmware", efi))
        .with_child(loader)
}

fn cpu(emulator: &Emulator, virt_type: &str) -> Element {
    let supported = |yes: bool| if yes { "yes" } else { "no" };
    let kvm = virt_type == "kvm";
    let mode = |name: &str, yes: bool| {
        Element::new("mode").with("name", name).with("supported", supported(yes))
    };
    let mut custom = mode("custom", true);
    for model in &emulator.cpu_models {
        if matches!(model.as_str(), "host" | "max" | "base") {
            continue;
        }
        let entry =
            Element::with_text("model", model).with("usable", "yes").with("vendor", "unknown");
        custom.push(entry);
    }
    Element::new("cpu")
        .with_child(if kvm {
            mode("host-passthrough", true)
                .with_child(choices("hostPassthroughMigratable", &["on", "off"]))
        } else {
            mode("host-passthrough", false)
        })
        .with_child(mode("maximum", true).with_child(choices("maximumMigratable", &["on", "off"])))
        .with_child(mode("host-model", false))
        .with_child(custom)
}

fn devices(emulator: &Emulator) -> Element {
    let part = |name: &str, lists: Vec<Element>| {
        let start = Element::new(name).with("supported", "yes");
        lists.into_iter().fold(start, Element::with_child)
    };
    let absent = |name: &str| Element::new(name).with("supported", "no");
    let mut cards = Vec::new();
    for (kind, name) in [
        ("VGA", "vga"),
        ("cirrus-vga", "cirrus"),
        ("vmware-svga", "vmvga"),
        ("virtio-gpu-pci", "virtio"),
        ("bochs-display", "bochs"),
        ("ramfb", "ramfb"),
    ] {
        if emulator.has(kind) {
            cards.push(name);
        }
    }
    cards.push("none");
    Element::new("devices")
        .with_child(part(
            "disk",
            vec![
                choices("diskDevice", &["disk", "cdrom", "floppy"]),
                choices("bus", &["ide", "fdc", "scsi", "virtio", "usb", "sata"]),
                choices("model", &["virtio"]),
            ],
        ))
        .with_child(part("graphics", vec![choices("type", &["vnc"])]))
        .with_child(part("video", vec![choices("modelType", &cards)]))
        .with_child(absent("hostdev"))
        .with_child(part(
            "rng",
            vec![choices("model", &["virtio"]), choices("backendModel", &["random"])],
        ))
        .with_child(absent("filesystem"))
        .with_child(absent("tpm"))
        .with_child(absent("redirdev"))
        .with_child(part("channel", vec![choices("type", &["pty", "unix"])]))
        .with_child(absent("crypto"))
}

fn features() -> Element {
    let part = |name: &str| {
        let there = if name == "backup" { "yes" } else { "no" };
        Element::new(name).with("supported", there)
    };
    ["gic", "vmcoreinfo", "genid", "backingStoreInput", "backup", "s390-pv", "sev", "sgx"]
        .into_iter()
        .fold(Element::new("features"), |features, name| features.with_child(part(name)))
}
