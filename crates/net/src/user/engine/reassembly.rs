//! Datagrams in parts, put together (RFC 791 section 3.2, RFC 8200 section 4.5).

use core::net::IpAddr;
use std::time::{Duration, Instant};

use crate::packet::ip::Packet;

/// Datagrams being collected at once.
const COLLECTING_MAX: usize = 16;
/// RFC 8200: 60 seconds from the first part.
const PATIENCE: Duration = Duration::from_secs(60);
const DATAGRAM_BYTES_MAX: usize = 65535;
/// More parts than a datagram has at the smallest MTU of IPv4 worth the name.
const PARTS_MAX: usize = 256;

/// Datagrams whose parts are being collected.
#[derive(Debug, Default)]
pub struct Reassembly {
    collecting: Vec<Datagram>,
}

#[derive(Debug)]
struct Datagram {
    key: (IpAddr, IpAddr, u8, u32),
    since: Instant,
    bytes: Vec<u8>,
    /// Ranges that have come, apart from one another.
    parts: Vec<(usize, usize)>,
    length: Option<usize>,
}

impl Reassembly {
    /// Adds a part; the whole when it was the last that was missing.
    pub fn add(&mut self, packet: &Packet<'_>, now: Instant) -> Option<Vec<u8>> {
        let fragment = packet.fragment?;
        self.expire(now);
        let (start, end) = (fragment.offset, fragment.offset + packet.payload.len());
        let uneven = fragment.more && !packet.payload.len().is_multiple_of(8);
        if end > DATAGRAM_BYTES_MAX || packet.payload.is_empty() || uneven {
            return None;
        }
        let key = (packet.source, packet.destination, packet.protocol, fragment.identification);
        let at = if let Some(at) = self.collecting.iter().position(|other| other.key == key) {
            at
        } else {
            if self.collecting.len() >= COLLECTING_MAX {
                self.collecting.remove(0);
            }
            let (bytes, parts) = (Vec::new(), Vec::new());
            self.collecting.push(Datagram { key, since: now, bytes, parts, length: None });
            self.collecting.len() - 1
        };
        let datagram = &mut self.collecting[at];
        let ends_elsewhere =
            datagram.length.is_some_and(|length| end > length || (!fragment.more && end != length));
        let beyond = !fragment.more && datagram.bytes.len() > end;
        let overlaps = datagram.parts.iter().any(|(from, to)| start < *to && *from < end);
        if overlaps || ends_elsewhere || beyond || datagram.parts.len() >= PARTS_MAX {
            // RFC 5722: overlapping parts are an attack; the whole datagram is dropped.
            self.collecting.remove(at);
            return None;
        }
        if datagram.bytes.len() < end {
            datagram.bytes.resize(end, 0);
        }
        datagram.bytes[start..end].copy_from_slice(packet.payload);
        datagram.parts.push((start, end));
        if !fragment.more {
            datagram.length = Some(end);
        }
        let have: usize = datagram.parts.iter().map(|(from, to)| to - from).sum();
        (datagram.length == Some(have)).then(|| self.collecting.remove(at).bytes)
    }

    /// Forgets what has waited too long.
    pub fn expire(&mut self, now: Instant) {
        self.collecting.retain(|datagram| now < datagram.since + PATIENCE);
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.collecting.iter().map(|datagram| datagram.since + PATIENCE).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ip::Fragment;

    fn part(identification: u32, offset: usize, more: bool, payload: &[u8]) -> Packet<'_> {
        Packet {
            source: IpAddr::from([10, 0, 2, 15]),
            destination: IpAddr::from([1, 2, 3, 4]),
            protocol: 17,
            hops: 64,
            payload,
            fragment: Some(Fragment { identification, offset, more }),
        }
    }

    #[test]
    fn parts_in_any_order_make_the_whole() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(&part(1, 16, false, b"end"), now), None);
        assert_eq!(reassembly.add(&part(2, 0, true, b"other   "), now), None);
        assert_eq!(reassembly.add(&part(1, 0, true, b"01234567"), now), None);
        let whole = reassembly.add(&part(1, 8, true, b"89abcdef"), now);
        assert_eq!(whole.as_deref(), Some(&b"0123456789abcdefend"[..]));
    }

    #[test]
    fn overlapping_and_impossible_parts_drop_the_datagram() {
        let now = Instant::now();
        for (name, parts) in [
            ("overlap", [part(1, 0, true, b"0123456789abcdef"), part(1, 8, false, b"x")]),
            ("two ends", [part(1, 16, false, b"x"), part(1, 24, false, b"x")]),
            ("data after the end", [part(1, 16, false, b"x"), part(1, 24, true, b"01234567")]),
            ("end before data", [part(1, 24, true, b"01234567"), part(1, 8, false, b"x")]),
        ] {
            let mut reassembly = Reassembly::default();
            for part in parts {
                assert_eq!(reassembly.add(&part, now), None);
            }
            assert_eq!(reassembly.collecting.len(), 0, "{name}");
        }
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(&part(1, 65528, false, b"01234567"), now), None);
        assert_eq!(reassembly.add(&part(1, 0, true, b"uneven"), now), None);
        for identification in 0..100 {
            reassembly.add(&part(identification, 0, true, b"01234567"), now);
        }
        assert_eq!(reassembly.collecting.len(), COLLECTING_MAX);
        reassembly.expire(now + PATIENCE);
        assert_eq!(reassembly.deadline(), None);
    }
}
