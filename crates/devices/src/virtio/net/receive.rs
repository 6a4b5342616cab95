//! Frames for the guest.

use std::sync::Arc;

use net::Offload;

use super::{Net, header, spec};
use crate::virtio::device::feature;
use crate::virtio::{Chain, Queue};

/// A receive queue.
#[derive(Default)]
pub(super) struct Receiver {
    queue: Option<Arc<Queue>>,
    header_bytes: usize,
    merges: bool,
    /// Buffers that were taken and were not enough for a frame; they are the next one's first.
    taken: Vec<Chain>,
    /// The back end was told that there is no room.
    waits: bool,
}

impl Receiver {
    pub fn start(&mut self, queue: Option<Arc<Queue>>, features: u64) {
        let merges = features & spec::F_MRG_RXBUF != 0;
        let long = merges || features & feature::VERSION_1 != 0;
        let header_bytes = if long { spec::HEADER_BYTES } else { spec::SHORT_HEADER_BYTES };
        *self = Self { queue, header_bytes, merges, ..Self::default() };
    }

    /// Whether somebody waited for room, which there may be now.
    pub fn stop_waiting(&mut self) -> bool {
        std::mem::take(&mut self.waits)
    }

    /// False when there are too few buffers for now.
    fn put(&mut self, frame: &[u8], header: &[u8; 12]) -> bool {
        let Some(queue) = self.queue.clone() else { return true };
        let bytes = self.header_bytes + frame.len();
        let room = |chain: &Chain| usize::try_from(chain.writable_bytes()).unwrap_or(usize::MAX);
        let mut have = self.taken.iter().map(room).fold(0, usize::saturating_add);
        while have < bytes && (self.merges || self.taken.is_empty()) {
            // A driver that offers many tiny buffers does not get a frame across all of them.
            if self.taken.len() == usize::from(queue.size()) {
                break;
            }
            match queue.pop() {
                Some(chain) => {
                    have = have.saturating_add(room(&chain));
                    self.taken.push(chain);
                }
                None if !queue.is_alive() => return true,
                None => {
                    self.waits = true;
                    return false;
                }
            }
        }
        let fits = self.taken.first().is_some_and(|chain| room(chain) >= self.header_bytes);
        if have < bytes || !fits {
            // No frame of this size goes into such buffers: it is lost, and they go back unused
            // where they are of no use for others either.
            if !fits || self.merges {
                let unused = self.taken.drain(..).map(|chain| (chain, 0)).collect();
                queue.push_all(unused);
            }
            return true;
        }
        let mut used = Vec::with_capacity(self.taken.len());
        let buffers = self.taken.len() as u16;
        let mut header = *header;
        header[10..].copy_from_slice(&buffers.to_le_bytes());
        let mut rest = frame;
        for (index, chain) in self.taken.drain(..).enumerate() {
            let mut writer = chain.writer();
            let mut written =
                if index == 0 { writer.write(&header[..self.header_bytes]) } else { 0 };
            let copied = writer.write(rest);
            rest = &rest[copied..];
            written += copied;
            used.push((chain, written as u64));
        }
        queue.push_all(used);
        true
    }
}

impl Net {
    pub(super) fn receive_frame(&self, frame: &[u8], offload: Offload) -> bool {
        let (pairs, paused, header) = {
            let state = self.state.lock();
            let wanted = state.link()
                && state.filter.admits(frame)
                && (spec::FRAME_BYTES_MIN..=spec::FRAME_BYTES_MAX).contains(&frame.len());
            if !wanted {
                return true;
            }
            (state.pairs, state.paused, header::emit(&offload, state.granted))
        };
        // A frame of the time before the driver changed its mind.
        let Some(header) = header else { return true };
        let index = if pairs > 1 { flow(frame) % usize::from(pairs) } else { 0 };
        let mut receiver = self.receivers[index].lock();
        if paused {
            receiver.waits = true;
            return false;
        }
        receiver.put(frame, &header)
    }
}

/// A number that all frames of a connection have in common.
fn flow(frame: &[u8]) -> usize {
    // Addresses and ports of IPv4 without options, and of IPv6; other frames are one flow.
    let range = match frame.get(12..14) {
        Some([0x08, 0x00]) => 26..38,
        Some([0x86, 0xdd]) => 22..58,
        _ => return 0,
    };
    let bytes = frame.get(range).unwrap_or_default();
    bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)))
}
