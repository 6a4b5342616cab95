//! `-gdb`: Debian's gdb, and the protocol itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{reference, rom_with};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the emulator with the test.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn emulator(mut command: Command, options: &[&str]) -> Emulator {
    let command = command.args(["-display", "none", "-nodefaults"]).args(options);
    Emulator(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

fn ours() -> Command {
    let mut command = tests::hostel();
    command.arg("qemu-system-x86_64");
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[rustfmt::skip]
const CODE: &[u8] = &[
    0xb8, 0x34, 0x12, // 7c00: mov ax, 0x1234
    0xa3, 0x00, 0x50, // 7c03: mov [0x5000], ax
    0x40,             // 7c06: inc ax
    0xa3, 0x02, 0x50, // 7c07: mov [0x5002], ax
    0xa1, 0x00, 0x50, // 7c0a: mov ax, [0x5000]
    0xe8, 0x02, 0x00, // 7c0d: call 0x7c12
    0xeb, 0xee,       // 7c10: jmp 0x7c00
    0x40, 0xc3,       // 7c12: inc ax; ret
];

const SCRIPT: &str = "set pagination off
break *0x7c06
break *0x7c12
continue
info registers
x/4xb 0x7c06
stepi
stepi
x/2xh 0x5000
continue
info registers rip rax rsp
delete
watch *(short*)0x5002
set {short}0x5002 = 0
continue
info registers rip
delete
rwatch *(short*)0x5000
continue
info registers rip
delete
awatch *(short*)0x5000
continue
info registers rip
continue
info registers rip
delete
set $rbx = 0x123456789
set $rip = 0x7c12
stepi
info registers rbx rip rax
set {short}0x5006 = 0x7788
x/1xh 0x5006
maintenance packet Qqemu.PhyMemMode:1
x/2xh 0x5000
maintenance packet Qqemu.PhyMemMode:0
thread 2
info registers cs rip cr0 efer
thread 1
monitor info name
kill
";

/// What gdb prints of registers, memory and stops.
fn debugged(gdb: &Path, command: Command, rom: &Path, port: u16) -> Vec<String> {
    let place = format!("tcp::{port}");
    let rom = rom.to_str().unwrap();
    let options =
        ["-S", "-smp", "2", "-cpu", "qemu64", "-name", "watched", "-bios", rom, "-gdb", &place];
    let _emulator = emulator(command, &options);
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "nobody listens for gdb");
        std::thread::sleep(Duration::from_millis(50));
    }
    let script = std::path::PathBuf::from(rom).with_extension("gdb");
    fs::write(&script, format!("target remote :{port}\n{SCRIPT}")).unwrap();
    let mut gdb = Command::new(gdb);
    let gdb = gdb.args(["-q", "-batch", "-nx", "-ex", "set architecture i386:x86-64", "-x"]);
    let output = gdb.arg(&script).output().unwrap();
    // What a monitor says goes to the other stream.
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let is_fact = |line: &&str| {
        let begins = |start: &str| line.starts_with(start);
        let register = line.split_whitespace().nth(1).is_some_and(|word| word.starts_with("0x"));
        register
            || ["0x", "Old value", "New value", "Value", "watched"].into_iter().any(begins)
            || line.contains("0x") && line.contains('[')
    };
    // Threads and processes are numbered otherwise. The reference's description has MXCSR among the
    // general registers, where gdb does not look for it.
    let differs = |line: &str| line.contains("hread") || line.starts_with("mxcsr");
    text.lines().filter(is_fact).filter(|line| !differs(line)).map(str::to_owned).collect()
}

#[test]
fn gdb_sees_the_same_as_with_the_reference() {
    let Some(gdb) = tests::program("gdb") else { tests::skip!("there is no gdb") };
    let rom = tests::scratch("gdb").join("rom");
    fs::write(&rom, rom_with(CODE)).unwrap();
    let seen = debugged(&gdb, ours(), &rom, free_port());
    let has =
        |text: &str| assert!(seen.iter().any(|line| line.contains(text)), "{text}: {seen:#?}");
    has("0x5000:\t0x1234\t0x1235");
    has("watched");
    assert!(seen.len() > 50, "{seen:#?}");
    let Some(reference) = reference() else { tests::skip!("the reference QEMU was not fetched") };
    let expected = debugged(&gdb, Command::new(reference), &rom, free_port());
    let differs = seen.iter().zip(&expected).find(|(ours, theirs)| ours != theirs);
    assert_eq!(differs, None);
    assert_eq!(seen.len(), expected.len(), "{seen:#?}\n{expected:#?}");
}

