//! What the chip does to frames on their way out: checksums, and cutting large ones.

/// The longest frame that a guest may put together, before it is cut.
pub const FRAME_BYTES_MAX: usize = 66 << 10;

/// A context descriptor: where headers and checksums are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// IPv4's header: start, place of its checksum, end.
    pub ip: Sum,
    /// The same of TCP or UDP.
    pub transport: Sum,
    /// Bytes of all headers.
    pub header_bytes: usize,
    /// Bytes of payload in a frame that is cut.
    pub segment_bytes: usize,
    /// It is TCP, not UDP.
    pub is_tcp: bool,
    /// It is IPv4, not IPv6.
    pub is_ip4: bool,
}

device::saved!(Context { ip, transport, header_bytes, segment_bytes, is_tcp, is_ip4 });

/// Where a checksum is and over what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// The first byte.
    pub start: usize,
    /// Where the checksum goes.
    pub place: usize,
    /// The last byte; 0 for the frame's end.
    pub last: usize,
}

device::saved!(Sum { start, place, last });

/// The sum in ones' complement, carried on from `sum`.
fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

impl Sum {
    /// Puts the checksum in, where there is room for it.
    pub fn put(&self, frame: &mut [u8]) {
        let end = if self.last == 0 { frame.len() } else { (self.last + 1).min(frame.len()) };
        let Some(summed) = frame.get(self.start..end) else { return };
        let sum = !(add(0, summed) as u16);
        if let Some(place) = frame.get_mut(self.place..self.place + 2) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

fn half(frame: &[u8], at: usize) -> u16 {
    frame.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn put_half(frame: &mut [u8], at: usize, value: u16) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from(half(frame, at)) << 16 | u32::from(half(frame, at + 2))
}

/// Cuts a large frame into such as go over a wire, each with headers and sums of its own.
pub fn cut(context: &Context, frame: &[u8]) -> Vec<Vec<u8>> {
    let Context { ip, transport, header_bytes, segment_bytes, is_tcp, is_ip4 } = *context;
    if header_bytes >= frame.len() || segment_bytes == 0 || header_bytes < transport.start {
        return Vec::new();
    }
    let (headers, payload) = frame.split_at(header_bytes);
    let pieces = payload.chunks(segment_bytes);
    let count = pieces.len();
    let mut frames = Vec::with_capacity(count);
    for (number, piece) in pieces.enumerate() {
        let mut frame = [headers, piece].concat();
        if is_ip4 {
            let bytes = frame.len().saturating_sub(ip.start);
            put_half(&mut frame, ip.start + 2, bytes as u16);
            let id = half(headers, ip.start + 4).wrapping_add(number as u16);
            put_half(&mut frame, ip.start + 4, id);
        } else {
            let bytes = frame.len().saturating_sub(ip.start + 40);
            put_half(&mut frame, ip.start + 4, bytes as u16);
        }
        let bytes = frame.len() - transport.start;
        if is_tcp {
            const PUSH_AND_FINISH: u8 = 0x09;
            let sequence = word(headers, transport.start + 4);
            let sequence = sequence.wrapping_add((number * segment_bytes) as u32);
            put_half(&mut frame, transport.start + 4, (sequence >> 16) as u16);
            put_half(&mut frame, transport.start + 6, sequence as u16);
            if number + 1 < count
                && let Some(flags) = frame.get_mut(transport.start + 13)
            {
                *flags &= !PUSH_AND_FINISH;
            }
        } else {
            put_half(&mut frame, transport.start + 4, bytes as u16);
        }
        // The driver has left out the length of the sum over the pseudo header.
        let begun = add(half(headers, transport.place).into(), &(bytes as u16).to_be_bytes());
        put_half(&mut frame, transport.place, begun as u16);
        if is_ip4 {
            put_half(&mut frame, ip.place, 0);
            ip.put(&mut frame);
        }
        transport.put(&mut frame);
        frames.push(frame);
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over the pseudo header and the segment is right where it gives all ones.
    fn is_right(frame: &[u8]) -> bool {
        let segment = &frame[34..];
        let mut sum = add(0, &frame[26..34]);
        sum = add(sum, &[0, 6]);
        sum = add(sum, &(segment.len() as u16).to_be_bytes());
        add(sum, segment) == 0xffff && add(0, &frame[14..34]) == 0xffff
    }

    #[test]
    fn a_large_frame_becomes_small_ones_with_right_sums() {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[18..20].copy_from_slice(&[0x12, 0x34]);
        frame[22..24].copy_from_slice(&[64, 6]);
        frame[26..34].copy_from_slice(&[10, 0, 2, 15, 10, 0, 2, 2]);
        frame[38..42].copy_from_slice(&[0xff, 0xff, 0xff, 0xf0]);
        frame[46] = 0x50;
        frame[47] = 0x19;
        // The driver's sum: addresses and protocol, without the length.
        let begun = add(add(0, &frame[26..34]), &[0, 6]) as u16;
        frame[50..52].copy_from_slice(&begun.to_be_bytes());
        frame.extend((0..3000).map(|number| number as u8));
        let context = Context {
            ip: Sum { start: 14, place: 24, last: 33 },
            transport: Sum { start: 34, place: 50, last: 0 },
            header_bytes: 54,
            segment_bytes: 1460,
            is_tcp: true,
            is_ip4: true,
        };
        let frames = cut(&context, &frame);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1514, 1514, 134]);
        assert!(frames.iter().all(|frame| is_right(frame)));
        assert_eq!(word(&frames[1], 38), 0xffff_fff0_u32.wrapping_add(1460));
        assert_eq!((frames[1][47], frames[2][47]), (0x10, 0x19), "only the last one pushes");
        assert_eq!(half(&frames[2], 18), 0x1236);
        assert!(cut(&Context { segment_bytes: 0, ..context }, &frame).is_empty());
        assert!(cut(&Context { header_bytes: 9000, ..context }, &frame).is_empty());
    }
}
