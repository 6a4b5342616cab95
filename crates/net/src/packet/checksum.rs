//! The internet checksum (RFC 1071): the complement of the one's complement sum of 16-bit words.

use core::net::IpAddr;
use core::ops::Range;

use super::{ethernet, ipv4, ipv6};

/// A running sum. It is kept in the host's byte order, which RFC 1071 section 2 permits, and
/// in 64 bits, so that carries are folded once at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; only the last piece may have an odd length.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        // Independent lanes: the compiler turns them into vector additions.
        let mut lanes = [0_u64; 8];
        let mut blocks = bytes.chunks_exact(32);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum = lanes.iter().fold(self.0, |sum, lane| fold_once(sum) + fold_once(*lane));
        let mut words = blocks.remainder().chunks_exact(2);
        for word in &mut words {
            sum += u64::from(u16::from_ne_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(sum)
    }

    /// Adds one word.
    #[must_use]
    pub fn with_word(self, word: u16) -> Self {
        Self(fold_once(self.0) + u64::from(u16::from_ne_bytes(word.to_be_bytes())))
    }

    /// The sum, not inverted: what a partial checksum's field holds.
    #[must_use]
    pub fn partial(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let word = u16::try_from(sum).expect("the loop folded it into 16 bits");
        u16::from_be_bytes(word.to_ne_bytes())
    }

    /// The checksum.
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.partial()
    }
}

fn fold_once(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// The checksum of `bytes`; 0 when they include a right one.
#[must_use]
pub fn internet(bytes: &[u8]) -> u16 {
    Sum::default().with(bytes).finish()
}

/// The sum of the pseudo header that TCP, UDP and `ICMPv6` include.
#[must_use]
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Sum {
    let sum = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Sum::default().with(&from.octets()).with(&to.octets())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Sum::default().with(&from.octets()).with(&to.octets())
        }
        // A packet has one family; mixed ends cannot be written by this crate's builders.
        _ => Sum::default(),
    };
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    sum.with(&length.to_be_bytes()).with_word(u16::from(protocol))
}

/// Makes the checksum of a frame's TCP segment or UDP datagram right. Frames of other kinds, and
/// fragments, are left as they are.
pub fn fill(frame: &mut [u8]) {
    let Some((segment, pseudo, field)) = transport(frame) else { return };
    let segment = &mut frame[segment];
    let Some(place) = segment.get_mut(field..field + 2) else { return };
    place.fill(0);
    let sum = pseudo.with(segment).finish();
    // A datagram without a checksum has 0 there.
    let sum = if sum == 0 && field == UDP_FIELD { 0xffff } else { sum };
    segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

const UDP_FIELD: usize = 6;

/// Where a frame's segment or datagram lies, the sum of its pseudo header, and where in it the
/// checksum lies.
fn transport(bytes: &[u8]) -> Option<(Range<usize>, Sum, usize)> {
    let frame = ethernet::Frame::read(bytes)?;
    let packet = match frame.kind {
        ethernet::IPV4 => ipv4::read(frame.payload),
        ethernet::IPV6 => ipv6::read(frame.payload),
        _ => None,
    }?;
    let field = match packet.protocol {
        6 => 16,
        17 => UDP_FIELD,
        _ => return None,
    };
    if packet.fragment.is_some() {
        return None;
    }
    // The payload is a piece of the frame; what follows it is padding.
    let start = packet.payload.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
    let length = packet.payload.len();
    Some((
        start..start + length,
        pseudo(packet.source, packet.destination, packet.protocol, length),
        field,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum as RFC 1071 defines it, a word at a time.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for word in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn fast_sum_equals_the_definition_at_every_length() {
        let bytes: Vec<u8> =
            (0..4099_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in (0..200).chain([1460, 4096, 4099]) {
            assert_eq!(internet(&bytes[..length]), plain(&bytes[..length]), "{length}");
        }
        assert_eq!(internet(&[0xff; 65535]), plain(&[0xff; 65535]));
    }

    #[test]
    fn example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().with(&bytes).partial(), 0xddf2);
    }

    #[test]
    fn sums_that_were_left_out_are_filled_in() {
        let (from, to) = ("10.0.0.1:7".parse().unwrap(), "10.0.0.2:9".parse().unwrap());
        let datagram = crate::packet::udp::bytes(from, to, b"hello");
        let header = ipv4::Header {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: 17,
            length: datagram.len(),
            fragment: None,
        };
        let mac = ethernet::Mac([2; 6]);
        let mut frame = ethernet::header(mac, mac, ethernet::IPV4).to_vec();
        frame.extend(header.bytes());
        frame.extend(&datagram);
        frame.resize(60, 0); // padding is not summed
        let right = frame.clone();
        frame[14 + 20 + 6..14 + 20 + 8].fill(0);
        fill(&mut frame);
        assert_eq!(frame, right);
        for length in 0..right.len() {
            fill(&mut frame[..length].to_vec()); // nothing that is cut short does harm
        }
    }
}
