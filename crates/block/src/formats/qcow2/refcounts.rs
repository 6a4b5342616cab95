//! Refcounts: which clusters are in use, taking them and giving them back.

use rustix::io::Errno;

use super::header::REFCOUNT_TABLE_BYTES_MAX;
use super::header::incompatible;
use super::metadata::{
    Freed, Metadata, PENDING_FREES_MAX, encode_table, get_refcount, put_refcount, read_table,
};
use crate::error::{Error, Result};
use crate::notices::Hex;

/// Freed bytes worth a barrier before the file grows, and how many allocations a smaller gain waits.
const RECLAIM_BYTES: u64 = 1 << 20;
pub(super) const RECLAIM_ALLOCATIONS: u32 = 64;
/// Bits of a refcount table entry that hold the offset.
const REFCOUNT_OFFSET_MASK: u64 = !511;

impl Metadata {
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

    /// A damaged refcount table: the image is marked, where that is possible.
    fn damaged_refcounts(&mut self, block: u64, index: u64) -> Error {
        let text = format!("Refblock offset {block:#x} unaligned (reftable index: {})", Hex(index));
        if !self.corrupt_said {
            self.corrupt_said = true;
            crate::notices::say(&format!(
                "qcow2: Marking image as corrupt: {text}; further corruption events will be suppressed"
            ));
        }
        if self.geometry.zero_flag && self.file.writable() {
            // The finding matters more than a failure to write it down.
            _ = self.set_incompatible(self.header.incompatible | incompatible::CORRUPT);
        }
        Error::corrupt(text)
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
        if block & (self.geometry.cluster - 1) != 0 {
            return Err(self.damaged_refcounts(block, cluster >> bits));
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
        let at = self.header.refcount_table_offset + index as u64 * 8;
        self.file.write_at(&offset.to_be_bytes(), at)?;
        // Only what the file has counts: a block that no table knows would be lost with all it has.
        self.refcount_table()?[index] = offset;
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
        let (old_offset, old_clusters) =
            (self.header.refcount_table_offset, self.header.refcount_table_clusters);
        self.header.refcount_table_offset = offset;
        self.header.refcount_table_clusters = table_clusters as u32;
        self.refcount_table = Some(table);
        // From here on the new table is the one; without the barrier the old one is only leaked.
        self.barrier()?;
        self.free(old_offset, u64::from(old_clusters) << geometry.cluster_bits, Freed::Other);
        Ok(())
    }

    /// The first of `count` free clusters in a row.
    fn find_free(&mut self, count: u64) -> Result<u64> {
        let order = self.geometry.refcount_order;
        let mut start = self.free_index;
        let mut found = 0;
        while found < count {
            let (slot, index, left) = self.sound_refcounts_at(start + found)?;
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

    /// The same for who is going to rely on it: a table that points to no block marks the image.
    fn sound_refcounts_at(&mut self, cluster: u64) -> Result<(Option<usize>, usize, u64)> {
        let index = cluster >> self.geometry.refcount_block_bits;
        let table = self.refcount_table()?;
        let block = table.get(index as usize).map_or(0, |entry| entry & REFCOUNT_OFFSET_MASK);
        if !block.is_multiple_of(self.geometry.cluster) {
            return Err(self.damaged_refcounts(block, index));
        }
        self.refcounts_at(cluster)
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
        let first = offset >> bits;
        for cluster in first..=(offset + bytes - 1) >> bits {
            if let Err(error) = self.change_refcount(cluster, decrement) {
                for before in (first..cluster).filter(|_| !decrement) {
                    self.change_refcount(before, true)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn change_refcount(&mut self, cluster: u64, decrement: bool) -> Result<()> {
        let refcount = self.refcount(cluster)?;
        let changed = if decrement { refcount.checked_sub(1) } else { refcount.checked_add(1) };
        let value = changed.filter(|value| *value <= self.geometry.refcount_max());
        self.set_refcount(cluster, value.ok_or(Errno::INVAL)?)
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

    pub(super) fn apply_frees(&mut self) -> Result<()> {
        // In order, one by one: what fails may have been done in part, and is leaked at worst.
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
}
