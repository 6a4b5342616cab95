//! `bochs`: growing disks of the Bochs emulator. They are read, not written.
//!
//! `-blockdev driver=bochs,read-only=on,file.driver=file,file.filename=disk.bochs`

use std::sync::Arc;

use super::Format;
use super::read_only::{Kind, Pieces, ReadOnly, le32, le64, must_be_read_only, read_table};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef};
use crate::open::{OpenContext, OpenMode};
use crate::options::OpenOptions;

/// The table row.
pub const FORMAT: Format = Format {
    name: "bochs",
    probe: |start, _| if is_growing(start) { 100 } else { 0 },
    open,
    create: None,
    create_options: &[],
    amend_options: &[],
    backing: false,
    measure: None,
};

const MAGIC: &[u8] = b"Bochs Virtual HD Image\0";
const KIND: &[u8] = b"Redolog\0";
const SUBTYPE: &[u8] = b"Growing\0";
const HEADER_BYTES: u64 = 512;
const VERSION_1: u32 = 0x0001_0000;
const VERSION_2: u32 = 0x0002_0000;
const SECTOR: u64 = 512;
const EXTENT_BYTES_MAX: u32 = 0x80_0000;
const CATALOG_MAX: u32 = 0x10_0000;
/// A catalog entry for an extent that was never written.
const NONE: u32 = u32::MAX;

fn is_growing(start: &[u8]) -> bool {
    let version = |start: &[u8]| [VERSION_1, VERSION_2].contains(&le32(start, 64));
    start.len() >= HEADER_BYTES as usize
        && start.starts_with(MAGIC)
        && start[32..].starts_with(KIND)
        && start[48..].starts_with(SUBTYPE)
        && version(start)
}

struct Bochs {
    size: u64,
    extent: u64,
    catalog: Vec<u32>,
    data: u64,
    bitmap_sectors: u64,
    extent_sectors: u64,
}

fn open(
    file: NodeRef,
    _options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    must_be_read_only(mode)?;
    let header = read_table(&*file, 0, HEADER_BYTES, "The header")?;
    if !is_growing(&header) {
        return Err(Error::invalid("Image not in Bochs format"));
    }
    let size = le64(&header, if le32(&header, 64) == VERSION_1 { 84 } else { 88 });
    let (entries, bitmap, extent) = (le32(&header, 72), le32(&header, 76), le32(&header, 80));
    if entries > CATALOG_MAX {
        return Err(
            Error::Os(rustix::io::Errno::FBIG).during_text("Catalog size is too large".into())
        );
    }
    if extent < SECTOR as u32 {
        return Err(Error::invalid("Extent size must be at least 512"));
    }
    if !extent.is_power_of_two() {
        return Err(Error::invalid(format!("Extent size {extent} is not a power of two")));
    }
    if extent > EXTENT_BYTES_MAX {
        return Err(Error::invalid(format!("Extent size {extent} is too large")));
    }
    if u64::from(entries) < size.div_ceil(u64::from(extent)) {
        return Err(Error::invalid("Catalog size is too small for this disk size"));
    }
    let start = u64::from(le32(&header, 68));
    let bytes = u64::from(entries) * 4;
    let catalog = read_table(&*file, start, bytes, "The catalog")?;
    let bochs = Bochs {
        size: size - size % SECTOR,
        extent: u64::from(extent),
        catalog: catalog.chunks_exact(4).map(|entry| le32(entry, 0)).collect(),
        data: start + bytes,
        bitmap_sectors: u64::from(bitmap.max(1)).div_ceil(SECTOR),
        extent_sectors: u64::from(extent).div_ceil(SECTOR),
    };
    Ok(Arc::new(ReadOnly::new(file, bochs)))
}

impl Pieces for Bochs {
    const DRIVER: &'static str = "bochs";

    fn size(&self) -> u64 {
        self.size
    }

    fn find(&self, file: &dyn Node, offset: u64) -> Result<(Kind, u64)> {
        let within = offset % self.extent;
        let entry = self.catalog.get((offset / self.extent) as usize).copied().unwrap_or(NONE);
        if entry == NONE {
            return Ok((Kind::Zero, self.extent - within));
        }
        let record =
            self.data + SECTOR * u64::from(entry) * (self.extent_sectors + self.bitmap_sectors);
        let sector = within / SECTOR;
        let mut byte = [0];
        file.read_at(&mut byte, record + sector / 8)?;
        let rest = SECTOR - within % SECTOR;
        if byte[0] >> (sector % 8) & 1 == 0 {
            return Ok((Kind::Zero, rest));
        }
        Ok((Kind::At(record + SECTOR * self.bitmap_sectors + within), rest))
    }
}
