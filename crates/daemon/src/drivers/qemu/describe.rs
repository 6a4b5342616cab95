//! From a live document, with aliases and addresses, to the neutral description.

use libvirt_compat::Result;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use libvirt_compat::domain::{Summary, kibibytes};
use libvirt_compat::xml::Element;
use spec::device::{
    Backend, Bus, Device, Disk, Image, Kind, Log, Medium, Network, Place, Subnet, Vnc, Wire,
};
use spec::{Accelerator, Boot, Clock, Flash, Kernel, Processor, Topology, Vm};

use super::addresses::{number, pci_function};
use super::complete::{is_q35, unsupported};

/// The networks that interfaces refer to, by name.
pub type Networks = BTreeMap<String, Element>;

/// The whole machine.
pub fn vm(document: &Element, networks: &Networks) -> Result<Vm> {
    let kvm = document.is("type", "kvm");
    let sleep = |name: &str| {
        document.attribute_at(&format!("pm/{name}"), "enabled").map(|enabled| enabled == "yes")
    };
    let timer = |name: &str| {
        let timers = document.child("clock");
        timers.and_then(|clock| clock.all("timer").find(|timer| timer.is("name", name)).cloned())
    };
    let is_timer = |name: &str, attribute: &str, value: &str| {
        timer(name).is_some_and(|timer| timer.is(attribute, value))
    };
    let memory = document.child("memory").map(kibibytes).transpose()?.unwrap_or(0);
    Ok(Vm {
        name: document.child("name").map(Element::text).unwrap_or_default(),
        uuid: document.text_at("uuid").unwrap_or_default(),
        board: document.attribute_at("os/type", "machine").unwrap_or_default().to_owned(),
        accelerator: if kvm { Accelerator::Kvm } else { Accelerator::Translator },
        processor: processor(document, kvm),
        topology: topology(document),
        memory_bytes: memory * 1024,
        boot: boot(document)?,
        clock: Clock {
            base: match document.attribute_at("clock", "offset") {
                Some("localtime") => "localtime".to_owned(),
                _ => "utc".to_owned(),
            },
            slew: is_timer("rtc", "tickpolicy", "catchup"),
        },
        acpi: document.at("features/acpi").is_some(),
        sleep: (sleep("suspend-to-mem"), sleep("suspend-to-disk")),
        hpet: timer("hpet").map(|timer| !timer.is("present", "no")),
        pit_delay: is_timer("pit", "tickpolicy", "delay"),
        devices: devices(document, networks)?,
    })
}

fn processor(document: &Element, kvm: bool) -> Processor {
    let cpu = document.child("cpu");
    let mode = cpu.and_then(|cpu| cpu.attribute("mode")).unwrap_or("custom");
    let model = cpu.and_then(|cpu| cpu.text_at("model"));
    let model = match mode {
        "host-passthrough" | "host-model" if kvm => "host".to_owned(),
        "host-passthrough" | "host-model" | "maximum" => "max".to_owned(),
        _ => model.unwrap_or_else(|| if kvm { "host" } else { "qemu64" }.to_owned()),
    };
    let mut features = Vec::new();
    for feature in cpu.into_iter().flat_map(|cpu| cpu.all("feature")) {
        let Some(name) = feature.attribute("name") else { continue };
        let on = !matches!(feature.attribute("policy"), Some("disable" | "forbid"));
        features.push((name.to_owned(), on));
    }
    Processor { model, features }
}

fn topology(document: &Element) -> Topology {
    let summary = Summary::of(document);
    let part = |name: &str| -> Option<u32> {
        document.attribute_at("cpu/topology", name).and_then(|text| text.parse().ok())
    };
    let (count, maximum) = (summary.vcpus, summary.vcpus_max);
    let dies = part("dies").unwrap_or(1);
    Topology {
        count,
        maximum,
        sockets: part("sockets").map_or(maximum, |sockets| sockets * dies),
        cores: part("cores").unwrap_or(1),
        threads: part("threads").unwrap_or(1),
    }
}

