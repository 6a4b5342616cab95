//! Snapshots inside the image: copies of the L1 table, with one more user on every cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};
use rustix::io::Errno;

use super::geometry::{COMPRESSED, COPIED, OFFSET_MASK};
use super::header::{Header, L1_BYTES_MAX, be32, be64};
use super::metadata::{CacheSizes, Freed, Metadata, encode_table, read_table};
use super::{Qcow2, State};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef};
use crate::snapshots::{Snapshot, Snapshots};

/// What a row has before its texts.
const ROW_BYTES: usize = 40;
/// The extra data that we know: machine state bytes, disk bytes, instruction count.
const EXTRA_BYTES: u32 = 24;
/// Rows with more extra data are refused, as is a table that is larger in all.
const EXTRA_BYTES_MAX: u32 = 1024;
const TABLE_BYTES_MAX: u64 = 1024 * 65_536;

/// A row of the snapshot table.
#[derive(Clone, Debug)]
pub(super) struct SnapshotRow {
    pub l1_offset: u64,
    pub l1_entries: u32,
    pub shown: Snapshot,
    /// Extra data beyond what we know.
    unknown_extra: Vec<u8>,
}

/// Reads the snapshot table.
pub(super) fn read_rows(
    file: &dyn Node,
    header: &Header,
    lenient: bool,
) -> Result<Vec<SnapshotRow>> {
    let mut rows = Vec::new();
    let mut at = header.snapshots_offset;
    let unreadable = |error: Error| error.during("Could not read snapshots");
    for number in 0..header.snapshot_count {
        let mut fixed = [0; ROW_BYTES];
        file.read_at(&mut fixed, at).map_err(unreadable)?;
        let extra_bytes = be32(&fixed, 36);
        let (id_bytes, name_bytes) = (
            usize::from(u16::from_be_bytes([fixed[12], fixed[13]])),
            usize::from(u16::from_be_bytes([fixed[14], fixed[15]])),
        );
        if extra_bytes > EXTRA_BYTES_MAX && !lenient {
            return Err(Error::corrupt(format!(
                "Too much extra metadata in snapshot table entry {number}"
            )));
        }
        let extra_bytes = extra_bytes.min(EXTRA_BYTES_MAX) as usize;
        let mut texts = vec![0; extra_bytes + id_bytes + name_bytes];
        file.read_at(&mut texts, at + ROW_BYTES as u64).map_err(unreadable)?;
        rows.push(parse_row(&fixed, &texts, (extra_bytes, id_bytes), header.size));
        at = (at + (ROW_BYTES + texts.len()) as u64).next_multiple_of(8);
        if at - header.snapshots_offset > TABLE_BYTES_MAX {
            return Err(Error::corrupt("Snapshot table is too big"));
        }
    }
    Ok(rows)
}

fn parse_row(fixed: &[u8], texts: &[u8], (extra, id): (usize, usize), size: u64) -> SnapshotRow {
    let known = |at: usize| (extra >= at + 8).then(|| be64(texts, at));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    SnapshotRow {
        l1_offset: be64(fixed, 0),
        l1_entries: be32(fixed, 8),
        shown: Snapshot {
            id: text(&texts[extra..extra + id]),
            name: text(&texts[extra + id..]),
            vm_state_bytes: known(0).unwrap_or_else(|| u64::from(be32(fixed, 32))),
            date_seconds: be32(fixed, 16),
            date_nanoseconds: be32(fixed, 20),
            vm_clock_ns: be64(fixed, 24),
            icount: known(16).filter(|count| *count != u64::MAX),
            disk_bytes: known(8).unwrap_or(size),
        },
        unknown_extra: texts[..extra].get(EXTRA_BYTES as usize..).unwrap_or_default().to_vec(),
    }
}

/// The bytes of the table of these rows.
pub(super) fn table_bytes(rows: &[SnapshotRow]) -> u64 {
    encode_rows(rows).len() as u64
}

