//! The definition of a new machine, as any client of libvirt would write it.

use std::path::Path;

use libvirt_compat::xml::Element;

use super::image::Chosen;
use crate::machine::Note;

/// What a definition is written from.
pub struct Plan<'a> {
    pub name: &'a str,
    /// The names of its files begin with it.
    pub stem: &'a str,
    pub memory: u64,
    pub cpus: u32,
    pub kvm: bool,
    pub cards: Vec<Element>,
    pub image: &'a Chosen,
    pub note: &'a Note,
}

fn source(attribute: &str, value: &dyn std::fmt::Display) -> Element {
    Element::new("source").with(attribute, value)
}

/// A drive with a file in it.
pub fn drive(device: &str, format: &str, file: &Path, (target, bus): (&str, &str)) -> Element {
    Element::new("disk")
        .with("type", "file")
        .with("device", device)
        .with_child(Element::new("driver").with("name", "qemu").with("type", format))
        .with_child(source("file", &file.display()))
        .with_child(Element::new("target").with("dev", target).with("bus", bus))
}

impl Plan<'_> {
    /// The whole document.
    pub fn definition(&self, state: &Path) -> Element {
        Element::new("domain")
            .with("type", if self.kvm { "kvm" } else { "qemu" })
            .with_child(Element::with_text("name", self.name))
            .with_child(Element::new("metadata").with_child(self.note.to_element()))
            .with_child(Element::with_text("memory", self.memory >> 10).with("unit", "KiB"))
            .with_child(Element::with_text("vcpu", self.cpus))
            .with_child(self.system())
            .with_child(Element::new("features").with_child(Element::new("acpi")))
            .with_child(Element::with_text("on_poweroff", "destroy"))
            .with_child(Element::with_text("on_reboot", "restart"))
            .with_child(Element::with_text("on_crash", "destroy"))
            .with_child(self.devices(state))
    }

    fn system(&self) -> Element {
        let kind = Element::with_text("type", "hvm").with("arch", "x86_64").with("machine", "q35");
        let mut system = Element::new("os").with_child(kind);
        let Some(boot) = &self.image.boot else {
            if self.image.medium.is_some() {
                system.push(Element::new("boot").with("dev", "cdrom"));
            }
            return system.with_child(Element::new("boot").with("dev", "hd"));
        };
        let mut line = boot.command_line.clone();
        if !self.image.has_cloud_init {
            line.push_str(&format!(" hostname={} hostel.disk=/dev/vda", self.name));
            if self.note.seed.is_some() {
                line.push_str(" hostel.seed=/dev/vdb");
            }
        }
        system
            .with_child(Element::with_text("kernel", boot.kernel.display()))
            .with_child(Element::with_text("initrd", boot.initrd.display()))
            .with_child(Element::with_text("cmdline", line))
    }

    fn disks(&self, devices: &mut Element) {
        let own = self.note.disk.as_deref().unwrap_or(Path::new(""));
        devices.push(drive("disk", "qcow2", own, ("vda", "virtio")));
        if let Some(seed) = &self.note.seed {
            let seed = drive("disk", "raw", seed, ("vdb", "virtio"));
            devices.push(seed.with_child(Element::new("readonly")));
        }
        if let Some(medium) = &self.image.medium {
            let medium = drive("cdrom", "raw", medium, ("sda", "sata"));
            devices.push(medium.with_child(Element::new("readonly")));
        }
    }

    fn devices(&self, state: &Path) -> Element {
        let log = state.join("logs").join(format!("{}-console.log", self.stem));
        let emulator = state.join("bin/qemu-system-x86_64");
        let mut devices =
            Element::new("devices").with_child(Element::with_text("emulator", emulator.display()));
        self.disks(&mut devices);
        devices.push(Element::new("controller").with("type", "usb").with("model", "none"));
        self.cards.iter().cloned().for_each(|card| devices.push(card));
        // What firmware boots may speak on a screen only, installers above all.
        if self.image.boot.is_none() {
            devices.push(
                Element::new("graphics")
                    .with("type", "vnc")
                    .with("autoport", "yes")
                    .with("listen", "127.0.0.1"),
            );
            let model = Element::new("model").with("type", "vga");
            devices.push(Element::new("video").with_child(model));
        }
        devices
            .with_child(
                // Whoever wants to types on it; what it says is kept as well.
                Element::new("serial")
                    .with("type", "pty")
                    .with_child(
                        Element::new("log").with("file", log.display()).with("append", "off"),
                    )
                    .with_child(Element::new("target").with("port", "0")),
            )
            .with_child(
                // What the guest does not use is the host's again, without anybody asking.
                Element::new("memballoon").with("model", "virtio").with("freePageReporting", "on"),
            )
            .with_child(
                Element::new("rng").with("model", "virtio").with_child(
                    Element::with_text("backend", "/dev/urandom").with("model", "random"),
                ),
            )
            .with_child(
                Element::new("vsock")
                    .with("model", "virtio")
                    .with_child(Element::new("cid").with("auto", "yes")),
            )
    }
}
