//! A descriptor chain: the buffers of one request.

use std::fmt;
use std::sync::Arc;

use memory::FlatView;

/// A piece of guest memory that a driver offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts; all of it is memory.
    pub address: u64,
    /// Its bytes, never zero.
    pub bytes: u32,
}

/// The name of a chain in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub id: u16,
    /// Places of the ring that it takes; of meaning in packed rings.
    pub places: u16,
}

/// The buffers of one request: first those that the device reads, then those that it writes.
///
/// It goes back to its queue by `Queue::push`; one that is dropped stays with the device until the
/// next reset, as if the device were still at work.
pub struct Chain {
    pub(super) token: Token,
    pub(super) view: Arc<FlatView>,
    pub(super) segments: Vec<Segment>,
    /// How many segments the device reads.
    pub(super) readable: usize,
}

impl Chain {
    /// The segments that the device reads.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        &self.segments[..self.readable]
    }

    /// The segments that the device writes.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        &self.segments[self.readable..]
    }

    /// The guest's memory, for what a request names beside its own buffers.
    #[must_use]
    pub fn memory(&self) -> &FlatView {
        &self.view
    }

    /// Bytes that the device reads.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        total(self.readable())
    }

    /// Bytes that the device may write.
    #[must_use]
    pub fn writable_bytes(&self) -> u64 {
        total(self.writable())
    }

    /// Goes through what the device reads.
    #[must_use]
    pub fn reader(&self) -> Cursor<'_> {
        Cursor { view: &self.view, segments: self.readable(), within: 0 }
    }

    /// Goes through what the device writes.
    #[must_use]
    pub fn writer(&self) -> Cursor<'_> {
        Cursor { view: &self.view, segments: self.writable(), within: 0 }
    }

    /// Goes through what the device writes, from its last `bytes` bytes on.
    #[must_use]
    pub fn writer_at_end(&self, bytes: u64) -> Cursor<'_> {
        let mut writer = self.writer();
        writer.skip(self.writable_bytes().saturating_sub(bytes));
        writer
    }

    /// The segments of the first `bytes` bytes that the device writes.
    pub(super) fn written(&self, bytes: u64) -> impl Iterator<Item = Segment> {
        let mut left = bytes;
        self.writable().iter().map_while(move |segment| {
            let bytes = left.min(u64::from(segment.bytes)) as u32;
            left -= u64::from(bytes);
            (bytes > 0).then_some(Segment { bytes, ..*segment })
        })
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "chain {:?} {:?}", self.readable(), self.writable())
    }
}

fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.bytes)).sum()
}

/// A place in one half of a chain. It moves on by what it copies.
#[derive(Clone)]
pub struct Cursor<'a> {
    view: &'a FlatView,
    segments: &'a [Segment],
    /// Bytes of the first segment that are behind.
    within: u32,
}

impl Cursor<'_> {
    /// Bytes that are still ahead.
    #[must_use]
    pub fn left(&self) -> u64 {
        total(self.segments) - u64::from(self.within)
    }

    /// Moves on, to the end at most.
    pub fn skip(&mut self, mut bytes: u64) {
        while let Some(segment) = self.segments.first() {
            let here = u64::from(segment.bytes - self.within);
            if bytes < here {
                self.within += bytes as u32;
                return;
            }
            bytes -= here;
            self.segments = &self.segments[1..];
            self.within = 0;
        }
    }

    /// Copies out as many bytes as there are, and says how many.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let view = self.view;
        self.each(into.len(), |address, from, to| view.read_memory(address, &mut into[from..to]))
    }

    /// Copies in as many bytes as fit, and says how many.
    pub fn write(&mut self, from: &[u8]) -> usize {
        let view = self.view;
        self.each(from.len(), |address, start, to| view.write_memory(address, &from[start..to]))
    }

    /// A fixed number of bytes, or none at all when there are fewer.
    #[must_use]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.left() >= N as u64 && self.read(&mut bytes) == N).then_some(bytes)
    }

    /// All that is ahead, at most `bytes_max` bytes.
    #[must_use]
    pub fn to_vec(&mut self, bytes_max: usize) -> Vec<u8> {
        let bytes = usize::try_from(self.left()).map_or(bytes_max, |left| left.min(bytes_max));
        let mut all = vec![0; bytes];
        let done = self.read(&mut all);
        all.truncate(done);
        all
    }

    /// Visits pieces as address, start and end in the caller's bytes.
    fn each(&mut self, bytes: usize, mut copy: impl FnMut(u64, usize, usize) -> bool) -> usize {
        let mut done = 0;
        while done < bytes {
            let Some(segment) = self.segments.first() else { break };
            let here = (segment.bytes - self.within) as usize;
            let step = here.min(bytes - done);
            // The view is the one against which the segment was checked: the copy cannot fail.
            if !copy(segment.address + u64::from(self.within), done, done + step) {
                break;
            }
            done += step;
            self.skip(step as u64);
        }
        done
    }
}
