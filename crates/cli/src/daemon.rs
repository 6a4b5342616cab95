//! The daemon: found, or started on demand.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libvirt_compat::rpc::client::{Client, Transport, call_frame, reply_payload};
use libvirt_compat::rpc::{Frame, FrameDecoder, Kind};
use libvirt_compat::{Code, Error, Origin};

use crate::failure::{DAEMON, Failure, USAGE};
use crate::stream::Receiver;

/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an unused daemon stays.
const IDLE_SECONDS: &str = "600";

/// Where things of this user lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Where running machines have their sockets.
    pub runtime: PathBuf,
    /// What is kept: disks, links, logs.
    pub state: PathBuf,
}

impl Places {
    /// Those of the session, as the daemon finds them.
    pub fn of_session() -> Self {
        let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into()));
        let under = |variable: &str, fallback: &str| match env::var_os(variable) {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => home().join(fallback),
        };
        let run = under("XDG_RUNTIME_DIR", ".cache");
        Self {
            socket: run.join("libvirt/libvirt-sock"),
            runtime: run.join("hostel"),
            state: under("XDG_STATE_HOME", ".local/state").join("hostel"),
        }
    }
}

/// A connection to the daemon.
pub struct Connection {
    pub client: Client<Socket>,
    pub places: Places,
}

impl Connection {
    /// Connects; starts a daemon if there is none.
    pub fn open() -> Result<Self, Failure> {
        let places = Places::of_session();
        let stream = match UnixStream::connect(&places.socket) {
            Ok(stream) => stream,
            Err(_) => start(&places)?,
        };
        Self::over(stream, places)
    }

    /// Connects as a URI says: `qemu:///session` and `qemu:///system` on this host.
    pub fn of_uri(uri: Option<&str>) -> Result<Self, Failure> {
        let is_root = rustix::process::geteuid().is_root();
        let uri = uri.unwrap_or(if is_root { "qemu:///system" } else { "qemu:///session" });
        let mut places = Places::of_session();
        // qemu+unix:///session?socket=PATH
        if let Some(rest) = uri.strip_prefix("qemu+unix:///")
            && let Some((mode, query)) = rest.split_once('?')
            && let Some(path) = query.strip_prefix("socket=")
        {
            let failed = |error: &io::Error| {
                Failure::new(format!("failed to connect to the hypervisor at {uri}"))
                    .because(error)
                    .code(DAEMON)
            };
            places.socket = PathBuf::from(path);
            let stream = UnixStream::connect(&places.socket).map_err(|error| failed(&error))?;
            return Self::over_uri(stream, places, &format!("qemu:///{mode}"));
        }
        match uri {
            "qemu:///session" => Self::open(),
            "qemu:///system" | "test:///default" => {
                let failed = |error: &io::Error| {
                    Failure::new(format!("failed to connect to the hypervisor at {uri}"))
                        .because(error)
                        .hint("'hostel daemon' starts the system's daemon (root)")
                        .code(DAEMON)
                };
                let sockets = ["/run/libvirt/libvirt-sock", "/var/run/libvirt/libvirt-sock"];
                let socket = sockets.into_iter().find(|path| Path::new(path).exists());
                places.socket = PathBuf::from(socket.unwrap_or(sockets[0]));
                let stream = UnixStream::connect(&places.socket).map_err(|error| failed(&error))?;
                Self::over_uri(stream, places, uri)
            }
            other => Err(Failure::new(format!("The URI '{other}' is not understood here"))
                .hint("qemu:///session, qemu:///system and test:///default are")
                .code(USAGE)),
        }
    }

    fn over(stream: UnixStream, places: Places) -> Result<Self, Failure> {
        Self::over_uri(stream, places, "qemu:///session")
    }

    fn over_uri(stream: UnixStream, places: Places, uri: &str) -> Result<Self, Failure> {
        let socket = Socket {
            stream,
            decoder: FrameDecoder::default(),
            serial: 0,
            messages: VecDeque::new(),
        };
        let mut client = Client::new(socket);
        client.auth_list().and_then(|_| client.connect_open(Some(uri.to_owned()), 0)).map_err(
            |error| Failure::new("The daemon does not let us in").because(&error).code(DAEMON),
        )?;
        Ok(Self { client, places })
    }
}

