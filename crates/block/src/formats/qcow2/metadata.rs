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
use super::header::{Header, LAZY_REFCOUNTS, REFCOUNT_TABLE_BYTES_MAX, be64, incompatible};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef};

/// More frees than this do not wait for the next flush.
const PENDING_FREES_MAX: usize = 8192;
/// Freed bytes worth a barrier before the file grows, and how many allocations a smaller gain waits.
const RECLAIM_BYTES: u64 = 1 << 20;
const RECLAIM_ALLOCATIONS: u32 = 64;
/// Bits of a refcount table entry that hold the offset.
const REFCOUNT_OFFSET_MASK: u64 = !511;
/// L1 entries are written in units of this many bytes.
const L1_UNIT_BYTES: usize = 512;

/// Cache sizes when nothing else is asked for.
pub const L2_CACHE_BYTES: usize = 32 << 20;
const REFCOUNT_CACHE_BYTES: usize = 4 << 20;

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
    l1_dirty: BTreeSet<usize>,
    /// Where guest data lies, if not here.
    pub data_file: Option<NodeRef>,
    refcount_table: Option<Vec<u64>>,
    l2_cache: TableCache,
    refcount_cache: TableCache,
    /// Nothing below this cluster is free.
    free_index: u64,
    /// Where the next compressed cluster may begin, within a cluster that has room.
    pub packed_end: u64,
    pending_frees: Vec<(u64, u64, Freed)>,
    allocations_since_reclaim: u32,
    /// Data lies in new places: it must be on the medium before a table points there, or a
    /// crash would show what was there before.
    pub new_data: bool,
    /// The data file's first byte that was never written: beyond it there are zeros.
    pub untouched_from: u64,
    /// Freed data gives space back to the host.
    pub discards: bool,
    /// The image is being made or repaired: no order is needed.
    pub unordered: bool,
}

