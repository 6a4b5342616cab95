//! Debian's kernel with its own virtio drivers, on both boards.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Log, MemoryDisk, Rig, boot_disk, firmware, part, text};
use device::{Blob, Stream, StreamPeer};
use machine::{BoardKind, Boot, Kernel, Machine, Part, Picture, PropertyValue};
use net::user::{Config, HostEnd, HostForward, UserNet};
use net::{Backend, Capabilities, Card, Offload};
use parking_lot::Mutex;

const MODULES: &[&str] = &[
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
    "drivers/char/hw_random/virtio-rng.ko",
    "drivers/char/virtio_console.ko",
    "drivers/virtio/virtio_balloon.ko",
    "drivers/virtio/virtio_input.ko",
    "net/vmw_vsock/vsock.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport.ko",
];

const START: &str = r#"
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
for m in MODULES; do $b insmod /$m || echo "insmod $m failed"; done
"#;

/// What the guest does: each line proves a device. The serial port stays open between its two lines:
/// its driver drops what arrives while it is closed.
const SCRIPT: &str = r#"
echo "size $($b cat /sys/block/vda/size) serial $($b cat /sys/block/vda/serial)"
$b md5sum /dev/vda
$b dd if=/dev/urandom of=/dev/vda bs=64k count=32 seek=64 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
$b dd if=/dev/vda bs=64k count=32 skip=64 2>/dev/null | $b md5sum
echo "bytes from the host: $($b dd if=/dev/hwrng bs=16 count=4 2>/dev/null | $b wc -c)"
$b ip link set eth0 address 52:54:00:00:00:99
$b ip addr add 10.0.0.2/24 dev eth0; $b ip link set eth0 up
$b ping -c 3 -W 5 10.0.0.1
p=$(echo /dev/vport*p1)
echo "port $($b cat /sys/class/virtio-ports/vport*p1/name)"
exec 3<>$p
echo "hello port" >&3
echo "heard $($b head -n 1 <&3)"
$b grep -h . /sys/class/input/input*/name
$b grep -c virtio /proc/interrupts
echo "all done"
$b sleep 1000
"#;

/// A back end on which 10.0.0.1 answers ARP and pings.
#[derive(Default)]
struct Pinged {
    card: Mutex<Option<Weak<dyn Card>>>,
}

impl Backend for Pinged {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn transmit(&self, frame: &[u8], _offload: Offload) {
        let mut answer = frame.to_vec();
        let own = [2, 0, 0, 0, 0, 1];
        match frame.get(12..14) {
            // ARP's request becomes its answer.
            Some([8, 6]) if frame.len() >= 42 && frame[38..42] == [10, 0, 0, 1] => {
                answer[21] = 2;
                answer[32..42].copy_from_slice(&frame[22..32]);
                answer[22..28].copy_from_slice(&own);
                answer[28..32].copy_from_slice(&frame[38..42]);
            }
            // An echo request becomes a reply, whose sum differs by the type.
            Some([8, 0]) if frame.len() >= 42 && frame[23] == 1 && frame[34] == 8 => {
                answer[26..30].copy_from_slice(&frame[30..34]);
                answer[30..34].copy_from_slice(&frame[26..30]);
                answer[34] = 0;
                let sum = u32::from(u16::from_be_bytes([frame[36], frame[37]])) + 0x0800;
                let sum = (sum & 0xffff) + (sum >> 16);
                answer[36..38].copy_from_slice(&(sum as u16).to_be_bytes());
            }
            _ => return,
        }
        answer[..6].copy_from_slice(&frame[6..12]);
        answer[6..12].copy_from_slice(&own);
        let card = self.card.lock().as_ref().and_then(Weak::upgrade);
        card.map(|card| card.receive(&answer, Offload::default()));
    }

    fn attach(&self, card: Weak<dyn Card>) {
        *self.card.lock() = Some(card);
    }

    fn set_guest_offload(&self, _granted: Capabilities) {}

    fn room(&self) {}

    fn link(&self) -> bool {
        true
    }

    fn info(&self) -> String {
        String::new()
    }
}

