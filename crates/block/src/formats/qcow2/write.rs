//! Writing: in place where the cluster is ours alone, otherwise into a new one.
//!
//! The order within one write: clusters are taken (refcounts), data goes to them with what must
//! be copied around it, and only then do the entries change. A crash before that leaks clusters.

use parking_lot::MutexGuard;

use super::geometry::{COMPRESSED, COPIED, Entry, Kind, OFFSET_MASK};
use super::metadata::Freed;
use super::{Qcow2, State};
use crate::error::{Error, Result};
use crate::node::HostRange;
use crate::notices::Hex;

/// Up to this many bytes are copied together with the data, so that one write does.
const JOINED_BYTES_MAX: u64 = 1 << 20;

/// A write under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    id: u64,
    start: u64,
    end: u64,
    /// Entries will change.
    exclusive: bool,
}

/// Where a piece of a write goes.
enum Plan {
    InPlace { place: u64, length: u64 },
    Allocate(Allocation),
}

/// What is written: bytes of ours, or of a file that the kernel copies.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Bytes(&'a [u8]),
    Host(HostRange<'a>),
}

impl Payload<'_> {
    fn length(self) -> u64 {
        match self {
            Self::Bytes(data) => data.len() as u64,
            Self::Host(range) => range.length,
        }
    }

    /// The first bytes.
    fn part(self, length: u64) -> Self {
        match self {
            Self::Bytes(data) => Self::Bytes(&data[..length as usize]),
            Self::Host(range) => Self::Host(range.part(0, length)),
        }
    }

    fn store(self, image: &Qcow2, place: u64, guest: u64) -> Result<()> {
        match self {
            Self::Bytes(data) => image.save(data, place, guest),
            Self::Host(range) => image.data().copy_from(&range, place),
        }
    }
}

/// New clusters for a run of guest clusters.
struct Allocation {
    /// Guest start of the first cluster.
    cluster_start: u64,
    /// The clusters' place.
    host: u64,
    clusters: u64,
    /// Bytes of the write that go there.
    length: u64,
    /// The place is old: only the bitmap or the zero flag changes.
    reused: bool,
    /// The place was never written, so it reads as zeros.
    fresh: bool,
    /// Guest range that the new clusters must hold: the write and what is copied around it.
    from: u64,
    to: u64,
    /// What surrounds the write reads as zeros.
    surround_zero: bool,
}

impl Qcow2 {
    /// Waits until no conflicting write touches the range.
    pub(super) fn wait_for(
        &self,
        state: &mut MutexGuard<'_, State>,
        start: u64,
        end: u64,
        also_in_place: bool,
    ) {
        let overlaps = |flight: &Flight| {
            flight.start < end && start < flight.end && (flight.exclusive || also_in_place)
        };
        while state.in_flight.iter().any(overlaps) {
            self.landed.wait(state);
        }
    }

    fn take_off(&self, state: &mut State, start: u64, end: u64, exclusive: bool) -> u64 {
        let id = state.next_flight;
        state.next_flight += 1;
        state.in_flight.push(Flight { id, start, end, exclusive });
        id
    }

    fn land(&self, state: &mut State, id: u64) {
        state.in_flight.retain(|flight| flight.id != id);
        self.landed.notify_all();
    }

