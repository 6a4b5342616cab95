//! The guest's datagrams: services of our own, the name server, and one socket of the host for
//! each port that the guest sends from, so that whoever hears from it may answer.

use core::net::{IpAddr, SocketAddr};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::arena::{Arena, Id};
use super::outside::{Failure, Outside};
use super::timers::{Alarm, Key};
use super::{Engine, tftp};
use crate::dhcp::{self, v6};
use crate::dns::forwarder::Step;
use crate::dns::{self, Forwarder};
use crate::packet::icmp::Unreachable;
use crate::packet::ip::{self, Packet};
use crate::packet::udp::Datagram;
use crate::packet::{Mac, udp};

/// Ports that the guest sends from, at once. Each costs the host a descriptor.
const FLOWS_MAX: usize = 4096;
/// RFC 4787 section 4.3 asks for at least two minutes, and prefers five.
const PATIENCE: Duration = Duration::from_secs(300);
/// Each question to a name server comes from a port of its own.
const DNS_PATIENCE: Duration = Duration::from_secs(20);
/// Senders to a forwarded port whose true address is remembered.
const PEERS_MAX: usize = 512;

/// What the guest's ports talk to.
pub struct Udp {
    pub(super) flows: Arena<Flow>,
    by_guest: HashMap<(SocketAddr, bool), Id>,
    pub(super) forwarder: Forwarder<Id>,
    forwards: Vec<Forward>,
}

/// A port that the guest sends from.
pub struct Flow {
    /// The guest's end.
    pub guest: SocketAddr,
    is_dns: bool,
    used: Instant,
    alarm: Alarm,
}

/// A port of the guest that the host's side may send to.
struct Forward {
    number: u32,
    guest: SocketAddr,
    /// Senders: as the guest sees them, and as they are. The last is the latest.
    peers: VecDeque<(SocketAddr, SocketAddr)>,
}

impl Udp {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self {
            flows: Arena::new(FLOWS_MAX),
            by_guest: HashMap::new(),
            forwarder: Forwarder::new(Vec::new()),
            forwards: Vec::new(),
        }
    }
}

impl Engine {
    pub(super) fn udp_input(
        &mut self,
        packet: &Packet<'_>,
        datagram: &Datagram<'_>,
        mac: Mac,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let (guest, to) = (datagram.source, datagram.destination);
        let broadcast = match to.ip() {
            IpAddr::V4(address) => self.config.ipv4.is_some_and(|v4| v4.is_broadcast(address)),
            IpAddr::V6(address) => address.is_multicast(),
        };
        let for_gateway = broadcast || self.config.is_gateway(to.ip());
        if to.is_ipv4() && to.port() == dhcp::SERVER_PORT && for_gateway {
            self.dhcp_input(datagram.payload, now);
            return;
        }
        if guest.ip().is_unspecified() {
            return;
        }
        if to.is_ipv6() && to.port() == v6::SERVER_PORT && for_gateway {
            self.dhcpv6_input(datagram, mac, now);
            return;
        }
        if to.port() == tftp::PORT
            && self.config.is_gateway(to.ip())
            && self.config.tftp_root.is_some()
        {
            self.tftp_input(datagram, outside, now);
            return;
        }
        if self.udp_answer(datagram, outside) || broadcast {
            return;
        }
        if self.config.is_dns(to.ip()) {
            if to.port() == dns::PORT && !self.config.restrict {
                self.dns_input(datagram, outside, now);
            } else {
                self.udp_refuse(packet, now);
            }
            return;
        }
        let Some(host) = self.config.host_address(to) else {
            self.udp_refuse(packet, now);
            return;
        };
        if let Some(id) = self.udp_flow(guest, false, outside, now) {
            outside.udp_send(id, host, datagram.payload);
        }
    }

    fn udp_refuse(&mut self, packet: &Packet<'_>, now: Instant) {
        if packet.destination.is_multicast() {
            return;
        }
        let (guest, to) = (packet.source, packet.destination);
        self.send_unreachable(Unreachable::Port, guest, to, ip::UDP, packet.payload, now);
    }

