//! Connections over TCP or unix sockets, alike.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{self as unix_net, UnixListener, UnixStream};
use std::time::Duration;

/// Where connections come in.
#[derive(Debug)]
pub enum Listener {
    /// Over the network.
    Tcp(TcpListener),
    /// On this machine.
    Unix(UnixListener),
}

impl Listener {
    /// Takes one.
    pub fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }

    /// Its address as host and port, or path.
    pub fn address(&self) -> Address {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| Address::none(), tcp),
            Self::Unix(listener) => unix(listener.local_addr()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// An end of a connection, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `ipv4`, `ipv6` or `unix`.
    pub family: &'static str,
    /// An IP address, or nothing.
    pub host: String,
    /// A port, or a path.
    pub service: String,
}

impl Address {
    fn none() -> Self {
        Self { family: "unknown", host: String::new(), service: String::new() }
    }
}

fn tcp(address: std::net::SocketAddr) -> Address {
    Address {
        family: if address.is_ipv4() { "ipv4" } else { "ipv6" },
        host: address.ip().to_string(),
        service: address.port().to_string(),
    }
}

fn unix(address: io::Result<unix_net::SocketAddr>) -> Address {
    let path = address.ok().and_then(|address| Some(address.as_pathname()?.to_owned()));
    let service = path.map_or(String::new(), |path| path.to_string_lossy().into_owned());
    Address { family: "unix", host: String::new(), service }
}

/// A connection. Reading and writing need no exclusive access, as with the sockets themselves.
#[derive(Debug)]
pub enum Socket {
    /// Over the network.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

impl Socket {
    /// Who is at the other end.
    pub fn peer(&self) -> Address {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or_else(|_| Address::none(), tcp),
            Self::Unix(stream) => unix(stream.peer_addr()),
        }
    }

    /// Ends both directions; whoever reads or writes wakes up.
    pub fn close(&self) {
        _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// How long to wait for bytes to come and to go.
    pub fn patience(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(write)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(write)
            }
        }
    }

    /// Reads what has come.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Tcp(stream) => (&*stream).read(buffer),
                Self::Unix(stream) => (&*stream).read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Writes all of it.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&*stream).write_all(bytes),
            Self::Unix(stream) => (&*stream).write_all(bytes),
        }
    }
}