    /// Stores guest data.
    pub(super) fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            let guest = offset + done as u64;
            done += self.write_piece(Payload::Bytes(&data[done..]), guest)? as usize;
        }
        Ok(())
    }

    /// Stores whole clusters from a file of the host.
    pub(super) fn write_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        let cluster = self.geometry.cluster;
        if !offset.is_multiple_of(cluster) || !source.length.is_multiple_of(cluster) {
            return Err(Error::unsupported("Operation not supported"));
        }
        let mut done = 0;
        while done < source.length {
            let payload = Payload::Host(source.part(done, source.length - done));
            done += self.write_piece(payload, offset + done)?;
        }
        Ok(())
    }

    fn write_piece(&self, payload: Payload<'_>, guest: u64) -> Result<u64> {
        let geometry = &self.geometry;
        let table_end = (guest | (geometry.l2_span() - 1)).saturating_add(1);
        let wanted = payload.length().min(table_end - guest);
        let mut state = self.state.lock();
        let end = geometry.cluster_start(guest + wanted + geometry.cluster - 1);
        self.wait_for(&mut state, geometry.cluster_start(guest), end, false);
        self.forget_unpacked();
        super::bitmaps::note_write(&mut state, guest, wanted);
        match self.plan(&mut state, guest, wanted)? {
            Plan::InPlace { place, length } => {
                let id = self.take_off(&mut state, guest, guest + length, false);
                drop(state);
                self.data().about_to("write_aio");
                let written = payload.part(length).store(self, place, guest);
                self.land(&mut self.state.lock(), id);
                written.map(|()| length)
            }
            Plan::Allocate(allocation) => {
                let start = allocation.cluster_start;
                let end = start + allocation.clusters * geometry.cluster;
                let id = self.take_off(&mut state, start, end, true);
                drop(state);
                let written = self.fill(&allocation, payload.part(allocation.length), guest);
                let mut state = self.state.lock();
                let linked = match written {
                    Ok(()) => {
                        state.meta.new_data = true;
                        self.link(&mut state, &allocation, guest)
                    }
                    Err(error) => {
                        if !allocation.reused && !self.external() {
                            let bytes = allocation.clusters * geometry.cluster;
                            state.meta.free(allocation.host, bytes, Freed::Other);
                        }
                        Err(error)
                    }
                };
                self.land(&mut state, id);
                linked.map(|()| allocation.length)
            }
        }
    }

    pub(super) fn forget_unpacked(&self) {
        let mut unpacked = self.unpacked.lock();
        if unpacked.is_some() {
            *unpacked = None;
        }
    }

    /// The slot of an L2 table that may be changed, made or copied if need be.
    pub(super) fn l2_for_write(&self, state: &mut State, guest: u64) -> Result<usize> {
        let index = self.geometry.l1_index(guest);
        let meta = &mut state.meta;
        if index >= meta.l1.len() {
            meta.grow_l1(index as u64 + 1, false)?;
        }
        let entry = meta.l1[index];
        let old = entry & OFFSET_MASK;
        if old & (self.geometry.cluster - 1) != 0 {
            let text =
                format!("L2 table offset {old:#x} unaligned (L1 index: {})", Hex(index as u64));
            return Err(self.damaged(state, text));
        }
        if entry & COPIED != 0 {
            return meta.l2_slot(old);
        }
        let bytes = if old == 0 {
            vec![0; self.geometry.cluster as usize].into_boxed_slice()
        } else {
            let slot = meta.l2_slot(old)?;
            meta.l2_bytes(slot).to_vec().into_boxed_slice()
        };
        let place = meta.allocate(self.geometry.cluster)?;
        if place == 0 {
            return Err(self.refcounts_are_wrong(state));
        }
        let meta = &mut state.meta;
        meta.settle_refcounts()?;
        meta.note_touched(place + self.geometry.cluster);
        let slot = meta.insert_l2(place, &bytes)?;
        meta.set_l1(index, place | COPIED);
        if old != 0 {
            meta.free(old, self.geometry.cluster, Freed::Other);
        }
        Ok(slot)
    }

    fn refcounts_are_wrong(&self, state: &mut State) -> Error {
        self.damaged(state, "Preventing invalid allocation of L2 table at offset 0".into())
    }

    /// Whether `[from, to)` of the cluster can be written in place.
    fn in_place(&self, entry: Entry, from: u64, to: u64) -> bool {
        let usable = entry.word & COPIED != 0 && entry.word & COMPRESSED == 0;
        usable
            && (from / self.geometry.subcluster..=(to - 1) / self.geometry.subcluster)
                .all(|sub| self.geometry.kind(entry, sub as u32, self.external()) == Kind::Normal)
    }

    fn plan(&self, state: &mut State, guest: u64, length: u64) -> Result<Plan> {
        let geometry = &self.geometry;
        let slot = self.l2_for_write(state, guest)?;
        let first = geometry.l2_index(guest);
        let from = geometry.in_cluster(guest);
        let clusters = (from + length).div_ceil(geometry.cluster);
        let part = |number: u64| {
            let start = if number == 0 { from } else { 0 };
            let end = (from + length - number * geometry.cluster).min(geometry.cluster);
            (start, end)
        };
        let entry = state.meta.entry(slot, first);
        let base = entry.word & OFFSET_MASK;
        if entry.word & COMPRESSED == 0 && base & (geometry.cluster - 1) != 0 {
            let text = format!(
                "Cluster allocation offset {base:#x} unaligned (guest offset: {})",
                Hex(guest)
            );
            return Err(self.damaged(state, text));
        }
        let keeps_place = |entry: Entry| {
            entry.word & COMPRESSED == 0
                && entry.word & COPIED != 0
                && entry.word & OFFSET_MASK != 0
        };
        let (start, end) = part(0);
        // Places that are ours alone are written where they are; what is zero or unallocated
        // there only changes its entry afterwards.
        let mut all_in_place = self.in_place(entry, start, end);
        let reused = all_in_place || keeps_place(entry);
        let mut count = 1;
        while count < clusters {
            let next = state.meta.entry(slot, first + count as usize);
            let (start, end) = part(count);
            let in_place = self.in_place(next, start, end);
            let follows = next.word & OFFSET_MASK == base + count * geometry.cluster;
            if reused != (in_place || keeps_place(next)) || (reused && !follows) {
                break;
            }
            all_in_place &= in_place;
            count += 1;
        }
        if all_in_place {
            let length = length.min(count * geometry.cluster - from);
            return Ok(Plan::InPlace { place: base + from, length });
        }
        let length = length.min(count * geometry.cluster - from);
        self.allocate(state, slot, guest, length, count, reused.then_some(base)).map(Plan::Allocate)
    }

    fn allocate(
        &self,
        state: &mut State,
        slot: usize,
        guest: u64,
        length: u64,
        clusters: u64,
        reuse: Option<u64>,
    ) -> Result<Allocation> {
        let geometry = &self.geometry;
        let cluster_start = geometry.cluster_start(guest);
        let bytes = clusters * geometry.cluster;
        let first = geometry.l2_index(guest);
        let (from, to) = self.copied_range(state, slot, guest, length, reuse.is_some());
        let host = match reuse {
            Some(host) => host,
            None if self.external() => cluster_start,
            None => state.meta.allocate(bytes)?,
        };
        if host == 0 && !self.external() {
            let text = "Preventing invalid allocation of data cluster at offset 0";
            return Err(self.damaged(state, text.into()));
        }
        let fresh = reuse.is_none() && host >= state.meta.untouched_from;
        let end = host + bytes;
        state.meta.untouched_from = state.meta.untouched_from.max(end);
        let entries =
            [first, first + clusters as usize - 1].map(|index| state.meta.entry(slot, index));
        let surround_zero = self.reads_zero(entries[0], from, guest)?
            && self.reads_zero(entries[1], guest + length, to)?;
        Ok(Allocation {
            cluster_start,
            host,
            clusters,
            length,
            reused: reuse.is_some(),
            fresh,
            from,
            to,
            surround_zero,
        })
    }

    /// The guest range that new clusters must hold: whole subclusters, and all that the old
    /// clusters had when they are left behind.
    fn copied_range(
        &self,
        state: &State,
        slot: usize,
        guest: u64,
        length: u64,
        reused: bool,
    ) -> (u64, u64) {
        let geometry = &self.geometry;
        let end = guest + length;
        let mut from = guest - guest % geometry.subcluster;
        let mut to = end.next_multiple_of(geometry.subcluster);
        if reused {
            // Others may be writing next to us in what is data already: that stays untouched.
            let ends = [
                (guest, end.min(geometry.cluster_start(guest) + geometry.cluster)),
                (geometry.cluster_start(end - 1).max(guest), end),
            ];
            let in_place = ends.map(|(start, end)| {
                let entry = state.meta.entry(slot, geometry.l2_index(start));
                let within = geometry.in_cluster(start);
                self.in_place(entry, within, within + (end - start))
            });
            return (if in_place[0] { guest } else { from }, if in_place[1] { end } else { to });
        }
        if !geometry.extended() {
            return (from, to);
        }
        let index = |at: u64| geometry.l2_index(at);
        let leaves_data =
            |entry: Entry| entry.word & COMPRESSED != 0 || entry.bitmap & u64::from(u32::MAX) != 0;
        if leaves_data(state.meta.entry(slot, index(guest))) {
            from = geometry.cluster_start(guest);
            if geometry.cluster_start(end - 1) == from {
                to = from + geometry.cluster;
            }
        }
        if leaves_data(state.meta.entry(slot, index(end - 1))) {
            to = geometry.cluster_start(end - 1) + geometry.cluster;
        }
        (from, to)
    }

    /// Whether a part of one cluster is known to read as zeros without reading it.
    fn reads_zero(&self, entry: Entry, from: u64, to: u64) -> Result<bool> {
        let geometry = &self.geometry;
        let mut at = from;
        while at < to {
            let sub = geometry.subcluster_index(at);
            let next = (at - at % geometry.subcluster + geometry.subcluster).min(to);
            match geometry.kind(entry, sub, self.external()) {
                Kind::Zero | Kind::ZeroInPlace => {}
                kind if kind.is_unallocated() => {
                    let backing = self.backing.read().clone();
                    if let Some(backing) = backing
                        && at < backing.size()
                    {
                        let found = crate::node::status_above(&backing, None, at, next - at)?;
                        if !found.extent.zero
                            || found.extent.length < (next - at).min(backing.size() - at)
                        {
                            return Ok(false);
                        }
                    }
                }
                _ => return Ok(false),
            }
            at = next;
        }
        Ok(true)
    }

    /// Writes data and its surroundings into new clusters.
    fn fill(&self, allocation: &Allocation, payload: Payload<'_>, guest: u64) -> Result<()> {
        let place = |at: u64| allocation.host + (at - allocation.cluster_start);
        let end = guest + allocation.length;
        let (head, tail) = (guest - allocation.from, allocation.to - end);
        self.data().about_to("write_aio");
        if head == 0 && tail == 0 {
            return payload.store(self, place(guest), guest);
        }
        let Payload::Bytes(data) = payload else {
            return Err(Error::unsupported("Operation not supported")); // not a whole cluster
        };
        // What was never written decrypts to noise, not to zeros.
        if allocation.fresh && allocation.surround_zero && self.crypt.is_none() {
            return self.data().write_at(data, place(guest));
        }
        let copied = !allocation.surround_zero;
        if head + tail + allocation.length <= JOINED_BYTES_MAX {
            let mut joined = vec![0; (head + tail + allocation.length) as usize];
            let (before, rest) = joined.split_at_mut(head as usize);
            let (middle, after) = rest.split_at_mut(data.len());
            middle.copy_from_slice(data);
            if copied {
                self.file.about_to("cow_read");
                self.read(before, allocation.from)?;
                self.read(after, end)?;
            }
            if copied {
                self.data().about_to("cow_write");
            }
            return self.save(&joined, place(allocation.from), allocation.from);
        }
        self.save(data, place(guest), guest)?;
        for (start, length) in [(allocation.from, head), (end, tail)] {
            let mut piece = vec![0; length as usize];
            if copied {
                self.read(&mut piece, start)?;
            }
            if !piece.is_empty() {
                self.save(&piece, place(start), start)?;
            }
        }
        Ok(())
    }

    /// Points the entries to the new clusters and gives the old ones back.
    fn link(&self, state: &mut State, allocation: &Allocation, guest: u64) -> Result<()> {
        let geometry = self.geometry;
        let slot = self.l2_for_write(state, guest)?;
        let first = geometry.l2_index(guest);
        for number in 0..allocation.clusters {
            let start = allocation.cluster_start + number * geometry.cluster;
            let index = first + number as usize;
            let old = state.meta.entry(slot, index);
            let word = (allocation.host + number * geometry.cluster) | COPIED;
            let mut new = Entry { word, bitmap: 0 };
            if geometry.extended() {
                let from = allocation.from.max(start) - start;
                let to = allocation.to.min(start + geometry.cluster) - start;
                let (first_sub, last_sub) =
                    (from / geometry.subcluster, (to - 1) / geometry.subcluster);
                let written = (first_sub..=last_sub).fold(0, |bits, sub| bits | 1u64 << sub);
                let kept = if old.word & COMPRESSED == 0 { old.bitmap } else { 0 };
                new.bitmap = kept & !(written << 32) | written;
            }
            state.meta.set_entry(slot, index, new);
            if !allocation.reused {
                self.free_entry(state, old, Freed::Other);
            }
        }
        if state.meta.has_many_frees() {
            state.meta.write_back()?;
        }
        Ok(())
    }

    /// Gives back what an entry pointed to.
    pub(super) fn free_entry(&self, state: &mut State, entry: Entry, what: Freed) {
        let geometry = &self.geometry;
        if entry.word & COMPRESSED != 0 {
            let (place, bytes) = geometry.compressed_place(entry.word);
            state.meta.free(place, bytes, Freed::Other);
            return;
        }
        let place = entry.word & OFFSET_MASK;
        if self.external() {
            // The data file keeps its place; only the guest's discards reach it.
            if what == Freed::Discarded && self.discard_frees && entry.word & COPIED != 0 {
                _ = self.data().discard_at(place, geometry.cluster); // a hint
            }
        } else if place != 0 {
            state.meta.free(place, geometry.cluster, what);
        }
    }

    /// An error while nothing may be written.
    pub(super) fn refuse_frozen(&self, state: &State) -> Result<()> {
        if state.frozen { Err(Error::unsupported("A snapshot cannot be changed")) } else { Ok(()) }
    }

    /// Waits until no write is under way at all.
    pub(super) fn drain(&self, state: &mut MutexGuard<'_, State>) {
        while !state.in_flight.is_empty() {
            self.landed.wait(state);
        }
    }
}
