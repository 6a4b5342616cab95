//! Sockets: one client at a time, or one server that is looked for again when it goes.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use device::{Stream, StreamEvent, StreamPeer};
use parking_lot::Mutex;
use qemu_compat::system::character::SocketAddress;
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{SocketFlags, accept_with, sockopt};

use super::line::{Line, Read};
use super::telnet::OPENING;
use crate::reactor::{Reactor, Source};

/// A socket and the line over its connection.
pub struct Socket {
    line: Line,
    address: SocketAddress,
    no_delay: bool,
    telnet: bool,
    reconnect: Option<Duration>,
    listener: Option<Arc<OwnedFd>>,
    /// The file of a listener goes with it.
    path: Option<String>,
    next_try: Mutex<Option<Instant>>,
}

/// How to connect.
pub struct Manner {
    /// Listen rather than connect.
    pub server: bool,
    /// Block until the first client is there.
    pub wait: bool,
    /// Look for a lost server again.
    pub reconnect: Option<Duration>,
    /// Small writes go out at once.
    pub no_delay: bool,
    /// The far end speaks telnet.
    pub telnet: bool,
}

impl Socket {
    /// Listens or connects. `inherited` is the descriptor that the address names.
    pub fn new(
        reactor: &Arc<Reactor>,
        address: SocketAddress,
        manner: &Manner,
        inherited: Option<OwnedFd>,
    ) -> io::Result<Arc<Self>> {
        let mut socket = Self {
            line: Line::new(reactor),
            address,
            no_delay: manner.no_delay,
            telnet: manner.telnet,
            reconnect: manner.reconnect,
            listener: None,
            path: None,
            next_try: Mutex::default(),
        };
        if manner.server {
            let listener = match inherited {
                Some(listener) => listener,
                None => socket.listen()?,
            };
            if manner.wait {
                eprintln!("QEMU waiting for connection on: {},server=on", socket.describe());
                set_blocking(&listener, true)?;
                let client = accept_with(&listener, SocketFlags::CLOEXEC)?;
                socket.adopt(client)?;
            }
            set_blocking(&listener, false)?;
            socket.listener = Some(Arc::new(listener));
        } else if let Some(connection) = inherited {
            socket.adopt(connection)?;
        } else {
            match (socket.connect(), socket.reconnect) {
                (Ok(connection), _) => socket.adopt(connection)?,
                (Err(_), Some(pause)) => *socket.next_try.lock() = Some(Instant::now() + pause),
                (Err(error), None) => return Err(error),
            }
        }
        let socket = Arc::new(socket);
        let source: Weak<Self> = Arc::downgrade(&socket);
        reactor.add(source);
        Ok(socket)
    }

    /// The address as `query-chardev` shows it.
    pub fn describe(&self) -> String {
        let state = if self.line.is_connected() { "" } else { "disconnected:" };
        match &self.address {
            SocketAddress::Unix { path, .. } => format!("{state}unix:{path}"),
            SocketAddress::Inet { host, port, .. } => {
                let kind = if self.telnet { "telnet" } else { "tcp" };
                format!("{state}{kind}:{host}:{port}")
            }
            SocketAddress::Descriptor { name } => format!("{state}fd:{name}"),
        }
    }

    /// Whether it listens.
    pub fn is_server(&self) -> bool {
        self.listener.is_some()
    }

