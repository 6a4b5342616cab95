//! One device: what backs it, and the arguments of `-device` or `device_add`.

use serde_json::{Map, Value, json};
use spec::device::{
    Backend, Bus, Device, Disk, Image, Kind, Log, Medium, Network, Place, Vnc, Wire,
};

use super::{Backing, doubled};

/// What has to be made before the device.
pub fn backends(device: &Device) -> Vec<Backing> {
    let id = &device.id;
    match &device.kind {
        Kind::Disk(disk) => disk.image.as_ref().map(image).unwrap_or_default(),
        Kind::Network(card) => wire(id, &card.backend),
        Kind::Serial { backend, log, .. } | Kind::Channel { backend, log, .. } => {
            vec![character(id, backend, log.as_ref())]
        }
        Kind::Vnc(screen) => {
            let layout = screen.keymap.iter().map(|map| Backing::Option("-k", map.clone()));
            let screen = Backing::Option("-vnc", vnc(screen));
            std::iter::once(screen).chain(layout).collect()
        }
        Kind::Random { file } => vec![Backing::Object(json!({
            "qom-type": "rng-random", "id": format!("obj{id}"), "filename": file
        }))],
        Kind::NoAudio => vec![Backing::Audio(json!({"id": id, "driver": "none"}))],
        Kind::Watchdog { action, .. } => {
            vec![Backing::Option("-watchdog-action", action.clone())]
        }
        _ => Vec::new(),
    }
}

/// The two nodes of an image: the file, and the format on top.
fn image(image: &Image) -> Vec<Backing> {
    let storage = image.node.replace("-format", "-storage");
    let driver = if image.is_block_device { "host_device" } else { "file" };
    let mut file = object(&[("driver", driver.into()), ("filename", image.file.as_str().into())]);
    if let Some(io) = &image.io {
        file.insert("aio".into(), io.as_str().into());
    }
    file.insert("node-name".into(), storage.as_str().into());
    let cache = image.cache.as_deref().map(|cache| {
        let direct = matches!(cache, "none" | "directsync");
        json!({"direct": direct, "no-flush": cache == "unsafe"})
    });
    if let Some(cache) = &cache {
        file.insert("cache".into(), cache.clone());
    }
    file.insert("auto-read-only".into(), true.into());
    file.insert("discard".into(), "unmap".into());
    let mut format =
        object(&[("node-name", image.node.as_str().into()), ("read-only", image.read_only.into())]);
    if let Some(discard) = &image.discard {
        format.insert("discard".into(), discard.as_str().into());
    }
    if let Some(cache) = cache {
        format.insert("cache".into(), cache);
    }
    format.insert("driver".into(), image.format.as_str().into());
    format.insert("file".into(), storage.into());
    if matches!(image.format.as_str(), "qcow2" | "qcow" | "qed" | "vmdk") && !image.backing {
        format.insert("backing".into(), Value::Null);
    }
    vec![Backing::Block(Value::Object(file)), Backing::Block(Value::Object(format))]
}

fn wire(id: &str, wire: &Wire) -> Vec<Backing> {
    let id = format!("host{id}");
    match wire {
        Wire::User { subnet, isolated, forwards } => {
            let mut user = object(&[("type", "user".into()), ("id", id.into())]);
            if let Some(subnet) = subnet {
                let net = format!("{}/{}", subnet.gateway, subnet.prefix);
                user.insert("net".into(), net.into());
                user.insert("host".into(), subnet.gateway.as_str().into());
                if let Some(first) = &subnet.first {
                    user.insert("dhcpstart".into(), first.as_str().into());
                }
            }
            if *isolated {
                user.insert("restrict".into(), true.into());
            }
            if !forwards.is_empty() {
                let forwards = forwards.iter().map(|forward| json!({"str": forward}));
                user.insert("hostfwd".into(), forwards.collect());
            }
            vec![Backing::Network(Value::Object(user))]
        }
        Wire::Tap { device } => vec![Backing::Network(json!({
            "type": "tap", "id": id, "ifname": device, "script": "no", "downscript": "no"
        }))],
        Wire::TapDescriptor { descriptor } => vec![Backing::Network(json!({
            "type": "tap", "id": id, "fd": descriptor
        }))],
        Wire::None => Vec::new(),
    }
}

