//! Checking and repairing: every reference is counted anew and compared with the refcounts.

use std::collections::BTreeMap;

use super::geometry::{
    COMPRESSED, COPIED, Entry, Geometry, Kind, L1_RESERVED, L2_RESERVED, OFFSET_MASK,
};
use super::header::{be64, incompatible};
use super::metadata::{Metadata, encode_table, put_refcount};
use super::{Qcow2, State, bitmaps, snapshots};
use crate::error::Result;
use crate::info::{CheckReport, Fix};
use crate::node::Node;

/// References to clusters, counted. Numbers above 16 bits are rare and kept apart.
struct References {
    small: Vec<u16>,
    large: BTreeMap<u64, u64>,
    cluster_bits: u32,
    file_bytes: u64,
    refcount_max: u64,
}

impl References {
    fn get(&self, cluster: u64) -> u64 {
        match self.small.get(cluster as usize) {
            Some(&u16::MAX) => self.large.get(&cluster).copied().unwrap_or(u64::from(u16::MAX)),
            Some(count) => u64::from(*count),
            None => 0,
        }
    }

    fn len(&self) -> u64 {
        self.small.len() as u64
    }

    fn add_one(&mut self, cluster: u64) {
        let index = cluster as usize;
        if index >= self.small.len() {
            self.small.resize(index + 1, 0);
        }
        match &mut self.small[index] {
            count if *count < u16::MAX - 1 => *count += 1,
            count => {
                *count = u16::MAX;
                *self.large.entry(cluster).or_insert(u64::from(u16::MAX) - 1) += 1;
            }
        }
    }

    /// Counts a reference to a range of the file.
    fn add(&mut self, report: &mut CheckReport, offset: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let cluster = 1u64 << self.cluster_bits;
        let end = offset.saturating_add(bytes);
        if end > self.file_bytes && end - self.file_bytes >= cluster {
            report.messages.push(format!(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset {offset:#x} size {bytes:#x}"
            ));
            report.corruptions += 1;
            return;
        }
        for number in offset >> self.cluster_bits..=(end - 1) >> self.cluster_bits {
            if self.get(number) >= self.refcount_max {
                report.messages.push(format!(
                    "ERROR: overflow cluster offset={:#x}",
                    number << self.cluster_bits
                ));
                report.messages.push(
                    "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing".into(),
                );
                report.corruptions += 1;
                continue;
            }
            self.add_one(number);
        }
    }
}

/// Checks the whole image and repairs what `fix` allows.
pub(super) fn check(image: &Qcow2, fix: Fix) -> Result<CheckReport> {
    let mut guard = image.state.lock();
    image.drain(&mut guard);
    let state = &mut *guard;
    if image.writable() {
        state.meta.write_back_all()?;
    }
    state.meta.unordered = fix.errors || fix.leaks;
    let report = check_all(image, state, fix);
    state.meta.unordered = false;
    let report = report?;
    let clean = report.check_errors == 0 && report.corruptions == 0;
    if clean && fix.errors && image.writable() {
        let bits = state.meta.header.incompatible;
        state.meta.flush()?;
        let cleared = bits & !(incompatible::DIRTY | incompatible::CORRUPT);
        if bits != cleared {
            state.meta.set_incompatible(cleared)?;
        }
    }
    Ok(report)
}

fn check_all(image: &Qcow2, state: &mut State, fix: Fix) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let geometry = image.geometry;
    report.total_clusters = image.size().div_ceil(geometry.cluster);
    let (references, rebuild) = count(image, state, fix, &mut report)?;
    let mut broken = rebuild;
    let mut compared = report.clone();
    // What is wrong is said before anything is repaired.
    let none = Fix::default();
    let mut highest = compare(&mut state.meta, &references, none, &mut compared, &mut broken)?;
    if broken && fix.errors {
        let old_leaks = report.leaks;
        report.messages.clone_from(&compared.messages);
        report.messages.push("Rebuilding refcount structure".into());
        rebuild_refcounts(image, state, &mut report)?;
        let mut quiet = CheckReport::default();
        let (references, again) = count(image, state, Fix::default(), &mut quiet)?;
        let mut still = again;
        let mut after = CheckReport::default();
        let highest = compare(
            &mut state.meta,
            &references,
            Fix { leaks: true, errors: true },
            &mut after,
            &mut still,
        )?;
        report.leaks = old_leaks;
        report.messages.append(&mut after.messages);
        // What the first comparison found is repaired by the new structure.
        let found = compared.corruptions + compared.corruptions_fixed;
        report.corruptions_fixed = report.corruptions_fixed.max(1) + found.saturating_sub(1);
        report.corruptions = 0;
        report.image_end_offset = (highest + 1) << geometry.cluster_bits;
    } else {
        let wrong = compared.leaks > report.leaks || compared.corruptions > report.corruptions;
        if (fix.leaks || fix.errors) && wrong {
            // Counted anew, with what is repaired; the findings have been said.
            let mut repaired = CheckReport { messages: compared.messages, ..report };
            highest = compare(&mut state.meta, &references, fix, &mut repaired, &mut broken)?;
            compared = repaired;
        }
        report = compared;
        report.image_end_offset = (highest + 1) << geometry.cluster_bits;
        if broken && fix.leaks {
            report.messages.push("ERROR need to rebuild refcount structures".into());
            report.check_errors += 1;
        }
    }
    if fix.errors || fix.leaks {
        state.meta.write_back()?;
    }
    check_copied(image, state, fix, &mut report)?;
    if fix.errors {
        state.meta.write_back()?;
    }
    Ok(report)
}

