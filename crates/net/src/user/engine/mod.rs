//! The user-mode network without sockets: frames of the guest in, frames for the guest out.
//!
//! [`Engine`] belongs to one thread. What it needs from the host it asks of an [`Outside`],
//! which never blocks; what the host has to say comes in by methods. Times are given to it.
//! All tables are bounded, because the guest fills them.

pub mod arena;
mod echo;
mod link;
mod neighbours;
mod ndp;
pub mod outside;
mod port;
mod reassembly;
pub mod tcp;
mod tftp;
mod timers;
pub mod udp;

#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::config::Config;
use super::stack::{Connection, ConnectionKind};
use crate::cable::{Capabilities, Card, Offload};
use crate::dhcp;
use crate::packet::ip::{self, Packet};
use crate::packet::udp::Datagram;
use crate::packet::{Mac, ethernet, ipv4, ipv6};
use arena::Id;
use neighbours::Neighbours;
use outside::Outside;
use port::Port;
use reassembly::Reassembly;
use tcp::flow::Phase;
use timers::{Alarm, Key, Timers};

/// How long an address is lent to the guest.
const LEASE: Duration = Duration::from_secs(86_400);

/// The network.
pub struct Engine {
    config: Config,
    port: Port,
    neighbours: Neighbours,
    timers: Timers,
    reassembly: Reassembly,
    reassembly_alarm: Alarm,
    advertisement_alarm: Alarm,
    advertises: bool,
    tcp: tcp::Tcp,
    udp: udp::Udp,
    echoes: echo::Echoes,
    transfers: tftp::Transfers,
    dhcp: Option<dhcp::Server>,
    started: Instant,
    /// When the guest last sent anything.
    heard: Instant,
    /// Numbers the datagrams that are sent in parts.
    identification: u32,
    /// Frames taken from the guest.
    received: u64,
}

