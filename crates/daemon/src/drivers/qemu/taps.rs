//! Guests' ends of bridges: a tap device for each interface, opened here and handed to the
//! emulator, which needs no right of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use linux::netlink::route::Route;
use linux::tap;
use spec::device::{Kind, Wire};

use crate::files;

/// The tap devices of one machine, open until they have been handed over.
#[derive(Default)]
pub struct Taps(Vec<(String, OwnedFd)>);

impl Taps {
    /// Makes one for each interface that is plugged into a bridge, and notes its name.
    pub fn open(document: &mut Element) -> Result<Self> {
        let mut taps = Self::default();
        for interface in document.ensure("devices").all_mut("interface") {
            taps.add(interface)?;
        }
        Ok(taps)
    }

    /// Makes one for an interface, if it is plugged into a bridge.
    pub fn add(&mut self, interface: &mut Element) -> Result<()> {
        let Some(bridge) = interface.attribute_at("source", "bridge").map(str::to_owned) else {
            return Ok(());
        };
        let wish = interface.attribute_at("target", "dev");
        let wish = wish.filter(|name| !name.starts_with("vnet")).unwrap_or("vnet%d");
        // Only virtio's driver in a guest makes use of what the header offers.
        let offload = interface.attribute_at("model", "type") == Some("virtio");
        let (descriptor, name) = tap::open(wish, offload).map_err(|error| failed(wish, &error))?;
        tap::set_up(&name).map_err(|error| failed(&name, &error))?;
        plug(&name, &bridge)?;
        interface.ensure("target").set("dev", &name);
        self.0.push((name, descriptor));
        Ok(())
    }

    /// All descriptors.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(_, descriptor)| descriptor.as_fd())
    }

    /// Has the machine's description name descriptors instead of devices.
    pub fn describe(&self, devices: &mut [spec::device::Device]) {
        for device in devices {
            let Kind::Network(network) = &mut device.kind else { continue };
            let Wire::Tap { device: name } = &network.backend else { continue };
            if let Some((_, descriptor)) = self.0.iter().find(|(own, _)| own == name) {
                let descriptor = descriptor.as_raw_fd().to_string();
                network.backend = Wire::TapDescriptor { descriptor };
            }
        }
    }
}

fn plug(name: &str, bridge: &str) -> Result<()> {
    let plugged = Route::new().and_then(|route| route.set_master(name, Some(bridge)));
    plugged.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let text = format!("Cannot get interface MTU on '{bridge}'");
            files::system(text, &io::Error::from(rustix::io::Errno::NODEV)).from(Origin::None)
        }
        _ => {
            let text = format!("Unable to add bridge {bridge} port {name}");
            files::system(text, &error).from(Origin::None)
        }
    })
}

fn failed(name: &str, error: &io::Error) -> Error {
    if error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) {
        let text = "Unable to open /dev/net/tun, is tun module loaded?";
        return files::system(text, error).from(Origin::None);
    }
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            let text = format!("invalid interface name '{name}'");
            Error::new(Code::ConfigUnsupported, text).from(Origin::Network)
        }
        _ => files::system(format!("Unable to create tap device {name}"), error).from(Origin::None),
    }
}