/// Counts all references. Says whether the refcount structure is beyond small repairs.
fn count(
    image: &Qcow2,
    state: &mut State,
    fix: Fix,
    report: &mut CheckReport,
) -> Result<(References, bool)> {
    let geometry = image.geometry;
    let file_bytes = state.meta.file.size();
    let clusters = file_bytes.div_ceil(geometry.cluster);
    let mut references = References {
        small: vec![0; clusters as usize],
        large: BTreeMap::new(),
        cluster_bits: geometry.cluster_bits,
        file_bytes,
        refcount_max: geometry.refcount_max(),
    };
    references.add(report, 0, geometry.cluster);
    let l1 = state.meta.l1.clone();
    let place = (state.meta.header.l1_offset, l1.as_slice());
    count_tree(image, &mut state.meta, place, fix, report, &mut references, true)?;
    if image.external() && !state.snapshots.is_empty() {
        report
            .messages
            .push(format!("ERROR {} snapshots in image with data file", state.snapshots.len()));
        report.corruptions += 1;
    }
    for row in state.snapshots.clone() {
        if !row.l1_offset.is_multiple_of(geometry.cluster) {
            report.messages.push(format!(
                "ERROR snapshot {} ({}) l1_offset={:#x}: L1 table is not cluster aligned; snapshot table entry corrupted",
                row.shown.id, row.shown.name, row.l1_offset
            ));
            report.corruptions += 1;
            continue;
        }
        let Ok(l1) = snapshots::snapshot_l1(&state.meta, &row) else {
            report.messages.push(format!(
                "ERROR snapshot {} ({}) l1_size={:#x}: L1 table is too large; snapshot table entry corrupted",
                row.shown.id, row.shown.name, row.l1_entries
            ));
            report.corruptions += 1;
            continue;
        };
        let place = (row.l1_offset, l1.as_slice());
        count_tree(image, &mut state.meta, place, fix, report, &mut references, false)?;
    }
    let header = state.meta.header.clone();
    if !state.snapshots.is_empty() {
        let bytes = snapshots::table_bytes(&state.snapshots);
        references.add(report, header.snapshots_offset, bytes);
    }
    if let Some((offset, length)) = header.crypto {
        references.add(report, offset, length);
    }
    for (offset, bytes) in bitmaps::places(&state.meta, &state.bitmaps)? {
        references.add(report, offset, bytes);
    }
    let rebuild = count_refcounts(&mut state.meta, fix, report, &mut references)?;
    Ok((references, rebuild))
}

