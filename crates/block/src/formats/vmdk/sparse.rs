//! A sparse extent: a directory of tables of grains.

use std::collections::HashMap;
use std::sync::Arc;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::error::{Error, Result};
use crate::node::{Node, NodeRef, Preallocation};

pub const MAGIC: &[u8; 4] = b"KDMV";
pub const SECTOR: u64 = 512;
pub const FLAG_REDUNDANT: u32 = 1 << 1;
pub const FLAG_ZERO_GRAINS: u32 = 1 << 2;
pub const FLAG_COMPRESSED: u32 = 1 << 16;
pub const FLAG_MARKERS: u32 = 1 << 17;
/// The directory stands behind the data, in a second header at the file's end.
const DIRECTORY_AT_END: u64 = u64::MAX;
/// A grain of zeros.
const ZERO_GRAIN: u32 = 1;
/// Tables kept in memory.
const TABLES_MAX: usize = 1024;
/// A directory larger than this is refused (it would describe more than 64 TiB).
const DIRECTORY_ENTRIES_MAX: u64 = 1 << 21;
/// A grain's marker: where it belongs and its compressed length.
const MARKER_BYTES: usize = 12;

/// Where a grain lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    Nothing,
    Zero,
    At(u64),
    Packed(u64),
}

pub fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

pub struct Sparse {
    file: NodeRef,
    pub capacity_sectors: u64,
    pub grain_bytes: u64,
    table_entries: u64,
    flags: u32,
    directory: Vec<u32>,
    redundant: Vec<u32>,
    tables: HashMap<usize, Arc<Vec<u32>>>,
    /// Where the next grain goes.
    next: u64,
    pub descriptor: Option<(u64, u64)>,
}

impl Sparse {
    pub fn open(file: NodeRef) -> Result<Self> {
        let mut header = vec![0; SECTOR as usize];
        file.read_at(&mut header, 0)?;
        if &header[..4] != MAGIC {
            return Err(Error::invalid("Image not in VMDK format"));
        }
        if le64(&header, 56) == DIRECTORY_AT_END {
            // The footer: a copy of the header in the last but one sector.
            let at = file.size().saturating_sub(2 * SECTOR);
            file.read_at(&mut header, at)?;
            if &header[..4] != MAGIC {
                return Err(Error::invalid("VMDK footer is missing"));
            }
        }
        let version = le32(&header, 4);
        if version > 3 {
            return Err(Error::unsupported(format!("Unsupported VMDK version {version}")));
        }
        let (capacity_sectors, grain_sectors) = (le64(&header, 12), le64(&header, 20));
        let table_entries = u64::from(le32(&header, 44));
        if !grain_sectors.is_power_of_two() || !(1..=0x20_0000).contains(&grain_sectors) {
            return Err(Error::invalid("Invalid granularity, image may be corrupt"));
        }
        if table_entries == 0 || table_entries > 512 {
            return Err(Error::invalid("L2 table size too big"));
        }
        let span = grain_sectors * table_entries;
        let entries = capacity_sectors.div_ceil(span);
        if entries > DIRECTORY_ENTRIES_MAX {
            return Err(Error::invalid("L1 size too big"));
        }
        let read = |offset: u64| read_words(&*file, offset.saturating_mul(SECTOR), entries);
        let flags = le32(&header, 8);
        let redundant =
            if flags & FLAG_REDUNDANT != 0 { read(le64(&header, 48))? } else { Vec::new() };
        let directory = read(le64(&header, 56))?;
        let descriptor =
            (le64(&header, 28).saturating_mul(SECTOR), le64(&header, 36).saturating_mul(SECTOR));
        let next = file.size().next_multiple_of(SECTOR);
        Ok(Self {
            capacity_sectors,
            grain_bytes: grain_sectors * SECTOR,
            table_entries,
            flags,
            directory,
            redundant,
            tables: HashMap::new(),
            next,
            descriptor: (descriptor.0 != 0).then_some(descriptor),
            file,
        })
    }

    pub fn compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    fn table(&mut self, index: usize) -> Result<Option<Arc<Vec<u32>>>> {
        if let Some(table) = self.tables.get(&index) {
            return Ok(Some(table.clone()));
        }
        let place = self.directory.get(index).copied().unwrap_or(0);
        if place == 0 {
            return Ok(None);
        }
        if self.tables.len() >= TABLES_MAX {
            self.tables.clear();
        }
        let table = read_words(&*self.file, u64::from(place) * SECTOR, self.table_entries)?;
        let table = Arc::new(table);
        self.tables.insert(index, table.clone());
        Ok(Some(table))
    }

