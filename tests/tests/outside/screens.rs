//! TigerVNC's viewer on a screen of its own, over TLS.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::guest::{Guest, Running, rooted_shell};
use crate::monitor::Machine;

const PATIENCE: Duration = Duration::from_secs(90);
/// A graphics card, on which the kernel puts its console.
pub const GPU: &[&str] = &[
    "drivers/virtio/virtio_dma_buf",
    "drivers/gpu/drm/drm",
    "drivers/gpu/drm/drm_kms_helper",
    "drivers/gpu/drm/drm_shmem_helper",
    "drivers/gpu/drm/virtio/virtio-gpu",
];
/// The viewer's screen.
const SCREEN: (usize, usize) = (1024, 768);

/// A root with an X server in it, and a shell there.
struct Screen {
    shell: Running,
    folder: std::path::PathBuf,
}

impl Screen {
    /// The folder is /tmp within.
    fn start(folder: &Path) -> Option<Self> {
        let mut shell = rooted_shell("vnc-viewer", folder)?
            .env("DISPLAY", ":9")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (width, height) = SCREEN;
        let start = format!(
            "Xvfb :9 -screen 0 {width}x{height}x24 -fbdir /tmp -nolisten tcp -ac >/tmp/x.log 2>&1 &\n"
        );
        shell.stdin.as_mut()?.write_all(start.as_bytes()).ok()?;
        let mut screen = Self { shell: Running(shell), folder: folder.to_owned() };
        let start = Instant::now();
        while !folder.join(".X11-unix/X9").exists() || !folder.join("Xvfb_screen0").exists() {
            if screen.shell.0.try_wait().ok()?.is_some() || start.elapsed() > PATIENCE {
                return None; // no namespaces here
            }
            thread::sleep(Duration::from_millis(20));
        }
        Some(screen)
    }

