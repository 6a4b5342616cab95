//! The devices of a new domain.

use std::path::{Path, PathBuf};

use guests::library::Kind;
use libvirt_compat::xml::Element;

use super::pairs::Pairs;
use super::{Maker, Options, Result, Wrong};
use crate::daemon::Connection;
use crate::verbs::launch::image::image_tool;

/// What libosinfo's name says of the guest: a note, for those who read it.
pub fn operating_system_note(text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse("osinfo", text, Some("name"))?;
    let name = pairs.take("name").or_else(|| pairs.take("short-id"));
    for key in ["detect", "require"] {
        _ = pairs.take(key); // nothing is detected, and nothing required
    }
    let identifier = pairs.take("id");
    pairs.finish()?;
    let name = name.unwrap_or_else(|| "generic".to_owned());
    let identifier = identifier.unwrap_or_else(|| format!("http://libosinfo.org/{name}"));
    let inner = Element::new("libosinfo:os").with("id", identifier);
    let outer = Element::new("libosinfo:libosinfo")
        .with("xmlns:libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0")
        .with_child(inner);
    Ok(Element::new("metadata").with_child(outer))
}

/// All of them.
pub fn all(
    options: &Options,
    connection: &Connection,
    name: &str,
    seed: Option<PathBuf>,
    maker: &Maker,
) -> Result<Element> {
    let mut devices = Element::new("devices");
    let emulator = connection.places.state.join("bin/qemu-system-x86_64");
    if emulator.exists() {
        devices.push(Element::with_text("emulator", emulator.display()));
    }
    let mut letters = Letters::default();
    for text in options.disk.iter().filter(|text| *text != "none") {
        devices.push(disk(text, connection, name, &mut letters, maker)?);
    }
    for path in options.cdrom.iter().map(PathBuf::from).chain(seed) {
        devices.push(medium(&absolute(&path), &mut letters, maker)?);
    }
    for text in &options.controller {
        devices.push(simple("controller", text, Some("type"), &["type", "model", "index"])?);
    }
    let networks = or_default(&options.network, "user");
    for text in networks.iter().filter(|text| *text != "none") {
        devices.push(network(text)?);
    }
    consoles(options, &mut devices)?;
    screens(options, &mut devices)?;
    for (group, list, first, keys) in [
        ("input", &options.input, "type", &["type", "bus"][..]),
        ("sound", &options.sound, "model", &["model"]),
        ("watchdog", &options.watchdog, "model", &["model", "action"]),
        ("panic", &options.panic, "model", &["model"]),
        ("memballoon", &options.memballoon, "model", &["model", "autodeflate"]),
        ("tpm", &options.tpm, "model", &["model"]),
    ] {
        for text in list {
            devices.push(simple(group, text, Some(first), keys)?);
        }
    }
    let rngs = or_default(&options.rng, "/dev/urandom");
    for text in rngs.iter().filter(|text| *text != "none") {
        devices.push(rng(text)?);
    }
    for text in &options.vsock {
        devices.push(vsock(text)?);
    }
    Ok(devices)
}

fn or_default(given: &[String], default: &str) -> Vec<String> {
    if given.is_empty() { vec![default.to_owned()] } else { given.to_vec() }
}

/// Something in a drive that cannot write.
fn medium(path: &Path, letters: &mut Letters, maker: &Maker) -> Result<Element> {
    if !path.exists() && maker.is_real {
        return Err(Wrong(format!("'{}' does not exist", path.display())));
    }
    let target = letters.next("sata")?;
    Ok(Element::new("disk")
        .with("type", "file")
        .with("device", "cdrom")
        .with_child(Element::new("driver").with("name", "qemu").with("type", "raw"))
        .with_child(Element::new("source").with("file", path.display()))
        .with_child(Element::new("target").with("dev", target).with("bus", "sata"))
        .with_child(Element::new("readonly")))
}

/// Screens, and a card for them.
fn screens(options: &Options, devices: &mut Element) -> Result<()> {
    for text in options.graphics.iter().filter(|text| *text != "none") {
        devices.push(graphics(text)?);
    }
    let has_screen = devices.child("graphics").is_some();
    let video = or_default(&options.video, if has_screen { "vga" } else { "none" });
    for text in video.iter().filter(|text| *text != "none") {
        let model = simple("model", text, Some("type"), &["type", "vram", "heads"])?;
        devices.push(Element::new("video").with_child(model));
    }
    Ok(())
}

fn vsock(text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse("vsock", text, Some("model"))?;
    let mut cid = Element::new("cid");
    for (key, name) in [("auto_cid", "auto"), ("cid.auto", "auto"), ("cid", "address")] {
        if let Some(value) = pairs.take(key) {
            cid.set(name, value);
        }
    }
    let model = pairs.take("model").unwrap_or_else(|| "virtio".to_owned());
    pairs.finish()?;
    Ok(Element::new("vsock").with("model", model).with_child(cid))
}

