//! `vhdx`: disks of Hyper-V, dynamic and fixed, with the log that a crash leaves behind.
//!
//! `-blockdev driver=vhdx,file.driver=file,file.filename=disk.vhdx`

mod create;
mod header;
mod log;

use std::sync::Arc;

use super::Format;
use super::blocks::{Blocks, Layout, Place};
use super::read_only::{le32, le64, read_table};
use crate::error::{Error, Result};
use crate::info::{CheckReport, Fix};
use crate::node::{Node, NodeRef, Preallocation};
use crate::open::{OpenContext, OpenMode};
use crate::options::{OpenOptions, OptionKind, OptionSpec};
use header::{BAT, Headers, METADATA, Regions};

/// The table row.
pub const FORMAT: Format = Format {
    name: "vhdx",
    probe: |start, _| if start.starts_with(header::SIGNATURE) { 100 } else { 0 },
    open,
    create: Some(create::create),
    create_options: &[
        OptionSpec::new("size", OptionKind::Size, "Virtual disk size; max of 64TB."),
        OptionSpec::new("log_size", OptionKind::Size, "Log size; min 1MB.").or("1048576"),
        OptionSpec::new(
            "block_size",
            OptionKind::Size,
            "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.",
        )
        .or("0"),
        OptionSpec::new(
            "subformat",
            OptionKind::Text,
            "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.",
        ),
        OptionSpec::new(
            "block_state_zero",
            OptionKind::Bool,
            "Force use of payload blocks of type 'ZERO'.",
        ),
    ],
    amend_options: &[],
    backing: false,
    measure: None,
};

const MEBIBYTE: u64 = 1 << 20;
const BLOCK_BYTES_MAX: u64 = 256 << 20;
const SIZE_MAX: u64 = 64 << 40;
/// Sectors that one bitmap block stands for; between so many there is an entry for it.
const CHUNK_SECTORS: u64 = 1 << 23;

// States of a payload block.
const STATE_MASK: u64 = 7;
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;
const OFFSET_MASK: u64 = !(MEBIBYTE - 1);

/// An item of the metadata region.
mod item {
    use super::header::{Guid, guid};

    pub const FILE_PARAMETERS: Guid = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
    pub const DISK_SIZE: Guid = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
    pub const DISK_ID: Guid = guid(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746);
    pub const LOGICAL_SECTOR: Guid = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
    pub const PHYSICAL_SECTOR: Guid = guid(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556);
    pub const PARENT: Guid = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);
}

struct Vhdx {
    headers: Headers,
    size: u64,
    block: u64,
    /// Payload blocks between two bitmap entries.
    ratio: u64,
    bat_offset: u64,
    bat: Vec<u64>,
    /// Where the next block goes.
    end: u64,
}

/// What the metadata region says.
struct Facts {
    block: u64,
    size: u64,
    sector: u64,
}

fn open(
    file: NodeRef,
    _options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    let mut signature = [0; 8];
    file.read_at(&mut signature, 0)?;
    if signature != *header::SIGNATURE {
        return Err(Error::invalid("Image not in VHDX format"));
    }
    let mut headers = Headers::read(&*file)?;
    if headers.has_log() {
        let entries = log::read(&*file, &headers)?;
        if !entries.is_empty() {
            if !mode.write {
                return Err(Error::Os(rustix::io::Errno::PERM).during_text(format!(
                    "VHDX image file '{0}' opened read-only, but contains a log that needs to be \
                     replayed\nTo replay the log, run:\nqemu-img check -r all '{0}'",
                    file.filename()
                )));
            }
            log::replay(&*file, &entries)?;
        }
        if mode.write {
            headers.clear_log(&*file)?;
        }
    }
    let regions = Regions::read(&*file)?;
    let facts = read_facts(&*file, regions.find(&METADATA)?)?;
    let (bat_offset, bat_bytes) = regions.find(&BAT)?;
    let ratio = CHUNK_SECTORS * facts.sector / facts.block;
    let blocks = facts.size.div_ceil(facts.block);
    let entries = blocks + blocks.saturating_sub(1) / ratio;
    if entries * 8 > bat_bytes {
        return Err(Error::corrupt("The block allocation table is too small for the disk"));
    }
    let table = read_table(&*file, bat_offset, entries * 8, "The block allocation table")?;
    let bat: Vec<u64> = table.chunks_exact(8).map(|word| le64(word, 0)).collect();
    let mut vhdx = Vhdx {
        headers,
        size: facts.size,
        block: facts.block,
        ratio,
        bat_offset,
        bat,
        end: file.size().next_multiple_of(MEBIBYTE),
    };
    vhdx.check_places(&*file)?;
    Ok(Arc::new(Blocks::new(file, mode.write, vhdx)))
}