/// Counts what an L1 table reaches, and the table itself.
fn count_tree(
    image: &Qcow2,
    meta: &mut Metadata,
    (l1_offset, l1): (u64, &[u64]),
    fix: Fix,
    report: &mut CheckReport,
    references: &mut References,
    active: bool,
) -> Result<()> {
    let geometry = image.geometry;
    references.add(report, l1_offset, l1.len() as u64 * 8);
    let mut next_place = 0;
    let mut bytes = vec![0; geometry.cluster as usize];
    for entry in l1 {
        if *entry == 0 {
            continue;
        }
        if entry & L1_RESERVED != 0 {
            report.messages.push(format!("ERROR found L1 entry with reserved bits set: {entry:x}"));
            report.corruptions += 1;
        }
        let table = entry & OFFSET_MASK;
        references.add(report, table, geometry.cluster);
        if !table.is_multiple_of(geometry.cluster) {
            report.messages.push(format!(
                "ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted"
            ));
            report.corruptions += 1;
        }
        meta.file.read_at(&mut bytes, table)?;
        let mut walk = Walk { image, fix, active, table, next_place: &mut next_place };
        walk.count_table(meta, &bytes, report, references)?;
    }
    Ok(())
}

/// The walk over one L2 table.
struct Walk<'a> {
    image: &'a Qcow2,
    fix: Fix,
    active: bool,
    table: u64,
    /// Where the next cluster of an unfragmented image would lie.
    next_place: &'a mut u64,
}

impl Walk<'_> {
    fn count_table(
        &mut self,
        meta: &mut Metadata,
        bytes: &[u8],
        report: &mut CheckReport,
        references: &mut References,
    ) -> Result<()> {
        let geometry = self.image.geometry;
        for (index, raw) in bytes.chunks_exact(geometry.entry_bytes).enumerate() {
            let word = be64(raw, 0);
            let bitmap = if geometry.extended() { be64(raw, 8) } else { 0 };
            if word == 0 && bitmap == 0 {
                continue;
            }
            let entry = Entry { word, bitmap };
            if word & COMPRESSED != 0 {
                self.count_compressed(entry, index, report, references);
            } else {
                self.count_plain(meta, entry, index, report, references)?;
            }
        }
        Ok(())
    }

    fn count_compressed(
        &mut self,
        entry: Entry,
        index: usize,
        report: &mut CheckReport,
        references: &mut References,
    ) {
        let geometry = self.image.geometry;
        let mut word = entry.word;
        if word & COPIED != 0 {
            let (place, _) = geometry.compressed_place(word & !COPIED);
            report.messages.push(format!(
                "ERROR: coffset={place:#x}: copied flag must never be set for compressed clusters"
            ));
            word &= !COPIED;
            report.corruptions += 1;
        }
        if self.image.external() {
            report
                .messages
                .push(format!("ERROR compressed cluster {index} with data file, entry={word:#x}"));
            report.corruptions += 1;
            return;
        }
        if entry.bitmap != 0 {
            report.messages.push(format!(
                "ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, entry={word:#x}"
            ));
            report.corruptions += 1;
            return;
        }
        let (place, bytes) = geometry.compressed_place(word);
        references.add(report, place, bytes);
        if self.active {
            report.allocated_clusters += 1;
            report.compressed_clusters += 1;
            // Compressed clusters are fragmented by nature.
            report.fragmented_clusters += 1;
        }
    }

    fn count_plain(
        &mut self,
        meta: &mut Metadata,
        entry: Entry,
        index: usize,
        report: &mut CheckReport,
        references: &mut References,
    ) -> Result<()> {
        let geometry = self.image.geometry;
        let external = self.image.external();
        if entry.word & L2_RESERVED & !if external { OFFSET_MASK } else { 0 } != 0
            || (geometry.extended() && entry.word & 1 != 0)
        {
            report
                .messages
                .push(format!("ERROR found l2 entry with reserved bits set: {:x}", entry.word));
            report.corruptions += 1;
        }
        let place = entry.word & OFFSET_MASK;
        if place == 0 && !(external && entry.word & COPIED != 0) {
            if geometry.extended() && entry.bitmap as u32 != 0 {
                report.corruptions += 1;
                report.messages.push(
                    "ERROR: Unallocated cluster has non-zero subcluster allocation map".into(),
                );
            }
            return Ok(());
        }
        if geometry.extended() && entry.bitmap as u32 & (entry.bitmap >> 32) as u32 != 0 {
            report.corruptions += 1;
            report.messages.push(format!(
                "ERROR offset={place:x}: Allocated cluster has corrupted subcluster allocation bitmap"
            ));
        }
        if !place.is_multiple_of(geometry.cluster) {
            return self.misaligned(meta, entry, index, report);
        }
        if self.active {
            report.allocated_clusters += 1;
            if *self.next_place != 0 && place != *self.next_place {
                report.fragmented_clusters += 1;
            }
            *self.next_place = place + geometry.cluster;
        }
        if !external {
            references.add(report, place, geometry.cluster);
        }
        Ok(())
    }

    /// A preallocated zero cluster at an impossible place may become a zero cluster without one.
    fn misaligned(
        &mut self,
        meta: &mut Metadata,
        entry: Entry,
        index: usize,
        report: &mut CheckReport,
    ) -> Result<()> {
        let geometry = self.image.geometry;
        let place = entry.word & OFFSET_MASK;
        let has_data =
            (0..geometry.subclusters).any(|sub| geometry.kind(entry, sub, false) == Kind::Normal);
        if has_data {
            report.corruptions += 1;
            report.messages.push(format!(
                "ERROR offset={place:x}: Data cluster is not properly aligned; L2 entry corrupted."
            ));
            return Ok(());
        }
        let verb = if self.fix.errors { "Repairing" } else { "ERROR" };
        report.messages.push(format!(
            "{verb} offset={place:x}: Preallocated cluster is not properly aligned; L2 entry corrupted."
        ));
        if !self.fix.errors {
            report.corruptions += 1;
            return Ok(());
        }
        let zero = if geometry.extended() { 0 } else { 1 };
        let at = self.table + (index * geometry.entry_bytes) as u64;
        meta.file.write_at(&u64::to_be_bytes(zero), at)?;
        meta.forget_l2(self.table);
        report.corruptions_fixed += 1;
        Ok(())
    }
}