fn boot(document: &Element) -> Result<Boot> {
    let text = |path: &str| document.text_at(path).filter(|text| !text.is_empty());
    let kernel = text("os/kernel").map(|image| Kernel {
        image,
        initrd: text("os/initrd"),
        command_line: text("os/cmdline"),
        device_tree: text("os/dtb"),
    });
    let flash = match document.at("os/loader") {
        Some(loader) if loader.is("type", "pflash") => {
            Some(Flash { code: loader.text().trim().to_owned(), variables: text("os/nvram") })
        }
        Some(loader) if !loader.text().trim().is_empty() => {
            return Err(unsupported("only loaders of type 'pflash' are supported"));
        }
        _ => None,
    };
    let menu = document.attribute_at("os/bootmenu", "enable").map(|enable| enable == "yes");
    Ok(Boot { flash, kernel, menu })
}

/// The rank of a device among what can be booted from, by `<os><boot>` or by its own `<boot>`.
fn boot_index(document: &Element, device: &Element, seen: &mut [u32; 4]) -> Option<u32> {
    if let Some(order) = device.attribute_at("boot", "order") {
        return order.parse().ok();
    }
    let group = match (device.name.as_str(), device.attribute("device")) {
        ("disk", Some("cdrom")) => 1,
        ("disk", Some("floppy")) => 2,
        ("disk", _) => 0,
        ("interface", _) => 3,
        _ => return None,
    };
    let own = ["hd", "cdrom", "fd", "network"][group];
    let os = document.child("os")?;
    let rank = os.all("boot").position(|boot| boot.is("dev", own))? as u32;
    seen[group] += 1;
    // The first of each group only: firmware tries no second one.
    (seen[group] == 1).then_some(rank + 1)
}

fn devices(document: &Element, networks: &Networks) -> Result<Vec<Device>> {
    let Some(devices) = document.child("devices") else { return Ok(Vec::new()) };
    let mut list = Vec::new();
    let mut seen = [0; 4];
    // Buses first, bridges before what sits behind them.
    let order = [
        "controller",
        "disk",
        "interface",
        "serial",
        "channel",
        "console",
        "input",
        "audio",
        "graphics",
        "video",
        "sound",
        "watchdog",
        "memballoon",
        "rng",
        "panic",
        "vsock",
    ];
    let pci_first = |device: &&Element| !device.is("type", "pci");
    for name in order {
        let mut group: Vec<&Element> = devices.all(name).collect();
        group.sort_by_key(pci_first);
        for element in group {
            let index = boot_index(document, element, &mut seen);
            list.extend(
                device(document, networks, element)?
                    .map(|device| Device { boot_index: index, ..device }),
            );
        }
    }
    let known = |name: &str| order.contains(&name) || name == "emulator";
    if let Some(other) = devices.elements().find(|device| !known(&device.name)) {
        return Err(unsupported(format!("device <{}> is not supported", other.name)));
    }
    Ok(list)
}

/// One device; `None` for what the board has anyway.
pub fn device(
    document: &Element,
    networks: &Networks,
    element: &Element,
) -> Result<Option<Device>> {
    let id = element.attribute_at("alias", "name").unwrap_or_default().to_owned();
    let kind = match element.name.as_str() {
        "controller" => controller(document, element)?,
        "disk" => Some(Kind::Disk(disk(element)?)),
        "interface" => Some(Kind::Network(network(element, networks)?)),
        "serial" => {
            let port = element.attribute_at("target", "port").and_then(|port| port.parse().ok());
            Some(Kind::Serial {
                number: port.unwrap_or(0),
                backend: backend(element)?,
                log: log(element),
            })
        }
        "channel" => Some(channel(element, false)?),
        "console" if element.attribute_at("target", "type") == Some("virtio") => {
            Some(channel(element, true)?)
        }
        "console" => None,
        "input" => input(element)?,
        "audio" => Some(Kind::NoAudio),
        "graphics" => Some(Kind::Vnc(screen(element)?)),
        "video" => video(element)?,
        "sound" => Some(sound(element)?),
        "watchdog" => watchdog(element)?,
        "memballoon" if element.is("model", "none") => None,
        "memballoon" => {
            let period = element.attribute_at("stats", "period").and_then(|text| text.parse().ok());
            Some(Kind::Balloon {
                poll_seconds: period,
                deflates_on_oom: element.is("autodeflate", "on"),
                reports_free_pages: element.is("freePageReporting", "on"),
            })
        }
        "rng" => Some(random(element)?),
        "panic" => Some(Kind::Panic),
        "vsock" => Some(vsock(element)?),
        other => return Err(unsupported(format!("device <{other}> is not supported"))),
    };
    let id = if element.name == "audio" { "audio1".to_owned() } else { id };
    let place = place(document, element);
    Ok(kind.map(|kind| Device { id, place, boot_index: None, kind }))
}

