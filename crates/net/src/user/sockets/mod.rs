//! The host's sockets: what the engine asks of its [`Outside`], done with the operating system.

mod datagrams;
mod files;
mod resolver;
mod streams;

use core::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;

use super::config::{Config, ForwardTarget};
use super::engine::arena::Id;
use super::engine::outside::{Failure, Outside, Target, Transfer};
use super::forward::{HostEnd, HostForward};
use super::stack::{Connection, ConnectionKind};
use super::token::Token;
use datagrams::Datagrams;
pub use datagrams::Received;
use files::Files;
use resolver::Resolver;
pub use streams::Progress;
use streams::Streams;

/// The host's side of a network. It belongs to the network's thread.
pub struct Sockets {
    epoll: OwnedFd,
    streams: Streams,
    /// For UDP.
    datagrams: Datagrams,
    pings: Datagrams,
    /// The sockets of forwarded ports, by the forwarding's number.
    forwards: Vec<(u32, OwnedFd, HostForward)>,
    files: Files,
    resolver: Resolver,
    /// Instead of the resolver's.
    name_servers: Vec<SocketAddr>,
    targets: Vec<ForwardTarget>,
}

impl Sockets {
    /// No sockets yet; events go to `epoll`.
    pub fn new(epoll: OwnedFd, config: &Config) -> Self {
        Self {
            epoll,
            streams: Streams::default(),
            datagrams: Datagrams::default(),
            pings: Datagrams::default(),
            forwards: Vec::new(),
            files: Files::new(config.tftp_root.clone()),
            resolver: Resolver::new(config.resolv_conf.clone()),
            name_servers: config.name_servers.clone(),
            targets: config.guest_forwards.iter().map(|f| f.to.clone()).collect(),
        }
    }

    /// Where events come.
    pub fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// Takes the connected socket of a new connection. `false`: it cannot be watched.
    pub fn adopt(&mut self, flow: Id, socket: OwnedFd) -> bool {
        self.streams.adopt(&self.epoll, flow, socket)
    }

    /// Looks how far a connection that is being made has come.
    pub fn progress(&mut self, flow: Id) -> Progress {
        self.streams.progress(&self.epoll, flow)
    }

    /// The next datagram for a port that the guest sends from.
    pub fn receive<'a>(&self, flow: Id, into: &'a mut [u8]) -> Option<Received<'a>> {
        self.datagrams.receive(flow, into)
    }

    /// The next answer to a ping.
    pub fn receive_ping<'a>(&self, flow: Id, into: &'a mut [u8]) -> Option<Received<'a>> {
        self.pings.receive(flow, into)
    }

    /// Lets a forwarding of datagrams send, too.
    pub fn forward_add(&mut self, number: u32, socket: OwnedFd, forward: &HostForward) {
        self.forwards.push((number, socket, forward.clone()));
    }

    /// The forwardings of datagrams.
    pub fn forward_list(&self) -> impl Iterator<Item = Connection> {
        self.forwards.iter().map(|(_, socket, forward)| Connection {
            kind: ConnectionKind::UdpForward,
            descriptor: Some(socket.as_raw_fd()),
            source: match &forward.from {
                HostEnd::Udp(address) => Some(*address),
                HostEnd::Tcp(_) | HostEnd::Unix(_) => None,
            },
            destination: forward.guest,
            queued: (0, 0),
        })
    }

    /// And no more.
    pub fn forward_remove(&mut self, number: u32) {
        self.forwards.retain(|(other, ..)| *other != number);
    }

    /// The next datagram for a forwarding.
    pub fn receive_forward<'a>(&self, number: u32, into: &'a mut [u8]) -> Option<Received<'a>> {
        let (_, socket, _) = self.forwards.iter().find(|(other, ..)| *other == number)?;
        datagrams::receive(socket, into)
    }

    /// The descriptor of a connection, for lists.
    pub fn descriptor(&self, flow: Id) -> Option<i32> {
        self.streams.descriptor(flow)
    }

    /// Collects programs of guest forwardings that have ended.
    pub fn reap(&mut self) {
        self.streams.reap();
    }
}

