//! UDP (RFC 768).

use core::net::{IpAddr, SocketAddr};

use super::ip::{self, Packet};
use super::{be16, checksum};

/// Bytes before the payload.
pub const HEADER: usize = 8;
/// Where the checksum stands in the header.
pub const CHECKSUM_AT: usize = 6;

/// A datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// From whom.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads the datagram of a packet. `trusted`: its checksum need not be checked.
    #[must_use]
    pub fn read(packet: &Packet<'a>, trusted: bool) -> Option<Self> {
        let bytes = packet.payload;
        let length = usize::from(be16(bytes, 4)?);
        if length < HEADER {
            return None;
        }
        let bytes = bytes.get(..length)?;
        // Over IPv4 a checksum of 0 says that there is none.
        let absent = be16(bytes, CHECKSUM_AT)? == 0 && packet.source.is_ipv4();
        if !trusted && !absent {
            let sum = checksum::pseudo(packet.source, packet.destination, ip::UDP, length);
            if sum.with(bytes).finish() != 0 {
                return None;
            }
        }
        Some(Self {
            source: SocketAddr::new(packet.source, be16(bytes, 0)?),
            destination: SocketAddr::new(packet.destination, be16(bytes, 2)?),
            payload: &bytes[HEADER..],
        })
    }
}

/// A whole IP payload: header with checksum, then `payload`.
#[must_use]
pub fn bytes(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = HEADER + payload.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let sum = checksum_of(source.ip(), destination.ip(), &bytes);
    bytes[CHECKSUM_AT..HEADER].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A computed 0 is sent as its other form, because 0 means that there is no checksum.
fn checksum_of(source: IpAddr, destination: IpAddr, bytes: &[u8]) -> u16 {
    let sum = checksum::pseudo(source, destination, ip::UDP, bytes.len()).with(bytes).finish();
    if sum == 0 { 0xffff } else { sum }
}