/// The kernel, and an initial RAM disk with the drivers and this script.
fn kernel(folder: &Path, script: &str) -> Option<Kernel> {
    let busybox = tests::asset("busybox-amd64/bin/busybox")?;
    let image = tests::asset_file("kernel-12/boot", "vmlinuz")?;
    let modules = tests::asset("kernel-12/lib/modules")?;
    let modules = fs::read_dir(modules).ok()?.next()?.ok()?.path().join("kernel");
    let files: Vec<PathBuf> = MODULES.iter().map(|module| modules.join(module)).collect();
    let names: Vec<_> =
        files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy())).collect();
    let script = START.replace("MODULES", &names.join(" ")) + script;
    let initrd = folder.join("initrd");
    tests::initramfs::write_with(&initrd, &busybox, &script, &files).ok()?;
    Some(Kernel {
        image: Blob::open(&image).ok()?,
        initrd: Blob::open(&initrd).ok()?,
        command_line: "console=ttyS0 quiet panic=-1".to_owned(),
    })
}

/// A port's far end: what came, and the way back.
#[derive(Default)]
struct Far {
    log: Log,
    peer: Mutex<Option<Weak<dyn StreamPeer>>>,
}

impl Stream for Far {
    fn write(&self, bytes: &[u8]) -> usize {
        self.log.write(bytes)
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        *self.peer.lock() = Some(peer);
    }
}

impl Far {
    fn send(&self, bytes: &[u8]) {
        let peer = self.peer.lock().as_ref().and_then(Weak::upgrade).expect("the port is there");
        assert!(eventually(|| peer.room() >= bytes.len()), "the guest reads");
        peer.receive(bytes);
    }
}

/// Generous for an unoptimised build on a busy machine.
fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

fn parts(socket: &Path, legacy: bool) -> Vec<Part> {
    let virtio = |model: &str, more: &[(&str, PropertyValue)]| {
        let mut properties = more.to_vec();
        if legacy {
            properties.push(("disable-modern", PropertyValue::Bool(true)));
        }
        part(model, &properties)
    };
    vec![
        virtio("virtio-blk-pci", &[("drive", text("disk")), ("serial", text("s-1"))]),
        virtio("virtio-net-pci", &[("netdev", text("net"))]),
        virtio("virtio-serial-pci", &[]),
        part("virtserialport", &[("chardev", text("port")), ("name", text("test.0"))]),
        virtio("virtio-rng-pci", &[]),
        virtio("virtio-balloon-pci", &[]),
        part("virtio-keyboard-pci", &[]),
        part("virtio-tablet-pci", &[]),
        part(
            "vhost-vsock-pci",
            &[("guest-cid", PropertyValue::Unsigned(3)), ("path", text(&socket.to_string_lossy()))],
        ),
    ]
}

/// What is done from outside while the guest runs its script.
fn drive(machine: &Machine, far: &Far, serial: &Log, socket: &Path) -> bool {
    if !eventually(|| far.log.text().contains("hello port")) {
        return false;
    }
    far.send(b"hi guest\n");
    let balloons = machine.with_parts(|parts| {
        parts.iter().filter_map(|part| part.controls.balloon.clone()).collect::<Vec<_>>()
    });
    balloons[0].set_target(240 << 20);
    if !eventually(|| balloons[0].actual() == 240 << 20) {
        return false;
    }
    // Nobody in the guest listens, and its kernel says so.
    let mut socket = UnixStream::connect(socket).expect("the device listens");
    socket.write_all(b"CONNECT 99\n").expect("it takes the greeting");
    assert_eq!(socket.read(&mut [0; 8]).ok(), Some(0));
    serial.wait_for("all done")
}

fn md5(path: &Path, busybox: &Path) -> String {
    let output = Command::new(busybox).arg("md5sum").arg(path).output().expect("busybox runs");
    String::from_utf8_lossy(&output.stdout).chars().take(32).collect()
}