    /// Where a grain lies.
    pub fn lookup(&mut self, grain: u64) -> Result<Grain> {
        let index = (grain / self.table_entries) as usize;
        let Some(table) = self.table(index)? else { return Ok(Grain::Nothing) };
        let entry = table[(grain % self.table_entries) as usize];
        Ok(match entry {
            0 => Grain::Nothing,
            ZERO_GRAIN if self.flags & FLAG_ZERO_GRAINS != 0 => Grain::Zero,
            sector if self.compressed() => Grain::Packed(u64::from(sector) * SECTOR),
            sector => Grain::At(u64::from(sector) * SECTOR),
        })
    }

    /// Appends room for a grain.
    pub fn allocate(&mut self, bytes: u64) -> Result<u64> {
        let place = self.next;
        if place / SECTOR > u64::from(u32::MAX) {
            return Err(rustix::io::Errno::FBIG.into());
        }
        self.next += bytes.next_multiple_of(SECTOR);
        Ok(place)
    }

    /// Makes the tables point to a grain.
    pub fn commit(&mut self, grain: u64, place: u64) -> Result<()> {
        let index = (grain / self.table_entries) as usize;
        let number = (grain % self.table_entries) as usize;
        let Some(table) = self.table(index)? else {
            return Err(Error::unsupported("The grain table is not allocated"));
        };
        let entry = (place / SECTOR) as u32;
        for directory in [&self.redundant, &self.directory] {
            if let Some(at) = directory.get(index).filter(|at| **at != 0) {
                let at = u64::from(*at) * SECTOR + number as u64 * 4;
                self.file.write_at(&entry.to_le_bytes(), at)?;
            }
        }
        let mut changed = (*table).clone();
        changed[number] = entry;
        self.tables.insert(index, Arc::new(changed));
        Ok(())
    }

    /// Stores a grain's bytes, whole or as a new one that is otherwise zero.
    pub fn write_new(&mut self, grain: u64, bytes: &[u8]) -> Result<()> {
        let place = self.allocate(self.grain_bytes)?;
        self.file.write_at(bytes, place)?;
        if self.file.size() < place + self.grain_bytes {
            self.file.resize(place + self.grain_bytes, Preallocation::Off)?;
        }
        self.commit(grain, place)
    }

    /// Stores a compressed grain.
    pub fn write_packed(&mut self, grain: u64, packed: &[u8]) -> Result<()> {
        let mut bytes = (grain * self.grain_bytes / SECTOR).to_le_bytes().to_vec();
        bytes.extend((packed.len() as u32).to_le_bytes());
        bytes.extend(packed);
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        let place = self.allocate(bytes.len() as u64)?;
        self.file.write_at(&bytes, place)?;
        self.commit(grain, place)
    }

    pub fn file(&self) -> &NodeRef {
        &self.file
    }

    /// Reads and unpacks a grain.
    pub fn unpack(&self, place: u64) -> Result<Vec<u8>> {
        let mut marker = [0; MARKER_BYTES];
        self.file.read_at(&mut marker, place)?;
        let length = le32(&marker, 8);
        if length == 0 || u64::from(length) > 2 * self.grain_bytes {
            return Err(Error::corrupt(format!("Grain at {place:#x} has a bad length {length}")));
        }
        let mut packed = vec![0; length as usize];
        self.file.read_at(&mut packed, place + MARKER_BYTES as u64)?;
        let mut out = vec![0; self.grain_bytes as usize];
        let mut inflate = Decompress::new(true);
        inflate
            .decompress(&packed, &mut out, FlushDecompress::Finish)
            .map_err(|_| Error::corrupt(format!("Grain at {place:#x} cannot be unpacked")))?;
        Ok(out)
    }
}

/// Compresses a grain the way every reader knows.
pub fn pack(data: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0; data.len() + data.len() / 8 + 64];
    let mut deflate = Compress::new(Compression::new(6), true);
    deflate
        .compress(data, &mut out, FlushCompress::Finish)
        .map_err(|_| Error::Os(rustix::io::Errno::IO))?;
    out.truncate(deflate.total_out() as usize);
    Ok(out)
}

fn read_words(file: &dyn Node, offset: u64, entries: u64) -> Result<Vec<u32>> {
    let mut bytes = vec![0; entries as usize * 4];
    file.read_at(&mut bytes, offset)?;
    Ok(bytes.chunks_exact(4).map(|word| le32(word, 0)).collect())
}