/// The protocol, spoken by hand.
struct Wire {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Wire {
    fn connect(path: &Path) -> Self {
        let until = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, pending: Vec::new() }
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, |sum, byte| sum.wrapping_add(byte));
        self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes()).unwrap();
    }

    fn answer(&mut self) -> String {
        loop {
            let start = self.pending.iter().position(|byte| *byte == b'$');
            let end = self.pending.iter().position(|byte| *byte == b'#');
            if let (Some(start), Some(end)) = (start, end)
                && self.pending.len() >= end + 3
            {
                let text = String::from_utf8_lossy(&self.pending[start + 1..end]).into_owned();
                self.pending.drain(..end + 3);
                self.stream.write_all(b"+").unwrap();
                return text;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the debugger's connection was closed");
            self.pending.extend(&bytes[..count]);
        }
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.answer()
    }
}

#[test]
fn a_booted_kernel_is_stopped_looked_at_and_goes_on() {
    let script = "i=0\nwhile [ $i -lt 100000 ]; do i=$((i+1)); echo tick; done";
    let Some((kernel, initrd)) = crate::monitor::kernel("gdb-kernel", script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    let folder = tests::scratch("gdb-boot");
    let (console, socket) = (folder.join("console"), folder.join("gdb"));
    let serial = format!("file:{}", console.display());
    // Short, for the kernel allows no long names.
    let socket = std::env::temp_dir()
        .join(format!("g-{}", std::process::id()))
        .join(socket.file_name().unwrap());
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let place = format!("unix:{},server=on,wait=off", socket.display());
    let options = [
        "-m",
        "256",
        "-smp",
        "2",
        "-kernel",
        &kernel,
        "-initrd",
        &initrd,
        "-append",
        "console=ttyS0 quiet nokaslr",
        "-serial",
        &serial,
        "-gdb",
        &place,
    ];
    let _emulator = emulator(ours(), &options);
    let ticks = || fs::read_to_string(&console).unwrap_or_default().matches("tick").count();
    let wait_for = |count: usize| {
        let until = Instant::now() + PATIENCE;
        while ticks() < count {
            assert!(Instant::now() < until, "{} ticks of {count}", ticks());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for(1);
    let mut gdb = Wire::connect(&socket);
    assert!(gdb.ask("qSupported:swbreak+").contains("qXfer:features:read+"));
    assert_eq!(gdb.ask("qAttached"), "1");
    assert_eq!(gdb.ask("?"), "T05thread:1;");
    let before = ticks();
    assert_eq!(gdb.ask("qfThreadInfo"), "m1,2");
    for thread in ["Hg1", "Hg2"] {
        assert_eq!(gdb.ask(thread), "OK");
        let control = gdb.ask("p1b"); // CR0: paging, protection
        assert_eq!(&control[..8], "33000580", "{thread}");
    }
    // The kernel's text as both vCPUs see it, and at its place in memory.
    let text = gdb.ask("mffffffff81000000,10");
    assert_eq!(text.len(), 32, "{text}");
    assert_eq!(gdb.ask("Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(gdb.ask("m1000000,10"), text);
    assert_eq!(gdb.ask("Qqemu.PhyMemMode:0"), "OK");
    assert_eq!(gdb.ask("mffff000000000000,8"), "E0e", "nothing is there");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ticks(), before, "all stand still");
    gdb.send("vCont;c");
    wait_for(before + 50);
    gdb.stream.write_all(&[3]).unwrap();
    assert_eq!(gdb.answer(), "T02thread:1;");
    assert_eq!(gdb.ask("Z0,ffffffff81000000,1"), "OK");
    assert_eq!(gdb.ask("D"), "OK");
    wait_for(ticks() + 50);
    fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_be_debugged_is_said() {
    for (options, text) in [
        (&["-gdb", "foo:1"][..], "-gdb foo:1: 'foo:1' is not a valid char driver"),
        (
            &["-gdb", "unix:/no/such/folder/x,server=on"],
            "Failed to bind socket to /no/such/folder/x",
        ),
    ] {
        let output =
            ours().args(["-M", "none", "-display", "none"]).args(options).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(text), "{errors}");
        assert_eq!(output.status.code(), Some(1));
    }
}
