//! A ring in memory: what the guest says is kept until somebody asks.

use std::collections::VecDeque;
use std::sync::Weak;

use device::{Stream, StreamPeer};
use parking_lot::Mutex;

/// The ring. When it is full, the oldest bytes go.
pub struct Ring {
    bytes_max: usize,
    bytes: Mutex<VecDeque<u8>>,
    peer: Mutex<Option<Weak<dyn StreamPeer>>>,
}

impl Ring {
    /// An empty ring.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: Mutex::default(), peer: Mutex::default() }
    }

    /// Takes what the guest said, at most so many bytes.
    pub fn read(&self, bytes_max: usize) -> Vec<u8> {
        let mut bytes = self.bytes.lock();
        let count = bytes.len().min(bytes_max);
        bytes.drain(..count).collect()
    }

    /// Says something to the guest: how much of it was taken.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let peer = self.peer.lock().as_ref().and_then(Weak::upgrade);
        let Some(peer) = peer else { return 0 };
        let count = peer.room().min(bytes.len());
        peer.receive(&bytes[..count]);
        count
    }
}

impl Stream for Ring {
    fn write(&self, bytes: &[u8]) -> usize {
        let mut ring = self.bytes.lock();
        for &byte in bytes {
            if ring.len() == self.bytes_max {
                ring.pop_front();
            }
            ring.push_back(byte);
        }
        bytes.len()
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        *self.peer.lock() = Some(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_stay() {
        let ring = Ring::new(4);
        assert_eq!(ring.write(b"abcdef"), 6);
        assert_eq!((ring.read(3), ring.read(9)), (b"cde".to_vec(), b"f".to_vec()));
    }
}