fn check(name: &str, board: BoardKind, legacy: bool) {
    let folder = tests::scratch(name);
    let Some(kernel) = kernel(&folder, SCRIPT) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    let busybox = tests::asset("busybox-amd64/bin/busybox").expect("the kernel's RAM disk has it");
    let image = folder.join("disk.raw");
    let contents: Vec<u8> = (0..8_u32 << 20).map(|at| (at ^ at >> 9) as u8).collect();
    fs::write(&image, &contents).expect("the folder is ours");
    let whole = md5(&image, &busybox);
    let mode = block::open::OpenMode { write: true, ..block::open::OpenMode::default() };
    let mut options = block::OpenOptions::new();
    options.set("driver", "raw");
    let disk = block::open::open(image.to_str(), options, &mode).expect("the image can be opened");

    let mut rig = Rig::new(board, Vec::new());
    let far = Arc::new(Far::default());
    let socket = folder.join("v.sock");
    rig.config.boot = Boot { kernel: Some(kernel), ..Boot::default() };
    rig.config.backends.drives.insert("disk", disk);
    rig.config.backends.networks.insert("net", Arc::new(Pinged::default()));
    rig.config.backends.streams.insert("port", Arc::clone(&far) as Arc<dyn Stream>);
    rig.config.parts.extend(parts(&socket, legacy));
    rig.config.processors = if legacy { 1 } else { 2 };
    let serial = Arc::clone(&rig.serial);
    let (_, console, _) = rig.run(|machine, _| drive(machine, &far, &serial, &socket));
    println!("{console}");

    let part = folder.join("part");
    let written = fs::read(&image).expect("the image is there");
    assert_eq!(written[..4 << 20], contents[..4 << 20], "nothing else has changed");
    fs::write(&part, &written[4 << 20..6 << 20]).expect("the folder is ours");
    for expected in [
        "size 16384 serial s-1",
        &whole,
        &md5(&part, &busybox),
        "bytes from the host: 64",
        "3 packets received",
        "port test.0",
        "heard hi guest",
        "Hostel Virtio Keyboard",
        "Hostel Virtio Tablet",
    ] {
        assert!(console.contains(expected), "{expected}:\n{console}");
    }
    assert!(!console.contains("failed"), "{console}");
}

#[test]
fn debian_drives_every_device_on_q35() {
    check("virtio-q35", BoardKind::Q35, false);
}

#[test]
fn debian_drives_legacy_devices_on_pc() {
    check("virtio-pc", BoardKind::Pc, true);
}

#[test]
fn seabios_boots_from_a_virtio_disk() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    for (board, model) in [
        (BoardKind::Pc, "virtio-blk-pci"),
        (BoardKind::Q35, "virtio-blk-pci-transitional"),
        (BoardKind::Q35, "virtio-blk-pci-non-transitional"),
    ] {
        let mut rig = Rig::new(board, rom.clone());
        let disk = boot_disk("booted from virtio\n");
        rig.config.backends.drives.insert("disk", disk as Arc<dyn block::Node>);
        rig.config.parts.push(part(model, &[("drive", text("disk"))]));
        let serial = Arc::clone(&rig.serial);
        let (log, ..) = rig.run(move |_, _| serial.wait_for("booted from virtio"));
        assert!(log.contains("Booting from Hard Disk"), "{model} on {board:?}: {log}");
    }
}

/// DHCP, then data both ways; the packets tell whether segmentation was left to the far end.
const TRANSFER: &str = r#"
echo '#!/bin/busybox sh
[ "$1" = bound ] && /bin/busybox ip addr add $ip/24 dev eth0 &&
/bin/busybox ip route add default via $router' > /dhcp; $b chmod 755 /dhcp
$b ip link set eth0 up
$b udhcpc -i eth0 -n -q -s /dhcp 2>&1
packets() { $b cat /sys/class/net/eth0/statistics/$1_packets; }
echo "sum $($b nc 10.0.2.2 DOWN < /dev/null | $b md5sum)"
r=$(packets rx)
$b time -f "down %e s" $b nc 10.0.2.2 DOWN < /dev/null > /dev/null
echo "received $(($(packets rx) - r)) packets"
$b dd if=/dev/zero of=/dev/data bs=64k count=256 2>/dev/null
t=$(packets tx)
$b httpd -h /dev
echo "serving"
$b nc 10.0.2.2 UP < /dev/null
echo "transmitted $(($(packets tx) - t)) packets"
echo "all done"
$b sleep 1000
"#;

const TRANSFER_BYTES: usize = 16 << 20;

/// Fetches the guest's file: its bytes, and those of the header.
fn fetch(forward: &HostForward) -> usize {
    let HostEnd::Tcp(address) = forward.from else { return 0 };
    let mut socket = TcpStream::connect(address).expect("the forwarding listens");
    socket.write_all(b"GET /data HTTP/1.0\r\n\r\n").expect("it takes the request");
    let mut all = Vec::new();
    socket.read_to_end(&mut all).expect("it answers");
    all.len()
}

