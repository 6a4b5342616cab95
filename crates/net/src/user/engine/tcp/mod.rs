//! The guest's TCP connections: each ends here and goes on as a connection of the host.
//!
//! `input` takes the guest's segments, `output` serves connections that have something to
//! send, this file begins and ends them.

pub mod chunk;
pub mod flow;
mod input;
mod output;

use core::hash::BuildHasher;
use core::net::{IpAddr, SocketAddr};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::Engine;
use super::arena::{Arena, Id};
use super::outside::{Failure, Outside, Target};
use super::timers::Key;
use crate::dns;
use crate::packet::icmp::Unreachable;
use crate::packet::tcp::{self, Header, Segment};
use crate::packet::{checksum, ip};
use chunk::Spare;
use flow::{Flow, Phase};

/// Connections at once. Each costs the host a descriptor.
pub const FLOWS_MAX: usize = 16_384;
/// Bytes kept for the guest, over all connections.
const HELD_MAX: usize = 64 << 20;
/// Bytes kept for the host, over all connections.
const STORED_MAX: usize = 64 << 20;
/// Where ports are looked for when the other end's own is taken.
const PORTS_FROM: u16 = 32_768;

/// All connections.
pub struct Tcp {
    pub(super) flows: Arena<Flow>,
    by_ends: HashMap<(SocketAddr, SocketAddr), Id>,
    ready: VecDeque<Id>,
    /// Connections with gathered bytes for the host.
    unflushed: Vec<Id>,
    /// Connections that wait until less is held.
    starved: Vec<Id>,
    spare: Spare,
    scratch: Vec<u8>,
    held: usize,
    stored: usize,
    secret: RandomState,
    started: Instant,
    next_port: u16,
}

impl Tcp {
    /// No connections.
    pub fn new(now: Instant) -> Self {
        Self {
            flows: Arena::new(FLOWS_MAX),
            by_ends: HashMap::new(),
            ready: VecDeque::new(),
            unflushed: Vec::new(),
            starved: Vec::new(),
            spare: Spare::default(),
            scratch: Vec::new(),
            held: 0,
            stored: 0,
            secret: RandomState::new(),
            started: now,
            next_port: PORTS_FROM,
        }
    }

    /// Bytes kept for the guest and for the host.
    pub fn kept(&self) -> (usize, usize) {
        (self.held, self.stored)
    }

    /// RFC 6528: a secret function of the ends plus a clock of 4 microseconds.
    fn first_number(&self, guest: SocketAddr, remote: SocketAddr, now: Instant) -> u32 {
        let clock = now.saturating_duration_since(self.started).as_micros() / 4;
        let low = |wide: u128| u32::try_from(wide & u128::from(u32::MAX)).unwrap_or(0);
        low(u128::from(self.secret.hash_one((guest, remote)))).wrapping_add(low(clock))
    }

    fn schedule(&mut self, id: Id) {
        if let Some(flow) = self.flows.get_mut(id).filter(|flow| !flow.scheduled) {
            flow.scheduled = true;
            self.ready.push_back(id);
        }
    }

    fn schedule_if_needed(&mut self, id: Id) {
        if self.flows.get(id).is_some_and(|flow| flow.has_work() || flow.is_over()) {
            self.schedule(id);
        }
    }

    /// Less is held than before.
    fn release(&mut self, count: usize) {
        self.held = self.held.saturating_sub(count);
        if self.held < HELD_MAX {
            for id in core::mem::take(&mut self.starved) {
                if let Some(flow) = self.flows.get_mut(id) {
                    flow.starving = false;
                }
                self.schedule(id);
            }
        }
    }
}

impl Engine {
    /// The host's answer to [`Outside::tcp_connect`].
    pub fn tcp_connected(
        &mut self,
        id: Id,
        outcome: Result<(), Failure>,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let Some(flow) = self.tcp.flows.get_mut(id) else { return };
        if flow.phase != Phase::Connecting {
            return;
        }
        match outcome {
            Ok(()) => {
                flow.phase = Phase::SynReceived;
                flow.start_due = true;
                self.tcp.schedule(id);
                self.rearm_tcp(id);
            }
            Err(failure) => self.tcp_failed(id, failure, outside, now),
        }
    }

