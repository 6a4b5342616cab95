//! The order of elements and attributes in libvirt's own output.
//!
//! What the tables do not know keeps its place behind what they know, so nothing is lost.

use crate::xml::{Element, Node};

const DOMAIN: &[&str] = &[
    "name",
    "uuid",
    "genid",
    "title",
    "description",
    "metadata",
    "maxMemory",
    "memory",
    "currentMemory",
    "blkiotune",
    "memtune",
    "memoryBacking",
    "vcpu",
    "vcpus",
    "iothreads",
    "iothreadids",
    "defaultiothread",
    "cputune",
    "numatune",
    "resource",
    "sysinfo",
    "bootloader",
    "bootloader_args",
    "os",
    "idmap",
    "features",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_lockfailure",
    "pm",
    "perf",
    "devices",
    "seclabel",
    "keywrap",
    "launchSecurity",
];

const OS: &[&str] = &[
    "type",
    "firmware",
    "init",
    "initarg",
    "initenv",
    "initdir",
    "inituser",
    "initgroup",
    "loader",
    "nvram",
    "kernel",
    "initrd",
    "cmdline",
    "dtb",
    "acpi",
    "boot",
    "bootmenu",
    "smbios",
    "bios",
];

pub(super) const DEVICES: &[&str] = &[
    "emulator",
    "disk",
    "controller",
    "lease",
    "filesystem",
    "interface",
    "smartcard",
    "serial",
    "parallel",
    "console",
    "channel",
    "input",
    "tpm",
    "graphics",
    "sound",
    "audio",
    "video",
    "hostdev",
    "redirdev",
    "redirfilter",
    "hub",
    "watchdog",
    "memballoon",
    "rng",
    "nvram",
    "panic",
    "shmem",
    "memory",
    "iommu",
    "vsock",
    "crypto",
];

const DISK: &[&str] = &[
    "driver",
    "auth",
    "source",
    "backingStore",
    "backenddomain",
    "geometry",
    "blockio",
    "mirror",
    "target",
    "iotune",
    "readonly",
    "shareable",
    "transient",
    "serial",
    "wwn",
    "vendor",
    "product",
    "encryption",
    "boot",
    "alias",
    "address",
];

const INTERFACE: &[&str] = &[
    "mac",
    "source",
    "ip",
    "route",
    "virtualport",
    "vlan",
    "bandwidth",
    "script",
    "downscript",
    "backenddomain",
    "target",
    "guest",
    "model",
    "driver",
    "backend",
    "filterref",
    "portForward",
    "tune",
    "link",
    "mtu",
    "coalesce",
    "teaming",
    "boot",
    "rom",
    "acpi",
    "alias",
    "address",
];

const CHARACTER: &[&str] = &["source", "log", "protocol", "target", "alias", "address"];

const CPU: &[&str] =
    &["arch", "model", "vendor", "topology", "cache", "maxphysaddr", "feature", "numa"];

const LEASE: &[&str] = &["lockspace", "key", "target"];

const RNG: &[&str] = &["rate", "backend", "driver", "alias", "address"];

const GENERIC_DEVICE: &[&str] = &[
    "driver",
    "source",
    "model",
    "backend",
    "target",
    "rate",
    "stats",
    "listen",
    "channel",
    "image",
    "jpeg",
    "zlib",
    "playback",
    "streaming",
    "clipboard",
    "mouse",
    "filetransfer",
    "gl",
    "acceleration",
    "codec",
    "audio",
    "boot",
    "rom",
    "alias",
    "address",
];

