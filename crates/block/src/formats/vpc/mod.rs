//! `vpc`: Virtual PC and Hyper-V disks of the first generation (`.vhd`), dynamic and fixed.
//!
//! `-blockdev driver=vpc,file.driver=file,file.filename=disk.vhd`

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Format;
use super::blocks::{Blocks, Layout, Place, unique_id};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef, Preallocation};
use crate::open::{OpenContext, OpenMode, create_protocol, open_created};
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};

/// The table row.
pub const FORMAT: Format = Format {
    name: "vpc",
    probe: |start, _| if start.starts_with(COOKIE) { 100 } else { 0 },
    open,
    create: Some(create),
    create_options: &[
        OptionSpec::new("size", OptionKind::Size, "Virtual disk size"),
        OptionSpec::new(
            "subformat",
            OptionKind::Text,
            "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ",
        ),
        OptionSpec::new(
            "force_size",
            OptionKind::Bool,
            "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based calculation",
        ),
    ],
    amend_options: &[],
    backing: false,
    measure: None,
};

const COOKIE: &[u8] = b"conectix";
const SPARSE_COOKIE: &[u8] = b"cxsparse";
const SECTOR: u64 = 512;
const BLOCK_BYTES: u64 = 2 << 20;
const UNALLOCATED: u32 = u32::MAX;
/// A table larger than this is refused.
const TABLE_ENTRIES_MAX: u32 = 1 << 24;
/// What the geometry of the footer can express.
const CYLINDERS_MAX: u64 = 65_535;
const GEOMETRY_SECTORS_MAX: u64 = CYLINDERS_MAX * 16 * 255;
/// Two terabytes, beyond which 32-bit sectors end.
const SECTORS_MAX: u64 = 0xff00_0000;
const TYPE_FIXED: u32 = 2;
const TYPE_DYNAMIC: u32 = 3;
/// Programs whose images mean the size field, not the geometry.
const CREATORS: [&[u8]; 6] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"];
/// Seconds from 1970 to 2000, where the format's clock begins.
const EPOCH_SECONDS: u64 = 946_684_800;

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

struct Vpc {
    footer: Vec<u8>,
    /// Empty in a fixed image, whose data lies in one piece.
    table: Vec<u32>,
    table_offset: u64,
    block_bytes: u64,
    bitmap_bytes: u64,
    /// Where the footer lies, and the next block will.
    end: u64,
    size: u64,
    fixed: bool,
}

fn checksum(bytes: &[u8], field: usize) -> u32 {
    let sum = |part: &[u8]| part.iter().map(|byte| u32::from(*byte)).fold(0, u32::wrapping_add);
    !sum(&bytes[..field]).wrapping_add(sum(&bytes[field + 4..]))
}

fn open(
    file: NodeRef,
    options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    let calculation = options.take_text("force_size_calc");
    let mut footer = vec![0; SECTOR as usize];
    file.read_at(&mut footer, 0)?;
    let mut fixed = false;
    if !footer.starts_with(COOKIE) {
        let size = file.size();
        if size < SECTOR {
            return Err(Error::invalid("File too small for a VHD header"));
        }
        file.read_at(&mut footer, size - SECTOR)?;
        fixed = footer.starts_with(COOKIE) && be32(&footer, 60) == TYPE_FIXED;
        if !fixed {
            return Err(Error::invalid("invalid VPC image"));
        }
    }
    if checksum(&footer, 64) != be32(&footer, 64) {
        return Err(Error::invalid("Incorrect header checksum"));
    }
    if be32(&footer, 60) == TYPE_FIXED {
        fixed = true;
    } else if be32(&footer, 60) != TYPE_DYNAMIC {
        return Err(Error::unsupported("Differencing VHD images are not supported"));
    }
    let size = disk_size(&footer, calculation.as_deref())?;
    if size / SECTOR > SECTORS_MAX && fixed {
        return Err(Error::Os(rustix::io::Errno::FBIG));
    }
    let mut vpc = Vpc {
        footer,
        table: Vec::new(),
        table_offset: 0,
        block_bytes: BLOCK_BYTES,
        bitmap_bytes: 0,
        end: 0,
        size,
        fixed,
    };
    if !fixed {
        vpc.read_table(&*file)?;
    }
    Ok(Arc::new(Blocks::new(file, mode.write, vpc)))
}