    /// Sends an answer of the guest's server through the forwarding that the question came by.
    fn udp_answer(&mut self, datagram: &Datagram<'_>, outside: &mut dyn Outside) -> bool {
        for forward in self.udp.forwards.iter().filter(|f| f.guest == datagram.source) {
            let to = datagram.destination;
            let peer = forward.peers.iter().rev().find(|(shown, _)| *shown == to);
            if let Some((_, real)) = peer {
                outside.udp_send_forward(forward.number, *real, datagram.payload);
                return true;
            }
        }
        false
    }

    /// The socket for what the guest sends from `guest`.
    fn udp_flow(
        &mut self,
        guest: SocketAddr,
        is_dns: bool,
        outside: &mut dyn Outside,
        now: Instant,
    ) -> Option<Id> {
        let id = if let Some(id) = self.udp.by_guest.get(&(guest, is_dns)) {
            *id
        } else {
            if self.udp.flows.is_full() {
                self.udp_make_room(outside);
            }
            let flow = Flow { guest, is_dns, used: now, alarm: Alarm::default() };
            let id = self.udp.flows.insert(flow)?;
            // A name server may have an address of the other family.
            let is_v4 = guest.is_ipv4();
            let mut opened = outside.udp_open(id, is_v4);
            if opened == Err(Failure::Exhausted) && self.udp.flows.count() > 1 {
                self.udp_make_room_but(id, outside);
                opened = outside.udp_open(id, is_v4);
            }
            if opened.is_err() {
                self.udp.flows.remove(id);
                return None;
            }
            self.udp.by_guest.insert((guest, is_dns), id);
            id
        };
        let flow = self.udp.flows.get_mut(id)?;
        flow.used = now;
        let patience = if is_dns { DNS_PATIENCE } else { PATIENCE };
        self.timers.set(Key::Udp(id), &mut flow.alarm, Some(now + patience));
        Some(id)
    }