fn transfer(name: &str, offloads: bool) {
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (down, up) = (listen(), listen());
    let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
    let script =
        TRANSFER.replace("DOWN", &port(&down).to_string()).replace("UP", &port(&up).to_string());
    let folder = tests::scratch(name);
    let Some(kernel) = kernel(&folder, &script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    let data: Vec<u8> = (0..TRANSFER_BYTES as u32).map(|at| (at ^ at >> 11) as u8).collect();
    let busybox = tests::asset("busybox-amd64/bin/busybox").expect("the kernel's RAM disk has it");
    let sent = folder.join("sent");
    fs::write(&sent, &data).expect("the folder is ours");
    let sum = md5(&sent, &busybox);
    thread::spawn(move || {
        for socket in down.incoming().take(2) {
            socket.and_then(|mut socket| socket.write_all(&data)).expect("the guest reads");
        }
    });
    let mut rig = Rig::new(BoardKind::Q35, Vec::new());
    let user = UserNet::new(Config::customary(), &[]).expect("it needs no rights");
    let forward = HostForward {
        from: HostEnd::Tcp("127.0.0.1:0".parse().expect("an address")),
        guest: "10.0.2.15:80".parse().expect("an address"),
    };
    let forward = user.add_forward(&forward).expect("a port is free");
    rig.config.backends.networks.insert("net", user);
    rig.config.boot = Boot { kernel: Some(kernel), ..Boot::default() };
    let switch = |name| (name, PropertyValue::Bool(offloads));
    let properties = [("netdev", text("net")), switch("csum"), switch("guest_csum")];
    rig.config.parts.push(part("virtio-net-pci", &properties));
    let serial = Arc::clone(&rig.serial);
    let mut seconds = 0.0;
    let (_, console, _) = rig.run(|_, _| {
        (0..3).any(|_| serial.wait_for("serving")) && {
            let start = Instant::now();
            let got = fetch(&forward);
            seconds = start.elapsed().as_secs_f64();
            drop(up.accept());
            got > TRANSFER_BYTES && serial.wait_for("all done")
        }
    });
    println!("{console}up {seconds:.2} s");
    assert!(console.contains(&format!("sum {sum}")), "{console}");
    let packets = |word: &str| {
        let rest = console.split(word).nth(1).and_then(|rest| rest.split_whitespace().next());
        rest.and_then(|count| count.parse::<usize>().ok()).expect("the guest has counted")
    };
    // Each of them carries 1460 bytes without offloads.
    for word in ["received ", "transmitted "] {
        let many = packets(word) >= TRANSFER_BYTES / 1460;
        assert_eq!(many, !offloads, "{word}: {console}");
    }
}

#[test]
fn large_frames_go_both_ways_through_the_user_network() {
    transfer("virtio-net-offloads", true);
}

#[test]
fn frames_are_cut_where_the_driver_wants_no_large_ones() {
    transfer("virtio-net-plain", false);
}

/// Runs until the guest shows more than a few pixels in this size.
fn wait_for_picture(rig: Rig, size: (u32, u32)) -> Picture {
    let picture = Arc::new(Mutex::new(Picture::default()));
    let seen = Arc::clone(&picture);
    rig.run(move |machine, _| {
        let screen = Arc::clone(&machine.screens().all()[0].1);
        eventually(|| {
            let mut picture = seen.lock();
            screen.refresh(&mut picture, false);
            let lit = picture.pixels.iter().filter(|pixel| **pixel != 0).count();
            (picture.width, picture.height) == size && lit > 1000
        })
    });
    Arc::into_inner(picture).expect("nobody else looks").into_inner()
}

#[test]
fn seabios_writes_on_a_virtio_vga_screen() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let mut rig = Rig::new(BoardKind::Q35, rom);
    rig.config.parts.push(part("virtio-vga", &[]));
    wait_for_picture(rig, (720, 400));
}

#[test]
fn ovmf_draws_on_virtio_screens() {
    let code = firmware("OVMF/OVMF_CODE_4M.fd");
    let variables = firmware("OVMF/OVMF_VARS_4M.fd");
    let (Some(code), Some(variables)) = (code, variables) else {
        tests::skip!("OVMF was not fetched");
    };
    for model in ["virtio-gpu-pci", "virtio-vga"] {
        let mut rig = Rig::new(BoardKind::Q35, Vec::new());
        rig.config.boot.rom = None;
        let node = |bytes: &Vec<u8>| MemoryDisk::node(bytes.clone());
        rig.config.boot.flash = [Some(node(&code)), Some(node(&variables))];
        rig.config.parts.push(part(model, &[]));
        let picture = wait_for_picture(rig, (1280, 800));
        assert_eq!(picture.pixels.len(), 1280 * 800, "{model}");
    }
}