fn place(document: &Element, device: &Element) -> Option<Place> {
    let address = device.child("address")?;
    let part = |name: &str| address.attribute(name).and_then(number).unwrap_or(0);
    match address.attribute("type")? {
        "pci" => {
            let (bus, slot, function) = pci_function(device)?;
            let bus = match (bus, is_q35(document)) {
                (0, true) => "pcie.0".to_owned(),
                (bus, _) => format!("pci.{bus}"),
            };
            let multifunction = address.is("multifunction", "on");
            Some(Place::Pci { bus, slot, function, multifunction })
        }
        "usb" => {
            let port = address.attribute("port").unwrap_or("1").to_owned();
            Some(Place::Usb { bus: "usb.0".to_owned(), port })
        }
        "virtio-serial" => {
            let bus = format!("virtio-serial{}.{}", part("controller"), part("bus"));
            Some(Place::Port { bus, number: part("port") })
        }
        "drive" => {
            let (controller, unit) = (part("controller"), part("unit"));
            let (bus, unit) = match device.attribute_at("target", "bus")? {
                "ide" => (format!("ide.{}", part("bus")), unit),
                // A SATA port is a bus of its own.
                "sata" if controller == 0 && is_q35(document) => (format!("ide.{unit}"), 0),
                "sata" => (format!("sata{controller}.{unit}"), 0),
                "scsi" => (format!("scsi{controller}.0"), unit),
                _ => return None,
            };
            Some(Place::Drive { bus, target: part("target"), unit })
        }
        _ => None,
    }
}

fn controller(document: &Element, element: &Element) -> Result<Option<Kind>> {
    let index = element.attribute("index").unwrap_or("0");
    let model = element.attribute("model").unwrap_or_default();
    let q35 = is_q35(document);
    let ports = element.attribute("ports").and_then(|ports| ports.parse().ok());
    let plain = |model: &str| Ok(Some(Kind::Controller { model: model.to_owned(), ports: None }));
    match (element.attribute("type").unwrap_or_default(), model) {
        ("pci", "pci-root" | "pcie-root") => Ok(None),
        ("pci", "pcie-root-port") => {
            let part = |name| element.attribute_at("target", name).and_then(number);
            Ok(Some(Kind::PciBridge {
                model: "pcie-root-port".to_owned(),
                chassis: part("chassis").unwrap_or(1),
                port: part("port"),
            }))
        }
        ("pci", "pci-bridge") => Ok(Some(Kind::PciBridge {
            model: "pci-bridge".to_owned(),
            chassis: number(index).unwrap_or(1),
            port: None,
        })),
        ("pci", "pcie-to-pci-bridge") => plain("pcie-pci-bridge"),
        // The board's own.
        ("sata", _) if q35 && index == "0" => Ok(None),
        ("ide", _) if !q35 && index == "0" => Ok(None),
        ("fdc", _) if !q35 => Ok(None),
        ("fdc", _) => plain("isa-fdc"),
        ("sata", _) => plain("ich9-ahci"),
        ("scsi", "lsilogic") => plain("lsi"),
        ("scsi", "virtio-scsi") => plain("virtio-scsi-pci"),
        ("usb", "qemu-xhci") => Ok(Some(Kind::Controller { model: "qemu-xhci".to_owned(), ports })),
        ("usb", "nec-xhci") => {
            Ok(Some(Kind::Controller { model: "nec-usb-xhci".to_owned(), ports }))
        }
        ("usb", "piix3-uhci") => plain("piix3-usb-uhci"),
        ("usb", "piix4-uhci") => plain("piix4-usb-uhci"),
        ("usb", "ehci") => plain("usb-ehci"),
        ("usb", "none") => Ok(None),
        ("usb", model @ ("ich9-ehci1" | "ich9-uhci1" | "ich9-uhci2" | "ich9-uhci3")) => {
            plain(&format!("ich9-usb-{}", &model[5..]))
        }
        ("virtio-serial", _) => plain("virtio-serial-pci"),
        (kind, model) => {
            Err(unsupported(format!("controller type '{kind}' model '{model}' is not supported")))
        }
    }
}

