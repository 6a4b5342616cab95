//! Persistent dirty bitmaps: a directory, a table for each bitmap, clusters of bits.
//!
//! While an image is open for writing, bitmaps that follow writes are marked in use, so that a
//! crash shows; they are stored when the image is closed.

use std::sync::atomic::Ordering;

use super::header::{AUTOCLEAR_BITMAPS, BitmapsExtension, be32, be64};
use super::metadata::{Freed, Metadata, encode_table, read_table};
use super::{Qcow2, State};
use crate::bitmaps::{BitmapInfo, Bitmaps};
use crate::error::{Error, Result};

/// More bitmaps are refused by every reader.
pub const BITMAPS_MAX: u32 = 65_535;
/// A directory row takes up to this many bytes.
const ROW_BYTES_MAX: u64 = 24 + 1023 + 1024;
/// A larger directory is refused.
pub const DIRECTORY_BYTES_MAX: u64 = BITMAPS_MAX as u64 * ROW_BYTES_MAX;
/// What a directory row has before its texts.
const ROW_BYTES: usize = 24;
const NAME_BYTES_MAX: usize = 1023;
/// A table with more entries is refused.
const TABLE_ENTRIES_MAX: u64 = 0x0800_0000;
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;
const IN_USE: u32 = 1 << 0;
const AUTO: u32 = 1 << 1;
/// A table entry for a cluster of ones, without a place.
const ALL_ONES: u64 = 1;
const TABLE_OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// A bitmap of the directory.
#[derive(Clone, Debug)]
pub(super) struct Bitmap {
    name: String,
    table_offset: u64,
    table_entries: u32,
    in_use: bool,
    auto: bool,
    granularity_bits: u8,
    extra: Vec<u8>,
    /// The bits, while they are in memory: 64 in a word, in order of granules.
    bits: Option<Vec<u64>>,
}

