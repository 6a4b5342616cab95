//! Character devices: the host's ends of byte streams, by name.

mod file;
mod line;
mod mux;
mod ring;
mod socket;
mod telnet;
mod udp;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use device::{NullStream, Stream, StreamPeer};
use parking_lot::Mutex;
use qemu_compat::system::character::{Character, CharacterKind, SocketAddress};

use crate::reactor::Reactor;
use file::{Plain, Pty};
use mux::Mux;
use ring::Ring;
use socket::{Manner, Socket};
use udp::Udp;

/// Why a character device cannot be had. The texts are QEMU's where QEMU has one.
#[derive(Debug, thiserror::Error)]
pub enum CharacterError {
    /// The name is taken.
    #[error("Chardev with id '{id}' already exists")]
    Exists {
        /// The name.
        id: String,
    },
    /// There is none of the name.
    #[error("Chardev '{id}' not found")]
    NotFound {
        /// The name.
        id: String,
    },
    /// A device uses it.
    #[error("Chardev '{id}' is busy")]
    Busy {
        /// The name.
        id: String,
    },
    /// It could not be opened.
    #[error("{what}: {}", reason(.error))]
    Open {
        /// What failed, as QEMU says it.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// No descriptor of this name.
    #[error("File descriptor named '{name}' has not been found")]
    NoDescriptor {
        /// The name.
        name: String,
    },
}

/// The system's own words, without Rust's number behind them.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Gives inherited or passed descriptors by name.
pub trait Descriptors: Send + Sync {
    /// Takes the descriptor.
    fn take(&self, name: &str) -> Option<OwnedFd>;
}

enum Kind {
    Null,
    Plain { filename: String },
    Pty(Arc<Pty>),
    Ring(Arc<Ring>),
    Socket(Arc<Socket>),
}

struct Entry {
    kind: Kind,
    stream: Arc<Lent>,
    mux: Option<Arc<Mux>>,
}

impl Entry {
    fn is_used(&self) -> bool {
        match &self.mux {
            Some(mux) => Arc::strong_count(mux) > 1,
            None => Arc::strong_count(&self.stream) > 1,
        }
    }
}

/// All character devices.
pub struct Characters {
    reactor: Arc<Reactor>,
    descriptors: Arc<dyn Descriptors>,
    /// Ctrl-A x on a shared stream.
    quit: Arc<dyn Fn() + Send + Sync>,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Characters {
    /// None yet.
    pub fn new(
        reactor: &Arc<Reactor>,
        descriptors: Arc<dyn Descriptors>,
        quit: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { reactor: Arc::clone(reactor), descriptors, quit, entries: Mutex::default() }
    }

    /// Opens one. The name of a new pseudo-terminal comes back.
    pub fn add(&self, character: &Character) -> Result<Option<String>, CharacterError> {
        if self.entries.lock().contains_key(&character.id) {
            return Err(CharacterError::Exists { id: character.id.clone() });
        }
        let (kind, mut stream) = self.open(character)?;
        if let Some(path) = &character.log_file {
            let log = OpenOptions::new()
                .create(true)
                .write(true)
                .append(character.log_append)
                .truncate(!character.log_append)
                .open(path);
            let what = format!("Unable to open logfile {path}");
            let log = log.map_err(|error| CharacterError::Open { what, error })?;
            stream = Arc::new(Logged { stream, log: Mutex::new(log) });
        }
        let mux = character.mux.then(|| {
            let quit = Arc::clone(&self.quit);
            Mux::new(Arc::clone(&stream), move || quit())
        });
        let pty = match &kind {
            Kind::Pty(pty) => Some(pty.name().to_owned()),
            _ => None,
        };
        let entry = Entry { kind, stream: Arc::new(Lent(stream)), mux };
        self.entries.lock().insert(character.id.clone(), entry);
        Ok(pty)
    }

    fn open(&self, character: &Character) -> Result<(Kind, Arc<dyn Stream>), CharacterError> {
        let reactor = &self.reactor;
        let failed = |what: String| move |error| CharacterError::Open { what, error };
        let plain = |opened: io::Result<Arc<Plain>>, filename: &str, path: &str| {
            let what = format!("Could not open '{path}'");
            let stream: Arc<dyn Stream> = opened.map_err(failed(what))?;
            Ok((Kind::Plain { filename: filename.to_owned() }, stream))
        };
        match &character.kind {
            CharacterKind::Null => Ok((Kind::Null, Arc::new(NullStream))),
            // A virtual console has no screen to be on: what it says goes nowhere.
            CharacterKind::Console => {
                Ok((Kind::Plain { filename: "vc".to_owned() }, Arc::new(NullStream)))
            }
            CharacterKind::Stdio { signal } => {
                plain(Plain::stdio(reactor, *signal), "stdio", "stdio")
            }
            CharacterKind::File { path, append, input } => {
                plain(Plain::file(reactor, path, *append, input.as_deref()), "file", path)
            }
            CharacterKind::Pipe { path } => plain(Plain::pipe(reactor, path), "pipe", path),
            CharacterKind::Pty { path } => {
                let what = "Failed to create PTY".to_owned();
                let pty = Pty::new(reactor, path.as_deref()).map_err(failed(what))?;
                Ok((Kind::Pty(Arc::clone(&pty)), pty))
            }
            CharacterKind::Udp { remote, local } => {
                let opened = Udp::new(reactor, (&local.0, local.1), (&remote.0, remote.1));
                let what = format!("Failed to connect to '{}:{}'", remote.0, remote.1);
                let stream: Arc<dyn Stream> = opened.map_err(failed(what))?;
                Ok((Kind::Plain { filename: "udp".to_owned() }, stream))
            }
            CharacterKind::Ring { bytes } => {
                let ring = Arc::new(Ring::new(*bytes));
                Ok((Kind::Ring(Arc::clone(&ring)), ring))
            }
            CharacterKind::Socket { address, server, wait, reconnect_ms, no_delay, telnet } => {
                let manner = Manner {
                    server: *server,
                    wait: *wait,
                    reconnect: (*reconnect_ms > 0).then(|| Duration::from_millis(*reconnect_ms)),
                    no_delay: *no_delay,
                    telnet: *telnet,
                };
                let socket = self.socket(address, &manner)?;
                Ok((Kind::Socket(Arc::clone(&socket)), socket))
            }
        }
    }

    fn socket(
        &self,
        address: &SocketAddress,
        manner: &Manner,
    ) -> Result<Arc<Socket>, CharacterError> {
        let inherited = match address {
            SocketAddress::Descriptor { name } => {
                let missing = || CharacterError::NoDescriptor { name: name.clone() };
                Some(self.descriptors.take(name).ok_or_else(missing)?)
            }
            _ => None,
        };
        let what = match (address, manner.server) {
            (SocketAddress::Unix { path, .. }, true) => format!("Failed to bind socket to {path}"),
            (SocketAddress::Unix { path, .. }, false) => {
                format!("Failed to connect to '{path}'")
            }
            (SocketAddress::Inet { host, port, .. }, true) => {
                format!("Failed to bind socket to {host}:{port}")
            }
            (SocketAddress::Inet { host, port, .. }, false) => {
                format!("Failed to connect to '{host}:{port}'")
            }
            (SocketAddress::Descriptor { name }, _) => format!("Cannot use descriptor '{name}'"),
        };
        Socket::new(&self.reactor, address.clone(), manner, inherited)
            .map_err(|error| CharacterError::Open { what, error })
    }

    /// The stream for one more device.
    pub fn use_by_device(&self, id: &str) -> Result<Arc<dyn Stream>, CharacterError> {
        let entries = self.entries.lock();
        let missing = || CharacterError::NotFound { id: id.to_owned() };
        let entry = entries.get(id).ok_or_else(missing)?;
        let busy = || CharacterError::Busy { id: id.to_owned() };
        match &entry.mux {
            Some(mux) => Ok(mux.front().ok_or_else(busy)?),
            None if entry.is_used() => Err(busy()),
            None => Ok(Arc::clone(&entry.stream) as Arc<dyn Stream>),
        }
    }

    /// Closes one that nobody uses.
    pub fn remove(&self, id: &str) -> Result<(), CharacterError> {
        let mut entries = self.entries.lock();
        match entries.get(id) {
            None => Err(CharacterError::NotFound { id: id.to_owned() }),
            Some(entry) if entry.is_used() => Err(CharacterError::Busy { id: id.to_owned() }),
            Some(_) => {
                entries.remove(id);
                Ok(())
            }
        }
    }

    /// Whether there is one of this name.
    pub fn contains(&self, id: &str) -> bool {
        self.entries.lock().contains_key(id)
    }

    /// Name, address as QEMU shows it, and whether a device uses it.
    pub fn list(&self) -> Vec<(String, String, bool)> {
        let entries = self.entries.lock();
        let shown = entries.iter().map(|(id, entry)| {
            let filename = match &entry.kind {
                Kind::Null => "null".to_owned(),
                Kind::Plain { filename } => filename.clone(),
                Kind::Pty(pty) => format!("pty:{}", pty.name()),
                Kind::Ring(_) => "ringbuf".to_owned(),
                Kind::Socket(socket) => {
                    let server = if socket.is_server() { ",server=on" } else { "" };
                    format!("{}{server}", socket.describe())
                }
            };
            let filename = match entry.mux {
                Some(_) => "mux".to_owned(),
                None => filename,
            };
            (id.clone(), filename, entry.is_used())
        });
        shown.collect()
    }

    /// A ring's own operations.
    pub fn ring(&self, id: &str) -> Option<Arc<Ring>> {
        match &self.entries.lock().get(id)?.kind {
            Kind::Ring(ring) => Some(Arc::clone(ring)),
            _ => None,
        }
    }
}

/// What devices hold, so that they can be told from others who hold the stream for a moment.
struct Lent(Arc<dyn Stream>);

impl Stream for Lent {
    fn write(&self, bytes: &[u8]) -> usize {
        self.0.write(bytes)
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        self.0.attach(peer);
    }

    fn room(&self) {
        self.0.room();
    }

    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    fn take_descriptors(&self) -> Vec<OwnedFd> {
        self.0.take_descriptors()
    }

    fn take_socket(&self) -> Option<OwnedFd> {
        self.0.take_socket()
    }

    fn set_guest_open(&self, open: bool) {
        self.0.set_guest_open(open);
    }
}

/// Writes down what goes through.
struct Logged {
    stream: Arc<dyn Stream>,
    log: Mutex<File>,
}

impl Stream for Logged {
    fn write(&self, bytes: &[u8]) -> usize {
        let count = self.stream.write(bytes);
        // A full disk must not stop the guest's console.
        _ = self.log.lock().write_all(&bytes[..count]);
        count
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        self.stream.attach(peer);
    }

    fn room(&self) {
        self.stream.room();
    }

    fn is_open(&self) -> bool {
        self.stream.is_open()
    }

    fn take_descriptors(&self) -> Vec<OwnedFd> {
        self.stream.take_descriptors()
    }
}