impl Metadata {
    /// For a header that was read; the L1 table is read here.
    pub fn open(file: &NodeRef, header: Header, l2_cache_bytes: usize) -> Result<Self> {
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
            l2_cache: TableCache::new(table, l2_cache_bytes.min(useful)),
            refcount_cache: TableCache::new(table, REFCOUNT_CACHE_BYTES),
            free_index: 0,
            packed_end: 0,
            pending_frees: Vec::new(),
            allocations_since_reclaim: RECLAIM_ALLOCATIONS,
            new_data: false,
            untouched_from,
            discards: false,
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

    // ---- refcounts ----

    /// The refcount table, read when it is first needed.
    pub fn refcount_table(&mut self) -> Result<&mut Vec<u64>> {
        if self.refcount_table.is_none() {
            let entries =
                u64::from(self.header.refcount_table_clusters) * (self.geometry.cluster / 8);
            self.file.about_to("reftable_load");
            let table = read_table(&*self.file, self.header.refcount_table_offset, entries)?;
            self.refcount_table = Some(table);
        }
        Ok(self.refcount_table.as_mut().expect("it was just read"))
    }

    /// Forgets what is known about refcounts after the tables were rebuilt.
    pub fn reload_refcounts(&mut self) {
        self.refcount_table = None;
        self.refcount_cache.clear();
        self.free_index = 0;
        self.packed_end = 0;
    }

    fn refcount_slot(&mut self, offset: u64) -> Result<usize> {
        if let Some(slot) = self.refcount_cache.find(offset) {
            return Ok(slot);
        }
        if !offset.is_multiple_of(self.geometry.cluster) {
            return Err(Error::corrupt(format!("Refblock offset {offset:#x} unaligned")));
        }
        if self.refcount_cache.must_write_back() {
            // Increments may come early; decrements were applied only when it was safe.
            self.refcount_cache.write_back(&*self.file, "refblock_update_part")?;
        }
        let mut bytes = vec![0; self.geometry.cluster as usize].into_boxed_slice();
        self.file.about_to("refblock_load");
        self.file.read_at(&mut bytes, offset)?;
        Ok(self.refcount_cache.insert(offset, bytes))
    }

    /// The refcount of a cluster.
    pub fn refcount(&mut self, cluster: u64) -> Result<u64> {
        let bits = self.geometry.refcount_block_bits;
        let table = self.refcount_table()?;
        let block = table.get((cluster >> bits) as usize).map_or(0, |e| e & REFCOUNT_OFFSET_MASK);
        if block == 0 {
            return Ok(0);
        }
        let slot = self.refcount_slot(block)?;
        let index = (cluster & ((1 << bits) - 1)) as usize;
        Ok(get_refcount(self.refcount_cache.bytes(slot), self.geometry.refcount_order, index))
    }

    /// Sets the refcount of a cluster, making a refcount block if there is none.
    pub fn set_refcount(&mut self, cluster: u64, value: u64) -> Result<()> {
        let bits = self.geometry.refcount_block_bits;
        let block = self.refcount_block_for(cluster)?;
        let slot = self.refcount_slot(block)?;
        let index = (cluster & ((1 << bits) - 1)) as usize;
        let order = self.geometry.refcount_order;
        let (at, bytes, length) =
            put_refcount(self.refcount_cache.bytes(slot), order, index, value);
        self.refcount_cache.change(slot, at, &bytes[..length]);
        if value == 0 {
            self.free_index = self.free_index.min(cluster);
            if cluster == self.packed_end >> self.geometry.cluster_bits {
                self.packed_end = 0; // the cluster may hold anything from now on
            }
        }
        Ok(())
    }

    fn refcount_block_for(&mut self, cluster: u64) -> Result<u64> {
        let bits = self.geometry.refcount_block_bits;
        let index = (cluster >> bits) as usize;
        let table = self.refcount_table()?;
        match table.get(index).map(|entry| entry & REFCOUNT_OFFSET_MASK) {
            Some(block) if block != 0 => Ok(block),
            Some(_) => self.make_refcount_block(index),
            None => {
                self.grow_refcount_table(index)?;
                self.refcount_block_for(cluster)
            }
        }
    }

    /// Makes the refcount block for `index`, at best inside the range that it describes.
    fn make_refcount_block(&mut self, index: usize) -> Result<u64> {
        let bits = self.geometry.refcount_block_bits;
        let place = self.find_free(1)?;
        let describes_itself = (place >> bits) as usize == index;
        if !describes_itself && self.refcount_table()?.len() <= (place >> bits) as usize {
            self.grow_refcount_table((place >> bits) as usize)?;
            return self.refcount_block_for((index as u64) << bits);
        }
        let offset = place << self.geometry.cluster_bits;
        let mut bytes = vec![0; self.geometry.cluster as usize].into_boxed_slice();
        if describes_itself {
            let own = (place & ((1 << bits) - 1)) as usize;
            let (at, value, length) = put_refcount(&bytes, self.geometry.refcount_order, own, 1);
            bytes[at..at + length].copy_from_slice(&value[..length]);
        } else {
            self.set_refcount(place, 1)?;
            // Making the block for `place` may have made ours on the way.
            let found = self.refcount_table()?[index] & REFCOUNT_OFFSET_MASK;
            if found != 0 {
                self.set_refcount(place, 0)?;
                return Ok(found);
            }
        }
        self.file.about_to("refblock_alloc_write");
        self.file.write_at(&bytes, offset)?;
        self.note_touched(offset + self.geometry.cluster);
        self.barrier()?;
        self.file.about_to("refblock_alloc_hookup");
        self.refcount_table()?[index] = offset;
        let at = self.header.refcount_table_offset + index as u64 * 8;
        self.file.write_at(&offset.to_be_bytes(), at)?;
        if self.refcount_cache.must_write_back() {
            self.refcount_cache.write_back(&*self.file, "refblock_update_part")?;
        }
        self.refcount_cache.insert(offset, bytes);
        Ok(offset)
    }

    /// Moves the refcount table to a larger place, so that it has an entry `index`.
    fn grow_refcount_table(&mut self, index: usize) -> Result<()> {
        let geometry = self.geometry;
        let bits = geometry.refcount_block_bits;
        let old = self.refcount_table()?.clone();
        let per_cluster = geometry.cluster / 8;
        // The new table and its blocks lie behind all that the old table describes.
        let first = ((old.len() as u64) << bits).max((index as u64) << bits);
        let mut entries = ((index as u64 + 1) * 3 / 2 + 1).next_multiple_of(per_cluster);
        let (mut blocks, mut table_clusters);
        loop {
            table_clusters = entries / per_cluster;
            blocks = (table_clusters + 2).div_ceil(1 << bits).max(1);
            while blocks << bits < table_clusters + blocks {
                blocks += 1;
            }
            let needed = (first >> bits) + blocks;
            if needed <= entries {
                break;
            }
            entries = needed.next_multiple_of(per_cluster);
        }
        if entries * 8 > REFCOUNT_TABLE_BYTES_MAX {
            return Err(Errno::FBIG.into());
        }
        let mut table = old.clone();
        table.resize(entries as usize, 0);
        let used = blocks + table_clusters;
        for number in 0..blocks {
            let mut bytes = vec![0; geometry.cluster as usize];
            let base = number << bits;
            for cluster in base..used.min(base + (1 << bits)) {
                let (at, value, length) =
                    put_refcount(&bytes, geometry.refcount_order, (cluster - base) as usize, 1);
                bytes[at..at + length].copy_from_slice(&value[..length]);
            }
            let offset = (first + number) << geometry.cluster_bits;
            self.file.write_at(&bytes, offset)?;
            table[((first >> bits) + number) as usize] = offset;
        }
        let offset = (first + blocks) << geometry.cluster_bits;
        self.file.write_at(&encode_table(&table), offset)?;
        self.note_touched(offset + entries * 8);
        self.barrier()?;
        let mut fields = [0; 12];
        fields[..8].copy_from_slice(&offset.to_be_bytes());
        fields[8..].copy_from_slice(&(table_clusters as u32).to_be_bytes());
        self.file.write_at(&fields, 48)?;
        self.barrier()?;
        let (old_offset, old_clusters) =
            (self.header.refcount_table_offset, self.header.refcount_table_clusters);
        self.header.refcount_table_offset = offset;
        self.header.refcount_table_clusters = table_clusters as u32;
        self.refcount_table = Some(table);
        self.free(old_offset, u64::from(old_clusters) << geometry.cluster_bits, Freed::Other);
        Ok(())
    }

    /// The first of `count` free clusters in a row.
    fn find_free(&mut self, count: u64) -> Result<u64> {
        let order = self.geometry.refcount_order;
        let mut start = self.free_index;
        let mut found = 0;
        while found < count {
            let (slot, index, left) = self.refcounts_at(start + found)?;
            let Some(slot) = slot else {
                found += left.min(count - found); // nothing is counted there
                continue;
            };
            let block = self.refcount_cache.bytes(slot);
            for index in index..index + left.min(count - found) as usize {
                if get_refcount(block, order, index) == 0 {
                    found += 1;
                } else {
                    start += found + 1;
                    found = 0;
                    break; // the row may now reach further than was asked for
                }
            }
        }
        if (start + count) << self.geometry.cluster_bits > 1 << 56 {
            return Err(Errno::FBIG.into());
        }
        // Gaps that were too small stay behind until something is freed below them.
        self.free_index = start + count;
        Ok(start)
    }

    /// Takes clusters in a row. Their refcount is 1 when this returns.
    pub fn allocate(&mut self, bytes: u64) -> Result<u64> {
        let count = bytes.div_ceil(self.geometry.cluster);
        self.file.about_to("cluster_alloc");
        self.mark_dirty()?;
        self.reclaim(count)?;
        loop {
            let start = self.find_free(count)?;
            let bits = self.geometry.refcount_block_bits;
            let table = self.header.refcount_table_offset;
            for block in start >> bits..=(start + count.max(1) - 1) >> bits {
                self.refcount_block_for(block << bits)?;
            }
            // New refcount blocks come behind the row, but a new table may lie within it.
            if table != self.header.refcount_table_offset {
                self.free_index = start;
                continue;
            }
            self.take_row(start, count)?;
            return Ok(start << self.geometry.cluster_bits);
        }
    }

    /// Sets the refcounts of free clusters in a row to 1.
    fn take_row(&mut self, start: u64, count: u64) -> Result<()> {
        let order = self.geometry.refcount_order;
        let mut done = 0;
        while done < count {
            let (slot, index, left) = self.refcounts_at(start + done)?;
            let run = left.min(count - done);
            match slot {
                Some(slot) if order >= 3 => {
                    let width = 1usize << (order - 3);
                    let mut bytes = vec![0; run as usize * width];
                    bytes.iter_mut().skip(width - 1).step_by(width).for_each(|byte| *byte = 1);
                    self.refcount_cache.change(slot, index * width, &bytes);
                }
                _ => {
                    for cluster in start + done..start + done + run {
                        self.set_refcount(cluster, 1)?;
                    }
                }
            }
            done += run;
        }
        Ok(())
    }

    /// The slot of the block that counts a cluster (`None` without one), the place within it,
    /// and how many counts follow.
    fn refcounts_at(&mut self, cluster: u64) -> Result<(Option<usize>, usize, u64)> {
        let bits = self.geometry.refcount_block_bits;
        let index = cluster & ((1 << bits) - 1);
        let left = (1 << bits) - index;
        let table = self.refcount_table()?;
        let block = table.get((cluster >> bits) as usize).map_or(0, |e| e & REFCOUNT_OFFSET_MASK);
        let slot = if block == 0 { None } else { Some(self.refcount_slot(block)?) };
        Ok((slot, index as usize, left))
    }

    /// Calls `differs` for every cluster whose refcount is not what `expected` says, and for
    /// those that cannot be read. Returns the highest cluster in use.
    pub fn compare_refcounts(
        &mut self,
        clusters: u64,
        expected: impl Fn(u64) -> u64,
        mut differs: impl FnMut(u64, Option<u64>),
    ) -> Result<u64> {
        let order = self.geometry.refcount_order;
        let (mut at, mut highest) = (0, 0);
        while at < clusters {
            let bits = self.geometry.refcount_block_bits;
            let found = self.refcounts_at(at);
            let left = ((1u64 << bits) - (at & ((1 << bits) - 1))).min(clusters - at);
            for number in 0..left {
                let refcount = match &found {
                    Ok((Some(slot), index, _)) => {
                        let block = self.refcount_cache.bytes(*slot);
                        Some(get_refcount(block, order, index + number as usize))
                    }
                    Ok((None, ..)) => Some(0),
                    Err(_) => None,
                };
                let wanted = expected(at + number);
                if refcount != Some(0) || wanted != 0 {
                    highest = at + number;
                }
                if refcount != Some(wanted) {
                    differs(at + number, refcount);
                }
            }
            at += left;
        }
        Ok(highest)
    }

    /// Before the file grows, what was freed is made usable, if that is worth a barrier.
    fn reclaim(&mut self, count: u64) -> Result<()> {
        self.allocations_since_reclaim += 1;
        if self.pending_frees.is_empty() {
            return Ok(());
        }
        let waiting: u64 = self.pending_frees.iter().map(|(_, bytes, _)| bytes).sum();
        let worth =
            waiting >= RECLAIM_BYTES || self.allocations_since_reclaim >= RECLAIM_ALLOCATIONS;
        if !worth || (self.free_index + count) << self.geometry.cluster_bits < self.file.size() {
            return Ok(());
        }
        self.allocations_since_reclaim = 0;
        self.write_back()
    }

    /// Takes the clusters right behind `offset`, as many as are free, at most `count`.
    pub fn allocate_at(&mut self, offset: u64, count: u64) -> Result<u64> {
        let first = offset >> self.geometry.cluster_bits;
        let mut taken = 0;
        while taken < count {
            if self.refcount(first + taken)? != 0 {
                break;
            }
            self.refcount_block_for(first + taken)?;
            if self.refcount(first + taken)? != 0 {
                break; // the block itself took the place
            }
            self.set_refcount(first + taken, 1)?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Adds one user to every cluster of a range; `decrement` takes one away at once.
    pub fn change_refcounts(&mut self, offset: u64, bytes: u64, decrement: bool) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.mark_dirty()?;
        let bits = self.geometry.cluster_bits;
        for cluster in offset >> bits..=(offset + bytes - 1) >> bits {
            let refcount = self.refcount(cluster)?;
            let changed = if decrement { refcount.checked_sub(1) } else { refcount.checked_add(1) };
            match changed {
                Some(value) if value <= self.geometry.refcount_max() => {
                    self.set_refcount(cluster, value)?;
                }
                _ => return Err(Errno::INVAL.into()),
            }
        }
        Ok(())
    }

    /// Gives a range back once nothing on the medium points to it.
    pub fn free(&mut self, offset: u64, bytes: u64, what: Freed) {
        if bytes > 0 {
            self.file.about_to("cluster_free");
            self.pending_frees.push((offset, bytes, what));
        }
    }

    /// Whether frees should not wait any longer.
    pub fn has_many_frees(&self) -> bool {
        self.pending_frees.len() > PENDING_FREES_MAX
    }

    fn apply_frees(&mut self) -> Result<()> {
        for (offset, bytes, what) in std::mem::take(&mut self.pending_frees) {
            self.change_refcounts(offset, bytes, true)?;
            if what == Freed::Discarded && self.discards {
                let bits = self.geometry.cluster_bits;
                let aligned = offset.is_multiple_of(self.geometry.cluster);
                if aligned && self.refcount(offset >> bits)? == 0 {
                    self.file.discard_at(offset, bytes)?;
                }
            }
        }
        Ok(())
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
        let counted = !self.is_lazy()
            && self.refcount_cache.write_back(&*self.file, "refblock_update_part")?;
        if (counted || self.new_data) && (self.l2_cache.is_dirty() || !self.l1_dirty.is_empty()) {
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
        for unit in std::mem::take(&mut self.l1_dirty) {
            let first = unit * L1_UNIT_BYTES / 8;
            let last = (first + L1_UNIT_BYTES / 8).min(self.l1.len());
            let bytes = encode_table(&self.l1[first..last]);
            self.file.about_to("l1_update");
            self.file.write_at(&bytes, self.header.l1_offset + first as u64 * 8)?;
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
    fn mark_dirty(&mut self) -> Result<()> {
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
