//! Ports of the host that lead to the guest.

use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::error::{Error, Result};
use crate::unix::BoundPath;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
/// Connections that the host keeps until they are accepted.
const BACKLOG: i32 = 128;

/// A port of the host that leads to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostForward {
    /// Where the host's side connects or sends to.
    pub from: HostEnd,
    /// The guest's end.
    pub guest: SocketAddr,
}

/// The host's end of a forwarding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// A TCP port; port 0: any that is free.
    Tcp(SocketAddr),
    /// A UDP port; port 0: any that is free.
    Udp(SocketAddr),
    /// A unix socket, which leads to TCP of the guest.
    Unix(PathBuf),
}

impl HostEnd {
    /// Whether it carries datagrams.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        matches!(self, Self::Udp(_))
    }

    /// Takes the port. Returns the end with its true port.
    pub(super) fn listen(&self) -> Result<(OwnedFd, Self, Option<BoundPath>)> {
        match self {
            Self::Tcp(address) => {
                let (socket, bound) = bind(*address, SocketType::STREAM, "tcp")?;
                Ok((socket, Self::Tcp(bound), None))
            }
            Self::Udp(address) => {
                let (socket, bound) = bind(*address, SocketType::DGRAM, "udp")?;
                Ok((socket, Self::Udp(bound), None))
            }
            Self::Unix(path) => {
                let failed = |source: rustix::io::Errno| Error::Unix {
                    action: "listen on",
                    path: path.clone(),
                    source: source.into(),
                };
                let (socket, bound) = crate::unix::bind(path, SocketType::STREAM)?;
                net::listen(&socket, BACKLOG).map_err(failed)?;
                Ok((socket, self.clone(), Some(bound)))
            }
        }
    }
}

impl fmt::Display for HostEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Udp(address) => write!(f, "udp {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

fn bind(
    address: SocketAddr,
    kind: SocketType,
    protocol: &'static str,
) -> Result<(OwnedFd, SocketAddr)> {
    let failed =
        |source: rustix::io::Errno| Error::Listen { protocol, address, source: source.into() };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, kind, FLAGS, None).map_err(failed)?;
    if kind == SocketType::STREAM {
        // A port whose old connections are still fading is free.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(failed)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).map_err(failed)?;
    }
    net::bind(&socket, &address).map_err(failed)?;
    if kind == SocketType::STREAM {
        net::listen(&socket, BACKLOG).map_err(failed)?;
    }
    let bound = net::getsockname(&socket).map_err(failed)?;
    let bound = SocketAddr::try_from(bound).map_err(failed)?;
    Ok((socket, bound))
}

/// Accepts a connection; `None`: there is none now.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<(OwnedFd, Option<SocketAddr>)>> {
    loop {
        match net::acceptfrom_with(listener, FLAGS) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                if peer.is_some() {
                    // The guest has decided what makes a segment.
                    let _ = sockopt::set_tcp_nodelay(&socket, true);
                }
                return Ok(Some((socket, peer)));
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            // A connection that broke before it was accepted.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
