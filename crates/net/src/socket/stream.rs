//! Frames over a stream socket: connected to, listened on, or inherited.

use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::{FRAME_BYTES_MAX, Socketed};
use crate::cable::{Backend, Capabilities, Card, Offload};
use crate::error::{Error, Result};
use crate::unix::BoundPath;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
const LENGTH: usize = 4;
/// Bytes that wait for a slow far end; frames beyond are dropped whole.
const OUT_MAX: usize = 1 << 20;
/// What is read at once.
const IN_BYTES: usize = 128 << 10;
/// How long a card without room is waited for before its stop is looked for.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

/// How a stream is made.
#[derive(Debug)]
pub enum StreamEnd {
    /// Connect; when the far end goes, again after this time, or never.
    Connect(Address, Option<Duration>),
    /// Listen; one far end at a time.
    Listen(Address),
    /// A connected socket that somebody handed over.
    Descriptor(OwnedFd),
}

/// A back end at the end of a stream.
pub struct StreamNet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    info: String,
}

struct Shared {
    base: Socketed,
    line: Mutex<Line>,
}

/// The connection, and what waits for it.
#[derive(Default)]
struct Line {
    socket: Option<Arc<OwnedFd>>,
    out: Vec<u8>,
}

/// How the next connection is made.
enum Source {
    Connect(Address, Option<Duration>),
    /// The path goes with its listener.
    Listen(OwnedFd, #[expect(dead_code, reason = "removes the path")] Option<BoundPath>),
    Once(Option<OwnedFd>),
}

impl StreamNet {
    /// Makes the back end and starts its thread. Without `reconnect` the first connection must
    /// succeed at once.
    ///
    /// # Errors
    /// An address that cannot be connected to or listened on.
    pub fn new(end: StreamEnd) -> Result<Arc<Self>> {
        let (source, info) = match end {
            StreamEnd::Connect(address, None) => {
                let info = format!("type=stream,connected to {address}");
                (Source::Once(Some(connect(&address)?)), info)
            }
            StreamEnd::Connect(address, again) => {
                let info = format!("type=stream,connecting to {address}");
                (Source::Connect(address, again), info)
            }
            StreamEnd::Listen(address) => {
                let (socket, bound, path) = listen(&address)?;
                (Source::Listen(socket, path), format!("type=stream,listening on {bound}"))
            }
            StreamEnd::Descriptor(socket) => {
                rustix::io::ioctl_fionbio(&socket, true).map_err(|error| Error::Host {
                    action: "use a descriptor",
                    source: error.into(),
                })?;
                (Source::Once(Some(socket)), "type=stream,descriptor".to_owned())
            }
        };
        let shared = Arc::new(Shared { base: Socketed::new()?, line: Mutex::default() });
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("netstream".to_owned())
            .spawn(move || served.run(source))
            .map_err(|source| Error::Host { action: "start a thread", source })?;
        Ok(Arc::new(Self { shared, thread: Some(thread), info }))
    }
}

impl Backend for StreamNet {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn transmit(&self, frame: &[u8], _: Offload) {
        let Ok(length) = u32::try_from(frame.len()) else { return };
        let mut line = self.shared.line.lock();
        if line.socket.is_none()
            || frame.len() > FRAME_BYTES_MAX
            || line.out.len() + LENGTH + frame.len() > OUT_MAX
        {
            return;
        }
        let was_empty = line.out.is_empty();
        line.out.extend(length.to_be_bytes());
        line.out.extend(frame);
        // What the socket does not take at once the thread sends.
        if was_empty && !line.flush() {
            drop(line);
            self.shared.base.wake();
        }
    }

    fn attach(&self, card: Weak<dyn Card>) {
        self.shared.base.attach(card);
        self.shared.base.wake();
    }

    fn set_guest_offload(&self, _: Capabilities) {}

    fn room(&self) {
        self.shared.base.room();
    }

    fn link(&self) -> bool {
        self.shared.base.is_up()
    }