impl Bitmap {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let flags = if self.in_use { IN_USE } else { 0 } | if self.auto { AUTO } else { 0 };
        bytes.extend(self.table_offset.to_be_bytes());
        bytes.extend(self.table_entries.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend([1, self.granularity_bits]); // 1: dirty tracking
        bytes.extend((self.name.len() as u16).to_be_bytes());
        bytes.extend((self.extra.len() as u32).to_be_bytes());
        bytes.extend(&self.extra);
        bytes.extend(self.name.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }

    /// Its contents were lost in a crash.
    pub fn is_broken(&self) -> bool {
        self.in_use && self.bits.is_none()
    }

    fn granules(&self, size: u64) -> u64 {
        size.div_ceil(1 << self.granularity_bits)
    }

    fn set(&mut self, offset: u64, length: u64) {
        let granularity = self.granularity_bits;
        let Some(bits) = &mut self.bits else { return };
        if length == 0 {
            return;
        }
        for granule in offset >> granularity..=(offset + length - 1) >> granularity {
            if let Some(word) = bits.get_mut((granule / 64) as usize) {
                *word |= 1 << (granule % 64);
            }
        }
    }
}

/// Reads the directory of an image, if it has one.
pub(super) fn read_directory(meta: &mut Metadata) -> Result<Vec<Bitmap>> {
    let Some(extension) = meta.header.bitmaps else { return Ok(Vec::new()) };
    let mut bytes = vec![0; extension.directory_bytes as usize];
    meta.file
        .read_at(&mut bytes, extension.directory_offset)
        .map_err(|error| error.during("Failed to read bitmap directory"))?;
    let broken = || Error::invalid("Broken bitmap directory");
    let mut bitmaps = Vec::new();
    let mut at = 0;
    while at + ROW_BYTES <= bytes.len() {
        let row = &bytes[at..];
        let (name_bytes, extra_bytes) =
            (usize::from(u16::from_be_bytes([row[18], row[19]])), be32(row, 20) as usize);
        let end = ROW_BYTES.checked_add(extra_bytes).map(|end| end + name_bytes);
        let end = end.filter(|end| *end <= row.len()).ok_or_else(broken)?;
        let flags = be32(row, 12);
        let bitmap = Bitmap {
            name: String::from_utf8_lossy(&row[ROW_BYTES + extra_bytes..end]).into_owned(),
            table_offset: be64(row, 0),
            table_entries: be32(row, 8),
            in_use: flags & IN_USE != 0,
            auto: flags & AUTO != 0,
            granularity_bits: row[17],
            extra: row[ROW_BYTES..ROW_BYTES + extra_bytes].to_vec(),
            bits: None,
        };
        let cluster = meta.geometry.cluster;
        let sound = row[16] == 1
            && name_bytes > 0
            && name_bytes <= NAME_BYTES_MAX
            && GRANULARITY_BITS.contains(&bitmap.granularity_bits)
            && bitmap.table_offset.is_multiple_of(cluster)
            && u64::from(bitmap.table_entries) <= TABLE_ENTRIES_MAX;
        if !sound {
            return Err(broken());
        }
        bitmaps.push(bitmap);
        at += end.next_multiple_of(8);
    }
    if bitmaps.len() != extension.count as usize {
        return Err(broken());
    }
    Ok(bitmaps)
}

/// Everything that bitmaps occupy, for a check: offset and bytes.
pub(super) fn places(meta: &Metadata, bitmaps: &[Bitmap]) -> Result<Vec<(u64, u64)>> {
    let mut places = Vec::new();
    if let Some(extension) = meta.header.bitmaps {
        places.push((extension.directory_offset, extension.directory_bytes));
    }
    for bitmap in bitmaps {
        places.push((bitmap.table_offset, u64::from(bitmap.table_entries) * 8));
        let table = read_table(&*meta.file, bitmap.table_offset, bitmap.table_entries.into())?;
        let data = table.iter().map(|entry| entry & TABLE_OFFSET_MASK).filter(|place| *place != 0);
        places.extend(data.map(|place| (place, meta.geometry.cluster)));
    }
    Ok(places)
}

/// Reads a bitmap's bits into memory.
fn load(meta: &Metadata, bitmap: &mut Bitmap) -> Result<()> {
    if bitmap.bits.is_some() {
        return Ok(());
    }
    let words = bitmap.granules(meta.header.size).div_ceil(64) as usize;
    let cluster = meta.geometry.cluster as usize;
    let needed = (words * 8).div_ceil(cluster);
    if (bitmap.table_entries as usize) < needed {
        return Err(Error::corrupt(format!(
            "Bitmap '{}' has a table that is too small",
            bitmap.name
        )));
    }
    let table = read_table(&*meta.file, bitmap.table_offset, needed as u64)?;
    let mut bits = vec![0u64; words];
    for (entry, chunk) in table.iter().zip(bits.chunks_mut(cluster / 8)) {
        let place = entry & TABLE_OFFSET_MASK;
        if place == 0 {
            chunk.fill(if entry & ALL_ONES != 0 { u64::MAX } else { 0 });
            continue;
        }
        let mut bytes = vec![0; chunk.len() * 8];
        meta.file.read_at(&mut bytes, place)?;
        for (word, bytes) in chunk.iter_mut().zip(bytes.chunks_exact(8)) {
            // Bits are numbered from the lowest bit of the lowest byte.
            *word = be64(bytes, 0).swap_bytes();
        }
    }
    bitmap.bits = Some(bits);
    Ok(())
}

/// Frees a bitmap's clusters and table.
fn free_storage(meta: &mut Metadata, bitmap: &mut Bitmap) -> Result<()> {
    let cluster = meta.geometry.cluster;
    let table = read_table(&*meta.file, bitmap.table_offset, bitmap.table_entries.into())?;
    for place in table.iter().map(|entry| entry & TABLE_OFFSET_MASK).filter(|place| *place != 0) {
        meta.free(place, cluster, Freed::Other);
    }
    meta.free(bitmap.table_offset, u64::from(bitmap.table_entries) * 8, Freed::Other);
    bitmap.table_offset = 0;
    bitmap.table_entries = 0;
    Ok(())
}

/// Writes a bitmap's bits to new clusters.
fn store_bits(meta: &mut Metadata, bitmap: &mut Bitmap) -> Result<()> {
    let Some(bits) = bitmap.bits.clone() else { return Ok(()) };
    if bitmap.table_offset != 0 {
        free_storage(meta, bitmap)?;
    }
    let cluster = meta.geometry.cluster;
    let words = cluster as usize / 8;
    let mut table = Vec::new();
    for chunk in bits.chunks(words) {
        if chunk.iter().all(|word| *word == 0) {
            table.push(0);
            continue;
        }
        let mut bytes: Vec<u8> = chunk.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(cluster as usize, 0);
        let place = meta.allocate(cluster)?;
        meta.file.write_at(&bytes, place)?;
        meta.note_touched(place + cluster);
        table.push(place);
    }
    let bytes = encode_table(&table);
    bitmap.table_entries = table.len() as u32;
    if bytes.is_empty() {
        return Ok(());
    }
    bitmap.table_offset = meta.allocate(bytes.len() as u64)?;
    meta.file.write_at(&bytes, bitmap.table_offset)?;
    meta.note_touched(bitmap.table_offset + bytes.len() as u64);
    Ok(())
}

/// Writes the directory anew and points the header to it.
fn write_directory(state: &mut State) -> Result<()> {
    let mut bytes = Vec::new();
    for bitmap in &state.bitmaps {
        bitmap.encode(&mut bytes);
    }
    let meta = &mut state.meta;
    let old = meta.header.bitmaps.take();
    if bytes.is_empty() {
        meta.header.autoclear &= !AUTOCLEAR_BITMAPS;
    } else {
        let place = meta.allocate(bytes.len() as u64)?;
        meta.file.write_at(&bytes, place)?;
        meta.note_touched(place + bytes.len() as u64);
        meta.header.bitmaps = Some(BitmapsExtension {
            count: state.bitmaps.len() as u32,
            directory_bytes: bytes.len() as u64,
            directory_offset: place,
        });
        meta.header.autoclear |= AUTOCLEAR_BITMAPS;
    }
    meta.write_back()?;
    meta.barrier()?;
    meta.write_header()?;
    meta.barrier()?;
    if let Some(old) = old {
        meta.free(old.directory_offset, old.directory_bytes, Freed::Other);
    }
    Ok(())
}

/// Writes only the flags of the directory, in place.
fn update_flags(state: &mut State) -> Result<()> {
    let Some(extension) = state.meta.header.bitmaps else { return Ok(()) };
    let mut bytes = Vec::new();
    for bitmap in &state.bitmaps {
        bitmap.encode(&mut bytes);
    }
    if bytes.len() as u64 != extension.directory_bytes {
        return write_directory(state);
    }
    state.meta.file.write_at(&bytes, extension.directory_offset)?;
    state.meta.barrier()
}

/// Begins to follow writes: loads bitmaps and marks them in use.
pub(super) fn start_using(state: &mut State) -> Result<()> {
    let mut marked = false;
    for bitmap in &mut state.bitmaps {
        if !bitmap.in_use {
            load(&state.meta, bitmap)?;
            bitmap.in_use = true;
            marked = true;
        }
    }
    if marked {
        update_flags(state)?;
        state.bitmaps_opened = true;
    }
    Ok(())
}

/// Stores what follows writes, when the image is closed.
pub(super) fn store(state: &mut State) -> Result<()> {
    for bitmap in &mut state.bitmaps {
        // Those that follow no writes were marked as in use, too.
        if bitmap.bits.is_some() && (bitmap.auto || bitmap.in_use) {
            store_bits(&mut state.meta, bitmap)?;
            bitmap.in_use = false;
        }
    }
    state.bitmaps_opened = false;
    write_directory(state)
}

/// Marks written bytes in the bitmaps that follow writes.
pub(super) fn note_write(state: &mut State, offset: u64, length: u64) {
    if !state.bitmaps_opened {
        return;
    }
    for bitmap in &mut state.bitmaps {
        if bitmap.auto {
            bitmap.set(offset, length);
        }
    }
}

/// Whether any bitmap is there, which forbids some changes of the image.
pub(super) fn any(state: &State) -> bool {
    !state.bitmaps.is_empty()
}

/// After a resize of the disk, loaded bitmaps cover the new size.
pub(super) fn resize_all(state: &mut State, size: u64) -> Result<()> {
    for index in 0..state.bitmaps.len() {
        let mut bitmap = state.bitmaps[index].clone();
        if !bitmap.in_use || bitmap.bits.is_some() {
            load(&state.meta, &mut bitmap)?;
            let words = bitmap.granules(size).div_ceil(64) as usize;
            if let Some(bits) = &mut bitmap.bits {
                bits.resize(words, 0);
            }
            store_bits(&mut state.meta, &mut bitmap)?;
            if !state.bitmaps_opened {
                bitmap.bits = None;
            }
        }
        state.bitmaps[index] = bitmap;
    }
    if state.bitmaps.is_empty() { Ok(()) } else { write_directory(state) }
}

impl Qcow2 {
    /// Runs `change` on a bitmap with its bits in memory, and stores the result.
    fn change_bitmap(
        &self,
        name: &str,
        change: impl FnOnce(&mut Bitmap, u64) -> Result<()>,
    ) -> Result<()> {
        self.must_be_writable()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let index = find(state, name)?;
        let mut bitmap = state.bitmaps[index].clone();
        if bitmap.in_use && bitmap.bits.is_none() {
            return Err(inconsistent(name));
        }
        load(&state.meta, &mut bitmap)?;
        change(&mut bitmap, self.geometry.cluster)?;
        if !state.bitmaps_opened {
            store_bits(&mut state.meta, &mut bitmap)?;
            bitmap.bits = None;
        }
        state.bitmaps[index] = bitmap;
        if state.bitmaps_opened { Ok(()) } else { write_directory(state) }
    }
}

fn find(state: &State, name: &str) -> Result<usize> {
    let found = state.bitmaps.iter().position(|bitmap| bitmap.name == name);
    found.ok_or_else(|| Error::invalid(format!("Dirty bitmap '{name}' not found")))
}

fn inconsistent(name: &str) -> Error {
    Error::invalid(format!(
        "Bitmap '{name}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk"
    ))
}

impl Bitmaps for Qcow2 {
    fn list(&self) -> Vec<BitmapInfo> {
        let state = self.state.lock();
        let opened = state.bitmaps_opened;
        let shown = state.bitmaps.iter().map(|bitmap| BitmapInfo {
            name: bitmap.name.clone(),
            granularity: 1 << bitmap.granularity_bits,
            in_use: bitmap.in_use && !(opened && bitmap.bits.is_some()),
            auto: bitmap.auto,
        });
        shown.collect()
    }