    fn udp_make_room(&mut self, outside: &mut dyn Outside) {
        let idlest = self.udp.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(id, _)| id);
        if let Some(id) = idlest {
            self.udp_forget(id, outside);
        }
    }

    fn udp_make_room_but(&mut self, keep: Id, outside: &mut dyn Outside) {
        let others = self.udp.flows.iter().filter(|(id, _)| *id != keep);
        let idlest = others.min_by_key(|(_, flow)| flow.used).map(|(id, _)| id);
        if let Some(id) = idlest {
            self.udp_forget(id, outside);
        }
    }

    fn udp_forget(&mut self, id: Id, outside: &mut dyn Outside) {
        let Some(mut flow) = self.udp.flows.remove(id) else { return };
        self.timers.cancel(Key::Udp(id), &mut flow.alarm);
        self.udp.by_guest.remove(&(flow.guest, flow.is_dns));
        if flow.is_dns {
            self.udp.forwarder.forget(id);
        }
        outside.udp_close(id);
    }

    pub(super) fn udp_alarm(&mut self, id: Id, outside: &mut dyn Outside, now: Instant) {
        let Some(flow) = self.udp.flows.get_mut(id) else { return };
        if self.timers.rings(Key::Udp(id), &mut flow.alarm, now) {
            self.udp_forget(id, outside);
        }
    }

    /// A datagram has come to a socket of the host.
    pub fn udp_received(
        &mut self,
        id: Id,
        from: SocketAddr,
        payload: &[u8],
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let Some(flow) = self.udp.flows.get_mut(id) else { return };
        if flow.is_dns {
            if let Some(step) = self.udp.forwarder.reply(id, from, payload, now) {
                self.dns_step(step, outside, now);
            }
            return;
        }
        flow.used = now;
        let guest = flow.guest;
        self.timers.set(Key::Udp(id), &mut flow.alarm, Some(now + PATIENCE));
        if let Some(from) = self.visible_peer(guest, Some(from)) {
            self.udp_send(from, guest, payload, now);
        }
    }

    fn udp_send(&mut self, from: SocketAddr, guest: SocketAddr, payload: &[u8], now: Instant) {
        let bytes = udp::bytes(from, guest, payload);
        self.send_packet(from.ip(), guest.ip(), ip::UDP, &bytes, now);
    }

    /// A port of the guest is open to the host's side from now on.
    pub fn udp_forward_add(&mut self, number: u32, guest: SocketAddr) {
        self.udp.forwards.push(Forward { number, guest, peers: VecDeque::new() });
    }

    /// And no more.
    pub fn udp_forward_remove(&mut self, number: u32) {
        self.udp.forwards.retain(|forward| forward.number != number);
    }

    /// A datagram has come to a forwarding.
    pub fn udp_incoming(&mut self, number: u32, from: SocketAddr, payload: &[u8], now: Instant) {
        let forward = self.udp.forwards.iter().find(|forward| forward.number == number);
        let Some(guest) = forward.map(|forward| forward.guest) else { return };
        let Some(shown) = self.visible_peer(guest, Some(from)) else { return };
        let all = self.udp.forwards.iter_mut();
        if let Some(forward) = all.into_iter().find(|forward| forward.number == number)
            && forward.peers.back() != Some(&(shown, from))
        {
            forward.peers.retain(|(other, _)| *other != shown);
            if forward.peers.len() >= PEERS_MAX {
                forward.peers.pop_front();
            }
            forward.peers.push_back((shown, from));
        }
        self.udp_send(shown, guest, payload, now);
    }

    fn dns_input(&mut self, datagram: &Datagram<'_>, outside: &mut dyn Outside, now: Instant) {
        let servers = outside.name_servers();
        if servers != self.udp.forwarder.servers() {
            self.udp.forwarder.set_servers(servers);
        }
        let Some(id) = self.udp_flow(datagram.source, true, outside, now) else { return };
        if let Some(step) = self.udp.forwarder.question(id, datagram.payload, now) {
            self.dns_step(step, outside, now);
        }
    }

    pub(super) fn dns_step(&mut self, step: Step<Id>, outside: &mut dyn Outside, now: Instant) {
        match step {
            Step::Ask(id, server, bytes) => outside.udp_send(id, server, &bytes),
            Step::Answer(id, bytes) => {
                let Some(flow) = self.udp.flows.get(id) else { return };
                let guest = flow.guest;
                let server = match guest {
                    SocketAddr::V4(_) => self.config.ipv4.map(|v4| IpAddr::V4(v4.dns)),
                    SocketAddr::V6(_) => self.config.ipv6.map(|v6| IpAddr::V6(v6.dns)),
                };
                if let Some(server) = server {
                    self.udp_send(SocketAddr::new(server, dns::PORT), guest, &bytes, now);
                }
            }
        }
    }

    fn dhcpv6_input(&mut self, datagram: &Datagram<'_>, mac: Mac, now: Instant) {
        let Some(network) = self.config.ipv6 else { return };
        // An identity made from the hardware address (RFC 8415 section 11.4).
        let server = [&[0, 3, 0, 1][..], &self.port.mac.0].concat();
        let restrict = self.config.restrict;
        let boot = self.config.boot_file.as_ref().map(|file| {
            if file.contains("://") {
                file.clone()
            } else {
                format!("tftp://[{}]/{file}", network.host)
            }
        });
        let settings = v6::Settings {
            server,
            dns: if restrict { Vec::new() } else { vec![network.dns] },
            search: self.config.search.clone(),
            boot_url: boot,
        };
        let Some(reply) = v6::answer(&settings, datagram.payload) else { return };
        let from = SocketAddr::new(super::super::config::ROUTER_LINK_LOCAL.into(), v6::SERVER_PORT);
        self.learn(datagram.source.ip(), mac, now);
        self.udp_send(from, datagram.source, &reply, now);
    }
}