fn encode_rows(rows: &[SnapshotRow]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        let shown = &row.shown;
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(row.l1_offset.to_be_bytes());
        bytes.extend(row.l1_entries.to_be_bytes());
        bytes.extend((shown.id.len() as u16).to_be_bytes());
        bytes.extend((shown.name.len() as u16).to_be_bytes());
        bytes.extend(shown.date_seconds.to_be_bytes());
        bytes.extend(shown.date_nanoseconds.to_be_bytes());
        bytes.extend(shown.vm_clock_ns.to_be_bytes());
        bytes.extend(u32::try_from(shown.vm_state_bytes).unwrap_or(0).to_be_bytes());
        bytes.extend((EXTRA_BYTES + row.unknown_extra.len() as u32).to_be_bytes());
        bytes.extend(shown.vm_state_bytes.to_be_bytes());
        bytes.extend(shown.disk_bytes.to_be_bytes());
        bytes.extend(shown.icount.unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend(&row.unknown_extra);
        bytes.extend(shown.id.as_bytes());
        bytes.extend(shown.name.as_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Puts another snapshot table in place: written elsewhere first, then the header points to it.
pub(super) fn write_rows(meta: &mut Metadata, rows: &[SnapshotRow]) -> Result<()> {
    let old: Vec<u8> = encode_rows(&read_rows(&*meta.file, &meta.header, true)?);
    let bytes = encode_rows(rows);
    if bytes.len() as u64 > TABLE_BYTES_MAX {
        return Err(Errno::FBIG.into());
    }
    let place = if bytes.is_empty() { 0 } else { meta.allocate(bytes.len() as u64)? };
    if place != 0 {
        meta.file.write_at(&bytes, place)?;
        meta.note_touched(place + bytes.len() as u64);
    }
    meta.write_back()?;
    meta.barrier()?;
    let mut fields = [0; 12];
    fields[..4].copy_from_slice(&(rows.len() as u32).to_be_bytes());
    fields[4..].copy_from_slice(&place.to_be_bytes());
    meta.file.write_at(&fields, 60)?;
    meta.barrier()?;
    let old_place = meta.header.snapshots_offset;
    meta.header.snapshot_count = rows.len() as u32;
    meta.header.snapshots_offset = place;
    if old_place != 0 {
        meta.free(old_place, old.len() as u64, Freed::Other);
    }
    Ok(())
}

/// Changes the refcount of everything that an L1 table reaches.
pub(super) fn change_tree(meta: &mut Metadata, l1: &[u64], decrement: bool) -> Result<()> {
    let mut done = 0;
    let changed = change_tree_until(meta, l1, decrement, u64::MAX, &mut done);
    if changed.is_err() && !decrement {
        // Refcounts of few bits are soon full: those that were raised go down again.
        change_tree_until(meta, l1, true, done, &mut 0)?;
    }
    changed
}

/// The first `limit` changes only; `done` counts them.
fn change_tree_until(
    meta: &mut Metadata,
    l1: &[u64],
    decrement: bool,
    limit: u64,
    done: &mut u64,
) -> Result<()> {
    let geometry = meta.geometry;
    let mut change = |meta: &mut Metadata, place, bytes| {
        if *done < limit {
            meta.change_refcounts(place, bytes, decrement)?;
            *done += 1;
        }
        Ok::<_, Error>(*done < limit)
    };
    let external = meta.external_data();
    for entry in l1 {
        let table = entry & OFFSET_MASK;
        if table == 0 {
            continue;
        }
        let slot = meta.l2_slot(table)?;
        // Compared with the counters, the entries are few: a copy frees us from the cache.
        let entries: Vec<u64> = (0..1 << geometry.l2_bits)
            .map(|index| meta.entry(slot, index).word)
            .filter(|word| word & (OFFSET_MASK | COMPRESSED) != 0)
            .collect();
        for word in entries {
            if word & COMPRESSED != 0 {
                let (place, bytes) = geometry.compressed_place(word & !COPIED);
                change(meta, place, bytes)?;
            } else if !external {
                change(meta, word & OFFSET_MASK, geometry.cluster)?;
            }
        }
        if !change(meta, table, geometry.cluster)? {
            break;
        }
        if decrement && meta.refcount(table >> geometry.cluster_bits)? == 0 {
            meta.forget_l2(table);
        }
    }
    Ok(())
}

/// Makes the copied flags of the active tables agree with the refcounts.
pub(super) fn refresh_copied(meta: &mut Metadata) -> Result<()> {
    let geometry = meta.geometry;
    let external = meta.external_data();
    for index in 0..meta.l1.len() {
        let table = meta.l1[index] & OFFSET_MASK;
        if table == 0 {
            continue;
        }
        let alone = meta.refcount(table >> geometry.cluster_bits)? == 1;
        let entry = table | if alone { COPIED } else { 0 };
        if entry != meta.l1[index] {
            meta.set_l1(index, entry);
        }
        for number in 0..1usize << geometry.l2_bits {
            let slot = meta.l2_slot(table)?;
            let mut entry = meta.entry(slot, number);
            if entry.word & OFFSET_MASK == 0 || entry.word & COMPRESSED != 0 || external {
                continue;
            }
            let alone = meta.refcount((entry.word & OFFSET_MASK) >> geometry.cluster_bits)? == 1;
            let word = entry.word & !COPIED | if alone { COPIED } else { 0 };
            if word != entry.word {
                entry.word = word;
                let slot = meta.l2_slot(table)?;
                meta.set_entry(slot, number, entry);
            }
        }
    }
    Ok(())
}

/// A snapshot's L1 table, checked before it is read.
pub(super) fn snapshot_l1(meta: &Metadata, row: &SnapshotRow) -> Result<Vec<u64>> {
    let bytes = u64::from(row.l1_entries) * 8;
    if bytes > L1_BYTES_MAX {
        return Err(Error::Os(Errno::FBIG).during_text("Snapshot L1 table too large".into()));
    }
    if !row.l1_offset.is_multiple_of(meta.geometry.cluster) {
        return Err(Error::corrupt("Snapshot L1 table offset invalid"));
    }
    read_table(&*meta.file, row.l1_offset, u64::from(row.l1_entries))
}

impl Qcow2 {
    fn find_row(state: &State, id_or_name: &str) -> Option<usize> {
        let rows = &state.snapshots;
        rows.iter()
            .position(|row| row.shown.id == id_or_name)
            .or_else(|| rows.iter().position(|row| row.shown.name == id_or_name))
    }

    fn not_with_data_file(&self) -> Result<()> {
        if self.external() { Err(Errno::NOTSUP.into()) } else { Ok(()) }
    }
}

impl Snapshots for Qcow2 {
    fn list(&self) -> Vec<Snapshot> {
        self.state.lock().snapshots.iter().map(|row| row.shown.clone()).collect()
    }

    fn create(&self, snapshot: &Snapshot) -> Result<()> {
        self.not_with_data_file()?;
        let mut guard = self.state.lock();
        self.drain(&mut guard);
        let state = &mut *guard;
        let highest =
            state.snapshots.iter().filter_map(|row| row.shown.id.parse::<u64>().ok()).max();
        let id = (highest.unwrap_or(0) + 1).to_string();
        let meta = &mut state.meta;
        meta.write_back()?;
        let bytes = meta.l1.len() as u64 * 8;
        let place = if bytes == 0 { 0 } else { meta.allocate(bytes)? };
        let l1: Vec<u64> = meta.l1.iter().map(|entry| entry & !COPIED).collect();
        if place != 0 {
            meta.file.write_at(&encode_table(&l1), place)?;
            meta.note_touched(place + bytes);
        }
        change_tree(meta, &l1, false)?;
        refresh_copied(meta)?;
        meta.write_back()?;
        let mut rows = state.snapshots.clone();
        rows.push(SnapshotRow {
            l1_offset: place,
            l1_entries: l1.len() as u32,
            shown: Snapshot { id, disk_bytes: self.size(), ..snapshot.clone() },
            unknown_extra: Vec::new(),
        });
        write_rows(meta, &rows)?;
        state.snapshots = rows;
        meta.flush()
    }

    fn apply(&self, id_or_name: &str) -> Result<()> {
        self.not_with_data_file()?;
        let mut guard = self.state.lock();
        self.drain(&mut guard);
        let state = &mut *guard;
        let index = Self::find_row(state, id_or_name).ok_or(Error::Os(Errno::NOENT))?;
        let row = state.snapshots[index].clone();
        let meta = &mut state.meta;
        let l1 = snapshot_l1(meta, &row)?;
        if row.shown.disk_bytes != self.size() {
            meta.grow_l1(meta.geometry.l1_entries_for(row.shown.disk_bytes), true)?;
            meta.header.size = row.shown.disk_bytes;
            meta.file.write_at(&row.shown.disk_bytes.to_be_bytes(), 24)?;
            self.size.store(row.shown.disk_bytes, Ordering::Release);
        }
        meta.grow_l1(l1.len() as u64, true)?;
        meta.write_back()?;
        change_tree(meta, &l1, false)?;
        meta.write_back()?;
        meta.barrier()?;
        let old = meta.l1.clone();
        let mut new: Vec<u64> = l1.iter().map(|entry| entry & !COPIED).collect();
        new.resize(old.len(), 0);
        meta.forget_l1_changes();
        meta.file.write_at(&encode_table(&new), meta.header.l1_offset)?;
        meta.barrier()?;
        meta.l1 = new;
        change_tree(meta, &old, true)?;
        refresh_copied(meta)?;
        self.forget_unpacked();
        meta.flush()
    }

    fn delete(&self, id: &str) -> Result<()> {
        self.not_with_data_file()?;
        let mut guard = self.state.lock();
        self.drain(&mut guard);
        let state = &mut *guard;
        let index = Self::find_row(state, id).ok_or(Error::Os(Errno::NOENT))?;
        let mut rows = state.snapshots.clone();
        let row = rows.remove(index);
        let meta = &mut state.meta;
        let l1 = snapshot_l1(meta, &row)?;
        write_rows(meta, &rows)?;
        state.snapshots = rows;
        change_tree(meta, &l1, true)
            .and_then(|()| {
                meta.free(row.l1_offset, u64::from(row.l1_entries) * 8, Freed::Other);
                meta.write_back()
            })
            .map_err(|error| {
                crate::notices::say(&format!("qcow2_free_clusters failed: {error}"));
                let action = "Failed to free the cluster and L1 table".to_owned();
                Error::Failed { action, source: Box::new(error) }
            })?;
        refresh_copied(meta)?;
        meta.flush()
    }

    fn open(&self, id: &str) -> Result<NodeRef> {
        let mut guard = self.state.lock();
        self.drain(&mut guard);
        let index = Self::find_row(&guard, id).ok_or(Error::Os(Errno::NOENT))?;
        let row = guard.snapshots[index].clone();
        if self.writable() {
            guard.meta.write_back()?;
        }
        snapshot_l1(&guard.meta, &row)?;
        let mut header = guard.meta.header.clone();
        header.l1_offset = row.l1_offset;
        header.l1_entries = row.l1_entries;
        header.size = row.shown.disk_bytes;
        let size = header.size;
        let meta = Metadata::open(&self.file, header, &CacheSizes::DEFAULT)?;
        Ok(Arc::new(Self {
            geometry: self.geometry,
            compression: self.compression,
            writable: AtomicBool::new(false),
            discard_frees: false,
            crypt: self.crypt.clone(),
            file: self.file.clone(),
            data_file: self.data_file.clone(),
            backing: RwLock::new(self.backing()),
            size: AtomicU64::new(size),
            state: Mutex::new(State {
                meta,
                snapshots: guard.snapshots.clone(),
                bitmaps: Vec::new(),
                bitmaps_opened: false,
                in_flight: Vec::new(),
                next_flight: 0,
                frozen: true,
                preallocated: None,
            }),
            landed: Condvar::new(),
            partial: Mutex::new(()),
            unpacked: Mutex::new(None),
        }))
    }
}
