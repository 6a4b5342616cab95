//! IPv6 with its extension headers (RFC 8200).

use core::net::{IpAddr, Ipv6Addr};

use super::ip::{Fragment, Packet};
use super::{be16, be32};

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// Bytes of a fragment header.
pub const FRAGMENT_HEADER: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// The protocol number of the fragment header.
pub const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// More extension headers than any honest packet has.
const EXTENSIONS_MAX: usize = 8;

/// Reads a packet and skips its extension headers.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = bytes.first_chunk::<HEADER>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let length = usize::from(be16(header, 4)?);
    let mut payload = bytes.get(HEADER..HEADER + length)?;
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("16 of the 40 bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut protocol = header[6];
    let mut fragment = None;
    for _ in 0..EXTENSIONS_MAX {
        let taken = match protocol {
            HOP_BY_HOP | DESTINATION => (usize::from(*payload.get(1)?) + 1) * 8,
            // A source route with nothing left is like none; others RFC 5095 forbids.
            ROUTING if *payload.get(3)? == 0 => (usize::from(*payload.get(1)?) + 1) * 8,
            ROUTING => return None,
            FRAGMENT if fragment.is_some() => return None,
            FRAGMENT => {
                let flags = be16(payload, 2)?;
                let part = Fragment {
                    identification: be32(payload, 4)?,
                    offset: usize::from(flags & 0xfff8),
                    more: flags & 1 != 0,
                };
                // An "atomic" fragment (RFC 6946) is a whole packet.
                fragment = Some(part).filter(|part| part.offset != 0 || part.more);
                FRAGMENT_HEADER
            }
            _ => break,
        };
        let part = protocol == FRAGMENT && fragment.is_some();
        protocol = *payload.first()?;
        payload = payload.get(taken..)?;
        if part {
            // What follows is a piece of the datagram, not a header.
            break;
        }
    }
    let (source, destination) = (address(8), address(24));
    Some(Packet { source, destination, protocol, hops: header[7], payload, fragment })
}

/// The fixed header's bytes.
#[must_use]
pub fn header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    length: usize,
    hops: u8,
) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0] = 0x60;
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes[6] = protocol;
    bytes[7] = hops;
    bytes[8..24].copy_from_slice(&source.octets());
    bytes[24..].copy_from_slice(&destination.octets());
    bytes
}

/// A fragment header's bytes.
#[must_use]
pub fn fragment_header(protocol: u8, part: Fragment) -> [u8; FRAGMENT_HEADER] {
    let mut bytes = [0; FRAGMENT_HEADER];
    bytes[0] = protocol;
    let flags = (u16::try_from(part.offset).unwrap_or(0) & 0xfff8) | u16::from(part.more);
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[4..].copy_from_slice(&part.identification.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        [&header(from, to, protocol, payload.len(), 64)[..], payload].concat()
    }

    #[test]
    fn extension_headers_are_skipped() {
        let hop_by_hop = [17, 0, 1, 4, 0, 0, 0, 0];
        let bytes = packet(HOP_BY_HOP, &[&hop_by_hop[..], b"data"].concat());
        let read = read(&bytes).unwrap();
        assert_eq!((read.protocol, read.payload), (17, &b"data"[..]));
    }

    #[test]
    fn fragment_is_told_from_an_atomic_one() {
        let part = Fragment { identification: 9, offset: 1448, more: true };
        for (part, expected) in
            [(part, Some(part)), (Fragment { identification: 9, offset: 0, more: false }, None)]
        {
            let bytes = packet(FRAGMENT, &[&fragment_header(17, part)[..], b"x"].concat());
            let read = read(&bytes).unwrap();
            assert_eq!((read.fragment, read.protocol, read.payload), (expected, 17, &b"x"[..]));
        }
    }

    #[test]
    fn endless_headers_and_source_routes_are_refused() {
        assert!(read(&packet(HOP_BY_HOP, &[0, 255, 0, 0, 0, 0, 0, 0])).is_none());
        assert!(read(&packet(ROUTING, &[17, 0, 0, 1, 0, 0, 0, 0])).is_none());
        let loops = [0_u8; 8 * 20];
        // Nine hop-by-hop headers: the ninth is taken for the payload's protocol, which is none.
        assert_eq!(read(&packet(HOP_BY_HOP, &loops)).unwrap().protocol, HOP_BY_HOP);
        assert!(read(&packet(17, b"abc")[..42]).is_none());
    }
}