/// The program under the name by which it is an emulator.
fn emulator(places: &Places) -> io::Result<PathBuf> {
    let folder = places.state.join("bin");
    fs::create_dir_all(&folder)?;
    let link = folder.join("qemu-system-x86_64");
    let program = env::current_exe()?;
    if fs::read_link(&link).ok().as_ref() != Some(&program) {
        let beside = folder.join(format!("link-{}", std::process::id()));
        symlink(&program, &beside)?;
        fs::rename(&beside, &link)?;
    }
    Ok(link)
}

fn start(places: &Places) -> Result<UnixStream, Failure> {
    let failed = |error: &io::Error| {
        Failure::new("The daemon cannot be started").because(error).code(DAEMON)
    };
    let emulator = emulator(places).map_err(|error| failed(&error))?;
    let logs = places.state.join("logs");
    fs::create_dir_all(&logs).map_err(|error| failed(&error))?;
    let log = logs.join("daemon.log");
    let output = fs::OpenOptions::new().create(true).append(true).open(&log);
    let output = output.map_err(|error| failed(&error))?;
    let errors = output.try_clone().map_err(|error| failed(&error))?;
    let program = env::current_exe().map_err(|error| failed(&error))?;
    Command::new(program)
        .args(["daemon", "--session", "--timeout", IDLE_SECONDS, "--emulator"])
        .arg(emulator)
        .env("HOSTEL_FIRMWARE", guests::firmware::folder(&guests::cache::Cache::of_user()))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        // Ctrl-C on our terminal is not for the daemon.
        .process_group(0)
        .spawn()
        .map_err(|error| failed(&error))?;
    let began = Instant::now();
    loop {
        match UnixStream::connect(&places.socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if began.elapsed() > PATIENCE => {
                let hint = format!("look into {}", log.display());
                return Err(failed(&error).hint(hint));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Calls over a unix socket.
pub struct Socket {
    stream: UnixStream,
    decoder: FrameDecoder,
    serial: u32,
    /// What the daemon has said unasked.
    messages: VecDeque<Frame>,
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::new(Code::SystemError, format!("The daemon is gone: {error}")).from(Origin::Rpc)
}

impl Transport for Socket {
    fn call(
        &mut self,
        program: u32,
        procedure: u32,
        arguments: Vec<u8>,
    ) -> libvirt_compat::Result<Vec<u8>> {
        self.serial += 1;
        let serial = self.serial;
        let frame = call_frame(program, procedure, serial, arguments);
        self.stream.write_all(&frame.to_bytes()).map_err(|error| broken(&error))?;
        let mut bytes = vec![0; 64 << 10];
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(|error| broken(&error))? {
                match frame.header.kind {
                    Kind::Reply if frame.header.serial == serial => return reply_payload(frame),
                    Kind::Message => self.messages.push_back(frame),
                    _ => {}
                }
            }
            self.read_more(&mut bytes)?;
        }
    }
}

impl Socket {
    fn read_more(&mut self, bytes: &mut [u8]) -> libvirt_compat::Result<()> {
        let count = self.stream.read(bytes).map_err(|error| broken(&error))?;
        if count == 0 {
            return Err(broken(&"it has closed the connection"));
        }
        self.decoder.feed(&bytes[..count]);
        Ok(())
    }

    /// What the last call has opened; there are no more calls then.
    pub fn into_stream(self) -> Receiver {
        Receiver { stream: self.stream, decoder: self.decoder, serial: self.serial }
    }

    /// What the daemon has said unasked until the last answer, one at a time.
    pub fn take_message(&mut self) -> Option<Frame> {
        self.messages.pop_front()
    }

    /// Waits for what the daemon says unasked.
    pub fn message(&mut self) -> libvirt_compat::Result<Frame> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            if let Some(frame) = self.messages.pop_front() {
                return Ok(frame);
            }
            while let Some(frame) = self.decoder.next_frame().map_err(|error| broken(&error))? {
                if frame.header.kind == Kind::Message {
                    self.messages.push_back(frame);
                }
            }
            if self.messages.is_empty() {
                self.read_more(&mut bytes)?;
            }
        }
    }
}

/// Whether a file may be in nobody else's way.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