    fn run(&mut self, line: &str) {
        let shell = self.shell.0.stdin.as_mut().unwrap();
        shell.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// What is on it, a word a pixel: the X server's own file, whose head tells its size.
    fn pixels(&self) -> Vec<u32> {
        let bytes = fs::read(self.folder.join("Xvfb_screen0")).unwrap();
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        // The head's size, the bytes of a line, the colours that follow the head.
        let (head, line, colours) = (word(0), word(4 * 12), word(4 * 19));
        assert_eq!((word(4 * 4), word(4 * 5)), SCREEN);
        let start = head + colours * 12;
        let pixel = |four: &[u8]| u32::from_le_bytes(four.try_into().unwrap()) & 0xff_ffff;
        let lines = (0..SCREEN.1).map(|row| &bytes[start + row * line..][..SCREEN.0 * 4]);
        lines.flat_map(|line| line.chunks_exact(4).map(pixel)).collect()
    }
}

/// A picture in PPM.
pub fn picture(path: &Path) -> (usize, usize, Vec<u32>) {
    let bytes = fs::read(path).unwrap();
    let mut parts = bytes.splitn(4, |byte| byte.is_ascii_whitespace());
    assert_eq!(parts.next(), Some(&b"P6"[..]));
    let mut number = || str::from_utf8(parts.next().unwrap()).unwrap().parse::<usize>().unwrap();
    let (width, height) = (number(), number());
    let pixels = &bytes[bytes.len() - width * height * 3..];
    let pixel = |rgb: &[u8]| u32::from_be_bytes([0, rgb[0], rgb[1], rgb[2]]);
    (width, height, pixels.chunks_exact(3).map(pixel).collect())
}

/// Whether a picture is on a screen, exactly, near its upper left corner, where windows without
/// anybody to place them are.
fn shows(screen: &[u32], (width, height, picture): &(usize, usize, Vec<u32>)) -> bool {
    let fits = |x: usize, y: usize| {
        (0..*height).all(|row| {
            let line = &screen[(y + row) * SCREEN.0 + x..][..*width];
            line == &picture[row * width..][..*width]
        })
    };
    const NEAR: usize = 40;
    assert!(width + NEAR <= SCREEN.0 && height + NEAR <= SCREEN.1, "{width}x{height}");
    (0..NEAR).any(|y| (0..NEAR).any(|x| fits(x, y)))
}

/// A certificate authority and a server's certificate, and a password for the viewer's file.
fn credentials(folder: &Path) -> Option<()> {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=Test CA' \
        -keyout ca-key.pem -out ca-cert.pem && \
        openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 \
        -keyout server-key.pem -out request.pem && \
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extensions && \
        openssl x509 -req -in request.pem -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial \
        -days 2 -extfile extensions -out server-cert.pem";
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.ok()?.success().then_some(())?;
    // The viewer's file is the password under a key that everybody knows.
    let known = [23, 82, 107, 6, 35, 78, 88, 7];
    let mut password = [0; 16];
    password[..6].copy_from_slice(b"secret");
    let hidden = display::codec::response(&known, &password);
    fs::write(folder.join("password"), &hidden[..8]).ok()
}

#[test]
fn tigervnc_logs_in_by_tls_and_shows_the_same_picture() {
    let script = "exec < /dev/tty1 > /dev/tty1\n\
        clear; echo \"a picture to compare\"; echo -n 'login: '; echo ready > /dev/ttyS0\n\
        read name; echo \"welcome $name\" > /dev/ttyS0; echo \"welcome $name\"; sleep 1000";
    let Some(guest) = Guest::new("tigervnc", GPU, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    if credentials(&guest.folder).is_none() {
        tests::skip!("there is no openssl to make certificates");
    }
    let Some(mut screen) = Screen::start(&guest.folder) else {
        tests::skip!("the X server and viewer were not fetched, or there are no namespaces here");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.clamp(5900, 60_000);
    let tls = format!(
        "tls-creds-x509,id=t,endpoint=server,verify-peer=off,dir={}",
        guest.folder.display()
    );
    let vnc = format!("127.0.0.1:{},password=on,tls-creds=t", port - 5900);
    let options = guest.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["-device", "virtio-gpu-pci,xres=800,yres=600"]);
    options.extend(["-object", &tls, "-vnc", &vnc]);
    let mut machine = Machine::start("tigervnc", &options);
    machine.good("change-vnc-password", json!({"password": "secret"}));
    let info = machine.good("query-vnc", json!({}));
    assert_eq!(info["auth"], "vencrypt+x509+vnc", "{info}");
    guest.says("ready");
    screen.run(&format!(
        "xtigervncviewer -SecurityTypes X509Vnc -X509CA /tmp/ca-cert.pem -PasswordFile \
         /tmp/password -AlertOnFatalError=0 -ReconnectOnError=0 127.0.0.1::{port} \
         >/tmp/viewer.log 2>&1 &"
    ));
    machine.event("VNC_INITIALIZED");
    // Nobody manages windows here: somebody has to say who gets the keys.
    let focus = "xdotool search --onlyvisible --name TigerVNC windowfocus";
    screen.run(&format!("xdotool sleep 2; xdotool mousemove 300 200 click 1; {focus}"));
    screen.run("xdotool sleep 1; xdotool type --delay 60 guest");
    screen.run("xdotool key Return");
    guest.says("welcome guest");
    // The pointer is part of the picture there.
    screen.run("xdotool mousemove 1020 760");
    let dump = guest.folder.join("screen.ppm");
    let start = Instant::now();
    loop {
        machine.good("screendump", json!({"filename": dump}));
        let picture = picture(&dump);
        if picture.2.iter().any(|pixel| *pixel != 0) && shows(&screen.pixels(), &picture) {
            break;
        }
        let log = fs::read_to_string(guest.folder.join("viewer.log")).unwrap_or_default();
        assert!(start.elapsed() < PATIENCE, "the picture is not there: {log}");
        thread::sleep(Duration::from_millis(300));
    }
    // Who does not know the authority, or speaks in the open, stays out.
    let address = format!("127.0.0.1:{port}");
    let refused = display::viewer::Viewer::connect(&address, Some("secret"));
    assert!(refused.is_err(), "nobody comes in without TLS");
}

/// Who gets in with which certificate, over VeNCrypt and over a WebSocket, told by Python's TLS.
const TLS_CLIENT: &str = r#"
import base64, os, socket, ssl, sys
port, web_port = int(sys.argv[1]), int(sys.argv[2])
def secure(stream, certificate):
    context = ssl.create_default_context(cafile="ca-cert.pem")
    if certificate:
        context.load_cert_chain("client-cert.pem", "client-key.pem")
    return context.wrap_socket(stream, server_hostname="127.0.0.1")
def connect(port):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.settimeout(20)
    return stream
def vencrypt(certificate):
    stream = connect(port)
    for count, word in ((12, b"RFB 003.008\n"), (2, b"\x13"), (2, b"\0\2"), (6, b"\0\0\1\4")):
        assert len(stream.recv(count, socket.MSG_WAITALL)) == count
        stream.send(word)
    assert stream.recv(1) == b"\1"
    stream = secure(stream, certificate)
    return stream.recv(4) == b"\0\0\0\0"
def web(certificate):
    stream = secure(connect(web_port), certificate)
    key = base64.b64encode(os.urandom(16))
    stream.send(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
    return stream.recv(4000).startswith(b"HTTP/1.1 101")
for way in vencrypt, web:
    for certificate in False, True:
        try:
            answer = way(certificate)
        except (ssl.SSLError, ConnectionError):
            answer = False
        print(way.__name__, certificate, answer)
stream = connect(web_port)
stream.send(b"GET / HTTP/1.1\r\n\r\n")
print("in the open", b"HTTP" in stream.recv(100))
"#;

#[test]
fn browsers_and_clients_with_certificates_come_in_by_tls() {
    let folder = tests::scratch("vnc-tls");
    let more = "openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout client-key.pem \
        -out request.pem && openssl x509 -req -in request.pem -CA ca-cert.pem -CAkey ca-key.pem \
        -CAcreateserial -days 2 -extfile extensions -out client-cert.pem";
    let made = credentials(&folder).is_some();
    let client = Command::new("sh").args(["-c", more]).current_dir(&folder).output();
    if !made || !client.is_ok_and(|output| output.status.success()) {
        tests::skip!("there is no openssl to make certificates");
    }
    for (verify, without) in [("off", "True"), ("on", "False")] {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, web) = (free().clamp(5900, 60_000), free());
        let tls = format!(
            "tls-creds-x509,id=t,endpoint=server,verify-peer={verify},dir={}",
            folder.display()
        );
        let vnc = format!("127.0.0.1:{},tls-creds=t,websocket={web}", port - 5900);
        let options = ["-M", "none", "-object", &tls, "-vnc", &vnc];
        let mut machine = Machine::start(&format!("vnc-tls-{verify}"), &options);
        let output = Command::new("python3")
            .args(["-c", TLS_CLIENT, &port.to_string(), &web.to_string()])
            .current_dir(&folder)
            .output();
        let Ok(output) = output else { tests::skip!("there is no Python on this machine") };
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!(
            "vencrypt False {without}\nvencrypt True True\nweb False {without}\nweb True True\n\
             in the open False\n"
        );
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
        // Other certificates for those who come later; broken ones change nothing.
        let reload = json!({"type": "vnc", "tls-certs": true});
        machine.good("display-reload", reload.clone());
        fs::rename(folder.join("server-key.pem"), folder.join("away")).unwrap();
        let refused = machine.bad("display-reload", reload);
        assert!(refused.starts_with("Unable to access credentials"), "{refused}");
        fs::rename(folder.join("away"), folder.join("server-key.pem")).unwrap();
    }
    fs::remove_dir_all(folder).unwrap();
}

/// vncdotool's command, run by the machine's Python.
pub fn vncdo() -> Option<Command> {
    let packages = tests::asset("vncdotool")?;
    let mut command = Command::new("python3");
    command.args(["-c", "from vncdotool.command import vncdo; vncdo()"]);
    command.env("PYTHONPATH", packages);
    Some(command)
}

#[test]
fn vncdotool_types_a_login_and_captures_the_same_picture() {
    if vncdo().is_none() {
        tests::skip!("vncdotool was not fetched");
    }
    let script = "exec < /dev/tty1 > /dev/tty1\n\
        clear; echo \"a picture to compare\"; echo -n 'login: '; echo ready > /dev/ttyS0\n\
        read name; echo \"welcome $name\"; echo \"welcome $name\" > /dev/ttyS0; sleep 1000";
    let Some(guest) = Guest::new("vncdotool", GPU, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.clamp(5900, 60_000);
    let vnc = format!("127.0.0.1:{},password=on", port - 5900);
    let options = guest.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["-device", "virtio-gpu-pci,xres=800,yres=600", "-vnc", &vnc]);
    let mut machine = Machine::start("vncdotool", &options);
    machine.good("change-vnc-password", json!({"password": "secret"}));
    guest.says("ready");
    let tool = |words: &[&str]| {
        let output = vncdo()
            .unwrap()
            .args(["--timeout", "60", "-s", &format!("127.0.0.1::{port}"), "-p", "secret"])
            .args(words)
            .env("HOME", &guest.folder)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {errors}");
    };
    tool(&["type", "guest", "key", "enter"]);
    guest.says("welcome guest");
    let (dump, captured) = (guest.folder.join("screen.ppm"), guest.folder.join("captured.bmp"));
    let start = Instant::now();
    loop {
        tool(&["capture", captured.to_str().unwrap()]);
        machine.good("screendump", json!({"filename": dump}));
        let ours = picture(&dump);
        let theirs = crate::screen::read_bmp(&captured);
        let theirs = (theirs.width as usize, theirs.height as usize, theirs.pixels);
        if ours.2.iter().any(|pixel| *pixel != 0) && ours == theirs {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the pictures differ");
    }
}

/// Processor time of a process's threads of this name's beginning, in hundredths of a second.
fn ticks(pid: u32, name: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let stat = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let (own, rest) = text.split_once(") ")?;
        let of_name = own.split_once('(')?.1.starts_with(name);
        let mut fields = rest.split(' ').skip(11).map(str::parse::<u64>);
        of_name.then(|| Some(fields.next()?.ok()? + fields.next()?.ok()?))?
    };
    tasks.filter_map(stat).sum()
}

#[test]
fn a_still_screen_costs_nothing_however_many_look() {
    let script = "echo still > /dev/tty1; echo 0 > /sys/class/graphics/fbcon/cursor_blink\n\
        sleep 1; echo ready; sleep 1000";
    let Some(guest) = Guest::new("still", GPU, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.clamp(5900, 60_000);
    let vnc = format!("127.0.0.1:{}", port - 5900);
    let options = guest.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["-device", "virtio-gpu-pci,xres=1280,yres=800", "-vnc", &vnc]);
    let machine = Machine::start("still", &options);
    guest.says("ready");
    let address = format!("127.0.0.1:{port}");
    let look = || {
        let mut viewer = display::viewer::Viewer::connect(&address, None).unwrap();
        viewer.look(PATIENCE).unwrap();
        viewer.request(true).unwrap();
        viewer
    };
    let viewers: Vec<_> = (0..3).map(|_| look()).collect();
    thread::sleep(Duration::from_secs(1)); // until all have what there is
    let before = ticks(machine.child.id(), "vnc-");
    thread::sleep(Duration::from_secs(4));
    let cost = ticks(machine.child.id(), "vnc-") - before;
    assert!(cost <= 1, "{cost} hundredths of a second in four seconds");
    drop(viewers);
}