/// By the geometry, unless the creator is known to mean the size field.
fn disk_size(footer: &[u8], calculation: Option<&str>) -> Result<u64> {
    let cylinders = u64::from(u16::from_be_bytes([footer[56], footer[57]]));
    let geometry = cylinders * u64::from(footer[58]) * u64::from(footer[59]);
    let exact = be64(footer, 48);
    let creator = &footer[28..32];
    let by_field = match calculation {
        Some("current_size") => true,
        Some("chs") => false,
        None => CREATORS.contains(&creator),
        Some(other) => {
            return Err(Error::invalid(format!("Invalid size calculation algorithm '{other}'")));
        }
    };
    if by_field || geometry == GEOMETRY_SECTORS_MAX {
        Ok(exact - exact % SECTOR)
    } else {
        Ok(geometry * SECTOR)
    }
}

impl Vpc {
    fn read_table(&mut self, file: &dyn Node) -> Result<()> {
        let mut header = vec![0; 1024];
        file.read_at(&mut header, be64(&self.footer, 16))?;
        if !header.starts_with(SPARSE_COOKIE) {
            return Err(Error::invalid("error reading the dynamic VHD header"));
        }
        self.block_bytes = u64::from(be32(&header, 32));
        if !self.block_bytes.is_power_of_two() || self.block_bytes < SECTOR {
            return Err(Error::invalid(format!("Invalid block size {}", self.block_bytes)));
        }
        self.bitmap_bytes = (self.block_bytes / SECTOR / 8).next_multiple_of(SECTOR);
        let entries = be32(&header, 28);
        if u64::from(entries) < self.size.div_ceil(self.block_bytes) {
            return Err(Error::invalid("Page Allocation Table too small"));
        }
        if entries > TABLE_ENTRIES_MAX {
            return Err(Error::invalid(format!("Max Table Entries too large ({entries})")));
        }
        self.table_offset = be64(&header, 16);
        let mut bytes = vec![0; entries as usize * 4];
        file.read_at(&mut bytes, self.table_offset)?;
        self.table = bytes.chunks_exact(4).map(|entry| be32(entry, 0)).collect();
        let table_end = (self.table_offset + u64::from(entries) * 4).next_multiple_of(SECTOR);
        let used = self.table.iter().filter(|entry| **entry != UNALLOCATED);
        let last =
            used.map(|entry| u64::from(*entry) * SECTOR + self.bitmap_bytes + self.block_bytes);
        self.end = last.max().unwrap_or(0).max(table_end);
        Ok(())
    }
}

impl Layout for Vpc {
    const DRIVER: &'static str = "vpc";

    fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn lookup(&self, block: u64) -> Place {
        if self.fixed {
            return Place::At(block * self.block_bytes);
        }
        match self.table.get(block as usize) {
            None | Some(&UNALLOCATED) => Place::Nothing,
            Some(sector) => Place::At(u64::from(*sector) * SECTOR + self.bitmap_bytes),
        }
    }

    fn allocate(&mut self, file: &dyn Node, _block: u64) -> Result<u64> {
        let start = self.end;
        let end = start + self.bitmap_bytes + self.block_bytes;
        // The footer goes to the new end first, so that there is always one behind the data.
        file.write_at(&self.footer, end)?;
        let place = start + self.bitmap_bytes;
        // The bitmap is at least a sector long, so it covers the old footer.
        file.write_at(&vec![0xff; self.bitmap_bytes as usize], start)?;
        self.end = end;
        Ok(place)
    }

    fn commit(&mut self, file: &dyn Node, block: u64, place: u64) -> Result<()> {
        let sector = ((place - self.bitmap_bytes) / SECTOR) as u32;
        self.table[block as usize] = sector;
        file.write_at(&sector.to_be_bytes(), self.table_offset + block * 4)
    }
}

/// Cylinders, heads and sectors as the format's specification computes them.
fn geometry(sectors: u64) -> (u64, u64, u64) {
    let sectors = sectors.min(GEOMETRY_SECTORS_MAX);
    if sectors > CYLINDERS_MAX * 16 * 63 {
        return (sectors / 255 / 16, 16, 255);
    }
    let (mut per_track, mut tracks) = (17, sectors / 17);
    let mut heads = tracks.div_ceil(1024).max(4);
    if tracks >= heads * 1024 || heads > 16 {
        (per_track, heads) = (31, 16);
        tracks = sectors / 31;
    }
    if tracks >= heads * 1024 {
        (per_track, heads) = (63, 16);
        tracks = sectors / 63;
    }
    (tracks / heads, heads, per_track)
}

fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    let wanted = options.size("size")?.unwrap_or(0).div_ceil(SECTOR);
    let force = options.bool("force_size")?.unwrap_or(false);
    let fixed = match options.text("subformat") {
        None | Some("dynamic") => false,
        Some("fixed") => true,
        Some(other) => return Err(Error::invalid(format!("Invalid parameter '{other}'"))),
    };
    // The first geometry that is not smaller than what was asked for.
    let (mut cylinders, mut heads, mut per_track) = geometry(wanted);
    if !force && wanted <= GEOMETRY_SECTORS_MAX {
        let mut guess = wanted;
        while cylinders * heads * per_track < wanted {
            guess += 1;
            (cylinders, heads, per_track) = geometry(guess);
        }
    }
    let by_geometry = cylinders * heads * per_track;
    let sectors = if force || by_geometry == GEOMETRY_SECTORS_MAX {
        wanted.max(if force { 0 } else { by_geometry })
    } else {
        by_geometry
    };
    if sectors > SECTORS_MAX {
        return Err(Error::Os(rustix::io::Errno::FBIG));
    }
    let mut footer = vec![0; SECTOR as usize];
    footer[..8].copy_from_slice(COOKIE);
    footer[8..12].copy_from_slice(&2u32.to_be_bytes());
    footer[12..16].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
    footer[16..24].copy_from_slice(&if fixed { u64::MAX } else { SECTOR }.to_be_bytes());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    footer[24..28].copy_from_slice(&(now.saturating_sub(EPOCH_SECONDS) as u32).to_be_bytes());
    footer[28..32].copy_from_slice(if force { b"qem2" } else { b"qemu" });
    footer[32..36].copy_from_slice(&0x0005_0003_u32.to_be_bytes());
    footer[36..40].copy_from_slice(b"Wi2k");
    footer[40..48].copy_from_slice(&(sectors * SECTOR).to_be_bytes());
    footer[48..56].copy_from_slice(&(sectors * SECTOR).to_be_bytes());
    footer[56..58].copy_from_slice(&(cylinders as u16).to_be_bytes());
    footer[58] = heads as u8;
    footer[59] = per_track as u8;
    footer[60..64].copy_from_slice(&if fixed { TYPE_FIXED } else { TYPE_DYNAMIC }.to_be_bytes());
    footer[68..84].copy_from_slice(&unique_id());
    let sum = checksum(&footer, 64);
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    create_protocol(filename, &CreateOptions::new())?;
    let file = open_created(filename)?;
    if fixed {
        file.resize(sectors * SECTOR, Preallocation::Off)?;
        file.write_at(&footer, sectors * SECTOR)?;
        return file.flush();
    }
    write_dynamic(&*file, &footer, sectors * SECTOR)
}

fn write_dynamic(file: &dyn Node, footer: &[u8], size: u64) -> Result<()> {
    let entries = size.div_ceil(BLOCK_BYTES);
    let table_bytes = (entries * 4).next_multiple_of(SECTOR);
    let mut header = vec![0; 1024];
    header[..8].copy_from_slice(SPARSE_COOKIE);
    header[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
    header[16..24].copy_from_slice(&(3 * SECTOR).to_be_bytes());
    header[24..28].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
    header[28..32].copy_from_slice(&(entries as u32).to_be_bytes());
    header[32..36].copy_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
    let sum = checksum(&header, 36);
    header[36..40].copy_from_slice(&sum.to_be_bytes());
    file.write_at(footer, 0)?;
    file.write_at(&header, SECTOR)?;
    file.write_at(&vec![0xff; table_bytes as usize], 3 * SECTOR)?;
    file.write_at(footer, 3 * SECTOR + table_bytes)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_the_specification() {
        for (sectors, expected) in
            [(2048, (30, 4, 17)), (2_097_152, (2080, 16, 63)), (u64::MAX, (65_535, 16, 255))]
        {
            assert_eq!(geometry(sectors), expected, "{sectors}");
        }
    }
}