    fn add(&self, name: &str, granularity: u64, enabled: bool) -> Result<()> {
        self.must_be_writable()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let cannot = |why: String| {
            Error::invalid(why).during(format!(
                "Can't make bitmap '{name}' persistent in '{}'",
                self.file.filename()
            ))
        };
        if state.meta.header.version < 3 {
            return Err(cannot("Cannot store dirty bitmaps in qcow2 v2 files".into()));
        }
        if state.bitmaps.iter().any(|bitmap| bitmap.name == name) {
            return Err(Error::invalid(format!("Bitmap already exists: {name}")));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(cannot("Bitmap name is too long".into()));
        }
        let bits = granularity.trailing_zeros() as u8;
        if !granularity.is_power_of_two() {
            return Err(Error::invalid("Granularity must be power of 2"));
        }
        if granularity < 512 {
            return Err(Error::invalid("Granularity must be at least 512"));
        }
        if !GRANULARITY_BITS.contains(&bits) {
            return Err(cannot(format!("Granularity exceeds maximum ({} bytes)", 1u64 << 31)));
        }
        if state.bitmaps.len() >= BITMAPS_MAX as usize {
            return Err(cannot("Maximum number of persistent bitmaps is already reached".into()));
        }
        let mut bitmap = Bitmap {
            name: name.to_string(),
            table_offset: 0,
            table_entries: 0,
            in_use: false,
            auto: enabled,
            granularity_bits: bits,
            extra: Vec::new(),
            bits: None,
        };
        let words = bitmap.granules(self.size.load(Ordering::Acquire)).div_ceil(64);
        bitmap.bits = Some(vec![0; words as usize]);
        store_bits(&mut state.meta, &mut bitmap)?;
        if !state.bitmaps_opened {
            bitmap.bits = None;
        }
        state.bitmaps.push(bitmap);
        write_directory(state)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.must_be_writable()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let index = find(state, name)?;
        let mut bitmap = state.bitmaps.remove(index);
        free_storage(&mut state.meta, &mut bitmap)?;
        write_directory(state)
    }

