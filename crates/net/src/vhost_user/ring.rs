//! A split ring from the driver's side. Virtio 1.3, 2.7.
//!
//! What the device writes into it is another process's word and is checked.

use std::sync::Arc;

use linux::shared::SharedMemory;

const DESCRIPTOR_BYTES: usize = 16;
/// Another descriptor follows.
const NEXT: u16 = 1;
/// The device writes.
const WRITE: u16 = 2;
/// The device does not want to be told of new buffers.
const NO_NOTIFY: u16 = 1;

/// A piece of memory that the device can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Where, in the addresses that the device was told.
    pub address: u64,
    /// How large.
    pub bytes: u32,
    /// The device writes it.
    pub writable: bool,
}

/// Buffers that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`Ring::add`] has returned.
    pub head: u16,
    /// Bytes that the device says it has written.
    pub bytes: u32,
}

/// The device says what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie;

/// The driver's side of a ring.
pub struct Ring {
    memory: Arc<SharedMemory>,
    start: usize,
    size: u16,
    /// Descriptors that are in no chain.
    free: Vec<u16>,
    /// The chains that the device has, by their heads.
    chains: Vec<Option<Vec<u16>>>,
    next_available: u16,
    next_used: u16,
}

impl Ring {
    /// Bytes that a ring of this size takes.
    #[must_use]
    pub fn bytes(size: u16) -> usize {
        let size = usize::from(size);
        // Descriptors, then flags, index and entries of both sides, each with a last half word.
        (size * DESCRIPTOR_BYTES + 6 + size * 2 + 2 + 6 + size * 8).next_multiple_of(64)
    }

    /// An empty ring in zeroed memory, from `start` on, which is a multiple of 16.
    #[must_use]
    pub fn new(memory: &Arc<SharedMemory>, start: usize, size: u16) -> Self {
        debug_assert!(size.is_power_of_two() && start.is_multiple_of(DESCRIPTOR_BYTES));
        Self {
            memory: Arc::clone(memory),
            start,
            size,
            free: (0..size).rev().collect(),
            chains: vec![None; usize::from(size)],
            next_available: 0,
            next_used: 0,
        }
    }

    /// Its entries.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where descriptors, the driver's and the device's part lie, from the block's start on.
    #[must_use]
    pub fn places(&self) -> [usize; 3] {
        [self.start, self.driver(), self.device()]
    }

    fn driver(&self) -> usize {
        self.start + usize::from(self.size) * DESCRIPTOR_BYTES
    }

    fn device(&self) -> usize {
        (self.driver() + 6 + usize::from(self.size) * 2).next_multiple_of(4)
    }

    /// Chains that the device has.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.chains.iter().flatten().count()
    }

    /// Offers buffers, those that the device reads first, and names them. None when there are not
    /// enough descriptors now; the caller has seen to it that an empty ring has enough.
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || buffers.len() > self.free.len() {
            return None;
        }
        let chain = self.free.split_off(self.free.len() - buffers.len());
        for (index, (buffer, place)) in buffers.iter().zip(&chain).enumerate() {
            let next = chain.get(index + 1);
            let flags = if next.is_some() { NEXT } else { 0 };
            let flags = flags | if buffer.writable { WRITE } else { 0 };
            let mut bytes = [0; DESCRIPTOR_BYTES];
            bytes[..8].copy_from_slice(&buffer.address.to_le_bytes());
            bytes[8..12].copy_from_slice(&buffer.bytes.to_le_bytes());
            bytes[12..14].copy_from_slice(&flags.to_le_bytes());
            bytes[14..].copy_from_slice(&next.copied().unwrap_or(0).to_le_bytes());
            self.memory.write(self.start + usize::from(*place) * DESCRIPTOR_BYTES, &bytes);
        }
        let head = chain[0];
        self.chains[usize::from(head)] = Some(chain);
        let entry = self.driver() + 4 + usize::from(self.next_available % self.size) * 2;
        self.memory.write(entry, &head.to_le_bytes());
        self.next_available = self.next_available.wrapping_add(1);
        self.memory.store(self.driver() + 2, self.next_available.to_le());
        Some(head)
    }

    /// Whether the device wants to be told of new buffers.
    #[must_use]
    pub fn wants_kick(&self) -> bool {
        // Its wish is read after the index is written, or both sides could wait for each other.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        u16::from_le(self.memory.load(self.device())) & NO_NOTIFY == 0
    }

    /// Buffers that have come back. An error when the device names some that it does not have.
    pub fn take(&mut self) -> Result<Option<Used>, Lie> {
        let ahead = u16::from_le(self.memory.load(self.device() + 2)).wrapping_sub(self.next_used);
        if ahead == 0 {
            return Ok(None);
        }
        if ahead > self.size {
            return Err(Lie);
        }
        let mut entry = [0; 8];
        let place = self.device() + 4 + usize::from(self.next_used % self.size) * 8;
        self.memory.read(place, &mut entry);
        let head = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let bytes = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let chain = self.chains.get_mut(head as usize).and_then(Option::take).ok_or(Lie)?;
        self.free.extend(chain);
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some(Used { head: head as u16, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(size: u16) -> Ring {
        let memory = SharedMemory::new("ring", 64 + Ring::bytes(size)).unwrap();
        Ring::new(&Arc::new(memory), 64, size)
    }

    fn answer(ring: &Ring, index: u16, head: u32, bytes: u32) {
        let place = ring.device() + 4 + usize::from((index - 1) % ring.size) * 8;
        ring.memory.write(place, &[head.to_le_bytes(), bytes.to_le_bytes()].concat());
        ring.memory.store(ring.device() + 2, index);
    }

    #[test]
    fn buffers_go_and_come_back() {
        let mut ring = ring(4);
        let buffer = |address| Buffer { address, bytes: 10, writable: address > 1 };
        let first = ring.add(&[buffer(1), buffer(2), buffer(3)]).unwrap();
        assert_eq!(ring.add(&[buffer(4), buffer(5)]), None, "no room");
        let second = ring.add(&[buffer(6)]).unwrap();
        assert_eq!((ring.in_flight(), ring.take()), (2, Ok(None)));
        answer(&ring, 1, second.into(), 7);
        assert_eq!(ring.take(), Ok(Some(Used { head: second, bytes: 7 })));
        answer(&ring, 2, first.into(), 0);
        assert_eq!(ring.take(), Ok(Some(Used { head: first, bytes: 0 })));
        assert_eq!((ring.in_flight(), ring.free.len()), (0, 4));
        assert!(ring.wants_kick());
        ring.memory.store(ring.device(), 1);
        assert!(!ring.wants_kick());
    }

    #[test]
    fn a_lying_device_is_found_out() {
        for (index, head) in [(1, 4), (1, 1), (1, u32::MAX), (5, 0), (u16::MAX, 0)] {
            let mut ring = ring(4);
            let head_of_ours = ring.add(&[Buffer { address: 1, bytes: 1, writable: true }]);
            assert_eq!(head_of_ours, Some(0));
            answer(&ring, index, head, 1);
            assert_eq!(ring.take(), Err(Lie), "index {index}, head {head}");
        }
        let mut ring = ring(4);
        ring.add(&[Buffer { address: 1, bytes: 1, writable: true }]).unwrap();
        answer(&ring, 1, 0, 1);
        assert!(ring.take().unwrap().is_some());
        answer(&ring, 2, 0, 1);
        assert_eq!(ring.take(), Err(Lie), "the same twice");
    }
}