const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("domain", &["type", "id"]),
    ("vcpu", &["placement", "cpuset", "current"]),
    ("vcpu/vcpus", &["id", "enabled", "hotpluggable", "order"]),
    ("type", &["arch", "machine"]),
    ("loader", &["readonly", "secure", "type", "stateless", "format"]),
    ("cpu", &["mode", "match", "check", "migratable"]),
    ("feature", &["policy", "enabled", "name"]),
    ("nvram", &["template", "type", "format"]),
    ("topology", &["sockets", "dies", "cores", "threads"]),
    ("clock", &["offset", "adjustment", "basis", "timezone"]),
    ("timer", &["name", "present", "track", "tickpolicy", "frequency", "mode"]),
    ("disk", &["type", "device", "model", "rawio", "sgio", "snapshot"]),
    (
        "driver",
        &[
            "name",
            "queues",
            "type",
            "cache",
            "error_policy",
            "rerror_policy",
            "io",
            "ioeventfd",
            "event_idx",
            "copy_on_read",
            "discard",
            "iothread",
            "detect_zeroes",
        ],
    ),
    (
        "source",
        &[
            "type",
            "file",
            "dev",
            "bridge",
            "network",
            "portgroup",
            "portid",
            "dir",
            "protocol",
            "name",
            "pool",
            "volume",
            "mode",
            "path",
            "host",
            "service",
            "startupPolicy",
            "index",
        ],
    ),
    (
        "target",
        &[
            "type",
            "dev",
            "bus",
            "tray",
            "removable",
            "name",
            "chassisNr",
            "chassis",
            "address",
            "port",
        ],
    ),
    (
        "address",
        &[
            "type",
            "domain",
            "controller",
            "bus",
            "target",
            "unit",
            "slot",
            "function",
            "multifunction",
            "port",
            "base",
            "iobase",
            "irq",
        ],
    ),
    ("controller", &["type", "index", "model", "ports", "vectors"]),
    ("input", &["type", "bus", "model"]),
    (
        "graphics",
        &[
            "type",
            "port",
            "tlsPort",
            "autoport",
            "websocket",
            "listen",
            "keymap",
            "passwd",
            "passwdValidTo",
            "connected",
            "sharePolicy",
        ],
    ),
    ("listen", &["type", "address", "network", "socket"]),
    ("model", &["type", "ram", "vram", "vram64", "vgamem", "heads", "primary", "name", "fallback"]),
    ("cid", &["auto", "address"]),
    ("filesystem", &["type", "accessmode"]),
    ("rate", &["bytes", "period"]),
    ("memballoon", &["model", "autodeflate", "freePageReporting"]),
    ("seclabel", &["type", "model", "relabel"]),
];

/// Puts a whole domain document into libvirt's order.
pub fn arrange(domain: &mut Element) {
    sort_children(domain, DOMAIN);
    sort_attributes(domain);
    for element in domain.elements_mut() {
        match element.name.as_str() {
            "metadata" => {}
            "os" => {
                sort_children(element, OS);
                sort_below(element);
            }
            "cpu" => {
                sort_children(element, CPU);
                sort_below(element);
            }
            "devices" => {
                sort_children(element, DEVICES);
                element.elements_mut().for_each(arrange_device);
            }
            _ => sort_below(element),
        }
    }
}

/// Puts one device into libvirt's order.
pub fn arrange_device(device: &mut Element) {
    let order = match device.name.as_str() {
        "disk" => DISK,
        "interface" => INTERFACE,
        "serial" | "parallel" | "console" | "channel" | "redirdev" | "smartcard" => CHARACTER,
        "lease" => LEASE,
        "rng" => RNG,
        _ => GENERIC_DEVICE,
    };
    sort_children(device, order);
    sort_below(device);
}

fn sort_below(element: &mut Element) {
    sort_attributes(element);
    element.elements_mut().for_each(sort_below);
}

fn sort_children(element: &mut Element, order: &[&str]) {
    element.children.sort_by_key(|node| match node {
        Node::Element(child) => place(order, &child.name),
        Node::Text(_) => 0,
    });
}

fn sort_attributes(element: &mut Element) {
    if let Some((_, order)) = ATTRIBUTES.iter().find(|(name, _)| *name == element.name) {
        element.attributes.sort_by_key(|(name, _)| place(order, name));
    }
}

fn place(order: &[&str], name: &str) -> usize {
    order.iter().position(|known| *known == name).unwrap_or(order.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn known_names_are_sorted_and_unknown_ones_stay_behind() {
        let mut domain = parse(
            "<domain><devices><video/><disk><target bus='virtio' dev='vda'/><driver/></disk>\
             </devices><my:own xmlns:my='u'/><uuid/><name/></domain>",
            "t",
        )
        .unwrap();
        arrange(&mut domain);
        let names: Vec<_> = domain.elements().map(|element| element.name.as_str()).collect();
        assert_eq!(names, ["name", "uuid", "devices", "my:own"]);
        let disk = domain.at("devices/disk").unwrap();
        assert_eq!(disk.elements().next().unwrap().name, "driver");
        assert_eq!(disk.child("target").unwrap().attributes[0].0, "dev");
        assert_eq!(domain.child("devices").unwrap().elements().next().unwrap().name, "disk");
    }
}
