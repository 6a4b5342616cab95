//! Reading: from guest ranges to places, from places to bytes.

use std::sync::Arc;

use super::geometry::{COMPRESSED, COPIED, Entry, Kind, L1_RESERVED, L2_RESERVED, OFFSET_MASK};
use super::{Qcow2, State, compress};
use crate::error::{Error, Result};
use crate::node::{Extent, Node};
use crate::notices::Hex;

/// A run of guest bytes of one kind. Plain data lies in one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub kind: Kind,
    pub length: u64,
    /// Where the run's first byte lies (plain data), or the entry's word (compressed).
    pub place: u64,
}

impl Qcow2 {
    /// The run that begins at `guest`, at most `length` bytes of it.
    pub(super) fn run(&self, state: &mut State, guest: u64, length: u64) -> Result<Run> {
        let geometry = &self.geometry;
        let table_end = (guest | (geometry.l2_span() - 1)).saturating_add(1);
        let length = length.min(table_end - guest);
        let l1_index = geometry.l1_index(guest);
        let l1_entry = state.meta.l1.get(l1_index).copied().unwrap_or(0);
        let l2_offset = l1_entry & OFFSET_MASK;
        if l2_offset == 0 {
            return Ok(Run { kind: Kind::Unallocated, length, place: 0 });
        }
        if l1_entry & L1_RESERVED != 0 || l2_offset & (geometry.cluster - 1) != 0 {
            let text =
                format!("L2 table offset {l2_offset:#x} unaligned (L1 index: {l1_index:#x})");
            return Err(self.damaged(state, text));
        }
        let slot = state.meta.l2_slot(l2_offset)?;
        let first = geometry.l2_index(guest);
        let entry = state.meta.entry(slot, first);
        let mut sub = geometry.subcluster_index(guest);
        let kind = geometry.kind(entry, sub, self.external());
        let mut run = Run { kind, length: 0, place: 0 };
        self.check_entry(state, entry, kind, guest)?;
        if kind == Kind::Compressed {
            run.place = entry.word;
            run.length = length.min(geometry.cluster - geometry.in_cluster(guest));
            return Ok(run);
        }
        let base = entry.word & OFFSET_MASK;
        run.place = base + geometry.in_cluster(guest);
        let mut index = first;
        let mut current = entry;
        run.length = geometry.subcluster - guest % geometry.subcluster;
        while run.length < length {
            sub += 1;
            if sub == geometry.subclusters {
                sub = 0;
                index += 1;
                current = state.meta.entry(slot, index);
                let expected = base + ((index - first) as u64) * geometry.cluster;
                let placed = matches!(kind, Kind::Normal | Kind::ZeroInPlace);
                let bad = current.word & COMPRESSED == 0
                    && (current.word & OFFSET_MASK) & (geometry.cluster - 1) != 0;
                if (placed && current.word & OFFSET_MASK != expected) || bad {
                    break;
                }
            }
            if geometry.kind(current, sub, self.external()) != kind {
                break;
            }
            run.length += geometry.subcluster;
        }
        run.length = run.length.min(length);
        Ok(run)
    }

    fn check_entry(&self, state: &mut State, entry: Entry, kind: Kind, guest: u64) -> Result<()> {
        let geometry = &self.geometry;
        if kind == Kind::Invalid {
            let text = format!(
                "Invalid cluster entry found  (L2 offset: {}, L2 index: {})",
                Hex(state.meta.l2_offset(geometry.l1_index(guest))),
                Hex(geometry.l2_index(guest) as u64)
            );
            return Err(self.damaged(state, text));
        }
        if kind == Kind::Compressed {
            return Ok(());
        }
        let offset = entry.word & OFFSET_MASK;
        let unaligned = offset & (geometry.cluster - 1) != 0;
        if unaligned || (self.external() && kind == Kind::Normal && entry.word & L2_RESERVED != 0) {
            let what =
                if kind.is_zero() { "Preallocated zero cluster" } else { "Cluster allocation" };
            let text = format!(
                "{what} offset {offset:#x} unaligned (L2 offset: {}, L2 index: {})",
                Hex(state.meta.l2_offset(geometry.l1_index(guest))),
                Hex(geometry.l2_index(guest) as u64)
            );
            return Err(self.damaged(state, text));
        }
        Ok(())
    }

