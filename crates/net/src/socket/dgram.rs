//! Frames in datagrams: between two addresses, to a multicast group, over unix sockets.

use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::{FRAME_BYTES_MAX, Socketed};
use crate::cable::{Backend, Capabilities, Card, Offload};
use crate::error::{Error, Result};
use crate::unix::BoundPath;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Between whom datagrams pass.
#[derive(Debug)]
pub enum DgramEnds {
    /// UDP from `local` to `remote`.
    Udp {
        /// Our address.
        local: SocketAddr,
        /// The far end's.
        remote: SocketAddr,
    },
    /// A multicast group: all who joined hear all.
    Multicast {
        /// The group.
        group: SocketAddrV4,
        /// The interface to send and hear by, by its address; `None`: the host's choice.
        interface: Option<Ipv4Addr>,
    },
    /// Unix sockets.
    Unix {
        /// Our path; made by us.
        local: PathBuf,
        /// The far end's.
        remote: PathBuf,
    },
    /// A socket that somebody handed over, with its far end set.
    Descriptor(OwnedFd),
}

enum To {
    Address(SocketAddr),
    Unix(SocketAddrUnix),
    /// Whereto the socket is connected.
    Set,
    /// Whereto this other socket is connected.
    Sender(OwnedFd),
}

/// A back end whose frames are datagrams.
pub struct DgramNet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    info: String,
}

struct Shared {
    base: Socketed,
    socket: OwnedFd,
    to: To,
    /// A group hears its members' own words, too: what comes from here is ours.
    own: Option<SocketAddr>,
    /// It goes with its socket.
    _path: Option<BoundPath>,
}

impl DgramNet {
    /// Makes the back end and starts its thread.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub fn new(ends: DgramEnds) -> Result<Arc<Self>> {
        let mut path = None;
        let (socket, to, own, info) = match ends {
            DgramEnds::Udp { local, remote } => {
                let socket = udp(local, false)?;
                (socket, To::Address(remote), None, format!("type=dgram,udp={local}/{remote}"))
            }
            DgramEnds::Multicast { group, interface } => {
                let (socket, sender, own) = multicast(group, interface)?;
                let info = format!("type=dgram,mcast={group}");
                (socket, To::Sender(sender), Some(own), info)
            }
            DgramEnds::Unix { local, remote } => {
                let failed = |action, path: &PathBuf| {
                    let path = path.clone();
                    move |error: Errno| Error::Unix { action, path, source: error.into() }
                };
                let to = SocketAddrUnix::new(&remote).map_err(failed("send to", &remote))?;
                let (socket, bound) = crate::unix::bind(&local, SocketType::DGRAM)?;
                path = Some(bound);
                let info = format!("type=dgram,unix={}", remote.display());
                (socket, To::Unix(to), None, info)
            }
            DgramEnds::Descriptor(socket) => {
                rustix::io::ioctl_fionbio(&socket, true).map_err(|error| Error::Host {
                    action: "use a descriptor",
                    source: error.into(),
                })?;
                (socket, To::Set, None, "type=dgram,descriptor".to_owned())
            }
        };
        let base = Socketed::new()?;
        base.set_link(true);
        let shared = Arc::new(Shared { base, socket, to, own, _path: path });
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("netdgram".to_owned())
            .spawn(move || served.run())
            .map_err(|source| Error::Host { action: "start a thread", source })?;
        Ok(Arc::new(Self { shared, thread: Some(thread), info }))
    }
}

fn udp(local: SocketAddr, shared: bool) -> Result<OwnedFd> {
    let failed = |error: Errno| Error::Listen {
        protocol: "udp",
        address: local,
        source: io::Error::from(error),
    };
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::DGRAM, FLAGS, None).map_err(failed)?;
    if shared {
        // Other members of the group on this host have the port, too.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(failed)?;
    }
    net::bind(&socket, &local).map_err(failed)?;
    Ok(socket)
}

/// A socket that hears the group, one that speaks to it, and from where.
fn multicast(
    group: SocketAddrV4,
    interface: Option<Ipv4Addr>,
) -> Result<(OwnedFd, OwnedFd, SocketAddr)> {
    let failed = |error: Errno| Error::Connect {
        address: format!("multicast group {group}"),
        source: io::Error::from(error),
    };
    if !group.ip().is_multicast() {
        return Err(failed(Errno::INVAL));
    }
    let socket = udp(group.into(), true)?;
    let through = interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
    sockopt::set_ip_add_membership(&socket, group.ip(), &through).map_err(failed)?;
    let sender = udp((through, 0).into(), false)?;
    // Machines of the same host are members as well.
    sockopt::set_ip_multicast_loop(&sender, true).map_err(failed)?;
    if let Some(interface) = interface {
        sockopt::set_ip_multicast_if(&sender, &interface).map_err(failed)?;
    }
    net::connect(&sender, &group).map_err(failed)?;
    let own = net::getsockname(&sender).map_err(failed)?;
    let own = SocketAddr::try_from(own).map_err(failed)?;
    Ok((socket, sender, own))
}

impl Shared {
    fn run(&self) {
        let mut bytes = vec![0; FRAME_BYTES_MAX];
        while !self.base.is_stopped() {
            let mut polled = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&self.base.wake, PollFlags::IN),
            ];
            let _ = poll(&mut polled, None);
            self.base.woken();
            while let Ok((_, count, from)) =
                net::recvfrom(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT)
            {
                let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                if self.own.is_some() && from == self.own {
                    continue;
                }
                // A card without room loses the frame, as on a wire.
                if let Some(card) = self.base.card() {
                    card.receive(&bytes[..count.min(FRAME_BYTES_MAX)], Offload::default());
                }
                if self.base.is_stopped() {
                    return;
                }
            }
        }
    }
}

impl Backend for DgramNet {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn transmit(&self, frame: &[u8], _: Offload) {
        let (socket, flags) = (&self.shared.socket, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        // What cannot be sent now is lost, as datagrams are.
        let _ = match &self.shared.to {
            To::Address(to) => net::sendto(socket, frame, flags, to),
            To::Unix(to) => net::sendto(socket, frame, flags, to),
            To::Set => net::send(socket, frame, flags),
            To::Sender(sender) => net::send(sender, frame, flags),
        };
    }

    fn attach(&self, card: Weak<dyn Card>) {
        self.shared.base.attach(card);
    }

    fn set_guest_offload(&self, _: Capabilities) {}

    fn room(&self) {}

    fn link(&self) -> bool {
        true
    }

    fn info(&self) -> String {
        self.info.clone()
    }
}

impl Drop for DgramNet {
    fn drop(&mut self) {
        self.shared.base.stop();
        let Some(thread) = self.thread.take() else { return };
        // The last card may be dropped by the thread itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}
