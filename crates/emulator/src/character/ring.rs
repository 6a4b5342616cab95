//! A ring in memory: what the guest says is kept until somebody asks.

use std::collections::VecDeque;
use std::sync::Weak;

use device::{Stream, StreamPeer};
use parking_lot::Mutex;

/// The ring. When it is full, the oldest bytes go.
pub struct Ring {
    bytes_max: usize,
    bytes: Mutex<VecDeque<u8>>,
}

impl Ring {
    /// An empty ring.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: Mutex::default() }
    }

    /// Takes what the guest said, at most so many bytes.
    pub fn read(&self, bytes_max: usize) -> Vec<u8> {
        let mut bytes = self.bytes.lock();
        let count = bytes.len().min(bytes_max);
        bytes.drain(..count).collect()
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

    // Nothing ever comes from a ring.
    fn attach(&self, _peer: Weak<dyn StreamPeer>) {}
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