    /// A connection from the host's side to the guest's `guest`. The guest sees it come from
    /// `peer`, or from another port of its when that one is taken. `None`: there are too many.
    pub fn tcp_incoming(
        &mut self,
        guest: SocketAddr,
        peer: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Id> {
        let remote = self.visible_peer(guest, peer)?;
        let taken = |tcp: &Tcp, port| {
            port == 0 || tcp.by_ends.contains_key(&(guest, SocketAddr::new(remote.ip(), port)))
        };
        let mut port = remote.port();
        for _ in 0..FLOWS_MAX {
            if !taken(&self.tcp, port) {
                break;
            }
            self.tcp.next_port = self.tcp.next_port.checked_add(1).unwrap_or(PORTS_FROM);
            port = self.tcp.next_port;
        }
        let remote = SocketAddr::new(remote.ip(), port);
        if taken(&self.tcp, port) {
            return None;
        }
        let first = self.tcp.first_number(guest, remote, now);
        let mut flow = Flow::new(guest, remote, Phase::SynSent, first, now);
        flow.start_due = true;
        let id = self.tcp.flows.insert(flow)?;
        self.tcp.by_ends.insert((guest, remote), id);
        self.tcp.schedule(id);
        self.rearm_tcp(id);
        Some(id)
    }

    /// The peer as the guest is to see it: what it could not answer becomes the gateway.
    pub(super) fn visible_peer(
        &self,
        guest: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        let gateway = self.config.gateway(guest.is_ipv4())?;
        let Some(peer) = peer else { return Some(SocketAddr::new(gateway, 0)) };
        let ip = peer.ip().to_canonical();
        let reachable = ip.is_ipv4() == guest.is_ipv4()
            && !ip.is_loopback()
            && !ip.is_unspecified()
            && !self.config.is_in_network(ip);
        Some(SocketAddr::new(if reachable { ip } else { gateway }, peer.port()))
    }

    /// A guest asks for a connection.
    fn tcp_start(&mut self, segment: &Segment<'_>, outside: &mut dyn Outside, now: Instant) {
        let (guest, remote) = (segment.source, segment.destination);
        let Some(target) = self.tcp_target(remote, outside) else {
            self.refuse(segment);
            return;
        };
        let first = self.tcp.first_number(guest, remote, now);
        let mut flow = Flow::new(guest, remote, Phase::Connecting, first, now);
        flow.take_start(&segment.header);
        // A full table drops the start, so that the guest tries again later.
        let Some(id) = self.tcp.flows.insert(flow) else { return };
        self.tcp.by_ends.insert((guest, remote), id);
        if let Err(failure) = outside.tcp_connect(id, &target) {
            self.tcp_failed(id, failure, outside, now);
        }
    }

    fn tcp_target(&self, remote: SocketAddr, outside: &mut dyn Outside) -> Option<Target> {
        let forwards = &self.config.guest_forwards;
        if let Some(number) = forwards.iter().position(|forward| forward.at == remote) {
            return Some(Target::Forward(number));
        }
        if self.config.is_dns(remote.ip()) && remote.port() == dns::PORT && !self.config.restrict {
            return Some(Target::Addresses(outside.name_servers()));
        }
        self.config.host_address(remote).map(|address| Target::Addresses(vec![address]))
    }

    fn tcp_failed(&mut self, id: Id, failure: Failure, outside: &mut dyn Outside, now: Instant) {
        let Some(flow) = self.tcp.flows.get(id) else { return };
        let why = match failure {
            Failure::Refused | Failure::Exhausted => {
                self.tcp_abort(id, outside, now);
                return;
            }
            Failure::Silent => None,
            Failure::NoNetwork => Some(Unreachable::Network),
            Failure::NoHost => Some(Unreachable::Host),
            Failure::Prohibited => Some(Unreachable::Prohibited),
        };
        if let Some(why) = why {
            let (guest, remote) = (flow.guest, flow.remote);
            // The start as the guest sent it, as far as it must be quoted.
            let start = Header {
                sequence: flow.expected.wrapping_sub(1),
                acknowledgement: 0,
                flags: tcp::SYN,
                window: 0,
                segment_bytes_max: None,
                window_scale: None,
            };
            let mut quoted = [0; tcp::HEADER];
            start.write(&mut quoted, guest.port(), remote.port());
            self.send_unreachable(why, guest.ip(), remote.ip(), ip::TCP, &quoted, now);
        }
        outside.tcp_close(id, true);
        self.tcp_forget(id);
    }

    /// The host's side of a connection is gone.
    pub fn tcp_broken(&mut self, id: Id, outside: &mut dyn Outside, now: Instant) {
        self.tcp_abort(id, outside, now);
    }

    /// A guest was found on the link: connections to it may begin.
    pub(super) fn tcp_found(&mut self, guest: IpAddr, now: Instant) {
        let waiting = self.tcp.flows.iter().filter(|(_, flow)| flow.guest.ip() == guest);
        let waiting: Vec<Id> = waiting.map(|(id, _)| id).collect();
        for id in waiting {
            self.tcp.schedule_if_needed(id);
            self.rearm_tcp(id);
        }
        self.heard = now;
    }

    /// Breaks a connection off on both sides.
    pub(super) fn tcp_abort(&mut self, id: Id, outside: &mut dyn Outside, now: Instant) {
        let Some(flow) = self.tcp.flows.get(id) else { return };
        let header = Header {
            sequence: flow.highest,
            acknowledgement: flow.expected,
            flags: tcp::RST | tcp::ACK,
            window: 0,
            segment_bytes_max: None,
            window_scale: None,
        };
        let (guest, remote) = (flow.guest, flow.remote);
        self.send_bare(&header, remote, guest, now);
        outside.tcp_close(id, true);
        self.tcp_forget(id);
    }

    /// Answers a segment that belongs to no connection with a reset.
    fn refuse(&mut self, segment: &Segment<'_>) {
        let header = &segment.header;
        if header.flags & tcp::RST != 0 {
            return;
        }
        let numbers = segment.payload.len()
            + usize::from(header.flags & tcp::SYN != 0)
            + usize::from(header.flags & tcp::FIN != 0);
        let has_number = header.flags & tcp::ACK != 0;
        let reset = Header {
            sequence: if has_number { header.acknowledgement } else { 0 },
            acknowledgement: if has_number {
                0
            } else {
                header.sequence.wrapping_add(u32::try_from(numbers).unwrap_or(0))
            },
            flags: if has_number { tcp::RST } else { tcp::RST | tcp::ACK },
            window: 0,
            segment_bytes_max: None,
            window_scale: None,
        };
        self.send_bare(&reset, segment.destination, segment.source, self.heard);
    }

    fn send_bare(&mut self, header: &Header, from: SocketAddr, to: SocketAddr, now: Instant) {
        let mut bytes = [0; tcp::HEADER];
        header.write(&mut bytes, from.port(), to.port());
        let sum = checksum::pseudo(from.ip(), to.ip(), ip::TCP, bytes.len()).with(&bytes).finish();
        bytes[tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
        self.send_packet(from.ip(), to.ip(), ip::TCP, &bytes, now);
    }

    fn tcp_forget(&mut self, id: Id) {
        let Some(mut flow) = self.tcp.flows.remove(id) else { return };
        self.timers.cancel(Key::Tcp(id), &mut flow.alarm);
        self.tcp.by_ends.remove(&(flow.guest, flow.remote));
        self.tcp.stored = self.tcp.stored.saturating_sub(flow.stored());
        let held = flow.queue.bytes();
        flow.queue.acknowledge(held, &mut self.tcp.spare);
        self.tcp.release(held);
    }

    fn rearm_tcp(&mut self, id: Id) {
        let Some(flow) = self.tcp.flows.get_mut(id) else { return };
        let due = flow.deadline();
        self.timers.set(Key::Tcp(id), &mut flow.alarm, due);
    }

    /// The alarm of a connection came up.
    pub(super) fn tcp_alarm(&mut self, id: Id, outside: &mut dyn Outside, now: Instant) {
        let heard = self.heard;
        let Some(flow) = self.tcp.flows.get_mut(id) else { return };
        if !self.timers.rings(Key::Tcp(id), &mut flow.alarm, now) {
            return;
        }
        if flow.deadline().is_none_or(|due| due > now) {
            self.rearm_tcp(id);
            return;
        }
        let was_heard = heard >= flow.waiting_since();
        if !flow.retry(was_heard, now) {
            self.tcp_abort(id, outside, now);
            return;
        }
        if flow.phase == Phase::Open && flow.window == 0 {
            // The guest's window is closed: ask whether it still is.
            self.tcp_probe(id, now);
        }
        self.tcp.schedule(id);
        self.rearm_tcp(id);
    }

    /// A number before the expected one makes the guest say what it expects, and its window.
    fn tcp_probe(&mut self, id: Id, now: Instant) {
        let Some(flow) = self.tcp.flows.get(id) else { return };
        let mut header = flow.header(tcp::ACK);
        header.sequence = flow.unacknowledged.wrapping_sub(1);
        let (guest, remote) = (flow.guest, flow.remote);
        self.send_bare(&header, remote, guest, now);
    }
}
