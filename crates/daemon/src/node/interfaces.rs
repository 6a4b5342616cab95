//! Host interfaces, as they are.

use std::fs;

use libvirt_compat::rpc::types;
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::RwLock;

/// A host interface.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub mac: String,
    pub active: bool,
    pub document: Element,
}

impl Interface {
    /// How clients refer to it.
    pub fn reference(&self) -> types::Interface {
        types::Interface { name: self.name.clone(), mac: self.mac.clone() }
    }
}

/// The interfaces that a world shows.
#[derive(Default)]
pub struct Interfaces {
    /// A world in memory has a list; others look at the host.
    fixed: RwLock<Option<Vec<Interface>>>,
}

impl Interfaces {
    /// Shows these instead of the host's.
    pub fn fix(&self, interfaces: Vec<Interface>) {
        *self.fixed.write() = Some(interfaces);
    }

    pub fn all(&self) -> Vec<Interface> {
        match &*self.fixed.read() {
            Some(interfaces) => interfaces.clone(),
            None => scan(),
        }
    }

    pub fn by_name(&self, name: &str) -> Result<Interface> {
        self.all().into_iter().find(|interface| interface.name == name).ok_or_else(|| {
            let text = format!("couldn't find interface named '{name}'");
            Error::new(Code::NoInterface, text).from(Origin::Interface)
        })
    }

    pub fn by_mac(&self, mac: &str) -> Result<Interface> {
        let mut found = self.all().into_iter().filter(|i| i.mac.eq_ignore_ascii_case(mac));
        match (found.next(), found.next()) {
            (Some(interface), None) => Ok(interface),
            (Some(_), Some(_)) => {
                Err(Error::bare(Code::MultipleInterfaces).from(Origin::Interface))
            }
            (None, _) => {
                let text = format!("couldn't find interface with MAC address '{mac}'");
                Err(Error::new(Code::NoInterface, text).from(Origin::Interface))
            }
        }
    }
}

fn scan() -> Vec<Interface> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut interfaces: Vec<Interface> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().to_string_lossy().into_owned();
            let read = |file: &str| {
                fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap_or_default()
            };
            let mac = read("address").trim().to_owned();
            // The loopback interface counts as up although its state is unknown.
            let active = matches!(read("operstate").trim(), "up" | "unknown");
            let mut document =
                Element::new("interface").with("type", "ethernet").with("name", &name);
            let mut link = Element::new("link");
            if let Ok(speed @ 1..) = read("speed").trim().parse::<i64>() {
                link.set("speed", speed);
            }
            link.set("state", read("operstate").trim());
            document.push(link);
            document.push(Element::new("mac").with("address", &mac));
            Some(Interface { name, mac, active, document })
        })
        .collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    interfaces
}
