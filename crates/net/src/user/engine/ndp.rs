//! Neighbour discovery for IPv6 (RFC 4861): who has which address, and where the router is.

use core::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::Engine;
use super::outside::Outside;
use super::timers::Key;
use crate::dns::name;
use crate::packet::icmp::{self, Echo};
use crate::packet::ip::{self, Packet};
use crate::packet::{Mac, be16};
use crate::user::config::ROUTER_LINK_LOCAL;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Between advertisements that nobody asked for.
const INTERVAL: Duration = Duration::from_secs(300);
/// How long the guest believes in the router: three intervals and then some.
const LIFETIME_SECONDS: u16 = 1800;
const PREFIX_SECONDS: u32 = 86_400;

impl Engine {
    pub(super) fn icmpv6_input(
        &mut self,
        packet: &Packet<'_>,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        if let Some(echo) = Echo::read(packet) {
            if !packet.source.is_unspecified() {
                self.echo_input(packet, &echo, outside, now);
            }
            return;
        }
        let bytes = packet.payload;
        // Only neighbours can send with all hops left.
        let is_local = packet.hops == 255 && bytes.get(1) == Some(&0);
        if !is_local || !icmp::checksum_is_right(packet) {
            return;
        }
        match bytes.first() {
            Some(&ROUTER_SOLICITATION) => self.advertise(now),
            Some(&NEIGHBOUR_SOLICITATION) => self.answer_solicitation(packet, now),
            Some(&NEIGHBOUR_ADVERTISEMENT) => {
                let target = bytes.get(8..24).and_then(|b| <[u8; 16]>::try_from(b).ok());
                let mac = bytes.get(24..).and_then(|options| link_address(options, 2));
                if let (Some(target), Some(mac)) = (target, mac) {
                    let target = IpAddr::V6(target.into());
                    if self.config.is_in_network(target) && !self.config.is_ours(target) {
                        self.learn(target, mac, now);
                    }
                }
            }
            _ => {}
        }
    }

    fn answer_solicitation(&mut self, packet: &Packet<'_>, now: Instant) {
        let target = packet.payload.get(8..24).and_then(|b| <[u8; 16]>::try_from(b).ok());
        let Some(target) = target.map(Ipv6Addr::from) else { return };
        if !self.config.is_ours(target.into()) {
            return;
        }
        let asks_for_itself = packet.source.is_unspecified();
        let to = if asks_for_itself { IpAddr::V6(ALL_NODES) } else { packet.source };
        // From a router, overriding what was known; solicited, unless nobody can be named.
        let flags = if asks_for_itself { 0xa0 } else { 0xe0 };
        let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target.octets());
        message.extend([2, 1]);
        message.extend(self.port.mac.0);
        icmp::finish(&mut message, target.into(), to);
        self.send_packet(target.into(), to, ip::ICMPV6, &message, now);
    }

    /// Asks for a neighbour.
    pub(super) fn solicit(&mut self, target: Ipv6Addr, now: Instant) {
        let [.., b, c, d] = target.octets();
        let low = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low(0xff, b), low(c, d));
        let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        message.extend([1, 1]);
        message.extend(self.port.mac.0);
        let from = IpAddr::V6(ROUTER_LINK_LOCAL);
        icmp::finish(&mut message, from, group.into());
        self.send_packet(from, group.into(), ip::ICMPV6, &message, now);
    }

    /// Tells all guests about the router, now and from time to time from now on.
    pub(super) fn advertise(&mut self, now: Instant) {
        let Some(v6) = self.config.ipv6 else { return };
        let lifetime = if self.config.restrict { 0 } else { LIFETIME_SECONDS };
        // Addresses are made by the guests themselves; more is told by DHCP.
        let (hops, other_by_dhcp) = (64, 0x40);
        let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, hops, other_by_dhcp];
        message.extend(lifetime.to_be_bytes());
        message.extend([0; 8]);
        message.extend([1, 1]);
        message.extend(self.port.mac.0);
        // Guests take an address of their own only in a network of 64 bits (RFC 4862).
        let (on_link, autonomous) = (0x80, 0x40);
        message.extend([3, 4, v6.prefix_length, on_link | autonomous]);
        message.extend(PREFIX_SECONDS.to_be_bytes());
        message.extend((PREFIX_SECONDS / 6).to_be_bytes());
        message.extend([0; 4]);
        message.extend(v6.prefix.octets());
        message.extend([5, 1, 0, 0]);
        message.extend(u32::from(self.config.mtu).to_be_bytes());
        if !self.config.restrict {
            // Name servers and domains (RFC 8106).
            message.extend([25, 3, 0, 0]);
            message.extend(u32::from(LIFETIME_SECONDS).to_be_bytes());
            message.extend(v6.dns.octets());
            message.extend(self.search_option());
        }
        let (from, to) = (IpAddr::V6(ROUTER_LINK_LOCAL), IpAddr::V6(ALL_NODES));
        icmp::finish(&mut message, from, to);
        self.send_packet(from, to, ip::ICMPV6, &message, now);
        self.advertises = true;
        self.timers.set(Key::Advertisement, &mut self.advertisement_alarm, Some(now + INTERVAL));
    }

    fn search_option(&self) -> Vec<u8> {
        let names = self.config.search.iter().filter_map(|domain| name::encode(domain));
        let mut names: Vec<u8> = names.flatten().collect();
        if names.is_empty() {
            return names;
        }
        names.resize(names.len().next_multiple_of(8), 0);
        let Ok(units) = u8::try_from(names.len() / 8 + 1) else { return Vec::new() };
        let mut option = vec![31, units, 0, 0];
        option.extend(u32::from(LIFETIME_SECONDS).to_be_bytes());
        option.extend(names);
        option
    }
}

/// The hardware address among a message's options.
fn link_address(mut options: &[u8], wanted: u8) -> Option<Mac> {
    while let Some(head) = be16(options, 0) {
        let [kind, units] = head.to_be_bytes();
        let length = usize::from(units) * 8;
        let option = options.get(..length).filter(|_| length > 0)?;
        if kind == wanted && units == 1 {
            let mac = Mac([2, 3, 4, 5, 6, 7].map(|at| option[at]));
            return (!mac.is_group()).then_some(mac);
        }
        options = &options[length..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_addresses_are_found_and_broken_options_end() {
        for (options, expected) in [
            (&[2, 1, 2, 0, 0, 0, 0, 9][..], Some(Mac([2, 0, 0, 0, 0, 9]))),
            (&[14, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 9], Some(Mac([2, 0, 0, 0, 0, 9]))),
            (&[2, 1, 3, 0, 0, 0, 0, 9], None),
            (&[2, 0, 2, 0, 0, 0, 0, 9], None),
            (&[2, 9, 2, 0, 0, 0, 0, 9], None),
            (&[2], None),
        ] {
            assert_eq!(link_address(options, 2), expected, "{options:?}");
        }
    }
}