fn disk(element: &Element) -> Result<Disk> {
    let target = element.attribute_at("target", "dev").unwrap_or_default();
    let bus = match element.attribute_at("target", "bus").unwrap_or_default() {
        "virtio" => Bus::Virtio,
        "ide" | "sata" => Bus::Ide,
        "scsi" => Bus::Scsi,
        "usb" => Bus::Usb,
        "fdc" => Bus::Floppy,
        other => {
            return Err(unsupported(format!("disk bus '{other}' of '{target}' is not supported")));
        }
    };
    let medium = match element.attribute("device") {
        Some("cdrom") => Medium::Cdrom,
        Some("floppy") => Medium::Floppy,
        _ => Medium::Disk,
    };
    let serial = element.text_at("serial");
    Ok(Disk { bus, medium, image: image(element)?, serial })
}

/// What is in a drive.
pub fn image(element: &Element) -> Result<Option<Image>> {
    let Some(source) = element.child("source") else { return Ok(None) };
    let kind = element.attribute("type").unwrap_or("file");
    if !matches!(kind, "file" | "block") {
        return Err(unsupported(format!("disk type '{kind}' is not supported")));
    }
    let file = source.attribute("file").or_else(|| source.attribute("dev"));
    let Some(file) = file else { return Ok(None) };
    let driver = |name: &str| element.attribute_at("driver", name).map(str::to_owned);
    let index = source.attribute("index").unwrap_or("0");
    let backing = element
        .child("backingStore")
        .is_some_and(|store| !store.children.is_empty() || !store.attributes.is_empty());
    Ok(Some(Image {
        node: format!("libvirt-{index}-format"),
        file: file.to_owned(),
        is_block_device: kind == "block",
        format: driver("type").unwrap_or_else(|| "raw".to_owned()),
        read_only: element.child("readonly").is_some(),
        cache: driver("cache").filter(|cache| cache != "default"),
        io: driver("io"),
        discard: driver("discard"),
        backing,
    }))
}

fn network(element: &Element, networks: &Networks) -> Result<Network> {
    let kind = element.attribute("type").unwrap_or_default();
    let backend = match kind {
        "user" => Wire::User { subnet: None, isolated: false, forwards: forwards(element) },
        "network" if element.attribute_at("source", "bridge").is_none() => {
            stand_in(element, networks)
        }
        "ethernet" | "network" | "bridge" => Wire::Tap {
            device: element.attribute_at("target", "dev").unwrap_or_default().to_owned(),
        },
        other => {
            return Err(unsupported(format!("interface type '{other}' is not supported")));
        }
    };
    let model = match element.attribute_at("model", "type").unwrap_or("rtl8139") {
        "virtio" => "virtio-net-pci",
        model @ ("e1000" | "e1000e" | "rtl8139" | "ne2k_pci" | "pcnet" | "vmxnet3") => model,
        "i82551" => "i82551",
        other => {
            return Err(unsupported(format!("interface model '{other}' is not supported")));
        }
    };
    Ok(Network {
        model: model.to_owned(),
        mac: element.attribute_at("mac", "address").unwrap_or_default().to_owned(),
        backend,
        link_down: element.attribute_at("link", "state") == Some("down"),
    })
}

