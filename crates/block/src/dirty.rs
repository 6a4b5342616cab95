//! Which parts of a disk have changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::root::Watcher;

/// What one bit stands for unless told otherwise.
pub const GRANULARITY: u64 = 64 << 10;
const GRANULARITY_MIN: u64 = 512;
const GRANULARITY_MAX: u64 = 2 << 30;
const WORD_BITS: u64 = 64;

/// A bit for each piece of a disk.
#[derive(Clone, Debug)]
pub struct DirtyMap {
    granularity: u64,
    size: u64,
    words: Vec<u64>,
}

impl DirtyMap {
    /// All clean.
    pub fn new(size: u64, granularity: u64) -> Result<Self> {
        if !granularity.is_power_of_two()
            || !(GRANULARITY_MIN..=GRANULARITY_MAX).contains(&granularity)
        {
            return Err(Error::invalid(format!(
                "Granularity must be power of 2 between {GRANULARITY_MIN} and {GRANULARITY_MAX}"
            )));
        }
        let bits = size.div_ceil(granularity);
        Ok(Self { granularity, size, words: vec![0; bits.div_ceil(WORD_BITS) as usize] })
    }

    /// What one bit stands for.
    pub fn granularity(&self) -> u64 {
        self.granularity
    }

    /// Marks a range.
    pub fn mark(&mut self, offset: u64, length: u64) {
        if length == 0 || offset >= self.size {
            return;
        }
        let end = offset.saturating_add(length).min(self.size);
        for bit in offset / self.granularity..end.div_ceil(self.granularity) {
            self.words[(bit / WORD_BITS) as usize] |= 1 << (bit % WORD_BITS);
        }
    }

    /// Cleans the pieces that a range touches.
    pub fn clean(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.size);
        for bit in offset / self.granularity..end.div_ceil(self.granularity) {
            self.words[(bit / WORD_BITS) as usize] &= !(1 << (bit % WORD_BITS));
        }
    }

    /// Cleans all.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Whether the piece at an offset is dirty.
    pub fn is_dirty(&self, offset: u64) -> bool {
        let bit = offset / self.granularity;
        let word = self.words.get((bit / WORD_BITS) as usize).copied().unwrap_or(0);
        word >> (bit % WORD_BITS) & 1 != 0
    }

    /// Dirty bytes.
    pub fn count(&self) -> u64 {
        let bits: u64 = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        (bits * self.granularity).min(self.size.next_multiple_of(self.granularity))
    }

    /// The first dirty range at or behind an offset, of at most `limit` bytes.
    pub fn next(&self, from: u64, limit: u64) -> Option<(u64, u64)> {
        let bits = self.size.div_ceil(self.granularity);
        // A last piece may be cut short by the end of the disk: what lies in it is done with.
        let mut bit = from.div_ceil(self.granularity);
        while bit < bits {
            let word = self.words[(bit / WORD_BITS) as usize] >> (bit % WORD_BITS);
            if word != 0 {
                bit += u64::from(word.trailing_zeros());
                break;
            }
            bit = (bit / WORD_BITS + 1) * WORD_BITS;
        }
        if bit >= bits {
            return None;
        }
        let start = bit * self.granularity;
        let mut end = start;
        while end < self.size && end - start < limit && self.is_dirty(end) {
            end += self.granularity;
        }
        Some((start, end.min(self.size) - start))
    }

    /// All dirty ranges.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Some((start, length)) = self.next(at, u64::MAX) {
            ranges.push((start, length));
            at = start + length;
        }
        ranges
    }

    /// Marks all that another map has.
    pub fn merge(&mut self, other: &Self) {
        for (start, length) in other.ranges() {
            self.mark(start, length);
        }
    }
}

/// A map that follows the writes of the roots it watches.
pub struct Tracker {
    map: Mutex<DirtyMap>,
    recording: AtomicBool,
}

impl Tracker {
    /// That begins with this map.
    pub fn new(map: DirtyMap, recording: bool) -> Arc<Self> {
        Arc::new(Self { map: Mutex::new(map), recording: AtomicBool::new(recording) })
    }

    /// Looks at the map, or changes it.
    pub fn with<T>(&self, work: impl FnOnce(&mut DirtyMap) -> T) -> T {
        work(&mut self.map.lock())
    }

    /// Whether it follows writes.
    pub fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Acquire)
    }

    /// Makes it follow writes, or not.
    pub fn record(&self, recording: bool) {
        self.recording.store(recording, Ordering::Release);
    }
}

impl Watcher for Tracker {
    fn after_write(&self, offset: u64, length: u64) {
        if self.is_recording() {
            self.map.lock().mark(offset, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_as_they_were_marked_in_whole_pieces() {
        let mut map = DirtyMap::new(1_000_000, 4096).unwrap();
        map.mark(5000, 1);
        map.mark(299_999, 2);
        map.mark(999_999, 100);
        assert_eq!(map.ranges(), [(4096, 4096), (299_008, 4096), (999_424, 576)]);
        assert_eq!(map.next(8192, 4096), Some((299_008, 4096)));
        map.clean(299_008, 1);
        assert_eq!(map.ranges().len(), 2);
        map.mark(0, 1_000_000);
        assert_eq!(map.ranges(), [(0, 1_000_000)]);
        assert!(DirtyMap::new(5, 1000).is_err());
    }
}
