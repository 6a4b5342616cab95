//! noVNC in Chromium, which comes in by the WebSocket.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::*;
use serde_json::{Value, json};

use super::guest::{Guest, Running, rooted_shell};
use super::screens::{GPU, picture};
use crate::monitor::Machine;

const PATIENCE: Duration = Duration::from_secs(120);

/// A browser without a window, driven by its developer tools over two pipes.
struct Browser {
    _process: Running,
    orders: File,
    answers: BufReader<File>,
    session: Option<String>,
    number: u64,
}

impl Browser {
    /// None where it may not have a root of its own.
    fn start(folder: &Path) -> Option<Self> {
        let (orders, answers) = (folder.join("orders"), folder.join("answers"));
        let made = Command::new("mkfifo").args([&orders, &answers]).status();
        made.is_ok_and(|status| status.success()).then_some(())?;
        let log = File::create(folder.join("browser.log")).ok()?;
        let mut process = rooted_shell("browser", folder)?
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .ok()?;
        // The tools listen at descriptor 3 and answer at 4.
        let line = "exec /usr/lib/chromium/chromium-headless-shell --no-sandbox --disable-gpu \
            --disable-dev-shm-usage --remote-debugging-pipe --user-data-dir=/tmp/profile \
            about:blank 3</tmp/orders 4>/tmp/answers\n";
        process.stdin.as_mut()?.write_all(line.as_bytes()).ok()?;
        // Opened for both directions, so that nobody waits here for a process that has ended.
        let open = |path: &PathBuf| OpenOptions::new().read(true).write(true).open(path).ok();
        let mut process = Running(process);
        thread::sleep(Duration::from_millis(500));
        if process.0.try_wait().ok()?.is_some() {
            return None;
        }
        let (orders, answers) = (open(&orders)?, BufReader::new(open(&answers)?));
        Some(Self { _process: process, orders, answers, session: None, number: 0 })
    }

    fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.number += 1;
        let mut order = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            order["sessionId"] = session.as_str().into();
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.orders.write_all(&bytes).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.answers.read_until(0, &mut bytes).unwrap();
            bytes.pop();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.number {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// Opens a page, of which it is from now on.
    fn open(&mut self, address: &str) {
        let size = json!({"url": address, "width": 1000, "height": 800});
        let target = self.ask("Target.createTarget", &size)["targetId"].clone();
        let attach = json!({"targetId": target, "flatten": true});
        let session = self.ask("Target.attachToTarget", &attach);
        self.session = session["sessionId"].as_str().map(str::to_owned);
    }

    /// What an expression of the page is.
    fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true});
        self.ask("Runtime.evaluate", &asked)["result"]["value"].clone()
    }

    fn key(&mut self, letter: char) {
        let (key, code, number) = match letter {
            '\n' => ("Enter".to_owned(), "Enter".to_owned(), 13),
            letter => {
                let capital = letter.to_ascii_uppercase();
                (letter.to_string(), format!("Key{capital}"), capital as u32)
            }
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": code,
                "windowsVirtualKeyCode": number});
            self.ask("Input.dispatchKeyEvent", &event);
        }
    }

    fn click(&mut self, x: u32, y: u32) {
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.ask("Input.dispatchMouseEvent", &event);
        }
    }
}

/// Serves a folder's files to browsers; the port.
fn files(folder: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            thread::spawn(move || _ = give(&folder, stream));
        }
    });
    port
}

fn give(folder: &Path, mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 8192];
    let count = stream.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..count]).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
    let kind = match path.rsplit('.').next() {
        Some("js") => "text/javascript",
        Some("html") => "text/html",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    let (status, body) = match fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// What is on noVNC's canvas, or on the whole page: pixels in base64.
const CANVAS: &str = "(() => { const canvas = document.querySelector('canvas');\
    if (!canvas || !canvas.width) return null;\
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;\
    let text = '';\
    for (let at = 0; at < data.length; at += 32768)\
        text += String.fromCharCode.apply(null, data.subarray(at, at + 32768));\
    return { width: canvas.width, height: canvas.height, data: btoa(text) }; })()";

impl Browser {
    fn canvas(&mut self) -> Option<(usize, usize, Vec<u32>)> {
        let value = self.value(CANVAS);
        let side = |name: &str| value[name].as_u64().map(|side| side as usize);
        let bytes = BASE64_STANDARD.decode(value["data"].as_str()?).ok()?;
        let pixel = |rgba: &[u8]| u32::from_be_bytes([0, rgba[0], rgba[1], rgba[2]]);
        Some((side("width")?, side("height")?, bytes.chunks_exact(4).map(pixel).collect()))
    }
}

#[test]
fn novnc_logs_in_and_shows_the_same_picture() {
    let script = "exec < /dev/tty1 > /dev/tty1\n\
        clear; echo \"a picture to compare\"; echo -n 'login: '; echo ready > /dev/ttyS0\n\
        read name; echo \"welcome $name\" > /dev/ttyS0; echo \"welcome $name\"; sleep 1000";
    let Some(guest) = Guest::new("novnc", GPU, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let pages = tests::asset("novnc/usr/share/novnc");
    let Some((pages, mut browser)) = pages.zip(Browser::start(&guest.folder)) else {
        tests::skip!("noVNC or Chromium was not fetched, or there are no namespaces here");
    };
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, web) = (free().clamp(5900, 60_000), free());
    let vnc = format!("127.0.0.1:{},password=on,websocket={web}", port - 5900);
    let options = guest.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["-device", "virtio-gpu-pci,xres=800,yres=600", "-vnc", &vnc]);
    let mut machine = Machine::start("novnc", &options);
    machine.good("change-vnc-password", json!({"password": "secret"}));
    guest.says("ready");
    let page = files(pages);
    browser.open(&format!(
        "http://127.0.0.1:{page}/vnc_lite.html?host=127.0.0.1&port={web}&password=secret"
    ));
    machine.event("VNC_INITIALIZED");
    let clients = machine.good("query-vnc", json!({}))["clients"].clone();
    assert_eq!(clients[0]["websocket"], true, "{clients}");
    let start = Instant::now();
    while browser.canvas().is_none_or(|(width, _, _)| width != 800) {
        assert!(start.elapsed() < PATIENCE, "noVNC shows nothing");
        thread::sleep(Duration::from_millis(100));
    }
    browser.click(300, 300);
    for letter in "guest\n".chars() {
        browser.key(letter);
    }
    guest.says("welcome guest");
    let dump = guest.folder.join("screen.ppm");
    let start = Instant::now();
    loop {
        machine.good("screendump", json!({"filename": dump}));
        let picture = picture(&dump);
        if picture.2.iter().any(|pixel| *pixel != 0) && browser.canvas() == Some(picture) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the picture is not there");
        thread::sleep(Duration::from_millis(300));
    }
}
