//! The monitor for people, held against the reference line by line.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{reference, rom_with};

struct Session {
    child: Child,
    reader: BufReader<std::process::ChildStdout>,
}

impl Drop for Session {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Session {
    fn new(mut command: Command, options: &[&str]) -> Self {
        let mut child = command
            .args(["-display", "none", "-nodefaults", "-qmp", "stdio"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reader = BufReader::new(child.stdout.take().unwrap());
        let mut session = Self { child, reader };
        session.answer();
        session.ask("qmp_capabilities", &json!({}));
        session
    }

    fn answer(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0);
            let value: Value = serde_json::from_str(&line).unwrap();
            if value.get("event").is_none() {
                return value;
            }
        }
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        let answer = self.answer();
        answer.get("return").unwrap_or_else(|| panic!("{command}: {answer}")).clone()
    }

    fn line(&mut self, line: &str) -> String {
        let answer = self.ask("human-monitor-command", &json!({"command-line": line}));
        answer.as_str().unwrap().replace('\r', "")
    }
}

fn ours() -> Command {
    let mut command = tests::hostel();
    command.arg("qemu-system-x86_64");
    command
}

const LINES: &[&str] = &[
    "info registers",
    "info registers -a",
    "x /4xw 0x7c00",
    "x /1gx 0x7c00",
    "x /9xb 0x7c00",
    "x /3cb 0x7c00",
    "x /2db 0x7c00",
    "x /4dh 0x7c00",
    "x/2oh 0x7c00",
    "x/3uw 0x7c00",
    "x /2xw",
    "xp /2xg 0x7c00",
    "p 1+2*3",
    "p $eax+1",
    "p /d -1",
    "p /c 65",
    "p /o 64",
    "p (3",
    "p foo",
    "info mem",
    "info tlb",
    "info memory_size_summary",
    "info iothreads",
    "info balloon",
    "info foo",
    "help nmi",
    "gva2gpa 0x7c00",
    "sum 0x7c00 16",
    "cpu 9",
    "device_del zz",
    "device_add foo",
    "device_add virtio-rng-pci,id=r",
    "netdev_add foo",
    "set_link foo on",
    "info status",
];

#[test]
fn lines_are_answered_as_by_the_reference() {
    // mov eax, 5; mov cr2, eax; fninit; fld1; hlt
    let code = [0x66, 0xb8, 5, 0, 0, 0, 0x0f, 0x22, 0xd0, 0xdb, 0xe3, 0xd9, 0xe8, 0xf4];
    let rom = tests::scratch("people").join("rom");
    fs::write(&rom, rom_with(&code)).unwrap();
    let options = [
        "-M",
        "pc",
        "-bios",
        rom.to_str().unwrap(),
        "-smp",
        "2",
        "-cpu",
        "qemu64,-svm",
        "-device",
        "virtio-rng-pci,id=r",
    ];
    let mut seen = Session::new(ours(), &options);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let text = seen.line("info registers");
    assert!(text.contains("FPR7=8000000000000000 3fff") && text.contains("HLT=1"), "{text}");
    let Some(reference) = reference() else { tests::skip!("the reference QEMU was not fetched") };
    let mut expected = Session::new(Command::new(reference), &options);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for line in LINES {
        assert_eq!(seen.line(line), expected.line(line), "{line}");
    }
    // The reference's timer ticks from power-on, ours when somebody has set it.
    let pic = expected.line("info pic").replace("pic0: irr=01", "pic0: irr=00");
    assert_eq!(seen.line("info pic"), pic);
}

#[test]
fn a_kernels_pages_buses_and_devices_are_shown() {
    let Some((kernel, initrd)) =
        crate::monitor::kernel("people-kernel", "echo up\nwhile :; do /bin/busybox sleep 1; done")
    else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    let console = tests::scratch("people-console").join("log");
    let serial = format!("file:{}", console.display());
    let options = [
        "-M",
        "q35",
        "-m",
        "256",
        "-kernel",
        &kernel,
        "-initrd",
        &initrd,
        "-append",
        "console=ttyS0 quiet nokaslr",
        "-serial",
        &serial,
        "-device",
        "pcie-root-port,id=rp,chassis=1",
        "-device",
        "virtio-rng-pci,bus=rp,id=g",
    ];
    let mut session = Session::new(ours(), &options);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !fs::read_to_string(&console).unwrap_or_default().contains("up") {
        assert!(std::time::Instant::now() < until, "the kernel did not come up");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    session.ask("stop", &json!({}));
    let pages = session.line("info mem");
    assert!(
        pages.lines().any(|line| line.starts_with("ffff8880") && line.ends_with("-rw")),
        "{pages}"
    );
    let entries = session.line("info tlb");
    assert!(
        entries.lines().any(|line| line.starts_with("ffffffff81000000: 0000000001000000 ")),
        "no text"
    );
    assert_eq!(session.line("gva2gpa 0xffffffff81000000"), "gpa: 0x1000000\n");
    let dumped = session.line("x /2xg 0xffffffff81000000");
    let physical = session.line("xp /2xg 0x1000000");
    assert_eq!(dumped.split_once(':').unwrap().1, physical.split_once(':').unwrap().1);
    let registers = session.line("info registers");
    assert!(
        registers.contains("CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]")
            || registers.contains("CS64"),
        "{registers}"
    );
    let pci = session.line("info pci");
    for text in [
        "PCI bridge: PCI device 1b36:000c",
        "Bus  1, device   0, function 0:",
        "PCI device 1af4:1044",
        "id \"g\"",
        "SATA controller: PCI device 8086:2922",
    ] {
        assert!(pci.contains(text), "{text}: {pci}");
    }
    let list = session.ask("query-pci", &json!({}));
    let devices = list[0]["devices"].as_array().unwrap();
    let bridge = devices.iter().find(|device| device["qdev_id"] == "rp").unwrap();
    assert_eq!(bridge["pci_bridge"]["devices"][0]["qdev_id"], "g");
    let tree = session.line("info qtree");
    assert!(tree.contains("dev: pcie-root-port, id \"rp\""), "{tree}");
    assert!(
        tree.contains("    bus: rp\n") && tree.contains("dev: virtio-rng-pci, id \"g\""),
        "{tree}"
    );
    let map = session.line("info mtree -f");
    assert!(map.contains("i/o): ioapic") && map.contains("ram): "), "{map}");
    assert!(session.line("info mtree").contains("i/o): rtc"));
    assert_eq!(
        session.line("device_add virtio-rng-pci,id=late,bus=nowhere"),
        "Error: Bus 'nowhere' not found\n"
    );
    session.line("object_add secret,id=s,data=x");
    assert_eq!(session.line("object_del s"), "");
    assert_eq!(session.line("qom-get /machine type"), "\"pc-q35-10.0-machine\"\n");
    session.line("nmi");
}

#[test]
fn telnet_clients_talk_to_the_monitor() {
    use std::io::Read;
    const BINARY_AND_ECHO: [u8; 12] = [255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0];
    let folder = tests::scratch("telnet");
    let rom = folder.join("rom");
    fs::write(&rom, rom_with(&[0xf4])).unwrap();
    let port = crate::user::free_port();
    let monitor = format!("telnet:127.0.0.1:{port},server=on,wait=off");
    let options = ["-S", "-bios", rom.to_str().unwrap(), "-monitor", &monitor];
    let mut session = Session::new(ours(), &options);
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut opening = [0; 12];
    client.read_exact(&mut opening).unwrap();
    assert_eq!(opening, BINARY_AND_ECHO);
    // The client agrees, and says how large its terminal is, in the middle of a word.
    client.write_all(b"info st\xff\xfd\x01\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0atus\r\n").unwrap();
    let (mut said, mut bytes) = (String::new(), [0; 512]);
    while !said.contains("VM status: paused (prelaunch)") {
        let count = client.read(&mut bytes).unwrap();
        assert!(count > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let list = session.ask("query-chardev", &json!({})).to_string();
    assert!(list.contains(&format!("telnet:127.0.0.1:{port}")), "{list}");
    drop(session);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn datagrams_are_a_serial_line() {
    let folder = tests::scratch("udp");
    let rom = folder.join("rom");
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; then what comes in goes out: mov dx, 0x3fd; in al, dx;
    // test al, 1; jz; mov dx, 0x3f8; in al, dx; out dx, al; jmp
    let code = [
        0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb, 0xba,
        0xf8, 0x03, 0xec, 0xee, 0xeb, 0xf1,
    ];
    fs::write(&rom, rom_with(&code)).unwrap();
    let host = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let serial = format!("udp:127.0.0.1:{}", host.local_addr().unwrap().port());
    let options = ["-bios", rom.to_str().unwrap(), "-serial", &serial];
    let session = Session::new(ours(), &options);
    let mut bytes = [0; 16];
    let (count, guest) = host.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"x");
    for letter in b"yz" {
        host.send_to(&[*letter], guest).unwrap();
        assert_eq!((host.recv(&mut bytes).unwrap(), bytes[0]), (1, *letter));
    }
    drop(session);
    fs::remove_dir_all(folder).unwrap();
}
