//! Frames on their way from the card's threads to the network's thread.

use crate::cable::Offload;

/// Bytes that may wait. A guest's connections together may have more under way; what is beyond
/// is dropped, and sent again.
const BYTES_MAX: usize = 8 << 20;
const FRAMES_MAX: usize = 8192;

/// Frames one behind the other, so that taking one in allocates nothing.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    frames: Vec<(usize, Offload)>,
}

impl Inbox {
    /// Adds a frame; `false`: it was dropped.
    pub fn push(&mut self, frame: &[u8], offload: Offload) -> bool {
        let end = self.bytes.len() + frame.len();
        if end > BYTES_MAX || self.frames.len() >= FRAMES_MAX {
            return false;
        }
        self.bytes.extend_from_slice(frame);
        self.frames.push((end, offload));
        true
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The frames in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Offload)> {
        let mut start = 0;
        self.frames.iter().map(move |(end, offload)| {
            let frame = &self.bytes[start..*end];
            start = *end;
            (frame, *offload)
        })
    }

    /// Takes all out; the memory stays for the next.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }
}
