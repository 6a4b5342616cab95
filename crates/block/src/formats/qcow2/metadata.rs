//! The tables of an open image, and the order in which changes of them reach the file.
//!
//! A crash may leak clusters but must not lose data. So: a cluster's refcount is on the medium
//! before an L2 entry points to it, an L2 table before its L1 entry, and a cluster is not used
//! again before nothing on the medium points to it. [`Metadata::write_back`] is that order;
//! frees wait for it in `pending_frees`.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::cache::TableCache;
use super::geometry::{Entry, Geometry, OFFSET_MASK};
use super::header::{Header, LAZY_REFCOUNTS, be64, incompatible};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef};

/// More frees than this do not wait for the next flush.
pub(super) const PENDING_FREES_MAX: usize = 8192;
/// L1 entries are written in units of this many bytes.
const L1_UNIT_BYTES: usize = 512;

/// Cache sizes when nothing else is asked for.
pub const L2_CACHE_BYTES: usize = 32 << 20;
pub(super) const REFCOUNT_CACHE_BYTES: usize = 4 << 20;

/// How many bytes of tables stay in memory.
pub(super) struct CacheSizes {
    pub(super) l2: usize,
    pub(super) refcounts: usize,
}

impl CacheSizes {
    pub(super) const DEFAULT: Self = Self { l2: L2_CACHE_BYTES, refcounts: REFCOUNT_CACHE_BYTES };
}

/// Whose bytes a freed range held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freed {
    /// Data that the guest discarded: the host gets the space back if so configured.
    Discarded,
    /// Anything else.
    Other,
}

/// The tables.
pub struct Metadata {
    /// Where they live.
    pub file: NodeRef,
    /// Sizes.
    pub geometry: Geometry,
    /// The header as on the medium, or newer.
    pub header: Header,
    /// The active L1 table in the host's byte order.
    pub l1: Vec<u64>,
    pub(super) l1_dirty: BTreeSet<usize>,
    /// Where guest data lies, if not here.
    pub data_file: Option<NodeRef>,
    pub(super) refcount_table: Option<Vec<u64>>,
    pub(super) l2_cache: TableCache,
    pub(super) refcount_cache: TableCache,
    /// Nothing below this cluster is free.
    pub(super) free_index: u64,
    /// Where the next compressed cluster may begin, within a cluster that has room.
    pub packed_end: u64,
    pub(super) pending_frees: Vec<(u64, u64, Freed)>,
    pub(super) allocations_since_reclaim: u32,
    /// Data lies in new places: it must be on the medium before a table points there, or a
    /// crash would show what was there before.
    pub new_data: bool,
    /// The data file's first byte that was never written: beyond it there are zeros.
    pub untouched_from: u64,
    /// Freed data gives space back to the host.
    pub discards: bool,
    /// Refcounts were written that are not yet on the medium: tables must wait for them.
    counted: bool,
    /// Damage was reported once.
    pub(super) corrupt_said: bool,
    /// The image is being made or repaired: no order is needed.
    pub unordered: bool,
}

impl Metadata {
    /// For a header that was read; the L1 table is read here.
    pub fn open(file: &NodeRef, header: Header, caches: &CacheSizes) -> Result<Self> {
        let geometry = Geometry::new(&header);
        let l1 = read_table(&**file, header.l1_offset, u64::from(header.l1_entries))?;
        let table = geometry.cluster as usize;
        // An L2 cache larger than all tables of the image would never be filled.
        let useful = (l1.len().max(4)).saturating_mul(table);
        let untouched_from = file.size();
        Ok(Self {
            file: file.clone(),
            geometry,
            l1,
            l1_dirty: BTreeSet::new(),
            data_file: None,
            refcount_table: None,
            l2_cache: TableCache::new(table, caches.l2.min(useful)),
            refcount_cache: TableCache::new(table, caches.refcounts),
            free_index: 0,
            packed_end: 0,
            pending_frees: Vec::new(),
            allocations_since_reclaim: super::refcounts::RECLAIM_ALLOCATIONS,
            new_data: false,
            untouched_from,
            discards: false,
            counted: false,
            corrupt_said: false,
            unordered: false,
            header,
        })
    }