/// An element whose attributes are the group's keys.
fn simple(name: &'static str, text: &str, first: Option<&str>, keys: &[&str]) -> Result<Element> {
    let mut pairs = Pairs::parse(name, text, first)?;
    let mut element = Element::new(name);
    for key in keys {
        if let Some(value) = pairs.take(key) {
            element.set(key, value);
        }
    }
    pairs.finish()?;
    Ok(element)
}

/// The next free name of a disk on each bus.
#[derive(Default)]
struct Letters {
    virtio: u8,
    others: u8,
}

impl Letters {
    fn next(&mut self, bus: &str) -> Result<String> {
        let (prefix, count) = match bus {
            "virtio" => ("vd", &mut self.virtio),
            "ide" => ("hd", &mut self.others),
            _ => ("sd", &mut self.others),
        };
        let letter = char::from(b'a' + *count);
        *count += 1;
        match letter.is_ascii_lowercase() {
            true => Ok(format!("{prefix}{letter}")),
            false => Err(Wrong("Only 26 disks of a kind".to_owned())),
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn disk(
    text: &str,
    connection: &Connection,
    name: &str,
    letters: &mut Letters,
    maker: &Maker,
) -> Result<Element> {
    let mut pairs = Pairs::parse("disk", text, Some("path"))?;
    let device = pairs.take("device").unwrap_or_else(|| "disk".to_owned());
    let bus = pairs.take("bus").or_else(|| pairs.take("target.bus"));
    let bus = bus.unwrap_or_else(|| if device == "disk" { "virtio" } else { "sata" }.to_owned());
    let size = pairs.take("size");
    let backing = pairs.take("backing_store");
    let path = match pairs.take("path").or_else(|| pairs.take("source.file")) {
        Some(path) => absolute(Path::new(&path)),
        None if size.is_some() => {
            connection.places.state.join("disks").join(format!("{name}.qcow2"))
        }
        None => return Err(Wrong(format!("Error: --disk {text}: a path or a size is needed"))),
    };
    let format = pairs.take("format").or_else(|| pairs.take("driver.type"));
    let known = path.exists().then(|| Kind::of_file(&path).ok()).flatten();
    let format = format.unwrap_or_else(|| match known {
        Some(Kind::Raw | Kind::Iso) => "raw".to_owned(),
        _ => "qcow2".to_owned(),
    });
    if !path.exists() {
        make(&path, &format, size.as_deref(), backing.as_deref(), text, maker)?;
    }
    let mut driver = Element::new("driver").with("name", "qemu").with("type", &format);
    for (key, attribute) in [
        ("cache", "cache"),
        ("driver.cache", "cache"),
        ("driver.io", "io"),
        ("io", "io"),
        ("driver.discard", "discard"),
        ("discard", "discard"),
    ] {
        if let Some(value) = pairs.take(key) {
            driver.set(attribute, value);
        }
    }
    let target = pairs.take("target.dev").map_or_else(|| letters.next(&bus), Ok)?;
    let mut element = Element::new("disk")
        .with("type", "file")
        .with("device", &device)
        .with_child(driver)
        .with_child(Element::new("source").with("file", path.display()))
        .with_child(Element::new("target").with("dev", target).with("bus", bus));
    for flag in ["readonly", "shareable"] {
        if pairs.take_bare(flag) {
            element.push(Element::new(flag));
        }
    }
    if let Some(order) = pairs.take("boot.order").or_else(|| pairs.take("boot_order")) {
        element.push(Element::new("boot").with("order", order));
    }
    if let Some(serial) = pairs.take("serial") {
        element.push(Element::with_text("serial", serial));
    }
    _ = pairs.take("sparse"); // they all are
    pairs.finish()?;
    Ok(element)
}

/// A disk that is not there yet; its size is in GiB.
fn make(
    path: &Path,
    format: &str,
    size: Option<&str>,
    backing: Option<&str>,
    text: &str,
    maker: &Maker,
) -> Result<()> {
    let gibibytes = size.map(|size| {
        size.parse::<f64>()
            .ok()
            .filter(|size| *size > 0.0 && *size < 1e6)
            .ok_or_else(|| Wrong(format!("Error: --disk {text}: '{size}' is no size in GiB")))
    });
    let gibibytes = gibibytes.transpose()?;
    if gibibytes.is_none() && backing.is_none() {
        let text = format!(
            "Error: --disk {text}: Size must be specified for non existent volume '{}'",
            path.display()
        );
        return Err(Wrong(text));
    }
    if !maker.is_real {
        return Ok(());
    }
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    std::fs::create_dir_all(&folder)
        .map_err(|error| Wrong(format!("{}: {error}", folder.display())))?;
    let mut words = ["create", "-q", "-f", format].map(str::to_owned).to_vec();
    if let Some(backing) = backing {
        let kind = Kind::of_file(Path::new(backing)).map_err(|error| Wrong(error.to_string()))?;
        let kind = if kind == Kind::Qcow2 { "qcow2" } else { "raw" };
        let backing = absolute(Path::new(backing)).display().to_string();
        words.extend(["-b".into(), backing, "-F".into(), kind.into()]);
    }
    words.push(path.display().to_string());
    words.extend(gibibytes.map(|size| ((size * f64::from(1 << 30)) as u64).to_string()));
    image_tool(&words)?;
    maker.made.borrow_mut().push(path.to_owned());
    Ok(())
}

fn network(text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse("network", text, Some("first"))?;
    let first = pairs.take("first");
    let (kind, source) = match first.as_deref() {
        Some("user") => ("user".to_owned(), None),
        Some("default") => ("network".to_owned(), Some(("network", "default".to_owned()))),
        Some(other) => {
            return Err(Wrong(format!("Error: --network {text}: Unknown network type '{other}'")));
        }
        None => {
            let network = pairs.take("network").map(|name| ("network", name));
            let bridge = pairs.take("bridge").map(|name| ("bridge", name));
            let source = network.or(bridge);
            let kind = pairs.take("type");
            (kind.or_else(|| Some(source.as_ref()?.0.to_owned())).unwrap_or("user".into()), source)
        }
    };
    let mut element = Element::new("interface").with("type", kind);
    if let Some((attribute, name)) = source {
        element.push(Element::new("source").with(attribute, name));
    }
    if let Some(mac) = pairs.take("mac").or_else(|| pairs.take("mac.address")) {
        element.push(Element::new("mac").with("address", mac));
    }
    let model = pairs.take("model").or_else(|| pairs.take("model.type"));
    element.push(Element::new("model").with("type", model.unwrap_or_else(|| "virtio".to_owned())));
    if let Some(state) = pairs.take("link.state").or_else(|| pairs.take("link_state")) {
        element.push(Element::new("link").with("state", state));
    }
    pairs.finish()?;
    Ok(element)
}

/// A serial line, unless it was said otherwise; it is the console.
fn consoles(options: &Options, devices: &mut Element) -> Result<()> {
    let lists = [("serial", &options.serial), ("console", &options.console)];
    let mut count = 0;
    for (name, list) in lists {
        for text in list {
            count += 1;
            if text == "none" {
                continue;
            }
            devices.push(character(name, text)?);
        }
    }
    for text in options.channel.iter().filter(|text| *text != "none") {
        devices.push(character("channel", text)?);
    }
    if count == 0 {
        devices.push(Element::new("console").with("type", "pty"));
    }
    Ok(())
}

fn character(name: &'static str, text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse(name, text, Some("type"))?;
    let kind = pairs.take("type").unwrap_or_else(|| "pty".to_owned());
    let mut element = Element::new(name).with("type", kind);
    let mut source = Element::new("source");
    for (key, attribute) in
        [("path", "path"), ("source.path", "path"), ("source.mode", "mode"), ("mode", "mode")]
    {
        if let Some(value) = pairs.take(key) {
            source.set(attribute, value);
        }
    }
    if !source.attributes.is_empty() {
        element.push(source);
    }
    let mut target = Element::new("target");
    for (key, attribute) in [
        ("target_type", "type"),
        ("target.type", "type"),
        ("name", "name"),
        ("target.name", "name"),
        ("target.port", "port"),
    ] {
        if let Some(value) = pairs.take(key) {
            target.set(attribute, value);
        }
    }
    if !target.attributes.is_empty() {
        element.push(target);
    }
    pairs.finish()?;
    Ok(element)
}

fn graphics(text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse("graphics", text, Some("type"))?;
    let kind = pairs.take("type").unwrap_or_else(|| "vnc".to_owned());
    if kind != "vnc" {
        return Err(Wrong(format!("Error: --graphics {text}: '{kind}' is not there; vnc is")));
    }
    let mut element = Element::new("graphics").with("type", kind);
    let port = pairs.take("port");
    element.set("port", port.as_deref().unwrap_or("-1"));
    if port.is_none() {
        element.set("autoport", "yes");
    }
    for (key, attribute) in [
        ("listen", "listen"),
        ("websocket", "websocket"),
        ("password", "passwd"),
        ("passwd", "passwd"),
    ] {
        if let Some(value) = pairs.take(key) {
            element.set(attribute, value);
        }
    }
    pairs.finish()?;
    Ok(element)
}

fn rng(text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse("rng", text, Some("device"))?;
    let device = pairs.take("device").or_else(|| pairs.take("backend.device"));
    pairs.finish()?;
    let device = device.unwrap_or_else(|| "/dev/urandom".to_owned());
    let backend = Element::with_text("backend", device).with("model", "random");
    Ok(Element::new("rng").with("model", "virtio").with_child(backend))
}
