//! Ethernet II frames (IEEE 802.3, without the check sequence).

use core::fmt;

/// Bytes before the payload.
pub const HEADER: usize = 14;
/// The type of an IPv4 payload.
pub const IPV4: u16 = 0x0800;
/// The type of an ARP payload.
pub const ARP: u16 = 0x0806;
/// The type of an IPv6 payload.
pub const IPV6: u16 = 0x86dd;

/// A hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names a group, everybody included.
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A frame's parts.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// The payload's type.
    pub kind: u16,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER>()?;
        let mac = |at: usize| Mac([0, 1, 2, 3, 4, 5].map(|byte| header[at + byte]));
        let kind = u16::from_be_bytes([header[12], header[13]]);
        Some(Self { destination: mac(0), source: mac(6), kind, payload })
    }
}

/// The header's bytes.
#[must_use]
pub fn header(destination: Mac, source: Mac, kind: u16) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..].copy_from_slice(&kind.to_be_bytes());
    bytes
}
