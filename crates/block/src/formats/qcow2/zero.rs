//! Zeros without data, and discards.

use super::geometry::{COMPRESSED, COPIED, Entry, Kind, OFFSET_MASK, ZERO};
use super::metadata::Freed;
use super::{Qcow2, State};
use crate::error::{Error, Result};
use crate::node::{Node, Zeroing, write_zeros};

/// All subclusters zero, none allocated.
const ALL_ZERO: u64 = (u32::MAX as u64) << 32;

impl Qcow2 {
    /// Makes a range zero: whole subclusters by their entries, the rest by writing.
    pub(super) fn zero(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        let unit = self.geometry.subcluster;
        let end = offset + length;
        let first = offset.next_multiple_of(unit).min(end);
        // The last cluster may end behind the disk.
        let last = if end >= self.size() { end } else { (end - end % unit).max(first) };
        self.zero_part(offset, first, zeroing)?;
        if last > first {
            match self.zero_whole(first, last - first, zeroing) {
                Err(Error::Unsupported { .. }) => write_zeros(self, first, last - first)?,
                done => done?,
            }
        }
        self.zero_part(last, end, zeroing)
    }

    /// A part of a subcluster. When all the rest of it is zero anyway, the whole is.
    fn zero_part(&self, from: u64, to: u64, zeroing: Zeroing) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let unit = self.geometry.subcluster;
        let start = from - from % unit;
        let end = (start + unit).min(self.size());
        if self.geometry.zero_flag
            && self.range_is_zero(start, from)?
            && self.range_is_zero(to, end)?
        {
            match self.zero_whole(start, end - start, zeroing) {
                Err(Error::Unsupported { .. }) => {}
                done => return done,
            }
        }
        write_zeros(self, from, to - from)
    }

    /// Whether a range reads as zeros as far as tables tell.
    fn range_is_zero(&self, from: u64, to: u64) -> Result<bool> {
        let mut at = from;
        while at < to {
            let run = {
                let mut state = self.state.lock();
                self.run(&mut state, at, to - at)?
            };
            let zero = match run.kind {
                Kind::Zero | Kind::ZeroInPlace => true,
                kind if kind.is_unallocated() => self.backing_is_zero(at, run.length)?,
                _ => false,
            };
            if !zero {
                return Ok(false);
            }
            at += run.length;
        }
        Ok(true)
    }

    fn backing_is_zero(&self, at: u64, length: u64) -> Result<bool> {
        let Some(backing) = self.backing() else { return Ok(true) };
        if at >= backing.size() {
            return Ok(true);
        }
        let length = length.min(backing.size() - at);
        let found = crate::node::status_above(&backing, None, at, length)?;
        Ok(found.extent.zero && found.extent.length >= length)
    }

    /// Whole subclusters, by their entries. [`Error::Unsupported`] where only writing helps.
    pub(super) fn zero_whole(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        let geometry = self.geometry;
        let unit = geometry.subcluster;
        let end = offset + length;
        if !offset.is_multiple_of(unit) || (!end.is_multiple_of(unit) && end < self.size()) {
            return Err(Error::unsupported("Operation not supported"));
        }
        if !geometry.zero_flag && self.backing().is_some() {
            return Err(Error::unsupported("Operation not supported"));
        }
        let raw_data = self.external() && self.state.lock().meta.header.data_file_raw();
        if raw_data {
            // Readers of the data file alone must see the zeros, too.
            self.data().zero_at(offset, length, zeroing)?;
        }
        let end = end.next_multiple_of(unit);
        let mut at = offset;
        while at < end {
            let next = (geometry.cluster_start(at) + geometry.cluster).min(end);
            let mut state = self.state.lock();
            self.wait_for(&mut state, at, next, true);
            self.forget_unpacked();
            super::bitmaps::note_write(&mut state, at, next - at);
            self.zero_in_cluster(&mut state, at, next, zeroing)?;
            at = next;
        }
        let mut state = self.state.lock();
        if state.meta.has_many_frees() {
            state.meta.write_back()?;
        }
        Ok(())
    }

    fn zero_in_cluster(
        &self,
        state: &mut State,
        from: u64,
        to: u64,
        zeroing: Zeroing,
    ) -> Result<()> {
        let geometry = self.geometry;
        let whole = to - from == geometry.cluster;
        if self.needs_nothing(state, from)? {
            return Ok(());
        }
        let slot = self.l2_for_write(state, from)?;
        let index = geometry.l2_index(from);
        let old = state.meta.entry(slot, index);
        if !geometry.zero_flag {
            // Version 2 has no zero flag: without a backing file an empty entry does.
            if old.word & OFFSET_MASK == 0 && old.word & COMPRESSED == 0 {
                return Ok(());
            }
            if zeroing == Zeroing::Keep {
                return Err(Error::unsupported("Operation not supported"));
            }
            state.meta.set_entry(slot, index, Entry::default());
            self.free_entry(state, old, Freed::Discarded);
            return Ok(());
        }
        if geometry.extended() && !whole {
            return self.zero_subclusters(state, slot, index, old, (from, to));
        }
        let compressed = old.word & COMPRESSED != 0;
        let placed = old.word & OFFSET_MASK != 0 && !compressed;
        let drop_place = compressed || (zeroing == Zeroing::Unmap && placed && !self.external());
        let kept = if drop_place { 0 } else { old.word & (OFFSET_MASK | COPIED) };
        let new = if geometry.extended() {
            Entry { word: kept, bitmap: ALL_ZERO }
        } else {
            Entry { word: kept | ZERO, bitmap: 0 }
        };
        if new != old {
            state.meta.set_entry(slot, index, new);
            if drop_place {
                self.free_entry(state, old, Freed::Discarded);
            }
        }
        Ok(())
    }

    /// Without an L2 table and without a backing file there are zeros already.
    fn needs_nothing(&self, state: &mut State, guest: u64) -> Result<bool> {
        let index = self.geometry.l1_index(guest);
        Ok(state.meta.l2_offset(index) == 0
            && self.backing.read().is_none()
            && !self.geometry.zero_flag)
    }

    fn zero_subclusters(
        &self,
        state: &mut State,
        slot: usize,
        index: usize,
        old: Entry,
        (from, to): (u64, u64),
    ) -> Result<()> {
        if old.word & COMPRESSED != 0 {
            return Err(Error::unsupported("Operation not supported"));
        }
        let geometry = &self.geometry;
        let first = geometry.subcluster_index(from);
        let last = geometry.subcluster_index(to - 1);
        let bits = (first..=last).fold(0, |bits, sub| bits | 1u64 << sub);
        let bitmap = old.bitmap & !bits | bits << 32;
        state.meta.set_entry(slot, index, Entry { word: old.word, bitmap });
        Ok(())
    }

    /// Gives up whole clusters of a range; the rest keeps its contents.
    pub(super) fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let cluster = self.geometry.cluster;
        let end = offset + length;
        let first = offset.next_multiple_of(cluster);
        let last =
            if end >= self.size() { end.next_multiple_of(cluster) } else { end - end % cluster };
        let mut at = first;
        while at < last {
            let mut state = self.state.lock();
            if state.meta.l2_offset(self.geometry.l1_index(at)) == 0
                && self.backing.read().is_none()
            {
                at = (at | (self.geometry.l2_span() - 1)) + 1; // nothing in this table
                continue;
            }
            self.wait_for(&mut state, at, at + cluster, true);
            self.forget_unpacked();
            super::bitmaps::note_write(&mut state, at, cluster);
            self.discard_cluster(&mut state, at)?;
            if state.meta.has_many_frees() {
                state.meta.write_back()?;
            }
            at += cluster;
        }
        Ok(())
    }

    fn discard_cluster(&self, state: &mut State, guest: u64) -> Result<()> {
        let geometry = self.geometry;
        let slot = self.l2_for_write(state, guest)?;
        let index = geometry.l2_index(guest);
        let old = state.meta.entry(slot, index);
        let has_place = old.word & (OFFSET_MASK | COMPRESSED) != 0;
        let has_backing = self.backing.read().is_some();
        // Version 2 has nothing that hides the backing file: the data stays.
        if has_backing && !geometry.zero_flag || !has_place && !has_backing {
            return Ok(());
        }
        // What was discarded must not show the backing file again.
        let new = match (geometry.zero_flag, geometry.extended()) {
            (_, true) => Entry { word: 0, bitmap: ALL_ZERO },
            (true, false) => Entry { word: ZERO, bitmap: 0 },
            (false, false) => Entry::default(),
        };
        if new == old {
            return Ok(());
        }
        state.meta.set_entry(slot, index, new);
        self.free_entry(state, old, Freed::Discarded);
        Ok(())
    }
}
