//! Frames from the guest.

use std::sync::Arc;

use net::Capabilities;

use super::{Net, header, spec};
use crate::virtio::device::feature;
use crate::virtio::{Chain, Queue};

/// The most chains that go back to the driver together.
const BATCH: usize = 64;

/// A transmit queue.
#[derive(Default)]
pub(super) struct Transmitter {
    queue: Option<Arc<Queue>>,
    header_bytes: usize,
    granted: Capabilities,
    /// The frame under way; kept from frame to frame.
    frame: Vec<u8>,
}

impl Transmitter {
    pub fn start(&mut self, queue: Option<Arc<Queue>>, features: u64, granted: Capabilities) {
        let long = features & (spec::F_MRG_RXBUF | feature::VERSION_1) != 0;
        self.header_bytes = if long { spec::HEADER_BYTES } else { spec::SHORT_HEADER_BYTES };
        (self.queue, self.granted) = (queue, granted);
    }

    /// Takes a frame out of its buffers; none when it is not one.
    fn take(&mut self, chain: &Chain) -> Option<net::Offload> {
        let mut reader = chain.reader();
        let mut header = [0; spec::HEADER_BYTES];
        if reader.read(&mut header[..self.header_bytes]) < self.header_bytes {
            return None;
        }
        let bytes = usize::try_from(reader.left()).ok()?;
        if !(spec::FRAME_BYTES_MIN..=spec::FRAME_BYTES_MAX).contains(&bytes) {
            return None;
        }
        self.frame.resize(bytes, 0);
        reader.read(&mut self.frame);
        header::parse(header.first_chunk()?, self.granted)
    }
}

impl Net {
    /// Sends all that is in a queue. Frames that make no sense are lost, as on a wire.
    pub(super) fn transmit(&self, index: usize) {
        let Some(transmitter) = self.transmitters.get(index) else { return };
        let mut transmitter = transmitter.lock();
        let Some(queue) = transmitter.queue.clone() else { return };
        let link = {
            let state = self.state.lock();
            if state.paused {
                return;
            }
            state.link()
        };
        let mut sent = Vec::new();
        while let Some(chain) = queue.pop() {
            let offload = transmitter.take(&chain);
            if let Some(offload) = offload.filter(|_| link) {
                self.config.backend.transmit(&transmitter.frame, offload);
            }
            sent.push((chain, 0));
            if sent.len() == BATCH {
                queue.push_all(std::mem::take(&mut sent));
            }
        }
        if !sent.is_empty() {
            queue.push_all(sent);
        }
    }
}