fn character(id: &str, backend: &Backend, log: Option<&Log>) -> Backing {
    let id = format!("char{id}");
    let switch = |on: bool| if on { "on" } else { "off" };
    let (mut text, mut kind) = match backend {
        Backend::Terminal => ("pty".to_owned(), json!({"type": "pty", "data": {}})),
        Backend::Null => ("null".to_owned(), json!({"type": "null", "data": {}})),
        Backend::File { path, append } => (
            format!("file,path={},append={}", doubled(path), switch(*append)),
            json!({"type": "file", "data": {"out": path, "append": append}}),
        ),
        Backend::Socket { path, listen } => {
            let wait = if *listen { ",server=on,wait=off" } else { "" };
            let address = json!({"type": "unix", "data": {"path": path}});
            (
                format!("socket,path={}{wait}", doubled(path)),
                json!({"type": "socket", "data": {"addr": address, "server": listen, "wait": false}}),
            )
        }
        Backend::Tcp { host, port, listen } => {
            let wait = if *listen { ",server=on,wait=off" } else { "" };
            let address = json!({"type": "inet", "data": {"host": host, "port": port}});
            (
                format!("socket,host={},port={port}{wait}", doubled(host)),
                json!({"type": "socket", "data": {"addr": address, "server": listen, "wait": false}}),
            )
        }
    };
    if let Some(Log { path, append }) = log {
        text.push_str(&format!(",logfile={},logappend={}", doubled(path), switch(*append)));
        kind["data"]["logfile"] = json!(path);
        kind["data"]["logappend"] = json!(append);
    }
    let (kind_name, rest) = match text.split_once(',') {
        Some((name, rest)) => (name.to_owned(), format!(",{rest}")),
        None => (text, String::new()),
    };
    let text = format!("{kind_name},id={id}{rest}");
    Backing::Character(text, json!({"id": id, "backend": kind}))
}

fn vnc(screen: &Vnc) -> String {
    let mut text = match (&screen.listen, &screen.socket) {
        (_, Some(path)) => format!("unix:{}", doubled(path)),
        (Some((host, port)), None) => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            format!("{host}:{}", port.saturating_sub(5900))
        }
        (None, None) => "none".to_owned(),
    };
    if let Some(port) = screen.websocket {
        text.push_str(&format!(",websocket={port}"));
    }
    if screen.password {
        text.push_str(",password=on");
    }
    if let Some(share) = &screen.share {
        text.push_str(&format!(",share={share}"));
    }
    text.push_str(",audiodev=audio1");
    text
}

fn object(entries: &[(&str, Value)]) -> Map<String, Value> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

/// The arguments of every `-device` that the device consists of.
pub fn device_arguments(device: &Device) -> Vec<Value> {
    let id = &device.id;
    let mut extra = Vec::new();
    let mut arguments = match &device.kind {
        Kind::PciBridge { model, chassis, port } => bridge(model, *chassis, *port),
        Kind::Controller { model, ports } => {
            let mut controller = object(&[("driver", model.as_str().into())]);
            if let Some(ports) = ports {
                controller.insert("p2".into(), (*ports).into());
                controller.insert("p3".into(), (*ports).into());
            }
            controller
        }
        Kind::Disk(disk) => disk_arguments(disk),
        Kind::Network(card) => network_arguments(id, card),
        Kind::Serial { number, .. } => object(&[
            ("driver", "isa-serial".into()),
            ("chardev", format!("char{id}").into()),
            ("index", (*number).into()),
        ]),
        Kind::Channel { name, console, .. } => {
            let driver = if *console { "virtconsole" } else { "virtserialport" };
            let mut channel =
                object(&[("driver", driver.into()), ("chardev", format!("char{id}").into())]);
            if !name.is_empty() {
                channel.insert("name".into(), name.as_str().into());
            }
            channel
        }
        Kind::Video { model, memory_mib, heads } => {
            let mut card = object(&[("driver", model.as_str().into())]);
            if let Some(memory) = memory_mib {
                card.insert("vgamem_mb".into(), (*memory).into());
            }
            if let Some(heads) = heads {
                card.insert("max_outputs".into(), (*heads).into());
            }
            card
        }
        Kind::Input { model } => object(&[("driver", model.as_str().into())]),
        Kind::Sound { model, codec } => {
            if let Some(codec) = codec {
                extra.push(json!({"driver": codec, "id": format!("{id}-codec0"),
                    "bus": format!("{id}.0"), "cad": 0, "audiodev": "audio1"}));
                object(&[("driver", model.as_str().into())])
            } else {
                object(&[("driver", model.as_str().into()), ("audiodev", "audio1".into())])
            }
        }
        Kind::Balloon { deflates_on_oom, reports_free_pages, .. } => {
            balloon(*deflates_on_oom, *reports_free_pages)
        }
        Kind::Random { .. } => {
            object(&[("driver", "virtio-rng-pci".into()), ("rng", format!("obj{id}").into())])
        }
        Kind::Vsock { context, socket } => vsock(*context, socket.as_deref()),
        Kind::Watchdog { model, .. } => object(&[("driver", model.as_str().into())]),
        Kind::Panic => object(&[("driver", "pvpanic".into())]),
        Kind::Vnc(_) | Kind::NoAudio => return Vec::new(),
    };
    arguments.insert("id".into(), id.as_str().into());
    if let Some(place) = &device.place {
        put(place, &device.kind, &mut arguments);
    }
    if let Some(index) = device.boot_index {
        arguments.insert("bootindex".into(), index.into());
    }
    extra.insert(0, Value::Object(arguments));
    extra
}

