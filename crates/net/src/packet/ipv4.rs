//! IPv4 (RFC 791).

use core::net::{IpAddr, Ipv4Addr};

use super::checksum;
use super::ip::{Fragment, Packet};
use super::{be16, be32};

/// Bytes of the header that we write: no options.
pub const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Reads a packet; padding after it is cut off.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Packet<'_>> {
    let first = *bytes.first()?;
    let header = usize::from(first & 15) * 4;
    let length = usize::from(be16(bytes, 2)?);
    if first >> 4 != 4 || header < HEADER || length < header {
        return None;
    }
    let packet = bytes.get(..length)?;
    if checksum::internet(&packet[..header]) != 0 {
        return None;
    }
    let flags = be16(packet, 6)?;
    let offset = usize::from(flags & OFFSET) * 8;
    let more = flags & MORE_FRAGMENTS != 0;
    let fragment = (offset != 0 || more).then(|| Fragment {
        identification: u32::from(u16::from_be_bytes([packet[4], packet[5]])),
        offset,
        more,
    });
    Some(Packet {
        source: IpAddr::V4(Ipv4Addr::from(be32(packet, 12)?)),
        destination: IpAddr::V4(Ipv4Addr::from(be32(packet, 16)?)),
        protocol: packet[9],
        hops: packet[8],
        payload: &packet[header..],
        fragment,
    })
}

/// What a header says beyond its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// From whom.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// The payload's protocol.
    pub protocol: u8,
    /// Bytes of payload.
    pub length: usize,
    /// Which part of which datagram; `None`: whole, and not to be cut.
    pub fragment: Option<Fragment>,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = 0x45;
        let total = u16::try_from(HEADER + self.length).unwrap_or(u16::MAX);
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        let flags = self.fragment.map_or(DONT_FRAGMENT, |fragment| {
            let more = if fragment.more { MORE_FRAGMENTS } else { 0 };
            more | (u16::try_from(fragment.offset / 8).unwrap_or(0) & OFFSET)
        });
        if let Some(fragment) = self.fragment {
            bytes[4..6].copy_from_slice(&fragment.identification.to_be_bytes()[2..]);
        }
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        bytes[8] = 64;
        bytes[9] = self.protocol;
        bytes[12..16].copy_from_slice(&self.source.octets());
        bytes[16..].copy_from_slice(&self.destination.octets());
        let sum = checksum::internet(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(fragment: Option<Fragment>) -> Vec<u8> {
        let header = Header {
            source: Ipv4Addr::new(10, 0, 2, 15),
            destination: Ipv4Addr::new(1, 2, 3, 4),
            protocol: 17,
            length: 4,
            fragment,
        };
        [&header.bytes()[..], b"data", b"padding"].concat()
    }

    #[test]
    fn padding_is_cut_and_fragments_are_told() {
        let bytes = header(None);
        let packet = read(&bytes).unwrap();
        assert_eq!((packet.payload, packet.protocol, packet.fragment), (&b"data"[..], 17, None));
        let part = Fragment { identification: 7, offset: 1480, more: true };
        assert_eq!(read(&header(Some(part))).unwrap().fragment, Some(part));
    }

    #[test]
    fn malformed_headers_are_refused() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: [(&str, Spoil); 5] = [
            ("version", |b| b[0] = 0x65),
            ("header shorter than 20", |b| b[0] = 0x44),
            ("header longer than the packet", |b| b[0] = 0x4f),
            ("total beyond the frame", |b| b[2] = 1),
            ("checksum", |b| b[8] ^= 1),
        ];
        for (name, spoil) in cases {
            let mut bytes = header(None);
            spoil(&mut bytes);
            assert!(read(&bytes).is_none(), "{name}");
        }
        assert!(read(&[]).is_none());
        assert!(read(&header(None)[..19]).is_none());
    }
}