    /// Fills `buffer` with guest data.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let guest = offset + done as u64;
            let wanted = (buffer.len() - done) as u64;
            let run = {
                let mut state = self.state.lock();
                self.run(&mut state, guest, wanted)?
            };
            let piece = &mut buffer[done..done + run.length as usize];
            self.read_run(run, piece, guest)?;
            done += run.length as usize;
        }
        Ok(())
    }

    fn read_run(&self, run: Run, piece: &mut [u8], guest: u64) -> Result<()> {
        match run.kind {
            Kind::Normal => {
                self.data().about_to("read_aio");
                self.load(piece, run.place, guest)
            }
            Kind::Zero | Kind::ZeroInPlace => {
                piece.fill(0);
                Ok(())
            }
            Kind::Unallocated | Kind::UnallocatedInPlace => self.read_backing(piece, guest),
            Kind::Compressed => {
                let cluster = self.read_compressed(run.place)?;
                let start = self.geometry.in_cluster(guest) as usize;
                piece.copy_from_slice(&cluster[start..start + piece.len()]);
                Ok(())
            }
            Kind::Invalid => Err(Error::corrupt("Invalid cluster entry found")),
        }
    }

    /// What the backing file has there; zeros without one, or beyond its end.
    pub(super) fn read_backing(&self, piece: &mut [u8], guest: u64) -> Result<()> {
        let backing = self.backing.read().clone();
        let Some(backing) = backing else {
            piece.fill(0);
            return Ok(());
        };
        let there = backing.size().saturating_sub(guest).min(piece.len() as u64) as usize;
        // Machine state behind the end of the disk has no backing.
        let (below, beyond) = piece.split_at_mut(if guest < self.size() { there } else { 0 });
        if !below.is_empty() {
            self.file.about_to("read_backing_aio");
            backing.read_at(below, guest)?;
        }
        beyond.fill(0);
        Ok(())
    }

    /// A whole cluster, from the one that was unpacked last if it is that.
    pub(super) fn read_compressed(&self, word: u64) -> Result<Arc<Vec<u8>>> {
        let (place, room) = self.geometry.compressed_place(word & !COPIED);
        if let Some((at, cluster)) = &*self.unpacked.lock()
            && *at == word
        {
            return Ok(cluster.clone());
        }
        let mut packed = vec![0; room as usize];
        self.file.about_to("read_compressed");
        self.file.read_at(&mut packed, place)?;
        let cluster =
            Arc::new(compress::unpack(self.compression, &packed, self.geometry.cluster as usize)?);
        *self.unpacked.lock() = Some((word, cluster.clone()));
        Ok(cluster)
    }

    /// A block status.
    pub(super) fn extent(&self, offset: u64, length: u64) -> Result<Extent> {
        let mut state = self.state.lock();
        let mut length_left = length;
        let mut at = offset;
        let first = self.run(&mut state, at, length_left)?;
        let mut total = first.length;
        // Runs end at tables and at compressed clusters; the answer should not.
        length_left -= first.length;
        at += first.length;
        while length_left > 0 {
            let next = self.run(&mut state, at, length_left)?;
            let follows = match (first.kind, next.kind) {
                (Kind::Normal, Kind::Normal) => next.place == first.place + total,
                (Kind::ZeroInPlace, Kind::ZeroInPlace) => next.place == first.place + total,
                (Kind::Compressed, Kind::Compressed) => false,
                (a, b) => a == b,
            };
            if !follows {
                break;
            }
            total += next.length;
            length_left -= next.length;
            at += next.length;
        }
        let in_place = matches!(first.kind, Kind::Normal | Kind::ZeroInPlace);
        let ask_below = first.kind == Kind::Normal && self.may_be_preallocated(&mut state)?;
        Ok(Extent {
            length: total,
            data: matches!(first.kind, Kind::Normal | Kind::Compressed),
            zero: first.kind.is_zero(),
            allocated: !first.kind.is_unallocated(),
            compressed: first.kind == Kind::Compressed,
            host: (in_place && self.crypt.is_none()).then_some(first.place),
            ask_below,
        })
    }

    /// Whether the file has far fewer blocks than clusters are in use: then data clusters may
    /// be holes, which is worth asking.
    fn may_be_preallocated(&self, state: &mut State) -> Result<bool> {
        if let Some(known) = state.preallocated {
            return Ok(known);
        }
        let clusters = self.file.size() / self.geometry.cluster;
        let found = match self.file.allocated_bytes() {
            Some(real) if !self.external() => {
                let real = real / self.geometry.cluster;
                clusters >= (real * 10 / 9).max(real + 2)
            }
            _ => true,
        };
        state.preallocated = Some(found);
        Ok(found)
    }
}
