//! `vdi`: VirtualBox disk images, dynamic and static, version 1.1.
//!
//! `-blockdev driver=vdi,file.driver=file,file.filename=disk.vdi`

use std::sync::Arc;

use super::Format;
use super::blocks::{Blocks, Layout, Place, unique_id};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef, Preallocation};
use crate::open::{OpenContext, OpenMode, create_protocol, open_created};
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};

/// The table row.
pub const FORMAT: Format = Format {
    name: "vdi",
    probe: |start, _| {
        let signature = start.get(0x40..0x44) == Some(&SIGNATURE.to_le_bytes());
        if signature { 100 } else { 0 }
    },
    open,
    create: Some(create),
    create_options: &[
        OptionSpec::new("size", OptionKind::Size, "Virtual disk size"),
        OptionSpec::new("static", OptionKind::Bool, "VDI static (pre-allocated) image").or("off"),
        OptionSpec::new(
            "preallocation",
            OptionKind::Text,
            "Preallocation mode (allowed values: off, metadata)",
        ),
    ],
    amend_options: &[],
    backing: false,
    measure: None,
};

const SIGNATURE: u32 = 0xbeda_107f;
const VERSION_1_1: u32 = 0x0001_0001;
const HEADER_BYTES: usize = 512;
const BLOCK_BYTES: u64 = 1 << 20;
/// A table entry for a block that was never written.
const UNALLOCATED: u32 = 0xffff_ffff;
/// And for one that was given up: zeros, too.
const DISCARDED: u32 = 0xffff_fffe;
/// Blocks that fit a table whose size fits 31 bits.
const BLOCKS_MAX: u64 = 0x2000_0000 - 1;

// Places in the header.
const IMAGE_TYPE: usize = 0x4c;
const TABLE_OFFSET: usize = 0x154;
const DATA_OFFSET: usize = 0x158;
const SECTOR_SIZE: usize = 0x168;
const DISK_SIZE: usize = 0x170;
const BLOCK_SIZE: usize = 0x178;
const BLOCKS: usize = 0x180;
const BLOCKS_ALLOCATED: usize = 0x184;
const UUID_IMAGE: usize = 0x188;
const UUID_LAST_SNAPSHOT: usize = 0x198;
const UUID_LINK: usize = 0x1a8;
const UUID_PARENT: usize = 0x1b8;