/// The emulator's own stack in a network's stead, with the network's addresses.
fn stand_in(element: &Element, networks: &Networks) -> Wire {
    let name = element.attribute_at("source", "network").unwrap_or_default();
    let network = networks.get(name);
    let ip = network.and_then(|network| {
        network.all("ip").find(|ip| ip.attribute("family").unwrap_or("ipv4") == "ipv4")
    });
    let subnet = ip.and_then(|ip| {
        let gateway = ip.attribute("address")?.to_owned();
        let prefix = match (ip.attribute("prefix"), ip.attribute("netmask")) {
            (Some(prefix), _) => prefix.parse().ok()?,
            (None, Some(mask)) => u32::from(mask.parse::<Ipv4Addr>().ok()?).count_ones() as u8,
            (None, None) => 24,
        };
        let first = ip.attribute_at("dhcp/range", "start").map(str::to_owned);
        Some(Subnet { gateway, prefix, first })
    });
    let isolated = network.is_some_and(|network| network.child("forward").is_none());
    Wire::User { subnet, isolated, forwards: forwards(element) }
}

/// `<portForward>` as newer libvirt writes it: `<range start='8080' to='80'/>`.
fn forwards(element: &Element) -> Vec<String> {
    let mut list = Vec::new();
    for forward in element.all("portForward") {
        let protocol = forward.attribute("proto").unwrap_or("tcp");
        let address = forward.attribute("address").unwrap_or("127.0.0.1");
        for range in forward.all("range") {
            let Some(start) = range.attribute("start") else { continue };
            let to = range.attribute("to").unwrap_or(start);
            list.push(format!("{protocol}:{address}:{start}-:{to}"));
        }
    }
    list
}

fn backend(element: &Element) -> Result<Backend> {
    let source = |name: &str| element.attribute_at("source", name).unwrap_or_default().to_owned();
    let listen = source("mode") != "connect";
    match element.attribute("type").unwrap_or("pty") {
        "pty" => Ok(Backend::Terminal),
        "null" => Ok(Backend::Null),
        "file" => Ok(Backend::File { path: source("path"), append: source("append") == "on" }),
        "unix" => Ok(Backend::Socket { path: source("path"), listen }),
        "tcp" => Ok(Backend::Tcp { host: source("host"), port: source("service"), listen }),
        other => Err(unsupported(format!("character device type '{other}' is not supported"))),
    }
}

/// `<log file='...' append='on'/>`.
fn log(element: &Element) -> Option<Log> {
    let log = element.child("log")?;
    let path = log.attribute("file")?.to_owned();
    Some(Log { path, append: log.is("append", "on") })
}

fn channel(element: &Element, console: bool) -> Result<Kind> {
    if !console && element.attribute_at("target", "type") != Some("virtio") {
        return Err(unsupported("only channels of target type 'virtio' are supported"));
    }
    let name = element.attribute_at("target", "name").unwrap_or_default().to_owned();
    Ok(Kind::Channel { name, backend: backend(element)?, log: log(element), console })
}

fn input(element: &Element) -> Result<Option<Kind>> {
    let kind = element.attribute("type").unwrap_or_default();
    let model = match (kind, element.attribute("bus").unwrap_or("ps2")) {
        (_, "ps2") => return Ok(None),
        ("tablet", "usb") => "usb-tablet",
        ("mouse", "usb") => "usb-mouse",
        ("keyboard", "usb") => "usb-kbd",
        ("tablet", "virtio") => "virtio-tablet-pci",
        ("mouse", "virtio") => "virtio-mouse-pci",
        ("keyboard", "virtio") => "virtio-keyboard-pci",
        (kind, bus) => {
            return Err(unsupported(format!("input '{kind}' on bus '{bus}' is not supported")));
        }
    };
    Ok(Some(Kind::Input { model: model.to_owned() }))
}

