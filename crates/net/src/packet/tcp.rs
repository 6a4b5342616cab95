//! TCP segments (RFC 9293) with the options that we use: segment size and window scale.

use core::net::SocketAddr;

use super::ip::{self, Packet};
use super::{be16, be32, checksum};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Bytes of the longest header that we write.
pub const HEADER_MAX: usize = 28;
/// Where the checksum stands in the header.
pub const CHECKSUM_AT: usize = 16;

/// The sender has no more data.
pub const FIN: u8 = 1;
/// A connection begins.
pub const SYN: u8 = 2;
/// The connection is gone.
pub const RST: u8 = 4;
/// Data for the program, now.
pub const PSH: u8 = 8;
/// The acknowledgement is of meaning.
pub const ACK: u8 = 16;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of the first byte, or of SYN.
    pub sequence: u32,
    /// The number of the next byte expected from the other side.
    pub acknowledgement: u32,
    /// [`FIN`] and its like.
    pub flags: u8,
    /// How much may be sent, not scaled.
    pub window: u16,
    /// The largest segment that the sender of this takes.
    pub segment_bytes_max: Option<u16>,
    /// By how much later windows are shifted.
    pub window_scale: Option<u8>,
}

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// From whom.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// What the header says.
    pub header: Header,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads the segment of a packet. `trusted`: its checksum need not be checked.
    #[must_use]
    pub fn read(packet: &Packet<'a>, trusted: bool) -> Option<Self> {
        let bytes = packet.payload;
        let header = bytes.get(..HEADER)?;
        let length = usize::from(header[12] >> 4) * 4;
        if length < HEADER {
            return None;
        }
        let options = bytes.get(HEADER..length)?;
        if !trusted {
            let sum = checksum::pseudo(packet.source, packet.destination, ip::TCP, bytes.len());
            if sum.with(bytes).finish() != 0 {
                return None;
            }
        }
        let mut parsed = Header {
            sequence: be32(header, 4)?,
            acknowledgement: be32(header, 8)?,
            flags: header[13],
            window: be16(header, 14)?,
            segment_bytes_max: None,
            window_scale: None,
        };
        // The options that we know are of meaning only at the start.
        if parsed.flags & SYN != 0 {
            parsed.read_options(options);
        }
        Some(Self {
            source: SocketAddr::new(packet.source, be16(header, 0)?),
            destination: SocketAddr::new(packet.destination, be16(header, 2)?),
            header: parsed,
            payload: &bytes[length..],
        })
    }
}

impl Header {
    fn read_options(&mut self, mut options: &[u8]) {
        while let Some((&kind, rest)) = options.split_first() {
            match kind {
                0 => return,
                1 => options = rest,
                _ => {
                    let length = usize::from(*rest.first().unwrap_or(&0));
                    let Some(option) = options.get(..length).filter(|_| length >= 2) else {
                        return;
                    };
                    match (kind, length) {
                        (2, 4) => self.segment_bytes_max = be16(option, 2),
                        // RFC 7323 section 2.3: more than 14 counts as 14.
                        (3, 3) => self.window_scale = Some(option[2].min(14)),
                        _ => {}
                    }
                    options = &options[length..];
                }
            }
        }
    }

    /// Bytes that [`write`](Self::write) takes.
    #[must_use]
    pub fn length(&self) -> usize {
        HEADER
            + if self.segment_bytes_max.is_some() { 4 } else { 0 }
            + if self.window_scale.is_some() { 4 } else { 0 }
    }

    /// Writes the header, its checksum field 0, at the start of `into`, which has room.
    pub fn write(&self, into: &mut [u8], source_port: u16, destination_port: u16) {
        let length = self.length();
        into[..2].copy_from_slice(&source_port.to_be_bytes());
        into[2..4].copy_from_slice(&destination_port.to_be_bytes());
        into[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        into[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        into[12] = u8::try_from(length / 4).unwrap_or(0) << 4;
        into[13] = self.flags;
        into[14..16].copy_from_slice(&self.window.to_be_bytes());
        into[16..20].fill(0);
        let mut at = HEADER;
        if let Some(size) = self.segment_bytes_max {
            let [high, low] = size.to_be_bytes();
            into[at..at + 4].copy_from_slice(&[2, 4, high, low]);
            at += 4;
        }
        if let Some(scale) = self.window_scale {
            into[at..at + 4].copy_from_slice(&[1, 3, 3, scale]);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn packet(payload: &[u8]) -> Packet<'_> {
        let (source, destination) = (IpAddr::from([10, 0, 2, 15]), IpAddr::from([1, 2, 3, 4]));
        Packet { source, destination, protocol: ip::TCP, hops: 64, payload, fragment: None }
    }

    fn syn() -> Header {
        Header {
            sequence: 0xfffe_fdfc,
            acknowledgement: 7,
            flags: SYN | ACK,
            window: 512,
            segment_bytes_max: Some(1460),
            window_scale: Some(7),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = [0; HEADER_MAX];
        syn().write(&mut bytes, 80, 40000);
        assert!(Segment::read(&packet(&bytes), false).is_none(), "no checksum yet");
        let view = packet(&bytes);
        let sum = checksum::pseudo(view.source, view.destination, ip::TCP, bytes.len());
        let sum = sum.with(&bytes).finish();
        bytes[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
        let view = packet(&bytes);
        let read = Segment::read(&view, false).unwrap();
        assert_eq!(read.header, syn());
        assert_eq!((read.source.port(), read.destination.port()), (80, 40000));
    }

    #[test]
    fn hostile_options_end_the_reading() {
        for (options, expected) in [
            (&[2, 4, 5, 180][..], Some(1460)),
            (&[1, 1, 2, 4, 5, 180, 0, 0], Some(1460)),
            (&[0, 0, 0, 0, 2, 4, 5, 180], None),
            (&[8, 0, 2, 4], None),
            (&[8, 1, 2, 4], None),
            (&[2, 40, 5, 180], None),
            (&[2, 3, 5, 1], None),
        ] {
            let mut bytes = vec![0; HEADER];
            let header = Header { segment_bytes_max: None, window_scale: None, ..syn() };
            header.write(&mut bytes, 1, 2);
            bytes[12] = u8::try_from((HEADER + options.len()) / 4).unwrap() << 4;
            bytes.extend(options);
            let view = packet(&bytes);
            let read = Segment::read(&view, true).unwrap();
            assert_eq!(read.header.segment_bytes_max, expected, "{options:?}");
        }
    }

    #[test]
    fn header_beyond_the_packet_is_refused() {
        let mut bytes = [0; HEADER];
        syn().write(&mut [0; HEADER_MAX], 1, 2);
        for length in [0, 4, 6, 15] {
            bytes[12] = length << 4;
            assert!(Segment::read(&packet(&bytes), true).is_none(), "{length}");
        }
        assert!(Segment::read(&packet(&bytes[..19]), true).is_none());
    }
}