/// Counts the refcount table and its blocks.
fn count_refcounts(
    meta: &mut Metadata,
    _fix: Fix,
    report: &mut CheckReport,
    references: &mut References,
) -> Result<bool> {
    let geometry = meta.geometry;
    let mut rebuild = false;
    let table_bytes = u64::from(meta.header.refcount_table_clusters) << geometry.cluster_bits;
    references.add(report, meta.header.refcount_table_offset, table_bytes);
    let table = meta.refcount_table()?.clone();
    for (index, entry) in table.iter().enumerate() {
        let place = entry & !511;
        if entry & 511 != 0 {
            report
                .messages
                .push(format!("ERROR refcount table entry {index} has reserved bits set"));
            report.corruptions += 1;
            rebuild = true;
            continue;
        }
        if !place.is_multiple_of(geometry.cluster) {
            report.messages.push(format!(
                "ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted"
            ));
            report.corruptions += 1;
            rebuild = true;
            continue;
        }
        if place >= references.file_bytes {
            report.messages.push(format!("ERROR refcount block {index} is outside image"));
            report.corruptions += 1;
            rebuild = true;
            continue;
        }
        if place != 0 {
            references.add(report, place, geometry.cluster);
            let count = references.get(place >> geometry.cluster_bits);
            if count != 1 {
                report.messages.push(format!("ERROR refcount block {index} refcount={count}"));
                report.corruptions += 1;
                rebuild = true;
            }
        }
    }
    Ok(rebuild)
}

/// Compares refcounts with references. Returns the highest cluster in use.
fn compare(
    meta: &mut Metadata,
    references: &References,
    fix: Fix,
    report: &mut CheckReport,
    rebuild: &mut bool,
) -> Result<u64> {
    let mut differing = Vec::new();
    let highest = meta.compare_refcounts(
        references.len(),
        |cluster| references.get(cluster),
        |cluster, refcount| differing.push((cluster, refcount)),
    )?;
    for (cluster, refcount) in differing {
        let Some(refcount) = refcount else {
            report
                .messages
                .push(format!("Can't get refcount for cluster {cluster}: Input/output error"));
            report.check_errors += 1;
            continue;
        };
        let counted = references.get(cluster);
        let leak = refcount > counted;
        let repair = if leak { fix.leaks } else { fix.errors };
        if refcount == 0 {
            *rebuild = true;
        }
        let verb = match (repair && refcount != 0, leak) {
            (true, _) => "Repairing",
            (false, true) => "Leaked",
            (false, false) => "ERROR",
        };
        report
            .messages
            .push(format!("{verb} cluster {cluster} refcount={refcount} reference={counted}"));
        if repair && refcount != 0 {
            meta.set_refcount(cluster, counted)?;
            *if leak { &mut report.leaks_fixed } else { &mut report.corruptions_fixed } += 1;
        } else {
            *if leak { &mut report.leaks } else { &mut report.corruptions } += 1;
        }
    }
    Ok(highest)
}