fn screen(element: &Element) -> Result<Vnc> {
    let kind = element.attribute("type").unwrap_or_default();
    if kind != "vnc" {
        return Err(unsupported(format!("graphics type '{kind}' is not supported")));
    }
    let first = element.child("listen");
    let socket = first
        .filter(|listen| listen.is("type", "socket"))
        .and_then(|listen| listen.attribute("socket"))
        .or_else(|| element.attribute("socket"))
        .map(str::to_owned);
    let address = element.attribute("listen").unwrap_or("127.0.0.1").to_owned();
    let port = element.attribute("port").and_then(|port| port.parse::<u16>().ok());
    Ok(Vnc {
        listen: port.filter(|_| socket.is_none()).map(|port| (address, port)),
        socket,
        password: element.attribute("passwd").is_some_and(|password| !password.is_empty()),
        websocket: element.attribute("websocket").and_then(|port| port.parse().ok()),
        keymap: element.attribute("keymap").map(str::to_owned),
        share: element.attribute("sharePolicy").map(str::to_owned),
    })
}

fn video(element: &Element) -> Result<Option<Kind>> {
    let kind = element.attribute_at("model", "type").unwrap_or("cirrus");
    let primary = element.attribute_at("model", "primary") == Some("yes");
    let heads = element.attribute_at("model", "heads").and_then(|heads| heads.parse().ok());
    let memory: Option<u32> =
        element.attribute_at("model", "vram").and_then(|kib| kib.parse().ok());
    let model = match (kind, primary) {
        ("none", _) => return Ok(None),
        ("vga", true) => "VGA",
        ("vga", false) => "secondary-vga",
        ("cirrus", _) => "cirrus-vga",
        ("vmvga", _) => "vmware-svga",
        ("virtio", true) => "virtio-vga",
        ("virtio", false) => "virtio-gpu-pci",
        ("bochs", _) => "bochs-display",
        ("ramfb", _) => "ramfb",
        (other, _) => return Err(unsupported(format!("video model '{other}' is not supported"))),
    };
    Ok(Some(Kind::Video {
        model: model.to_owned(),
        memory_mib: memory.filter(|_| kind == "vga").map(|kib| (kib / 1024).max(1)),
        heads: heads.filter(|_| kind == "virtio"),
    }))
}

fn sound(element: &Element) -> Result<Kind> {
    let (model, codec) = match element.attribute("model").unwrap_or_default() {
        "ich6" => ("intel-hda", Some("hda-duplex")),
        "ich9" => ("ich9-intel-hda", Some("hda-duplex")),
        "ac97" => ("AC97", None),
        "es1370" => ("ES1370", None),
        "sb16" => ("sb16", None),
        other => return Err(unsupported(format!("sound model '{other}' is not supported"))),
    };
    Ok(Kind::Sound { model: model.to_owned(), codec: codec.map(str::to_owned) })
}

/// The socket on the host's side is known only when the machine starts.
fn vsock(element: &Element) -> Result<Kind> {
    let context = element.attribute_at("cid", "address").and_then(|text| text.parse().ok());
    match context.filter(|context| *context >= 3) {
        Some(context) => Ok(Kind::Vsock { context, socket: None }),
        None => Err(unsupported("guest CIDs must be >= 3".to_owned())),
    }
}

fn watchdog(element: &Element) -> Result<Option<Kind>> {
    let action = element.attribute("action").unwrap_or("reset").to_owned();
    let model = match element.attribute("model").unwrap_or_default() {
        model @ ("i6300esb" | "ib700") => model.to_owned(),
        // The board's own.
        "itco" => return Ok(None),
        other => return Err(unsupported(format!("watchdog model '{other}' is not supported"))),
    };
    Ok(Some(Kind::Watchdog { model, action }))
}

fn random(element: &Element) -> Result<Kind> {
    let backend = element.attribute_at("backend", "model").unwrap_or("random");
    if backend != "random" {
        return Err(unsupported(format!("rng back end '{backend}' is not supported")));
    }
    let file = element.text_at("backend").filter(|file| !file.is_empty());
    Ok(Kind::Random { file: file.unwrap_or_else(|| "/dev/urandom".to_owned()) })
}
