//! The log: changes of metadata that may not have reached their places.

use super::super::read_only::{le32, le64, read_table};
use super::header::{Guid, Headers, checksum};
use crate::error::{Error, Result};
use crate::node::{Node, Preallocation, write_zeros};

const SECTOR: usize = 4096;
/// Larger logs are refused.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// More zeros than a disk can have are refused.
const ZERO_BYTES_MAX: u64 = 1 << 30;

/// An entry whose checksum is right.
pub struct Entry {
    sequence: u64,
    tail: u64,
    at: u64,
    /// Header, descriptors and data, in one piece.
    bytes: Vec<u8>,
    last_file_offset: u64,
}

/// The active sequence of entries, in the order in which they are to be replayed.
pub fn read(file: &dyn Node, headers: &Headers) -> Result<Vec<Entry>> {
    let (offset, length) = headers.log();
    if length > LOG_BYTES_MAX || !length.is_multiple_of(SECTOR as u64) {
        return Err(Error::corrupt(format!("The log's {length} bytes are out of range")));
    }
    let log = read_table(file, offset, length, "The log")?;
    let mut entries: Vec<Entry> = (0..log.len() / SECTOR)
        .filter_map(|sector| entry(&log, sector * SECTOR, &headers.log_guid()))
        .collect();
    entries.sort_by_key(|entry| entry.sequence);
    let Some(newest) = entries.last() else { return Ok(Vec::new()) };
    // The newest entry says where the sequence begins; all up to it must be there.
    let (tail, newest) = (newest.tail, newest.sequence);
    let first = entries.iter().position(|entry| entry.at == tail);
    let first = first.ok_or_else(|| Error::corrupt("The log's first entry is missing"))?;
    let active = entries.split_off(first);
    if active.last().map(|entry| entry.sequence - active[0].sequence)
        != Some(active.len() as u64 - 1)
        || active.last().map(|entry| entry.sequence) != Some(newest)
    {
        return Err(Error::corrupt("The log has a gap"));
    }
    Ok(active)
}

/// A piece of the log, which is a ring.
fn piece(log: &[u8], at: usize, length: usize) -> Vec<u8> {
    log.iter().cycle().skip(at).take(length).copied().collect()
}

fn entry(log: &[u8], at: usize, name: &Guid) -> Option<Entry> {
    let head = &log[at..at + 64];
    let length = le32(head, 8) as usize;
    if !head.starts_with(b"loge") || head[32..48] != *name {
        return None;
    }
    if length == 0 || !length.is_multiple_of(SECTOR) || length > log.len() {
        return None;
    }
    let bytes = piece(log, at, length);
    (checksum(&bytes) == le32(&bytes, 4)).then(|| Entry {
        sequence: le64(head, 16),
        tail: u64::from(le32(head, 12)),
        at: at as u64,
        last_file_offset: le64(head, 56),
        bytes,
    })
}

/// Brings all changes to their places.
pub fn replay(file: &dyn Node, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        apply(file, entry)?;
        let wanted = entry.last_file_offset;
        if file.size() < wanted && wanted <= i64::MAX as u64 {
            file.resize(wanted, Preallocation::Off)?;
        }
    }
    file.flush()
}

fn apply(file: &dyn Node, entry: &Entry) -> Result<()> {
    let bad = || Error::corrupt(format!("Log entry {} is damaged", entry.sequence));
    let count = le32(&entry.bytes, 24) as usize;
    let descriptors = count.checked_mul(32).ok_or_else(bad)?;
    let table = entry.bytes.get(64..64 + descriptors).ok_or_else(bad)?;
    let mut data = (64 + descriptors).next_multiple_of(SECTOR);
    for descriptor in table.chunks_exact(32) {
        let place = le64(descriptor, 16);
        if le64(descriptor, 24) != entry.sequence || place > i64::MAX as u64 {
            return Err(bad());
        }
        match &descriptor[..4] {
            b"zero" => {
                let length = le64(descriptor, 8);
                if length > ZERO_BYTES_MAX {
                    return Err(bad());
                }
                write_zeros(file, place, length)?;
            }
            b"desc" => {
                let sector = entry.bytes.get(data..data + SECTOR).ok_or_else(bad)?;
                let sequence =
                    u64::from(le32(sector, 4)) << 32 | u64::from(le32(sector, SECTOR - 4));
                if !sector.starts_with(b"data") || sequence != entry.sequence {
                    return Err(bad());
                }
                // The ends of the sector made room for the log's own fields.
                let mut bytes = sector.to_vec();
                bytes[..8].copy_from_slice(&descriptor[8..16]);
                bytes[SECTOR - 4..].copy_from_slice(&descriptor[4..8]);
                file.write_at(&bytes, place)?;
                data += SECTOR;
            }
            _ => return Err(bad()),
        }
    }
    Ok(())
}