fn read_facts(file: &dyn Node, (offset, bytes): (u64, u64)) -> Result<Facts> {
    let table = read_table(file, offset, 64 << 10, "The metadata table")?;
    if !table.starts_with(b"metadata") {
        return Err(Error::corrupt("The metadata table has no signature"));
    }
    let count = usize::from(u16::from_le_bytes([table[10], table[11]]));
    if count > 2047 {
        return Err(Error::corrupt(format!("The metadata table has {count} entries")));
    }
    let find = |wanted: &header::Guid, length: u64| -> Result<Option<Vec<u8>>> {
        for entry in table[32..].chunks_exact(32).take(count) {
            if entry[..16] == *wanted {
                let at = u64::from(le32(entry, 16));
                if at + length > bytes {
                    return Err(Error::corrupt("A metadata item reaches beyond its region"));
                }
                return read_table(file, offset + at, length, "A metadata item").map(Some);
            }
        }
        Ok(None)
    };
    let needed = |wanted: &header::Guid, length: u64, name: &str| {
        find(wanted, length)?.ok_or_else(|| Error::corrupt(format!("The image has no {name}")))
    };
    if find(&item::PARENT, 0)?.is_some() {
        return Err(Error::unsupported("VHDX images with a parent are not supported"));
    }
    let parameters = needed(&item::FILE_PARAMETERS, 8, "file parameters")?;
    let block = u64::from(le32(&parameters, 0));
    if !block.is_power_of_two() || !(MEBIBYTE..=BLOCK_BYTES_MAX).contains(&block) {
        return Err(Error::corrupt(format!("Block size {block} is invalid")));
    }
    let size = le64(&needed(&item::DISK_SIZE, 8, "disk size")?, 0);
    let sector = u64::from(le32(&needed(&item::LOGICAL_SECTOR, 4, "sector size")?, 0));
    if ![512, 4096].contains(&sector) {
        return Err(Error::corrupt(format!("Sector size {sector} is invalid")));
    }
    if size > SIZE_MAX || !size.is_multiple_of(sector) {
        return Err(Error::corrupt(format!("Disk size {size} is invalid")));
    }
    Ok(Facts { block, size, sector })
}

impl Vhdx {
    fn index(&self, block: u64) -> usize {
        (block + block / self.ratio) as usize
    }

    /// Blocks must lie behind the headers and may not share their place.
    fn check_places(&mut self, file: &dyn Node) -> Result<()> {
        let mut places = std::collections::HashSet::new();
        for block in 0..self.size.div_ceil(self.block) {
            let entry = self.bat[self.index(block)];
            if entry & STATE_MASK == PARTIALLY_PRESENT {
                return Err(Error::unsupported(
                    "VHDX blocks that are partly present are not supported",
                ));
            }
            if entry & STATE_MASK != FULLY_PRESENT {
                continue;
            }
            let place = entry & OFFSET_MASK;
            if place < MEBIBYTE
                || place.checked_add(self.block).is_none_or(|end| end > i64::MAX as u64)
            {
                return Err(Error::corrupt(format!("Block {block} lies at offset {place:#x}")));
            }
            if !places.insert(place) {
                return Err(Error::corrupt(format!("Block {block} shares its place {place:#x}")));
            }
            self.end = self.end.max(place + self.block);
            // A fixed image's last block may be cut short by the end of the file, nothing else.
            if place > file.size() {
                return Err(Error::corrupt(format!(
                    "Block {block} at offset {place:#x} lies beyond the end of the file"
                )));
            }
        }
        Ok(())
    }
}

impl Layout for Vhdx {
    const DRIVER: &'static str = "vhdx";

    fn block_bytes(&self) -> u64 {
        self.block
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn lookup(&self, block: u64) -> Place {
        if block * self.block >= self.size {
            return Place::Nothing;
        }
        match self.bat.get(self.index(block)) {
            Some(entry) if entry & STATE_MASK == FULLY_PRESENT => Place::At(entry & OFFSET_MASK),
            _ => Place::Nothing,
        }
    }

    fn allocate(&mut self, file: &dyn Node, _block: u64) -> Result<u64> {
        let place = self.end;
        self.end += self.block;
        file.resize(self.end, Preallocation::Off)?;
        Ok(place)
    }

    fn commit(&mut self, file: &dyn Node, block: u64, place: u64) -> Result<()> {
        // The entry lies within a sector, which is written as a whole or not at all.
        let index = self.index(block);
        self.bat[index] = place | FULLY_PRESENT;
        file.write_at(&self.bat[index].to_le_bytes(), self.bat_offset + index as u64 * 8)
    }

    fn begin_writing(&mut self, file: &dyn Node) -> Result<()> {
        self.headers.mark_written(file)
    }

    fn check(&mut self, _file: &dyn Node, _fix: Fix) -> Result<CheckReport> {
        // What could be repaired, the log, was replayed when the image was opened.
        let present = self.bat.iter().filter(|entry| **entry & STATE_MASK == FULLY_PRESENT);
        Ok(CheckReport {
            image_end_offset: self.end,
            total_clusters: self.size.div_ceil(self.block),
            allocated_clusters: present.count() as u64,
            ..CheckReport::default()
        })
    }
}