impl Outside for Sockets {
    fn tcp_connect(&mut self, flow: Id, to: &Target) -> Result<(), Failure> {
        match to {
            Target::Addresses(all) => self.streams.connect(&self.epoll, flow, all.clone()),
            Target::Forward(number) => match self.targets.get(*number) {
                Some(ForwardTarget::Tcp(to)) => self.streams.connect(&self.epoll, flow, vec![*to]),
                Some(ForwardTarget::Unix(path)) => {
                    self.streams.connect_unix(&self.epoll, flow, path)
                }
                Some(ForwardTarget::Command(line)) => self.streams.start(&self.epoll, flow, line),
                None => Err(Failure::Refused),
            },
        }
    }

    fn tcp_write(&mut self, flow: Id, bytes: &[u8]) -> Transfer {
        self.streams.write(flow, bytes)
    }

    fn tcp_read(&mut self, flow: Id, into: &mut [u8]) -> Transfer {
        self.streams.read(flow, into)
    }

    fn tcp_finish(&mut self, flow: Id) {
        self.streams.finish(flow);
    }

    fn tcp_close(&mut self, flow: Id, reset: bool) {
        self.streams.close(flow, reset);
    }

    fn udp_open(&mut self, flow: Id, is_v4: bool) -> Result<(), Failure> {
        self.datagrams.open(&self.epoll, Token::Udp(flow), flow, is_v4, None)
    }

    fn udp_send(&mut self, flow: Id, to: SocketAddr, bytes: &[u8]) {
        self.datagrams.send(&self.epoll, Token::Udp(flow), flow, to, bytes);
    }

    fn udp_send_forward(&mut self, forward: u32, to: SocketAddr, bytes: &[u8]) {
        if let Some((_, socket, _)) = self.forwards.iter().find(|(other, ..)| *other == forward) {
            datagrams::send(socket, to, bytes);
        }
    }

    fn udp_close(&mut self, flow: Id) {
        self.datagrams.close(flow);
    }

    fn ping_open(&mut self, flow: Id, is_v4: bool) -> bool {
        let protocol =
            if is_v4 { rustix::net::ipproto::ICMP } else { rustix::net::ipproto::ICMPV6 };
        let opened = self.pings.open(&self.epoll, Token::Ping(flow), flow, is_v4, Some(protocol));
        opened.is_ok()
    }

    fn ping_send(&mut self, flow: Id, to: SocketAddr, message: &[u8]) {
        self.pings.send_open(flow, to, message);
    }

    fn ping_close(&mut self, flow: Id) {
        self.pings.close(flow);
    }

    fn file_open(&mut self, transfer: Id, path: &str) -> Option<u64> {
        self.files.open(transfer, path)
    }

    fn file_read(&mut self, transfer: Id, offset: u64, into: &mut [u8]) -> Option<usize> {
        self.files.read(transfer, offset, into)
    }

    fn file_close(&mut self, transfer: Id) {
        self.files.close(transfer);
    }

    fn name_servers(&mut self) -> Vec<SocketAddr> {
        if self.name_servers.is_empty() {
            self.resolver.servers()
        } else {
            self.name_servers.clone()
        }
    }
}

/// Things of the engine's connections, found by its numbers.
struct Slots<T>(Vec<Option<(u32, T)>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slots<T> {
    fn put(&mut self, id: Id, thing: T) {
        let index = id.index as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some((id.generation, thing));
    }

    fn get(&self, id: Id) -> Option<&T> {
        let (generation, thing) = self.0.get(id.index as usize)?.as_ref()?;
        (*generation == id.generation).then_some(thing)
    }

    fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let (generation, thing) = self.0.get_mut(id.index as usize)?.as_mut()?;
        (*generation == id.generation).then_some(thing)
    }

    fn take(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        self.0.get_mut(id.index as usize)?.take().map(|(_, thing)| thing)
    }
}

/// Asks for events of a socket.
fn watch(
    epoll: &OwnedFd,
    socket: impl AsFd,
    token: Token,
    flags: epoll::EventFlags,
) -> Result<(), Errno> {
    epoll::add(epoll, socket, epoll::EventData::new_u64(token.bits()), flags)
}

/// What an error of the host means for the guest.
fn failure(error: Errno) -> Failure {
    match error {
        Errno::NETUNREACH | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL => Failure::NoNetwork,
        Errno::HOSTUNREACH | Errno::HOSTDOWN => Failure::NoHost,
        Errno::PERM | Errno::ACCESS => Failure::Prohibited,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Failure::Exhausted,
        Errno::TIMEDOUT => Failure::Silent,
        _ => Failure::Refused,
    }
}