struct Vdi {
    header: Vec<u8>,
    table: Vec<u32>,
    table_offset: u64,
    data_offset: u64,
    size: u64,
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

fn open(
    file: NodeRef,
    _options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    let mut header = vec![0; HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    let bad = |text: String| Err(Error::unsupported(format!("unsupported VDI image ({text})")));
    if le32(&header, 0x40) != SIGNATURE {
        return Err(Error::invalid(format!(
            "Image not in VDI format (bad signature {:08x})",
            le32(&header, 0x40)
        )));
    }
    let (size, blocks) = (le64(&header, DISK_SIZE), u64::from(le32(&header, BLOCKS)));
    if le32(&header, 0x44) != VERSION_1_1 {
        let version = le32(&header, 0x44);
        return bad(format!("version {}.{}", version >> 16, version & 0xffff));
    }
    if !le32(&header, TABLE_OFFSET).is_multiple_of(512) {
        return bad(format!("unaligned block map offset {:#x}", le32(&header, TABLE_OFFSET)));
    }
    if !le32(&header, DATA_OFFSET).is_multiple_of(512) {
        return bad(format!("unaligned data offset {:#x}", le32(&header, DATA_OFFSET)));
    }
    if le32(&header, SECTOR_SIZE) != 512 {
        return bad(format!("sector size {} is not 512", le32(&header, SECTOR_SIZE)));
    }
    if u64::from(le32(&header, BLOCK_SIZE)) != BLOCK_BYTES {
        return bad(format!("block size {} is not {BLOCK_BYTES}", le32(&header, BLOCK_SIZE)));
    }
    if size > blocks * BLOCK_BYTES {
        return bad(format!(
            "disk size {size}, image bitmap has room for {}",
            blocks * BLOCK_BYTES
        ));
    }
    if blocks > BLOCKS_MAX {
        return bad(format!("too many blocks {blocks}, max is {BLOCKS_MAX}"));
    }
    if header[UUID_LINK..UUID_LINK + 16].iter().any(|byte| *byte != 0) {
        return bad("non-NULL link UUID".into());
    }
    if header[UUID_PARENT..UUID_PARENT + 16].iter().any(|byte| *byte != 0) {
        return bad("non-NULL parent UUID".into());
    }
    let table_offset = u64::from(le32(&header, TABLE_OFFSET));
    if table_offset + blocks * 4 > file.size().next_multiple_of(4096) {
        return bad("block map beyond the end of the file".into());
    }
    let mut bytes = vec![0; blocks as usize * 4];
    file.read_at(&mut bytes, table_offset)?;
    let vdi = Vdi {
        table: bytes.chunks_exact(4).map(|entry| le32(entry, 0)).collect(),
        table_offset,
        data_offset: u64::from(le32(&header, DATA_OFFSET)),
        size: size.next_multiple_of(512),
        header,
    };
    Ok(Arc::new(Blocks::new(file, mode.write, vdi)))
}

impl Layout for Vdi {
    const DRIVER: &'static str = "vdi";

    fn block_bytes(&self) -> u64 {
        BLOCK_BYTES
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn lookup(&self, block: u64) -> Place {
        match self.table.get(block as usize) {
            None | Some(&UNALLOCATED | &DISCARDED) => Place::Nothing,
            Some(index) => Place::At(self.data_offset + u64::from(*index) * BLOCK_BYTES),
        }
    }

    fn allocate(&mut self, file: &dyn Node, _block: u64) -> Result<u64> {
        let index = le32(&self.header, BLOCKS_ALLOCATED);
        let place = self.data_offset + u64::from(index) * BLOCK_BYTES;
        self.header[BLOCKS_ALLOCATED..BLOCKS_ALLOCATED + 4]
            .copy_from_slice(&(index + 1).to_le_bytes());
        if file.size() < place + BLOCK_BYTES {
            file.resize(place + BLOCK_BYTES, Preallocation::Off)?;
        } else {
            crate::node::write_zeros(file, place, BLOCK_BYTES)?;
        }
        file.write_at(&self.header, 0)?;
        Ok(place)
    }

    fn commit(&mut self, file: &dyn Node, block: u64, place: u64) -> Result<()> {
        let index = ((place - self.data_offset) / BLOCK_BYTES) as u32;
        self.table[block as usize] = index;
        file.write_at(&index.to_le_bytes(), self.table_offset + block * 4)
    }
}

fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    let size = options.size("size")?.unwrap_or(0).next_multiple_of(512);
    let fixed = options.bool("static")?.unwrap_or(false)
        || options.preallocation()? == Preallocation::Metadata;
    let blocks = size.div_ceil(BLOCK_BYTES);
    if blocks > BLOCKS_MAX {
        return Err(Error::unsupported(format!(
            "Unsupported VDI image size (size is {size:#x}, max supported is {:#x})",
            BLOCKS_MAX * BLOCK_BYTES
        )));
    }
    let table_bytes = (blocks * 4).next_multiple_of(512);
    let data_offset = HEADER_BYTES as u64 + table_bytes;
    let mut header = vec![0; HEADER_BYTES];
    let text = b"<<< Hostel virtual disk image >>>\n";
    header[..text.len()].copy_from_slice(text);
    let fields = [
        (0x40, SIGNATURE),
        (0x44, VERSION_1_1),
        (0x48, 0x180),
        (IMAGE_TYPE, if fixed { 2 } else { 1 }),
        (TABLE_OFFSET, HEADER_BYTES as u32),
        (DATA_OFFSET, data_offset as u32),
        (SECTOR_SIZE, 512),
        (BLOCK_SIZE, BLOCK_BYTES as u32),
        (BLOCKS, blocks as u32),
        (BLOCKS_ALLOCATED, if fixed { blocks as u32 } else { 0 }),
    ];
    for (at, value) in fields {
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    header[DISK_SIZE..DISK_SIZE + 8].copy_from_slice(&size.to_le_bytes());
    header[UUID_IMAGE..UUID_IMAGE + 16].copy_from_slice(&unique_id());
    header[UUID_LAST_SNAPSHOT..UUID_LAST_SNAPSHOT + 16].copy_from_slice(&unique_id());
    create_protocol(filename, &CreateOptions::new())?;
    let file = open_created(filename)?;
    let entry = |block: u64| if fixed { block as u32 } else { UNALLOCATED };
    let mut table: Vec<u8> = (0..blocks).flat_map(|block| entry(block).to_le_bytes()).collect();
    table.resize(table_bytes as usize, 0);
    file.write_at(&header, 0)?;
    file.write_at(&table, HEADER_BYTES as u64)?;
    if fixed {
        file.resize(data_offset + blocks * BLOCK_BYTES, Preallocation::Off)?;
    }
    file.flush()
}