    fn listen(&mut self) -> io::Result<OwnedFd> {
        match &self.address {
            SocketAddress::Unix { path, is_abstract: true } => {
                let name = SocketAddr::from_abstract_name(path.as_bytes())?;
                Ok(UnixListener::bind_addr(&name)?.into())
            }
            SocketAddress::Unix { path, .. } => {
                // One that an earlier run left behind; a file that is no socket stays.
                use std::os::unix::fs::FileTypeExt;
                let left = std::fs::symlink_metadata(path);
                if left.is_ok_and(|left| left.file_type().is_socket()) {
                    _ = std::fs::remove_file(path);
                }
                let listener = UnixListener::bind(path)?;
                self.path = Some(path.clone());
                Ok(listener.into())
            }
            SocketAddress::Inet { host, port, to } => {
                let host = if host.is_empty() { "0.0.0.0" } else { host };
                let first = port_number(port)?;
                let mut last_error = io::Error::from(io::ErrorKind::AddrInUse);
                for port in first..=to.unwrap_or(first).max(first) {
                    match TcpListener::bind((host, port)) {
                        Ok(listener) => return Ok(listener.into()),
                        Err(error) => last_error = error,
                    }
                }
                Err(last_error)
            }
            SocketAddress::Descriptor { .. } => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        match &self.address {
            SocketAddress::Unix { path, is_abstract: true } => {
                let name = SocketAddr::from_abstract_name(path.as_bytes())?;
                Ok(UnixStream::connect_addr(&name)?.into())
            }
            SocketAddress::Unix { path, .. } => Ok(UnixStream::connect(path)?.into()),
            SocketAddress::Inet { host, port, .. } => {
                let host = if host.is_empty() { "localhost" } else { host };
                let mut last_error = io::Error::from(io::ErrorKind::NotFound);
                for address in (host, port_number(port)?).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                        Ok(connection) => return Ok(connection.into()),
                        Err(error) => last_error = error,
                    }
                }
                Err(last_error)
            }
            SocketAddress::Descriptor { .. } => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn adopt(&self, connection: OwnedFd) -> io::Result<()> {
        set_blocking(&connection, false)?;
        if self.no_delay {
            _ = sockopt::set_tcp_nodelay(&connection, true); // no TCP, no delay
        }
        self.line.connect_socket(connection, self.telnet);
        if self.telnet {
            // A new connection takes so little.
            _ = self.line.write(&OPENING);
        }
        self.line.tell(StreamEvent::Opened);
        Ok(())
    }

    fn lost(&self) {
        self.line.disconnect();
        *self.next_try.lock() = self.reconnect.map(|pause| Instant::now() + pause);
        self.line.tell(StreamEvent::Closed);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            _ = std::fs::remove_file(path);
        }
    }
}

fn port_number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such port"))
}

fn set_blocking(descriptor: &impl AsFd, blocking: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(descriptor)?;
    flags.set(OFlags::NONBLOCK, !blocking);
    Ok(fcntl_setfl(descriptor, flags)?)
}

impl Source for Socket {
    fn watch(&self) -> Vec<(Arc<OwnedFd>, PollFlags)> {
        match (&self.listener, self.line.is_connected()) {
            (_, true) => self.line.watch(),
            (Some(listener), false) => vec![(Arc::clone(listener), PollFlags::IN)],
            (None, false) => Vec::new(),
        }
    }

    fn ready(&self, descriptor: &Arc<OwnedFd>, flags: PollFlags) {
        match &self.listener {
            Some(listener) if Arc::ptr_eq(listener, descriptor) => {
                if let Ok(client) = accept_with(&**listener, SocketFlags::CLOEXEC) {
                    _ = self.adopt(client);
                }
            }
            _ if self.line.ready(flags) == Read::End => self.lost(),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        *self.next_try.lock()
    }

    fn tick(&self) {
        let pause = self.reconnect.unwrap_or_default();
        let next = match self.connect().and_then(|connection| self.adopt(connection)) {
            Ok(()) => None,
            Err(_) => Some(Instant::now() + pause),
        };
        *self.next_try.lock() = next;
    }
}

impl Stream for Socket {
    fn write(&self, bytes: &[u8]) -> usize {
        self.line.write(bytes)
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        self.line.attach(peer);
    }

    fn room(&self) {
        self.line.room();
    }

    fn is_open(&self) -> bool {
        self.line.is_connected()
    }

    fn take_descriptors(&self) -> Vec<OwnedFd> {
        self.line.take_descriptors()
    }

    fn take_socket(&self) -> Option<OwnedFd> {
        self.line.take_socket()
    }
}
