//! Sockets for datagrams: UDP and pings.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{Failure, Id, Slots, Token, failure, watch};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Sockets by the engine's numbers.
#[derive(Default)]
pub struct Datagrams(Slots<Both>);

/// A socket of the guest's family, and one of the other where a name server needs it.
#[derive(Default)]
struct Both {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
}

/// A datagram that has come.
pub struct Received<'a> {
    /// From whom.
    pub from: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagrams {
    pub fn open(
        &mut self,
        epoll: &OwnedFd,
        token: Token,
        flow: Id,
        is_v4: bool,
        protocol: Option<Protocol>,
    ) -> Result<(), Failure> {
        let family = if is_v4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket =
            net::socket_with(family, SocketType::DGRAM, FLAGS, protocol).map_err(failure)?;
        watch(epoll, &socket, token, EventFlags::IN).map_err(failure)?;
        if self.0.get(flow).is_none() {
            self.0.put(flow, Both::default());
        }
        if let Some(both) = self.0.get_mut(flow) {
            *(if is_v4 { &mut both.v4 } else { &mut both.v6 }) = Some(socket);
        }
        Ok(())
    }

    /// Sends, and opens a socket of the other family first where that is needed.
    pub fn send(&mut self, epoll: &OwnedFd, token: Token, flow: Id, to: SocketAddr, bytes: &[u8]) {
        if self.socket(flow, to).is_none()
            && self.open(epoll, token, flow, to.is_ipv4(), None).is_err()
        {
            return;
        }
        self.send_open(flow, to, bytes);
    }

    pub fn send_open(&self, flow: Id, to: SocketAddr, bytes: &[u8]) {
        if let Some(socket) = self.socket(flow, to) {
            send(socket, to, bytes);
        }
    }

    fn socket(&self, flow: Id, to: SocketAddr) -> Option<&OwnedFd> {
        let both = self.0.get(flow)?;
        if to.is_ipv4() { both.v4.as_ref() } else { both.v6.as_ref() }
    }

    pub fn receive<'a>(&self, flow: Id, into: &'a mut [u8]) -> Option<Received<'a>> {
        let both = self.0.get(flow)?;
        for socket in both.v4.iter().chain(&both.v6) {
            if let Some((from, count)) = receive_count(socket, into) {
                return Some(Received { from, payload: &into[..count] });
            }
        }
        None
    }

    pub fn close(&mut self, flow: Id) {
        self.0.take(flow);
    }
}

/// Sends, or drops what the host does not take now: nothing else is promised of datagrams.
pub fn send(socket: &OwnedFd, to: SocketAddr, bytes: &[u8]) {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = net::sendto(socket, bytes, flags, &to);
}

/// The next datagram.
pub fn receive<'a>(socket: &OwnedFd, into: &'a mut [u8]) -> Option<Received<'a>> {
    let (from, count) = receive_count(socket, into)?;
    Some(Received { from, payload: &into[..count] })
}

fn receive_count(socket: &OwnedFd, into: &mut [u8]) -> Option<(SocketAddr, usize)> {
    let (_, count, from) = net::recvfrom(socket, &mut *into, RecvFlags::DONTWAIT).ok()?;
    let from = SocketAddr::try_from(from?).ok()?;
    Some((from, count.min(into.len())))
}