/// Writes a new refcount structure behind all that is used.
fn rebuild_refcounts(image: &Qcow2, state: &mut State, report: &mut CheckReport) -> Result<()> {
    let geometry = state.meta.geometry; // its refcount width may just have changed
    let mut quiet = CheckReport::default();
    let old_table = std::mem::take(state.meta.refcount_table()?);
    // Without the old structure, what remains is what must be counted.
    let kept_clusters = std::mem::take(&mut state.meta.header.refcount_table_clusters);
    let old_first = state.meta.header.refcount_table_offset >> geometry.cluster_bits;
    let mut old: Vec<u64> = (old_first..old_first + u64::from(kept_clusters)).collect();
    let blocks = old_table.iter().map(|entry| entry & !511);
    let sound = |place: &u64| *place != 0 && place.is_multiple_of(geometry.cluster);
    old.extend(blocks.filter(sound).map(|place| place >> geometry.cluster_bits));
    old.sort_unstable();
    let counted = count(image, state, Fix::default(), &mut quiet);
    state.meta.header.refcount_table_clusters = kept_clusters;
    *state.meta.refcount_table()? = old_table;
    let (references, _) = counted?;
    // The old structure is leaked by the new one, and given back at once.
    for cluster in old.into_iter().filter(|cluster| *cluster < references.len()) {
        if references.get(cluster) == 0 {
            report.messages.push(format!("Repairing cluster {cluster} refcount=1 reference=0"));
        }
    }
    let used = (0..references.len()).rev().find(|cluster| references.get(*cluster) > 0);
    let first = used.map_or(0, |cluster| cluster + 1);
    let block_bits = geometry.refcount_block_bits;
    let per_cluster = geometry.cluster / 8;
    let (mut blocks, mut table_clusters) = (0, 0);
    loop {
        let total = first + blocks + table_clusters;
        let needed_blocks = total.div_ceil(1 << block_bits);
        let needed_table = needed_blocks.div_ceil(per_cluster);
        if needed_blocks == blocks && needed_table == table_clusters {
            break;
        }
        (blocks, table_clusters) = (needed_blocks, needed_table);
    }
    let total = first + blocks + table_clusters;
    let mut table = vec![0; (table_clusters * per_cluster) as usize];
    for block in 0..blocks {
        let bytes = rebuilt_block(&geometry, &references, block, first, total);
        let offset = (first + block) << geometry.cluster_bits;
        state.meta.file.write_at(&bytes, offset)?;
        table[block as usize] = offset;
    }
    let offset = (first + blocks) << geometry.cluster_bits;
    state.meta.file.write_at(&encode_table(&table), offset)?;
    state.meta.file.flush()?;
    let mut fields = [0; 12];
    fields[..8].copy_from_slice(&offset.to_be_bytes());
    fields[8..].copy_from_slice(&(table_clusters as u32).to_be_bytes());
    state.meta.file.write_at(&fields, 48)?;
    state.meta.file.flush()?;
    state.meta.header.refcount_table_offset = offset;
    state.meta.header.refcount_table_clusters = table_clusters as u32;
    state.meta.reload_refcounts();
    report.corruptions += quiet.corruptions;
    Ok(())
}

fn rebuilt_block(
    geometry: &Geometry,
    references: &References,
    block: u64,
    first: u64,
    total: u64,
) -> Vec<u8> {
    let mut bytes = vec![0; geometry.cluster as usize];
    let base = block << geometry.refcount_block_bits;
    for index in 0..1u64 << geometry.refcount_block_bits {
        let cluster = base + index;
        let count = if (first..total).contains(&cluster) { 1 } else { references.get(cluster) };
        if count > 0 {
            let (at, value, length) =
                put_refcount(&bytes, geometry.refcount_order, index as usize, count);
            bytes[at..at + length].copy_from_slice(&value[..length]);
        }
    }
    bytes
}

