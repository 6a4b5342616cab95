//! Screens: the machine's picture and keyboard through VNC, under our own client and others'.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use display::codec::encoding;
use display::surface::Frame;
use display::viewer::Viewer;

use crate::outside::screens::vncdo;

/// Generous for an unoptimised build on a busy machine; a hang is what it is for.
const PATIENCE: Duration = Duration::from_secs(120);
const ESCAPE: u32 = 0xff1b;

/// A machine with a monitor on its standard streams.
struct Machine {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.folder);
    }
}

impl Machine {
    /// SeaBIOS without anything to boot, and these options.
    fn start(name: &str, options: &[&str]) -> Option<Self> {
        let firmware = tests::asset("qemu-system-10/usr/share/seabios/bios-256k.bin")?;
        let folder = tests::scratch(name);
        let child = tests::hostel()
            .args(["qemu-system-x86_64", "-m", "32", "-display", "none", "-qmp", "stdio", "-L"])
            .arg(firmware.parent()?)
            .args(["-boot", "menu=on,splash-time=60000"])
            .args(options.iter().map(|option| option.replace("DIR", &folder.to_string_lossy())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("hostel starts");
        Some(Self::greet(child, folder))
    }

    fn greet(mut child: Child, folder: PathBuf) -> Self {
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut machine = Self { child, input, output, folder };
        assert!(machine.line().contains("QMP"), "a greeting comes first");
        machine.ask(r#"{"execute":"qmp_capabilities"}"#);
        machine
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the monitor speaks");
        assert!(!line.is_empty(), "the machine has ended");
        line
    }

    /// The answer to a command; events before it are left out.
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("the monitor listens");
        loop {
            let line = self.line();
            if line.contains("\"return\"") || line.contains("\"error\"") {
                return line;
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What `screendump` writes, read back.
    fn dump(&mut self) -> Frame {
        let path = self.path("screen.ppm");
        let command = format!(
            r#"{{"execute":"screendump","arguments":{{"filename":"{}"}}}}"#,
            path.display()
        );
        let answer = self.ask(&command);
        assert!(answer.contains("return"), "{answer}");
        read_ppm(&path)
    }
}

fn read_ppm(path: &Path) -> Frame {
    let bytes = fs::read(path).expect("the dump is there");
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    assert_eq!(parts.next(), Some(&b"P6"[..]));
    let size = String::from_utf8_lossy(parts.next().expect("a size")).into_owned();
    let (width, height) = size.split_once(' ').expect("two numbers");
    let (width, height) = (width.parse().expect("a number"), height.parse().expect("a number"));
    let data = parts.nth(1).expect("pixels");
    let pixel = |rgb: &[u8]| u32::from_be_bytes([0, rgb[0], rgb[1], rgb[2]]);
    Frame { width, height, pixels: data.chunks_exact(3).map(pixel).collect() }
}

/// How much is lit when SeaBIOS has said who it is and how to open its menu: 1550 pixels.
const GREETED: std::ops::Range<usize> = 1450..1700;
/// And with its menu open, which offers the CD-ROM drive: 3390. A failed boot lights 5000.
const MENU: std::ops::Range<usize> = 3250..3550;

/// A bitmap of 24 bits a pixel, from the last row to the first.
pub fn read_bmp(path: &Path) -> Frame {
    let bytes = fs::read(path).expect("the picture is there");
    let number =
        |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four"));
    let (start, width, height) = (number(10) as usize, number(18), number(22));
    assert_eq!(number(28) & 0xffff, 24, "bits of a pixel");
    let row_bytes = (width as usize * 3).next_multiple_of(4);
    let rows: Vec<&[u8]> = bytes[start..].chunks_exact(row_bytes).collect();
    let pixel = |bgr: &[u8]| u32::from_be_bytes([0, bgr[2], bgr[1], bgr[0]]);
    let pixels =
        rows.iter().rev().flat_map(|row| row[..width as usize * 3].chunks_exact(3).map(pixel));
    Frame { width, height, pixels: pixels.collect() }
}

fn lit(frame: &Frame) -> usize {
    frame.pixels.iter().filter(|pixel| **pixel != 0).count()
}

/// Looks again and again until the picture is as it should be.
fn look_until(viewer: &mut Viewer, what: &str, is_so: impl Fn(&Frame) -> bool) -> Frame {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = viewer.look(PATIENCE).expect("the server shows its screen");
        if is_so(frame) {
            return frame.clone();
        }
        assert!(Instant::now() < deadline, "{what}: {} pixels are lit", lit(frame));
        thread::sleep(Duration::from_millis(100));
    }
}

/// What the client sees is what the monitor dumps; a blinking cursor may come between.
fn same_as_dump(machine: &mut Machine, viewer: &mut Viewer) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = viewer.look(PATIENCE).expect("the server shows its screen").clone();
        let dumped = machine.dump();
        if seen == dumped {
            return;
        }
        assert!(Instant::now() < deadline, "the client's picture is not the dumped one");
    }
}

#[test]
fn the_firmware_is_seen_and_hears_keys() {
    let Some(mut machine) = Machine::start("vnc-keys", &["-vnc", "unix:DIR/vnc"]) else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let mut viewer = Viewer::connect_unix(&machine.path("vnc"), None).expect("it lets us in");
    let before = look_until(&mut viewer, "SeaBIOS greets", |frame| {
        (frame.width, frame.height) == (720, 400) && GREETED.contains(&lit(frame))
    });
    same_as_dump(&mut machine, &mut viewer);
    thread::sleep(Duration::from_millis(500));
    viewer.press(ESCAPE).expect("the server listens");
    let menu = look_until(&mut viewer, "the boot menu opens", |frame| MENU.contains(&lit(frame)));
    assert_eq!(menu.width, before.width);
    same_as_dump(&mut machine, &mut viewer);
    let info = machine.ask(r#"{"execute":"query-vnc"}"#);
    assert!(info.contains(r#""enabled": true"#) && info.contains(r#""family": "unix""#), "{info}");
    let mice = machine.ask(r#"{"execute":"query-mice"}"#);
    assert!(mice.contains(r#""current": true"#), "{mice}");
}

#[test]
fn the_monitor_types_and_dumps_in_both_formats() {
    let Some(mut machine) = Machine::start("vnc-monitor", &["-vnc", "unix:DIR/vnc"]) else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let deadline = Instant::now() + PATIENCE;
    while !GREETED.contains(&lit(&machine.dump())) {
        assert!(Instant::now() < deadline, "SeaBIOS says nothing");
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(Duration::from_millis(500));
    let key = r#"{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"esc"}]}}"#;
    assert!(machine.ask(key).contains("return"));
    while !MENU.contains(&lit(&machine.dump())) {
        assert!(Instant::now() < deadline, "the menu does not open");
        thread::sleep(Duration::from_millis(100));
    }
    let png = machine.path("screen.png");
    let command = format!(
        r#"{{"execute":"human-monitor-command","arguments":{{"command-line":"screendump {} -f png"}}}}"#,
        png.display()
    );
    let answer = machine.ask(&command);
    assert!(answer.contains(r#""return": """#), "{answer}");
    let bytes = fs::read(png).expect("it was written");
    assert!(bytes.starts_with(b"\x89PNG") && bytes.ends_with(b"IEND\xae\x42\x60\x82"));
    for (command, part) in [
        (
            r#"{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"nokey"}]}}"#,
            "qcode",
        ),
        (r#"{"execute":"screendump","arguments":{"filename":"x","device":"y"}}"#, "'y' not found"),
        (
            r#"{"execute":"display-reload","arguments":{"type":"vnc","tls-certs":true}}"#,
            "vnc tls is not enabled",
        ),
        (r#"{"execute":"change-vnc-password","arguments":{"password":"x"}}"#, "Could not set"),
    ] {
        let answer = machine.ask(command);
        assert!(answer.contains("\"error\""), "{command}: {answer}");
        assert!(answer.contains(part) || part == "qcode", "{command}: {answer}");
    }
}

#[test]
fn a_password_is_asked_for_and_clients_are_announced() {
    let options = ["-vnc", "unix:DIR/vnc,password=on"];
    let Some(mut machine) = Machine::start("vnc-password", &options) else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let path = machine.path("vnc");
    assert!(Viewer::connect_unix(&path, Some("secret")).is_err(), "none is set");
    let set = r#"{"execute":"set_password","arguments":{"protocol":"vnc","password":"secret"}}"#;
    assert!(machine.ask(set).contains("return"));
    let viewer = Viewer::connect_unix(&path, Some("secret")).expect("that is the password");
    let events = ["VNC_CONNECTED", "VNC_DISCONNECTED", "VNC_CONNECTED", "VNC_INITIALIZED"];
    let mut left = events.iter();
    let mut next = left.next();
    let info = loop {
        let line = machine.line();
        if next.is_some_and(|event| line.contains(event)) {
            next = left.next();
        }
        if next.is_none() || line.contains("VNC_INITIALIZED") {
            break line;
        }
    };
    assert!(info.contains(r#""auth": "vnc""#), "{info}");
    drop(viewer);
    let now = r#"{"execute":"expire_password","arguments":{"protocol":"vnc","time":"now"}}"#;
    assert!(machine.ask(now).contains("return"));
    assert!(Viewer::connect_unix(&path, Some("secret")).is_err(), "it has expired");
}

/// A port that is free now.
fn free_display(first: u16) -> u16 {
    let free = |number: &u16| {
        let tcp = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        tcp(5900 + number) && tcp(5700 + number)
    };
    let start = (std::process::id() % 90) as u16;
    (first + start..first + 200).find(free).expect("some port is free")
}

#[test]
fn a_browsers_handshake_is_answered() {
    let display = free_display(100);
    let vnc = format!("127.0.0.1:{display},websocket=on");
    let Some(mut machine) = Machine::start("vnc-web", &["-vnc", &vnc]) else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let servers = machine.ask(r#"{"execute":"query-vnc-servers"}"#);
    assert!(servers.contains(r#""websocket": true"#), "{servers}");
    let mut stream = TcpStream::connect(("127.0.0.1", 5700 + display)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("sockets have timeouts");
    let request = "GET /websockify HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nOrigin: http://localhost\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: binary\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x82\x0cRFB 003.008\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the server answers");
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("101 Switching Protocols"), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
}

#[test]
fn vncdotool_sees_the_same_and_types() {
    if vncdo().is_none() {
        tests::skip!("vncdotool was not fetched");
    }
    let display = free_display(300);
    let vnc = format!("127.0.0.1:{display}");
    let Some(mut machine) = Machine::start("vnc-vncdo", &["-vnc", &vnc]) else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let mut viewer =
        Viewer::connect(&format!("127.0.0.1:{}", 5900 + display), None).expect("it lets us in");
    look_until(&mut viewer, "SeaBIOS greets", |frame| GREETED.contains(&lit(frame)));
    thread::sleep(Duration::from_millis(500));
    let path = machine.path("captured.bmp");
    let run = |words: &[&str]| {
        let run = vncdo()
            .expect("it is there")
            .args(["-s", &format!("127.0.0.1::{}", 5900 + display)])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("vncdo starts");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    };
    run(&["key", "esc"]);
    look_until(&mut viewer, "the boot menu opens", |frame| MENU.contains(&lit(frame)));
    let deadline = Instant::now() + PATIENCE;
    loop {
        run(&["capture", &path.to_string_lossy()]);
        let (captured, dumped) = (read_bmp(&path), machine.dump());
        assert_eq!((captured.width, captured.height), (dumped.width, dumped.height));
        // A text cursor may blink between the two, so there is more than one try.
        if captured == dumped {
            break;
        }
        assert!(Instant::now() < deadline, "the pictures differ");
    }
}

/// The other way round: the reference's server under our client, encoding by encoding.
#[test]
fn our_client_sees_what_the_reference_shows() {
    let program = tests::asset("bin/qemu-system-x86_64");
    let firmware = tests::asset("qemu-system-10/usr/share/seabios/bios-256k.bin");
    let (Some(program), Some(firmware)) = (program, firmware) else {
        tests::skip!("the reference emulator or SeaBIOS was not fetched");
    };
    let folder = tests::scratch("vnc-reference");
    let child = Command::new(program)
        .args(["-m", "32", "-display", "none", "-qmp", "stdio", "-nodefaults", "-vga", "std"])
        .args(["-boot", "menu=on,splash-time=60000", "-L"])
        .arg(firmware.parent().expect("a file has a folder"))
        .arg("-vnc")
        .arg(format!("unix:{}/vnc", folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut machine = Machine::greet(child.expect("the reference starts"), folder);
    let mut viewer = Viewer::connect_unix(&machine.path("vnc"), None).expect("it lets us in");
    look_until(&mut viewer, "SeaBIOS greets", |frame| GREETED.contains(&lit(frame)));
    for number in
        [encoding::RAW, encoding::HEXTILE, encoding::ZLIB, encoding::TIGHT, encoding::ZRLE]
    {
        viewer.encodings(&[number]).expect("the server listens");
        same_as_dump(&mut machine, &mut viewer);
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (options, part) in [
        (["-vnc", ":1,tls-creds=x"], "No TLS credentials with id 'x'"),
        (["-vnc", ":1,sasl=on"], "sasl=on is not built"),
        (["-object", "tls-creds-anon,id=a"], "tls-creds-anon is not built"),
        (["-vnc", "5"], "no vnc port specified"),
        (["-k", "de"], "keyboard layout 'de' is not built"),
        (["-vga", "cirrus"], "this card is not built"),
        (["-display", "gtk"], "display 'gtk' is not built"),
        (["-vnc", "unix:/nonexistent/x"], "Failed to bind socket to /nonexistent/x"),
    ] {
        let output = tests::hostel()
            .args(["qemu-system-x86_64", "-machine", "none", "-nodefaults"])
            .args(options)
            .output()
            .expect("hostel starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(part), "{options:?}: {errors}");
    }
}
