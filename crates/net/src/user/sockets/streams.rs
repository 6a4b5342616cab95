//! Connections of the host: TCP, unix sockets, and programs.

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};

use super::{Failure, Id, Slots, Token, Transfer, failure, watch};

/// Every change is told once; the engine remembers what it was told.
const EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
/// Connections by others that are turned away before a program is given up.
const STRANGERS_MAX: usize = 16;
/// Programs of guest forwardings at once.
const PROGRAMS_MAX: usize = 64;

/// Connections by the engine's numbers.
#[derive(Default)]
pub struct Streams {
    all: Slots<Stream>,
    programs: Vec<Child>,
}

struct Stream {
    socket: OwnedFd,
    /// While it is being made: the addresses that are tried if this one fails.
    connecting: Option<VecDeque<SocketAddr>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was made before: the event is about data.
    Made,
    /// It has just been made.
    Connected,
    /// It is still being made.
    Waiting,
    /// It could not be made.
    Failed(Failure),
}

impl Streams {
    pub fn adopt(&mut self, epoll: &OwnedFd, flow: Id, socket: OwnedFd) -> bool {
        if watch(epoll, &socket, Token::Tcp(flow), EVENTS).is_err() {
            return false;
        }
        self.all.put(flow, Stream { socket, connecting: None });
        true
    }

    pub fn connect(
        &mut self,
        epoll: &OwnedFd,
        flow: Id,
        addresses: Vec<SocketAddr>,
    ) -> Result<(), Failure> {
        self.connect_next(epoll, flow, addresses.into(), Failure::Refused)
    }

    fn connect_next(
        &mut self,
        epoll: &OwnedFd,
        flow: Id,
        mut addresses: VecDeque<SocketAddr>,
        mut last: Failure,
    ) -> Result<(), Failure> {
        while let Some(address) = addresses.pop_front() {
            match begin(epoll, flow, address) {
                Ok(socket) => {
                    self.all.put(flow, Stream { socket, connecting: Some(addresses) });
                    return Ok(());
                }
                Err(error) => last = failure(error),
            }
        }
        Err(last)
    }

    pub fn connect_unix(&mut self, epoll: &OwnedFd, flow: Id, path: &Path) -> Result<(), Failure> {
        let open = || {
            let address = SocketAddrUnix::new(path)?;
            let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
            net::connect(&socket, &address)?;
            watch(epoll, &socket, Token::Tcp(flow), EVENTS)?;
            Ok(socket)
        };
        let socket = open().map_err(failure)?;
        self.all.put(flow, Stream { socket, connecting: Some(VecDeque::new()) });
        Ok(())
    }

    /// Starts a program whose standard input and output are the connection.
    pub fn start(&mut self, epoll: &OwnedFd, flow: Id, line: &OsStr) -> Result<(), Failure> {
        self.reap();
        if self.programs.len() >= PROGRAMS_MAX {
            return Err(Failure::Exhausted);
        }
        let (ours, theirs) = loopback_pair().map_err(|_| Failure::Exhausted)?;
        let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
        let output = theirs.try_clone().map_err(|_| Failure::Exhausted)?;
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(line)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(output))
            // A server that ends may signal its group: samba's does, to end its children.
            .process_group(0)
            .spawn()
            .map_err(|_| Failure::Refused)?;
        self.programs.push(child);
        watch(epoll, &ours, Token::Tcp(flow), EVENTS).map_err(failure)?;
        self.all.put(flow, Stream { socket: ours, connecting: Some(VecDeque::new()) });
        Ok(())
    }

    pub fn progress(&mut self, epoll: &OwnedFd, flow: Id) -> Progress {
        let Some(stream) = self.all.get_mut(flow) else { return Progress::Waiting };
        let Some(addresses) = stream.connecting.take() else { return Progress::Made };
        let outcome = sockopt::socket_error(&stream.socket).and_then(|outcome| outcome);
        let is_made = outcome.is_ok() && matches!(net::getpeername(&stream.socket), Ok(Some(_)));
        match outcome {
            Ok(()) if is_made => Progress::Connected,
            Ok(()) => {
                stream.connecting = Some(addresses);
                Progress::Waiting
            }
            Err(error) => match self.connect_next(epoll, flow, addresses, failure(error)) {
                Ok(()) => Progress::Waiting,
                Err(failure) => Progress::Failed(failure),
            },
        }
    }

    pub fn write(&mut self, flow: Id, bytes: &[u8]) -> Transfer {
        let Some(stream) = self.all.get(flow) else { return Transfer::Failed };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        transfer(|| net::send(&stream.socket, bytes, flags))
    }

    pub fn read(&mut self, flow: Id, into: &mut [u8]) -> Transfer {
        let Some(stream) = self.all.get(flow) else { return Transfer::Failed };
        let read = || net::recv(&stream.socket, &mut *into, RecvFlags::DONTWAIT);
        match transfer(read_count(read)) {
            Transfer::Bytes(0) => Transfer::End,
            other => other,
        }
    }

    pub fn finish(&mut self, flow: Id) {
        if let Some(stream) = self.all.get(flow) {
            // It may be broken already; reading will tell.
            let _ = net::shutdown(&stream.socket, Shutdown::Write);
        }
    }

    pub fn close(&mut self, flow: Id, reset: bool) {
        let Some(stream) = self.all.take(flow) else { return };
        if reset {
            // Closing without patience makes TCP send a reset; other sockets ignore it.
            let _ = sockopt::set_socket_linger(&stream.socket, Some(Duration::ZERO));
        }
    }

    pub fn descriptor(&self, flow: Id) -> Option<i32> {
        self.all.get(flow).map(|stream| stream.socket.as_raw_fd())
    }

    pub fn reap(&mut self) {
        self.programs.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for child in &mut self.programs {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_count<T>(
    mut read: impl FnMut() -> Result<(T, usize), Errno>,
) -> impl FnMut() -> Result<usize, Errno> {
    move || read().map(|(_, count)| count)
}

fn transfer(mut operation: impl FnMut() -> Result<usize, Errno>) -> Transfer {
    loop {
        return match operation() {
            Ok(count) => Transfer::Bytes(count),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Transfer::Later,
            Err(_) => Transfer::Failed,
        };
    }
}

/// Begins a connection.
fn begin(epoll: &OwnedFd, flow: Id, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
    // The guest has decided what makes a segment; waiting for more would only delay it.
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    watch(epoll, &socket, Token::Tcp(flow), EVENTS)?;
    Ok(socket)
}

/// Two ends of a connection over the loopback interface: servers such as samba's want to know who
/// connects, and other pairs of sockets have no addresses. The first does not wait.
fn loopback_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let theirs = TcpStream::connect(listener.local_addr()?)?;
    let address = theirs.local_addr()?;
    // Anybody on this machine may come in between.
    for _ in 0..STRANGERS_MAX {
        let (ours, peer) = listener.accept()?;
        if peer == address {
            ours.set_nonblocking(true)?;
            return Ok((ours, theirs));
        }
    }
    Err(io::ErrorKind::ConnectionRefused.into())
}
