//! Bytes on their way to the guest.
//!
//! A chunk is read from the host once, behind room for the headers, and is handed to the card
//! from where it lies. It stays until the guest has acknowledged it.

use std::collections::VecDeque;

use crate::packet::{ethernet, ipv6, tcp};

/// Room for the longest headers before the bytes.
pub const HEADROOM: usize = ethernet::HEADER + ipv6::HEADER + tcp::HEADER_MAX;
/// The most that is read at once, and the most that one frame carries: with the headers of IPv6
/// it stays below the 65,535 bytes of an IP packet.
pub const CHUNK: usize = 65_535 - ipv6::HEADER - tcp::HEADER_MAX;
/// Shorter chunks move to a buffer of their size, so that a thousand small answers do not hold
/// a thousand large buffers.
const SMALL: usize = CHUNK / 4;
/// Large buffers kept for reuse: what one busy connection has under way.
const SPARE_MAX: usize = 16;

#[derive(Debug)]
struct Chunk {
    buffer: Vec<u8>,
    /// The first byte that is not acknowledged.
    start: usize,
    end: usize,
}

/// Large buffers for reuse; the one used last is taken first, while it is still in the cache.
#[derive(Debug, Default)]
pub struct Spare(Vec<Vec<u8>>);

impl Spare {
    /// A buffer of [`HEADROOM`] + [`CHUNK`] bytes.
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| vec![0; HEADROOM + CHUNK])
    }

    /// Gives a buffer back.
    pub fn put(&mut self, buffer: Vec<u8>) {
        if buffer.len() == HEADROOM + CHUNK && self.0.len() < SPARE_MAX {
            self.0.push(buffer);
        }
    }
}

/// The bytes of one connection that the guest has not acknowledged, in order.
#[derive(Debug, Default)]
pub struct Unacknowledged {
    chunks: VecDeque<Chunk>,
    length: usize,
}

impl Unacknowledged {
    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.length
    }

    /// Adds the first `length` bytes behind the headroom of a buffer from `spare`.
    pub fn push(&mut self, buffer: Vec<u8>, length: usize, spare: &mut Spare) {
        let end = HEADROOM + length;
        let buffer = if length < SMALL {
            let small = buffer[..end].to_vec();
            spare.put(buffer);
            small
        } else {
            buffer
        };
        self.chunks.push_back(Chunk { buffer, start: HEADROOM, end });
        self.length += length;
    }

    /// The guest has the first `count` bytes.
    pub fn acknowledge(&mut self, mut count: usize, spare: &mut Spare) {
        count = count.min(self.length);
        self.length -= count;
        while let Some(first) = self.chunks.front_mut().filter(|_| count > 0) {
            let taken = count.min(first.end - first.start);
            first.start += taken;
            count -= taken;
            if first.start == first.end
                && let Some(done) = self.chunks.pop_front()
            {
                spare.put(done.buffer);
            }
        }
    }

    /// Up to `length` bytes from `offset` on behind room for `header` bytes, as one slice, and
    /// how many bytes of them are payload. Uses `scratch` when the bytes before them are still
    /// needed. `None`: there is nothing at `offset`.
    pub fn frame<'a>(
        &'a mut self,
        mut offset: usize,
        length: usize,
        header: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Option<(&'a mut [u8], usize)> {
        for chunk in &mut self.chunks {
            let here = chunk.end - chunk.start;
            if offset >= here {
                offset -= here;
                continue;
            }
            let from = chunk.start + offset;
            let length = length.min(chunk.end - from);
            if offset == 0 && from >= header {
                return Some((&mut chunk.buffer[from - header..from + length], length));
            }
            scratch.resize(header + length, 0);
            scratch[header..].copy_from_slice(&chunk.buffer[from..from + length]);
            return Some((&mut scratch[..], length));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(lengths: &[usize]) -> (Unacknowledged, Spare, Vec<u8>) {
        let (mut queue, mut spare, mut all) = (Unacknowledged::default(), Spare::default(), vec![]);
        for (number, length) in lengths.iter().enumerate() {
            let mut buffer = spare.take();
            for (at, byte) in buffer[HEADROOM..HEADROOM + length].iter_mut().enumerate() {
                *byte = u8::try_from((at * 7 + number) % 251).unwrap();
            }
            all.extend(&buffer[HEADROOM..HEADROOM + length]);
            queue.push(buffer, *length, &mut spare);
        }
        (queue, spare, all)
    }

    /// Whatever is sent, again or in another cut, is what came from the host: headers written
    /// before it overwrite only what the guest has.
    #[test]
    fn headers_never_damage_what_may_be_sent_again() {
        let (mut queue, mut spare, all) = filled(&[CHUNK, 100, 50_000, 1]);
        let (mut scratch, mut acknowledged) = (Vec::new(), 0);
        for (offset, length, acknowledge) in [
            (0, CHUNK, 0),
            (0, 1460, 1460),
            (0, 1460, 0),
            (1460, 1460, 0),
            (1460, 1460, 10),
            (0, 1460, CHUNK - 1470),
            (0, 1460, 0),
            (100, 9, 100),
            (50_000, 10, 50_000),
            (0, 10, 1),
        ] {
            let (frame, count) = queue.frame(offset, length, 54, &mut scratch).unwrap();
            let from = acknowledged + offset;
            assert_eq!(frame[54..], all[from..from + count], "{offset} {length}");
            frame[..54].fill(0xee);
            queue.acknowledge(acknowledge, &mut spare);
            acknowledged += acknowledge;
            assert_eq!(queue.bytes(), all.len() - acknowledged);
        }
        assert!(queue.frame(0, 10, 54, &mut scratch).is_none());
    }

    #[test]
    fn small_chunks_hold_small_buffers() {
        let (queue, spare, _) = filled(&[100, 200, 300]);
        let held: usize = queue.chunks.iter().map(|chunk| chunk.buffer.capacity()).sum();
        assert!(held < 1000, "{held}");
        assert_eq!(spare.0.len(), 1);
    }
}