    fn clear(&self, name: &str) -> Result<()> {
        self.change_bitmap(name, |bitmap, _| {
            bitmap.bits.iter_mut().flatten().for_each(|word| *word = 0);
            Ok(())
        })
    }

    fn enable(&self, name: &str, enabled: bool) -> Result<()> {
        self.change_bitmap(name, |bitmap, _| {
            bitmap.auto = enabled;
            Ok(())
        })
    }

    fn dirty(&self, name: &str) -> Result<Vec<(u64, u64)>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let index = find(state, name)?;
        let mut bitmap = state.bitmaps[index].clone();
        if bitmap.in_use && bitmap.bits.is_none() {
            return Err(inconsistent(name));
        }
        load(&state.meta, &mut bitmap)?;
        let granularity = 1u64 << bitmap.granularity_bits;
        let size = state.meta.header.size;
        let bits = bitmap.bits.unwrap_or_default();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for granule in 0..size.div_ceil(granularity) {
            if bits[(granule / 64) as usize] >> (granule % 64) & 1 == 0 {
                continue;
            }
            let start = granule * granularity;
            let length = granularity.min(size - start);
            match ranges.last_mut() {
                Some((from, long)) if *from + *long == start => *long += length,
                _ => ranges.push((start, length)),
            }
        }
        Ok(ranges)
    }

    fn mark(&self, name: &str, ranges: &[(u64, u64)]) -> Result<()> {
        self.change_bitmap(name, |bitmap, _| {
            for (offset, length) in ranges {
                bitmap.set(*offset, *length);
            }
            Ok(())
        })
    }
}