/// Checks that exactly the clusters with one user are marked as such.
fn check_copied(
    image: &Qcow2,
    state: &mut State,
    fix: Fix,
    report: &mut CheckReport,
) -> Result<()> {
    let geometry = image.geometry;
    // The flags follow the refcounts, so they are repaired only with those in order.
    let repair = fix.errors || (report.check_errors == 0 && report.corruptions == 0 && fix.leaks);
    let verb = if repair { "Repairing" } else { "ERROR" };
    let meta = &mut state.meta;
    let mut bytes = vec![0; geometry.cluster as usize];
    for index in 0..meta.l1.len() {
        let entry = meta.l1[index];
        let table = entry & OFFSET_MASK;
        if table == 0 || !table.is_multiple_of(geometry.cluster) {
            continue;
        }
        let Ok(refcount) = meta.refcount(table >> geometry.cluster_bits) else { continue };
        if (refcount == 1) != (entry & COPIED != 0) {
            report.messages.push(format!(
                "{verb} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}"
            ));
            if repair {
                let flag = if refcount == 1 { COPIED } else { 0 };
                meta.set_l1(index, entry & !COPIED | flag);
                report.corruptions_fixed += 1;
            } else {
                report.corruptions += 1;
            }
        }
        read_current(meta, table, &mut bytes)?;
        check_copied_entries(image, meta, table, &bytes, (repair, verb), report)?;
    }
    Ok(())
}

fn read_current(meta: &mut Metadata, table: u64, bytes: &mut [u8]) -> Result<()> {
    meta.write_back_l2()?;
    meta.file.read_at(bytes, table)
}

fn check_copied_entries(
    image: &Qcow2,
    meta: &mut Metadata,
    table: u64,
    bytes: &[u8],
    (repair, verb): (bool, &str),
    report: &mut CheckReport,
) -> Result<()> {
    let geometry = image.geometry;
    for (number, raw) in bytes.chunks_exact(geometry.entry_bytes).enumerate() {
        let word = be64(raw, 0);
        let place = word & OFFSET_MASK;
        if place == 0 || word & COMPRESSED != 0 || !place.is_multiple_of(geometry.cluster) {
            continue;
        }
        let refcount = if image.external() {
            1
        } else {
            match meta.refcount(place >> geometry.cluster_bits) {
                Ok(refcount) => refcount,
                Err(_) => continue,
            }
        };
        if (refcount == 1) == (word & COPIED != 0) {
            continue;
        }
        report.messages.push(format!(
            "{verb} OFLAG_COPIED data cluster: l2_entry={word:x} refcount={refcount}"
        ));
        if repair {
            let slot = meta.l2_slot(table)?;
            let mut entry = meta.entry(slot, number);
            entry.word = entry.word & !COPIED | if refcount == 1 { COPIED } else { 0 };
            meta.set_entry(slot, number, entry);
            report.corruptions_fixed += 1;
        } else {
            report.corruptions += 1;
        }
    }
    Ok(())
}

/// Writes the refcounts anew with another width.
pub(super) fn change_refcount_order(image: &Qcow2, order: u32) -> Result<()> {
    let mut guard = image.state.lock();
    image.drain(&mut guard);
    let state = &mut *guard;
    state.meta.write_back()?;
    state.meta.write_back()?;
    let mut report = CheckReport::default();
    let (references, _) = count(image, state, Fix::default(), &mut report)?;
    let limit = if order == 6 { u64::MAX } else { (1 << (1u64 << order)) - 1 };
    let highest = (0..references.len()).map(|cluster| references.get(cluster)).max().unwrap_or(0);
    if highest > limit {
        return Err(crate::error::Error::invalid(format!(
            "Cannot decrease refcount entry width to {} bits: Cluster at offset {:#x} has a refcount of {highest}",
            1u64 << order,
            (0..references.len()).find(|cluster| references.get(*cluster) == highest).unwrap_or(0)
                << image.geometry.cluster_bits
        )));
    }
    state.meta.geometry.refcount_order = order;
    state.meta.geometry.refcount_block_bits = state.meta.geometry.cluster_bits + 3 - order;
    state.meta.header.refcount_order = order;
    rebuild_refcounts(image, state, &mut report)?;
    state.meta.write_header()?;
    state.meta.flush()
}