    /// Whether guest data lies in this file, too.
    pub fn external_data(&self) -> bool {
        self.header.has_data_file()
    }

    // ---- L1 and L2 ----

    /// The L2 table that an L1 entry points to, or 0.
    pub fn l2_offset(&self, l1_index: usize) -> u64 {
        self.l1.get(l1_index).map_or(0, |entry| entry & OFFSET_MASK)
    }

    /// Changes an L1 entry; it is written in its turn.
    pub fn set_l1(&mut self, index: usize, entry: u64) {
        self.l1[index] = entry;
        self.l1_dirty.insert(index * 8 / L1_UNIT_BYTES);
    }

    /// The slot of an L2 table, read if need be.
    pub fn l2_slot(&mut self, offset: u64) -> Result<usize> {
        if let Some(slot) = self.l2_cache.find(offset) {
            return Ok(slot);
        }
        if !offset.is_multiple_of(self.geometry.cluster) {
            return Err(Error::corrupt(format!("L2 table offset {offset:#x} unaligned")));
        }
        if self.l2_cache.must_write_back() {
            self.write_back()?;
        }
        let mut bytes = vec![0; self.geometry.cluster as usize].into_boxed_slice();
        self.file.about_to("l2_load");
        self.file.read_at(&mut bytes, offset)?;
        Ok(self.l2_cache.insert(offset, bytes))
    }

    /// With lazy refcounts: those of tables are written at once all the same, because only
    /// data clusters are cheap to count anew.
    pub fn settle_refcounts(&mut self) -> Result<()> {
        if self.is_lazy() {
            self.refcount_cache.write_back(&*self.file, "refblock_update_part")?;
        }
        Ok(())
    }

    /// Puts a new L2 table into the cache, as changed.
    pub fn insert_l2(&mut self, offset: u64, bytes: &[u8]) -> Result<usize> {
        if self.l2_cache.must_write_back() {
            self.write_back()?;
        }
        let slot = self.l2_cache.insert(offset, vec![0; bytes.len()].into_boxed_slice());
        self.l2_cache.change(slot, 0, bytes);
        Ok(slot)
    }

    /// A table's bytes.
    pub fn l2_bytes(&self, slot: usize) -> &[u8] {
        self.l2_cache.bytes(slot)
    }

    /// An entry of a table in the cache.
    pub fn entry(&self, slot: usize, index: usize) -> Entry {
        let bytes = self.l2_cache.bytes(slot);
        let at = index * self.geometry.entry_bytes;
        let word = be64(bytes, at);
        let bitmap = if self.geometry.extended() { be64(bytes, at + 8) } else { 0 };
        Entry { word, bitmap }
    }