    fn info(&self) -> String {
        self.info.clone()
    }
}

impl Drop for StreamNet {
    fn drop(&mut self) {
        self.shared.base.stop();
        let Some(thread) = self.thread.take() else { return };
        // The last card may be dropped by the thread itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

impl Line {
    /// Sends what waits; `true`: all of it is gone. A broken socket shows when it is read.
    fn flush(&mut self) -> bool {
        let Some(socket) = &self.socket else {
            self.out.clear();
            return true;
        };
        let mut sent = 0;
        while sent < self.out.len() {
            match net::send(socket, &self.out[sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => sent = self.out.len(),
            }
        }
        self.out.drain(..sent);
        self.out.is_empty()
    }
}

impl Shared {
    fn run(&self, mut source: Source) {
        while !self.base.is_stopped() {
            let Some(socket) = self.next(&mut source) else { return };
            let socket = Arc::new(socket);
            *self.line.lock() = Line { socket: Some(Arc::clone(&socket)), out: Vec::new() };
            self.base.set_link(true);
            self.serve(&socket);
            *self.line.lock() = Line::default();
            self.base.set_link(false);
            if let Source::Connect(_, Some(pause)) = &source {
                self.pause(*pause);
            }
        }
    }

    /// The next connection; `None`: there will be none.
    fn next(&self, source: &mut Source) -> Option<OwnedFd> {
        match source {
            Source::Once(socket) => socket.take(),
            Source::Connect(address, again) => loop {
                if self.base.is_stopped() {
                    return None;
                }
                match connect(address) {
                    Ok(socket) => return Some(socket),
                    Err(_) => self.pause((*again)?),
                }
            },
            Source::Listen(listener, _) => loop {
                self.wait(&*listener, PollFlags::IN, None);
                if self.base.is_stopped() {
                    return None;
                }
                if let Ok(socket) = net::accept_with(&*listener, FLAGS) {
                    let _ = sockopt::set_tcp_nodelay(&socket, true);
                    return Some(socket);
                }
            },
        }
    }

    fn pause(&self, time: Duration) {
        let until = std::time::Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.base.is_stopped() {
                return;
            }
            let timeout = timespec(left);
            let mut polled = [PollFd::new(&self.base.wake, PollFlags::IN)];
            let _ = poll(&mut polled, Some(&timeout));
            self.base.woken();
        }
    }

    /// Waits for the socket or for somebody who wakes us.
    fn wait(&self, socket: impl AsFd, flags: PollFlags, timeout: Option<Duration>) -> PollFlags {
        let timeout = timeout.map(timespec);
        let mut polled = [PollFd::new(&socket, flags), PollFd::new(&self.base.wake, PollFlags::IN)];
        let _ = poll(&mut polled, timeout.as_ref());
        self.base.woken();
        polled[0].revents()
    }

    /// Moves frames until the far end goes.
    fn serve(&self, socket: &OwnedFd) {
        let mut bytes = vec![0; IN_BYTES];
        let mut length = 0;
        while !self.base.is_stopped() {
            let all_sent = self.line.lock().flush();
            let flags = if all_sent { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            let events = self.wait(socket, flags, None);
            if !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                continue;
            }
            match net::recv(socket, &mut bytes[length..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return,
                Ok((_, count)) => length += count,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(_) => return,
            }
            let Some(used) = self.deliver(&bytes[..length]) else { return };
            bytes.copy_within(used..length, 0);
            length -= used;
        }
    }

    /// Hands whole frames to the card; how many bytes they were. `None`: the far end does not
    /// speak this protocol.
    fn deliver(&self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + LENGTH) {
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let length = usize::try_from(length).ok().filter(|l| *l <= FRAME_BYTES_MAX)?;
            let Some(frame) = bytes.get(at + LENGTH..at + LENGTH + length) else { break };
            self.hand_over(frame)?;
            at += LENGTH + length;
        }
        Some(at)
    }

    /// Waits until the card has room: the far end then waits, too.
    fn hand_over(&self, frame: &[u8]) -> Option<()> {
        loop {
            if self.base.is_stopped() {
                return None;
            }
            *self.base.room.lock() = false;
            if self.base.card().is_none_or(|card| card.receive(frame, Offload::default())) {
                return Some(());
            }
            let mut room = self.base.room.lock();
            if !*room {
                self.base.made_room.wait_for(&mut room, ROOM_WAIT);
            }
            drop(room);
            // The guest may be waiting for what we still have to send.
            self.line.lock().flush();
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn unix(path: &Path, action: &'static str) -> impl Fn(Errno) -> Error {
    let path = path.to_owned();
    move |error| Error::Unix { action, path: path.clone(), source: io::Error::from(error) }
}

/// Connects and waits for it; the socket does not block afterwards.
fn connect(address: &Address) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = match address {
        Address::Tcp(to) => {
            let failed = |error: Errno| Error::Connect {
                address: address.to_string(),
                source: error.into(),
            };
            let socket =
                net::socket_with(family(to), SocketType::STREAM, flags, None).map_err(failed)?;
            net::connect(&socket, to).map_err(failed)?;
            let _ = sockopt::set_tcp_nodelay(&socket, true);
            socket
        }
        Address::Unix(path) => {
            let failed = unix(path, "connect to");
            let to = SocketAddrUnix::new(path).map_err(&failed)?;
            let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .map_err(&failed)?;
            net::connect(&socket, &to).map_err(&failed)?;
            socket
        }
    };
    rustix::io::ioctl_fionbio(&socket, true)
        .map_err(|error| Error::Connect { address: address.to_string(), source: error.into() })?;
    Ok(socket)
}

/// Listens; returns the address with its true port.
fn listen(address: &Address) -> Result<(OwnedFd, Address, Option<BoundPath>)> {
    match address {
        Address::Tcp(at) => {
            let failed = |error: Errno| Error::Listen {
                protocol: "tcp",
                address: *at,
                source: error.into(),
            };
            let socket =
                net::socket_with(family(at), SocketType::STREAM, FLAGS, None).map_err(failed)?;
            sockopt::set_socket_reuseaddr(&socket, true).map_err(failed)?;
            net::bind(&socket, at).map_err(failed)?;
            net::listen(&socket, 1).map_err(failed)?;
            let bound = net::getsockname(&socket).map_err(failed)?;
            let bound = SocketAddr::try_from(bound).map_err(failed)?;
            Ok((socket, Address::Tcp(bound), None))
        }
        Address::Unix(path) => {
            let (socket, bound) = crate::unix::bind(path, SocketType::STREAM)?;
            net::listen(&socket, 1).map_err(unix(path, "listen on"))?;
            Ok((socket, address.clone(), Some(bound)))
        }
    }
}