impl Engine {
    /// A network as `config`, which was checked, describes it.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let host = config.ipv4.map_or(Ipv4Addr::new(10, 0, 2, 2), |v4| v4.host);
        let [a, b, c, d] = host.octets();
        // A locally administered address that tells networks on one hub apart.
        let mac = Mac([0x52, 0x55, a, b, c, d]);
        let dhcp = dhcp_settings(&config).map(|settings| dhcp::Server::new(settings, []));
        Self {
            config,
            port: Port::new(mac),
            neighbours: Neighbours::default(),
            timers: Timers::default(),
            reassembly: Reassembly::default(),
            reassembly_alarm: Alarm::default(),
            advertisement_alarm: Alarm::default(),
            advertises: false,
            tcp: tcp::Tcp::new(now),
            udp: udp::Udp::new(),
            echoes: echo::Echoes::new(),
            transfers: tftp::Transfers::new(),
            dhcp,
            started: now,
            heard: now,
            identification: 0,
            received: 0,
        }
    }

    /// What the network is.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Plugs a card in.
    pub fn attach(&mut self, card: Weak<dyn Card>) {
        self.port.attach(card);
    }

    /// What the guest's driver agreed to.
    pub fn set_granted(&mut self, granted: Capabilities) {
        self.port.granted = granted;
    }

    /// The card has room again.
    pub fn room(&mut self) {
        self.port.room();
    }

    /// Frames taken from the guest and handed to it.
    #[must_use]
    pub fn frames(&self) -> (u64, u64) {
        (self.received, self.port.sent)
    }

    /// Bytes of TCP kept for the guest and for the host.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        self.tcp.kept()
    }

    /// Takes a frame of the guest. What is malformed, or for nobody here, is dropped.
    pub fn input(
        &mut self,
        bytes: &[u8],
        offload: Offload,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let Some(frame) = ethernet::Frame::read(bytes) else { return };
        let is_for_us = frame.destination == self.port.mac || frame.destination.is_group();
        if !is_for_us || frame.source.is_group() {
            return;
        }
        self.heard = now;
        self.received += 1;
        let packet = match frame.kind {
            ethernet::ARP => {
                self.arp_input(frame.payload, now);
                return;
            }
            ethernet::IPV4 if self.config.ipv4.is_some() => ipv4::read(frame.payload),
            ethernet::IPV6 if self.config.ipv6.is_some() => ipv6::read(frame.payload),
            _ => return,
        };
        let Some(packet) = packet else { return };
        let source = packet.source;
        if self.config.is_ours(source) {
            // A guest that claims our address would talk to itself through us.
            return;
        }
        if self.config.is_in_network(source) {
            self.learn(source, frame.source, now);
        } else if !source.is_unspecified() {
            return;
        }
        let trusted = offload.needs_checksum || offload.checksum_valid;
        if packet.fragment.is_none() {
            self.packet_input(&packet, frame.source, trusted, outside, now);
            return;
        }
        let whole = self.reassembly.add(&packet, now);
        let due = self.reassembly.deadline();
        self.timers.set(Key::Fragments, &mut self.reassembly_alarm, due);
        if let Some(whole) = whole {
            let packet = Packet { payload: &whole, fragment: None, ..packet };
            self.packet_input(&packet, frame.source, false, outside, now);
        }
    }

    fn packet_input(
        &mut self,
        packet: &Packet<'_>,
        mac: Mac,
        trusted: bool,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        match packet.protocol {
            ip::UDP => {
                if let Some(datagram) = Datagram::read(packet, trusted) {
                    self.udp_input(packet, &datagram, mac, outside, now);
                }
            }
            // Only UDP is spoken by those that have no address yet.
            _ if packet.source.is_unspecified() && packet.protocol != ip::ICMPV6 => {}
            ip::TCP => self.tcp_input(packet, trusted, outside, now),
            ip::ICMP if packet.source.is_ipv4() => self.icmp_input(packet, outside, now),
            ip::ICMPV6 if packet.source.is_ipv6() => self.icmpv6_input(packet, outside, now),
            _ => {}
        }
    }

    /// Serves connections. `true`: call again soon, after looking at what has come in.
    pub fn service(&mut self, outside: &mut dyn Outside, now: Instant) -> bool {
        self.tcp_flush(outside, now);
        self.tcp_service(outside, now)
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let all = [self.timers.deadline(), self.udp.forwarder.deadline()];
        all.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, outside: &mut dyn Outside, now: Instant) {
        while let Some(key) = self.timers.next(now) {
            match key {
                Key::Tcp(id) => self.tcp_alarm(id, outside, now),
                Key::Udp(id) => self.udp_alarm(id, outside, now),
                Key::Ping(id) => self.echo_alarm(id, outside, now),
                Key::Tftp(id) => self.transfer_alarm(id, outside, now),
                Key::Fragments => {
                    self.timers.rings(key, &mut self.reassembly_alarm, now);
                    self.reassembly.expire(now);
                    let due = self.reassembly.deadline();
                    self.timers.set(key, &mut self.reassembly_alarm, due);
                }
                Key::Advertisement => {
                    if self.timers.rings(key, &mut self.advertisement_alarm, now) {
                        self.advertise(now);
                    }
                }
            }
        }
        for step in self.udp.forwarder.tick(now) {
            self.dns_step(step, outside, now);
        }
    }

    /// The guest's connections, and under which number the host knows those of TCP.
    #[must_use]
    pub fn connections(&self) -> Vec<(Option<Id>, Connection)> {
        let tcp = self.tcp.flows.iter().map(|(id, flow)| {
            let kind = match flow.phase {
                Phase::Open if flow.host_done || flow.guest_done => ConnectionKind::TcpClosing,
                Phase::Open => ConnectionKind::TcpOpen,
                _ => ConnectionKind::TcpOpening,
            };
            let queued = (flow.pending.len(), flow.queue.bytes());
            let (source, destination) = (Some(flow.guest), flow.remote);
            (Some(id), Connection { kind, descriptor: None, source, destination, queued })
        });
        let udp = self.udp.flows.iter().map(|(_, flow)| {
            let anybody = if flow.guest.is_ipv4() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)
            };
            let connection = Connection {
                kind: ConnectionKind::Udp,
                descriptor: None,
                source: Some(flow.guest),
                destination: SocketAddr::new(anybody, 0),
                queued: (0, 0),
            };
            (None, connection)
        });
        tcp.chain(udp).collect()
    }

    /// Seconds since the network began, for the DHCP server.
    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Answers DHCP.
    fn dhcp_input(&mut self, payload: &[u8], now: Instant) {
        let elapsed = self.elapsed(now);
        let Some(server) = self.dhcp.as_mut() else { return };
        let Some(message) = dhcp::Message::read(payload) else { return };
        let Some(reply) = server.answer(&message, elapsed) else { return };
        let own = server.settings().server;
        // To a client that has no address yet everything goes by broadcast: it then also hears
        // an answer that it asked for with another address in mind.
        let to = if message.client.is_unspecified() || reply.broadcast {
            Ipv4Addr::BROADCAST
        } else {
            message.client
        };
        let bytes = crate::packet::udp::bytes(
            (own, dhcp::SERVER_PORT).into(),
            (to, dhcp::CLIENT_PORT).into(),
            &reply.bytes(),
        );
        self.send_packet(IpAddr::V4(own), IpAddr::V4(to), ip::UDP, &bytes, now);
    }
}

fn dhcp_settings(config: &Config) -> Option<dhcp::Settings> {
    let v4 = config.ipv4?;
    Some(dhcp::Settings {
        server: v4.host,
        mask: v4.mask(),
        range: Some(v4.dhcp_range()),
        lease: Some(LEASE),
        router: (!config.restrict).then_some(v4.host),
        dns: if config.restrict { Vec::new() } else { vec![v4.dns] },
        host_name: config.host_name.clone(),
        domain: config.domain.clone(),
        search: config.search.clone(),
        mtu: (config.mtu != 1500).then_some(config.mtu),
        boot_file: config.boot_file.clone(),
        next_server: Some(v4.host),
        tftp_name: config.tftp_name.clone(),
        hosts: Vec::new(),
    })
}
