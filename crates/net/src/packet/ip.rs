//! What IPv4 and IPv6 have in common.

use core::net::IpAddr;

use super::{ethernet, ipv4, ipv6};

/// The protocol number of `ICMPv4`.
pub const ICMP: u8 = 1;
/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;
/// The protocol number of `ICMPv6`.
pub const ICMPV6: u8 = 58;

/// A packet, whichever the version.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// From whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// The payload's protocol.
    pub protocol: u8,
    /// How many routers may still pass it on.
    pub hops: u8,
    /// What follows the headers.
    pub payload: &'a [u8],
    /// Which part of a datagram this is; `None`: the whole.
    pub fragment: Option<Fragment>,
}

/// A part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which datagram, as its sender numbers them.
    pub identification: u32,
    /// Where the part starts; a multiple of 8.
    pub offset: usize,
    /// It is not the last part.
    pub more: bool,
}

/// The Ethernet type of an address's family.
#[must_use]
pub fn ethernet_kind(address: IpAddr) -> u16 {
    if address.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 }
}

/// Bytes of the header that [`write_header`] writes.
#[must_use]
pub fn header_length(address: IpAddr) -> usize {
    if address.is_ipv4() { ipv4::HEADER } else { ipv6::HEADER }
}

/// Writes the header of a whole packet at the start of `into` and returns its length.
/// Both addresses have one family, and `into` has room.
pub fn write_header(
    into: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    length: usize,
) -> usize {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Header { source, destination, protocol, length, fragment: None };
            into[..ipv4::HEADER].copy_from_slice(&header.bytes());
            ipv4::HEADER
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            // Neighbour discovery is believed only with all hops left (RFC 4861 section 6.1).
            let hops = if protocol == ICMPV6 { 255 } else { 64 };
            let header = ipv6::header(source, destination, protocol, length, hops);
            into[..ipv6::HEADER].copy_from_slice(&header);
            ipv6::HEADER
        }
        _ => 0,
    }
}
