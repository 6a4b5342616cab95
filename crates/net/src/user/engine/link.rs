//! The link to the guest: ARP, and packets put into frames, in parts where they are too long.

use core::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::Engine;
use crate::packet::arp;
use crate::packet::icmp::{self, Unreachable};
use crate::packet::ip::{self, Fragment};
use crate::packet::{Mac, ethernet, ipv4, ipv6};

impl Engine {
    pub(super) fn arp_input(&mut self, bytes: &[u8], now: Instant) {
        let Some(message) = arp::Message::read(bytes) else { return };
        let sender = IpAddr::V4(message.sender);
        let usable = self.config.is_in_network(sender) && !self.config.is_ours(sender);
        if usable && !message.sender_mac.is_group() {
            self.learn(sender, message.sender_mac, now);
        }
        let asks_for_us = !message.is_reply && self.config.is_ours(message.target.into());
        if asks_for_us && !message.sender_mac.is_group() {
            let reply = arp::Message {
                is_reply: true,
                sender_mac: self.port.mac,
                sender: message.target,
                target_mac: message.sender_mac,
                target: message.sender,
            };
            self.send_frame(message.sender_mac, ethernet::ARP, &reply.bytes());
        }
    }

    /// Remembers whose address it is, and sends what waited for that.
    pub(super) fn learn(&mut self, address: IpAddr, mac: Mac, now: Instant) {
        let Some(waiting) = self.neighbours.learn(address, mac) else { return };
        for mut frame in waiting {
            frame[..6].copy_from_slice(&mac.0);
            self.port.send(frame);
        }
        self.tcp_found(address, now);
    }

    /// Asks who has the address, at most once a second.
    pub(super) fn ask_for(&mut self, address: IpAddr, now: Instant) {
        if !self.neighbours.should_ask(address, now) {
            return;
        }
        match (address, self.config.ipv4) {
            (IpAddr::V4(target), Some(v4)) => {
                let question = arp::Message {
                    is_reply: false,
                    sender_mac: self.port.mac,
                    sender: v4.host,
                    target_mac: Mac::default(),
                    target,
                };
                self.send_frame(Mac::BROADCAST, ethernet::ARP, &question.bytes());
            }
            (IpAddr::V6(target), _) => self.solicit(target, now),
            _ => {}
        }
    }

    fn send_frame(&mut self, to: Mac, kind: u16, payload: &[u8]) {
        let header = ethernet::header(to, self.port.mac, kind);
        self.port.send([&header[..], payload].concat());
    }

    /// Sends a packet to the guest, in parts when the link's MTU asks for it.
    pub(super) fn send_packet(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        protocol: u8,
        payload: &[u8],
        now: Instant,
    ) {
        let room = usize::from(self.config.mtu) - ip::header_length(to);
        if payload.len() <= room {
            let mut packet = vec![0; ip::header_length(to)];
            ip::write_header(&mut packet, from, to, protocol, payload.len());
            packet.extend_from_slice(payload);
            self.route(to, &packet, now);
            return;
        }
        self.identification = self.identification.wrapping_add(1);
        let identification = self.identification;
        let extra = if to.is_ipv4() { 0 } else { ipv6::FRAGMENT_HEADER };
        let step = (room - extra) / 8 * 8;
        for (number, piece) in payload.chunks(step).enumerate() {
            let offset = number * step;
            let more = offset + piece.len() < payload.len();
            let part = Fragment { identification, offset, more };
            let packet = match (from, to) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    let (length, fragment) = (piece.len(), Some(part));
                    let header = ipv4::Header { source, destination, protocol, length, fragment };
                    [&header.bytes()[..], piece].concat()
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    let length = ipv6::FRAGMENT_HEADER + piece.len();
                    let header = ipv6::header(source, destination, ipv6::FRAGMENT, length, 64);
                    [&header[..], &ipv6::fragment_header(protocol, part), piece].concat()
                }
                _ => return,
            };
            self.route(to, &packet, now);
        }
    }

    /// Sends a finished packet to whoever has its address.
    fn route(&mut self, to: IpAddr, packet: &[u8], now: Instant) {
        let kind = ip::ethernet_kind(to);
        if let Some(mac) = self.group_mac(to).or_else(|| self.neighbours.find(to)) {
            self.send_frame(mac, kind, packet);
            return;
        }
        if !self.config.is_in_network(to) {
            return;
        }
        self.ask_for(to, now);
        let header = ethernet::header(Mac::default(), self.port.mac, kind);
        self.neighbours.wait(to, [&header[..], packet].concat());
    }

    fn group_mac(&self, to: IpAddr) -> Option<Mac> {
        match to {
            IpAddr::V4(to) => {
                let broadcast = self.config.ipv4.is_some_and(|v4| v4.is_broadcast(to));
                broadcast.then_some(Mac::BROADCAST)
            }
            IpAddr::V6(to) => to.is_multicast().then(|| multicast_mac(to)),
        }
    }

    /// Tells the guest that its packet to `remote` cannot be delivered.
    pub(super) fn send_unreachable(
        &mut self,
        why: Unreachable,
        guest: IpAddr,
        remote: IpAddr,
        protocol: u8,
        payload: &[u8],
        now: Instant,
    ) {
        let mut quoted = vec![0; ip::header_length(guest)];
        ip::write_header(&mut quoted, guest, remote, protocol, payload.len());
        quoted.extend_from_slice(payload);
        let Some(from) = self.config.gateway(guest.is_ipv4()) else { return };
        let message = icmp::unreachable(why, from, guest, &quoted);
        let icmp = if guest.is_ipv4() { ip::ICMP } else { ip::ICMPV6 };
        self.send_packet(from, guest, icmp, &message, now);
    }
}

/// RFC 2464 section 7.
pub fn multicast_mac(address: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = address.octets();
    Mac([0x33, 0x33, a, b, c, d])
}