    /// Changes an entry of a table in the cache.
    pub fn set_entry(&mut self, slot: usize, index: usize, entry: Entry) {
        let at = index * self.geometry.entry_bytes;
        if self.geometry.extended() {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&entry.word.to_be_bytes());
            bytes[8..].copy_from_slice(&entry.bitmap.to_be_bytes());
            self.l2_cache.change(slot, at, &bytes);
        } else {
            self.l2_cache.change(slot, at, &entry.word.to_be_bytes());
        }
    }

    /// Forgets an L2 table whose cluster is being freed.
    pub fn forget_l2(&mut self, offset: u64) {
        self.l2_cache.forget(offset);
    }

    // ---- order ----

    /// Everything written so far reaches the medium before anything written later.
    pub fn barrier(&mut self) -> Result<()> {
        if !self.unordered {
            if let (Some(data), true) = (&self.data_file, self.new_data) {
                data.flush()?;
            }
            self.file.flush()?;
            self.new_data = false;
            self.counted = false;
        }
        Ok(())
    }

    /// Whether tables are changed and not yet handed to the file.
    pub fn is_dirty(&self) -> bool {
        self.l2_cache.is_dirty()
            || self.refcount_cache.is_dirty()
            || !self.l1_dirty.is_empty()
            || !self.pending_frees.is_empty()
    }

    /// Writes everything at the end, refcounts that could wait included.
    pub fn write_back_all(&mut self) -> Result<()> {
        self.write_back()?;
        self.write_back()?; // what the frees changed
        self.refcount_cache.write_back(&*self.file, "refblock_update_part")?;
        Ok(())
    }

    fn is_lazy(&self) -> bool {
        self.header.incompatible & incompatible::DIRTY != 0
    }

    /// Hands all changes to the file, in an order that survives a crash at any point.
    pub fn write_back(&mut self) -> Result<()> {
        // A dirty image's refcounts are counted anew after a crash: they can wait.
        if !self.is_lazy() && self.refcount_cache.is_dirty() {
            // Said first: if a write or the barrier fails, the barrier is still needed next time.
            self.counted = true;
            self.refcount_cache.write_back(&*self.file, "refblock_update_part")?;
        }
        if (self.counted || self.new_data)
            && (self.l2_cache.is_dirty() || !self.l1_dirty.is_empty())
        {
            self.barrier()?;
        }
        self.l2_cache.write_back(&*self.file, "l2_update")?;
        if !self.l1_dirty.is_empty() {
            self.barrier()?;
            self.write_l1()?;
        }
        if !self.pending_frees.is_empty() {
            self.barrier()?;
            self.apply_frees()?;
        }
        Ok(())
    }

    /// Hands changed L2 tables to the file, for readers that bypass the cache.
    pub fn write_back_l2(&mut self) -> Result<()> {
        if self.l2_cache.is_dirty() { self.write_back() } else { Ok(()) }
    }

    /// Everything to the medium.
    pub fn flush(&mut self) -> Result<()> {
        self.file.about_to("flush_to_os");
        self.write_back()?;
        self.file.about_to("flush_to_disk");
        self.file.flush()?;
        self.new_data = false;
        Ok(())
    }

    fn write_l1(&mut self) -> Result<()> {
        while let Some(unit) = self.l1_dirty.first().copied() {
            let first = unit * L1_UNIT_BYTES / 8;
            let last = (first + L1_UNIT_BYTES / 8).min(self.l1.len());
            let bytes = encode_table(&self.l1[first..last]);
            self.file.about_to("l1_update");
            self.file.write_at(&bytes, self.header.l1_offset + first as u64 * 8)?;
            // What could not be written is tried again next time.
            self.l1_dirty.remove(&unit);
        }
        Ok(())
    }

    /// Forgets changes of the L1 table that are about to be replaced as a whole.
    pub fn forget_l1_changes(&mut self) {
        self.l1_dirty.clear();
    }

    /// Writes the header with its extensions.
    pub fn write_header(&mut self) -> Result<()> {
        let bytes = self.header.encode()?;
        self.file.write_at(&bytes, 0)?;
        self.note_touched(bytes.len() as u64);
        Ok(())
    }

    /// With lazy refcounts: says on the medium that refcounts cannot be trusted from now on.
    pub(super) fn mark_dirty(&mut self) -> Result<()> {
        if self.header.compatible & LAZY_REFCOUNTS == 0 || self.is_lazy() || self.unordered {
            return Ok(());
        }
        self.set_incompatible(self.header.incompatible | incompatible::DIRTY)
    }

    /// Writes the incompatible features.
    pub fn set_incompatible(&mut self, bits: u64) -> Result<()> {
        self.file.write_at(&bits.to_be_bytes(), 72)?;
        self.file.flush()?;
        self.header.incompatible = bits;
        Ok(())
    }

    /// Notes that bytes up to `end` of the file were or will be written.
    pub fn note_touched(&mut self, end: u64) {
        if !self.external_data() {
            self.untouched_from = self.untouched_from.max(end);
        }
    }

    /// Makes room for more L1 entries: a new table elsewhere, then the header.
    pub fn grow_l1(&mut self, entries: u64, exact: bool) -> Result<()> {
        if entries <= self.l1.len() as u64 {
            return Ok(());
        }
        let mut target = entries;
        if !exact {
            target = (self.l1.len() as u64).max(1);
            while target < entries {
                target = (target * 3).div_ceil(2);
            }
        }
        if target * 8 > super::header::L1_BYTES_MAX {
            return Err(Errno::FBIG.into());
        }
        let mut l1 = self.l1.clone();
        l1.resize(target as usize, 0);
        let bytes = encode_table(&l1);
        self.file.about_to("l1_grow_alloc_table");
        let offset = self.allocate(bytes.len() as u64)?;
        self.write_back()?;
        self.file.about_to("l1_grow_write_table");
        self.file.write_at(&bytes, offset)?;
        self.note_touched(offset + bytes.len() as u64);
        self.barrier()?;
        let mut fields = [0; 12];
        fields[..4].copy_from_slice(&(target as u32).to_be_bytes());
        fields[4..].copy_from_slice(&offset.to_be_bytes());
        self.file.about_to("l1_grow_activate_table");
        self.file.write_at(&fields, 36)?;
        let (old_offset, old_bytes) = (self.header.l1_offset, self.l1.len() as u64 * 8);
        self.header.l1_entries = target as u32;
        self.header.l1_offset = offset;
        self.l1 = l1;
        self.l1_dirty.clear();
        self.free(old_offset, old_bytes, Freed::Other);
        self.barrier()
    }
}

