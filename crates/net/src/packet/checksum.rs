//! The internet checksum (RFC 1071): the complement of the one's complement sum of 16-bit words.

use core::net::IpAddr;

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
}
