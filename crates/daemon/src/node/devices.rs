//! Host devices, read from `/sys` when asked for.

use std::fs;
use std::path::Path;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::RwLock;

/// A host device.
#[derive(Clone, Debug)]
pub struct NodeDevice {
    pub name: String,
    pub parent: Option<String>,
    /// `system`, `pci`, `net`, `storage`, ...
    pub capabilities: Vec<String>,
    pub document: Element,
}

/// The devices that a world shows.
#[derive(Default)]
pub struct NodeDevices {
    /// A world in memory has a list; others look at the host.
    fixed: RwLock<Option<Vec<NodeDevice>>>,
}

impl NodeDevices {
    /// Shows these instead of the host's.
    pub fn fix(&self, devices: Vec<NodeDevice>) {
        *self.fixed.write() = Some(devices);
    }

    pub fn all(&self) -> Vec<NodeDevice> {
        match &*self.fixed.read() {
            Some(devices) => devices.clone(),
            None => scan(),
        }
    }

    pub fn by_name(&self, name: &str) -> Result<NodeDevice> {
        self.all().into_iter().find(|device| device.name == name).ok_or_else(|| {
            let text = format!("no node device with matching name '{name}'");
            Error::new(Code::NoNodeDevice, text).from(Origin::NodeDevice)
        })
    }
}

fn device(name: String, parent: &str, path: &str, kind: &str, inside: Vec<Element>) -> NodeDevice {
    let mut document = Element::new("device").with_child(Element::with_text("name", &name));
    if !path.is_empty() {
        document.push(Element::with_text("path", path));
    }
    document.push(Element::with_text("parent", parent));
    let mut capability = Element::new("capability").with("type", kind);
    inside.into_iter().for_each(|element| capability.push(element));
    document.push(capability);
    NodeDevice {
        name,
        parent: Some(parent.to_owned()),
        capabilities: vec![kind.to_owned()],
        document,
    }
}

fn scan() -> Vec<NodeDevice> {
    let mut devices = vec![computer()];
    for address in names("/sys/bus/pci/devices") {
        devices.extend(pci(&address));
    }
    for name in names("/sys/class/net") {
        let base = format!("/sys/class/net/{name}");
        let mac = read(&format!("{base}/address"));
        let label = format!("net_{name}_{}", mac.replace(':', "_"));
        let inside =
            vec![Element::with_text("interface", &name), Element::with_text("address", &mac)];
        devices.push(device(label, "computer", &real(&base), "net", inside));
    }
    for name in names("/sys/class/block") {
        let base = format!("/sys/class/block/{name}");
        let is_disk = Path::new(&format!("{base}/queue")).exists();
        if !is_disk || name.starts_with("loop") || name.starts_with("ram") {
            continue;
        }
        let sectors: u64 = read(&format!("{base}/size")).parse().unwrap_or(0);
        let inside = vec![
            Element::with_text("block", format!("/dev/{name}")),
            Element::with_text("drive_type", "disk"),
            Element::with_text("size", sectors * 512),
        ];
        devices.push(device(format!("block_{name}"), "computer", &real(&base), "storage", inside));
    }
    devices
}

fn computer() -> NodeDevice {
    let document = Element::new("device")
        .with_child(Element::with_text("name", "computer"))
        .with_child(Element::new("capability").with("type", "system"));
    NodeDevice {
        name: "computer".into(),
        parent: None,
        capabilities: vec!["system".into()],
        document,
    }
}

fn pci(address: &str) -> Option<NodeDevice> {
    let base = format!("/sys/bus/pci/devices/{address}");
    let hex = |file: &str| read(&format!("{base}/{file}"));
    let (domain, rest) = address.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let inside = vec![
        Element::with_text("class", hex("class")),
        Element::with_text("domain", number(domain)?),
        Element::with_text("bus", number(bus)?),
        Element::with_text("slot", number(slot)?),
        Element::with_text("function", number(function)?),
        Element::new("product").with("id", hex("device")),
        Element::new("vendor").with("id", hex("vendor")),
    ];
    let name = format!("pci_{}", address.replace([':', '.'], "_"));
    Some(device(name, "computer", &real(&base), "pci", inside))
}

fn names(path: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn real(path: &str) -> String {
    fs::canonicalize(path).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}