/// A table of big-endian words.
pub fn read_table(file: &dyn Node, offset: u64, entries: u64) -> Result<Vec<u64>> {
    let mut bytes = vec![0; entries as usize * 8];
    file.read_at(&mut bytes, offset)?;
    Ok(bytes.chunks_exact(8).map(|word| be64(word, 0)).collect())
}

/// The bytes of such a table.
pub fn encode_table(table: &[u64]) -> Vec<u8> {
    table.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The refcount at an index of a block.
pub fn get_refcount(block: &[u8], order: u32, index: usize) -> u64 {
    match order {
        0..=2 => {
            let (width, per_byte) = (1 << order, 8 >> order);
            u64::from(block[index / per_byte] >> (index % per_byte * width)) & ((1 << width) - 1)
        }
        4 => u64::from(u16::from_be_bytes([block[index * 2], block[index * 2 + 1]])),
        _ => {
            let width = 1 << (order - 3);
            let bytes = &block[index * width..(index + 1) * width];
            bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
    }
}

/// The bytes that put a refcount at an index: where, what, how many.
pub fn put_refcount(block: &[u8], order: u32, index: usize, value: u64) -> (usize, [u8; 8], usize) {
    let mut out = [0; 8];
    if order < 3 {
        let (width, per_byte) = (1usize << order, 8usize >> order);
        let shift = index % per_byte * width;
        let mask = (((1u16 << width) - 1) as u8) << shift;
        out[0] = block[index / per_byte] & !mask | (value as u8) << shift & mask;
        return (index / per_byte, out, 1);
    }
    let width = 1usize << (order - 3);
    out[..width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
    (index * width, out, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_every_width_keep_their_neighbours() {
        for order in 0..=6 {
            let max = if order == 6 { u64::MAX } else { (1u64 << (1 << order)) - 1 };
            let mut block = vec![0; 64];
            for index in 0..8 {
                let value = (index as u64 * 0x0123_4567_89ab_cdef) & max;
                let (at, bytes, length) = put_refcount(&block, order, index, value);
                block[at..at + length].copy_from_slice(&bytes[..length]);
            }
            for index in 0..8 {
                let value = (index as u64 * 0x0123_4567_89ab_cdef) & max;
                assert_eq!(
                    get_refcount(&block, order, index),
                    value,
                    "order {order} index {index}"
                );
            }
        }
    }
}