fn balloon(deflates_on_oom: bool, reports_free_pages: bool) -> Map<String, Value> {
    let mut balloon = object(&[("driver", "virtio-balloon-pci".into())]);
    for (name, on) in
        [("deflate-on-oom", deflates_on_oom), ("free-page-reporting", reports_free_pages)]
    {
        if on {
            balloon.insert(name.to_owned(), true.into());
        }
    }
    balloon
}

fn vsock(context: u64, socket: Option<&str>) -> Map<String, Value> {
    let mut arguments = object(&[("driver", "vhost-vsock-pci".into())]);
    arguments.insert("guest-cid".into(), context.into());
    if let Some(socket) = socket {
        arguments.insert("path".into(), socket.into());
    }
    arguments
}

fn bridge(model: &str, chassis: u32, port: Option<u32>) -> Map<String, Value> {
    let mut bridge = object(&[("driver", model.into())]);
    if let Some(port) = port {
        bridge.insert("port".into(), port.into());
    }
    let key = if port.is_some() { "chassis" } else { "chassis_nr" };
    bridge.insert(key.into(), chassis.into());
    bridge
}

fn disk_arguments(disk: &Disk) -> Map<String, Value> {
    let driver = match (disk.bus, disk.medium) {
        (Bus::Virtio, _) => "virtio-blk-pci",
        (Bus::Ide, Medium::Cdrom) => "ide-cd",
        (Bus::Ide, _) => "ide-hd",
        (Bus::Scsi, Medium::Cdrom) => "scsi-cd",
        (Bus::Scsi, _) => "scsi-hd",
        (Bus::Usb, _) => "usb-storage",
        (Bus::Floppy, _) => "floppy",
    };
    let mut arguments = object(&[("driver", driver.into())]);
    if let Some(image) = &disk.image {
        arguments.insert("drive".into(), image.node.as_str().into());
    }
    if let Some(cache) = disk.image.as_ref().and_then(|image| image.cache.as_deref()) {
        let on = !matches!(cache, "writethrough" | "directsync");
        arguments.insert("write-cache".into(), if on { "on" } else { "off" }.into());
    }
    if let Some(serial) = &disk.serial {
        arguments.insert("serial".into(), serial.as_str().into());
    }
    if disk.bus == Bus::Usb {
        arguments.insert("removable".into(), false.into());
    }
    arguments
}

fn network_arguments(id: &str, card: &Network) -> Map<String, Value> {
    let mut arguments = object(&[("driver", card.model.as_str().into())]);
    if card.backend != Wire::None {
        arguments.insert("netdev".into(), format!("host{id}").into());
    }
    arguments.insert("mac".into(), card.mac.as_str().into());
    arguments
}

fn put(place: &Place, kind: &Kind, arguments: &mut Map<String, Value>) {
    match place {
        Place::Pci { bus, slot, function, multifunction } => {
            arguments.insert("bus".into(), bus.as_str().into());
            let address = match function {
                0 => format!("0x{slot:x}"),
                function => format!("0x{slot:x}.0x{function:x}"),
            };
            if *multifunction {
                arguments.insert("multifunction".into(), true.into());
            }
            arguments.insert("addr".into(), address.into());
        }
        Place::Usb { bus, port } => {
            arguments.insert("bus".into(), bus.as_str().into());
            arguments.insert("port".into(), port.as_str().into());
        }
        Place::Drive { bus, target, unit } => {
            arguments.insert("bus".into(), bus.as_str().into());
            match kind {
                Kind::Disk(Disk { bus: Bus::Scsi, .. }) if bus.starts_with("scsi") => {
                    arguments.insert("scsi-id".into(), (*target).max(*unit).into());
                }
                _ => _ = arguments.insert("unit".into(), (*unit).into()),
            }
        }
        Place::Port { bus, number } => {
            arguments.insert("bus".into(), bus.as_str().into());
            arguments.insert("nr".into(), (*number).into());
        }
    }
}
