//! A bounded cache of metadata clusters (L2 tables or refcount blocks).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::error::Result;
use crate::node::Node;

/// Offsets are multiples of the cluster size: a multiplication spreads them well enough.
#[derive(Default)]
pub struct OffsetHasher(u64);

impl Hasher for OffsetHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// The search for the oldest table is linear, so there are not more than these.
const TABLES_MAX: usize = 2048;

/// Changed bytes are written back in whole units of this size.
const WRITE_UNIT_BYTES: usize = 4096;

struct Table {
    offset: u64,
    bytes: Box<[u8]>,
    /// The changed bytes, as a range.
    dirty: Option<(usize, usize)>,
    used: u64,
}

/// The cache. It belongs to the image's lock.
pub struct TableCache {
    slots: Vec<Table>,
    places: HashMap<u64, usize, BuildHasherDefault<OffsetHasher>>,
    capacity: usize,
    table_bytes: usize,
    clock: u64,
    dirty_tables: usize,
    last: usize,
}

impl TableCache {
    /// For tables of one size; at most `capacity_bytes`, but at least a few.
    pub fn new(table_bytes: usize, capacity_bytes: usize) -> Self {
        Self {
            slots: Vec::new(),
            places: HashMap::default(),
            capacity: (capacity_bytes / table_bytes).clamp(4, TABLES_MAX),
            table_bytes,
            clock: 0,
            dirty_tables: 0,
            last: 0,
        }
    }

    /// Whether anything must be written back.
    pub fn is_dirty(&self) -> bool {
        self.dirty_tables > 0
    }

    /// The slot of the table at `offset`, if it is here.
    pub fn find(&mut self, offset: u64) -> Option<usize> {
        self.clock += 1;
        if let Some(slot) = self.slots.get_mut(self.last)
            && slot.offset == offset
        {
            slot.used = self.clock;
            return Some(self.last);
        }
        let slot = *self.places.get(&offset)?;
        self.slots[slot].used = self.clock;
        self.last = slot;
        Some(slot)
    }

    /// Whether the next [`Self::insert`] would push out a changed table: write back first.
    pub fn must_write_back(&self) -> bool {
        self.slots.len() >= self.capacity && self.slots[self.oldest()].dirty.is_some()
    }

    fn oldest(&self) -> usize {
        let oldest = self.slots.iter().enumerate().min_by_key(|(_, table)| table.used);
        oldest.map_or(0, |(index, _)| index)
    }

    /// Puts a table in, pushing out the least recently used one, which must be clean.
    pub fn insert(&mut self, offset: u64, bytes: Box<[u8]>) -> usize {
        assert_eq!(bytes.len(), self.table_bytes, "tables have one size");
        self.clock += 1;
        let table = Table { offset, bytes, dirty: None, used: self.clock };
        let slot = if let Some(slot) = self.places.get(&offset) {
            let slot = *slot;
            if self.slots[slot].dirty.is_some() {
                self.dirty_tables -= 1;
            }
            self.slots[slot] = table;
            slot
        } else if self.slots.len() < self.capacity {
            self.slots.push(table);
            self.slots.len() - 1
        } else {
            let slot = self.oldest();
            assert!(self.slots[slot].dirty.is_none(), "a changed table is written before it goes");
            self.places.remove(&self.slots[slot].offset);
            self.slots[slot] = table;
            slot
        };
        self.places.insert(offset, slot);
        self.last = slot;
        slot
    }

    /// A table's bytes.
    pub fn bytes(&self, slot: usize) -> &[u8] {
        &self.slots[slot].bytes
    }

    /// Changes bytes of a table.
    pub fn change(&mut self, slot: usize, start: usize, bytes: &[u8]) {
        let table = &mut self.slots[slot];
        table.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        let end = start + bytes.len();
        match &mut table.dirty {
            Some((from, to)) => (*from, *to) = ((*from).min(start), (*to).max(end)),
            None => {
                table.dirty = Some((start, end));
                self.dirty_tables += 1;
            }
        }
    }

    /// Forgets a table without writing it: its cluster is no longer a table.
    pub fn forget(&mut self, offset: u64) {
        if let Some(slot) = self.places.remove(&offset) {
            let table = &mut self.slots[slot];
            if table.dirty.take().is_some() {
                self.dirty_tables -= 1;
            }
            table.offset = u64::MAX; // no table lies there
            table.used = 0;
        }
    }

    /// Writes all changed tables, in the order of the file.
    pub fn write_back(&mut self, file: &dyn Node, event: &'static str) -> Result<bool> {
        if self.dirty_tables == 0 {
            return Ok(false);
        }
        let mut order: Vec<usize> =
            (0..self.slots.len()).filter(|slot| self.slots[*slot].dirty.is_some()).collect();
        order.sort_unstable_by_key(|slot| self.slots[*slot].offset);
        for slot in order {
            let table = &mut self.slots[slot];
            let Some((start, end)) = table.dirty else { continue };
            let start = start - start % WRITE_UNIT_BYTES;
            let end = end.next_multiple_of(WRITE_UNIT_BYTES).min(table.bytes.len());
            file.about_to(event);
            file.write_at(&table.bytes[start..end], table.offset + start as u64)?;
            table.dirty = None;
            self.dirty_tables -= 1;
        }
        Ok(true)
    }

    /// Forgets everything; nothing may be changed.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.places.clear();
        self.dirty_tables = 0;
        self.last = 0;
    }
}
