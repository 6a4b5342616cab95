//! `parallels`: the disks of Parallels Desktop, expandable ones of version 2.
//!
//! `-blockdev driver=parallels,file.driver=file,file.filename=disk.hds`

use std::sync::Arc;

use super::Format;
use super::blocks::{Blocks, Layout, Place};
use super::read_only::{le32, le64, read_table};
use crate::error::{Error, Result};
use crate::info::{CheckReport, Fix};
use crate::node::{Node, NodeRef, Preallocation};
use crate::open::{OpenContext, OpenMode, create_protocol, open_created};
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};

/// The table row.
pub const FORMAT: Format = Format {
    name: "parallels",
    probe: |start, _| {
        let magic = start.starts_with(MAGIC_SECTORS) || start.starts_with(MAGIC_CLUSTERS);
        if magic && start.len() >= HEADER_BYTES && le32(start, VERSION) == VERSION_2 {
            100
        } else {
            0
        }
    },
    open,
    create: Some(create),
    create_options: &[
        OptionSpec::new("size", OptionKind::Size, "Virtual disk size"),
        OptionSpec::new("cluster_size", OptionKind::Size, "Parallels image cluster size")
            .or("1048576"),
    ],
    amend_options: &[],
    backing: false,
    measure: None,
};

/// Table entries count sectors.
const MAGIC_SECTORS: &[u8] = b"WithoutFreeSpace";
/// Table entries count clusters.
const MAGIC_CLUSTERS: &[u8] = b"WithouFreSpacExt";
const VERSION_2: u32 = 2;
const HEADER_BYTES: usize = 64;
const SECTOR: u64 = 512;
const IN_USE: u32 = 0x746f_6e59;
const CLUSTER_BYTES: u64 = 1 << 20;
/// A table of more entries than this is refused: 512 MiB of it.
const ENTRIES_MAX: u32 = 1 << 27;
const HEADS: u32 = 16;
const SECTORS_A_CYLINDER: u64 = 32;

// Places in the header.
const VERSION: usize = 16;
const HEADS_AT: usize = 20;
const CYLINDERS: usize = 24;
const TRACKS: usize = 28;
const ENTRIES: usize = 32;
const SECTORS: usize = 36;
const STATE: usize = 44;
const DATA_OFFSET: usize = 48;
const EXTENSION: usize = 56;

struct Parallels {
    size: u64,
    cluster: u64,
    /// What table entries count.
    unit: u64,
    table: Vec<u32>,
    /// Where data begins.
    data: u64,
    /// Where the next cluster goes.
    end: u64,
    was_in_use: bool,
}

fn open(
    file: NodeRef,
    options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    // Clusters are appended one by one: what other values would ask for is not done.
    if let Some(other) = options.take_text("prealloc-mode").filter(|mode| mode != "falloc") {
        return Err(Error::unsupported(format!("prealloc-mode='{other}' is not supported")));
    }
    let mut header = vec![0; HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    let by_clusters = header.starts_with(MAGIC_CLUSTERS);
    if !(by_clusters || header.starts_with(MAGIC_SECTORS)) || le32(&header, VERSION) != VERSION_2 {
        return Err(Error::invalid("Image not in Parallels format"));
    }
    let tracks = u64::from(le32(&header, TRACKS));
    if tracks == 0 {
        return Err(Error::invalid("Invalid image: Zero sectors per track"));
    }
    if tracks > i32::MAX as u64 / 513 {
        return Err(Error::invalid("Invalid image: Too big cluster"));
    }
    let mut sectors = le64(&header, SECTORS);
    if !by_clusters {
        sectors &= u64::from(u32::MAX);
    }
    let entries = le32(&header, ENTRIES);
    if entries > ENTRIES_MAX {
        return Err(Error::Os(rustix::io::Errno::FBIG).during_text("Catalog too large".into()));
    }
    if sectors > i64::MAX as u64 / SECTOR {
        return Err(Error::invalid("Invalid image: Too many sectors"));
    }
    if mode.write && le64(&header, EXTENSION) != 0 {
        return Err(Error::unsupported(
            "Images with an extension (bitmaps) can only be opened read-only",
        ));
    }
    let table = read_table(&*file, HEADER_BYTES as u64, u64::from(entries) * 4, "The catalog")?;
    let table: Vec<u32> = table.chunks_exact(4).map(|entry| le32(entry, 0)).collect();
    let cluster = tracks * SECTOR;
    let unit = if by_clusters { cluster } else { SECTOR };
    let own = u64::from(le32(&header, DATA_OFFSET)) * SECTOR;
    let table_end = HEADER_BYTES as u64 + u64::from(entries) * 4;
    let data = if own == 0 { table_end.next_multiple_of(SECTOR) } else { own };
    let used = table.iter().filter(|entry| **entry != 0);
    let used_end = used.map(|entry| u64::from(*entry) * unit + cluster).max().unwrap_or(0);
    let end = used_end.max(data).max(file.size()).next_multiple_of(unit);
    let was_in_use = le32(&header, STATE) == IN_USE;
    let mut layout =
        Parallels { size: sectors * SECTOR, cluster, unit, table, data, end, was_in_use };
    if was_in_use && mode.write && !mode.check {
        layout.check(&*file, Fix { leaks: true, errors: true })?;
    }
    Ok(Arc::new(Blocks::new(file, mode.write, layout)))
}

impl Layout for Parallels {
    const DRIVER: &'static str = "parallels";

    fn block_bytes(&self) -> u64 {
        self.cluster
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn lookup(&self, block: u64) -> Place {
        match self.table.get(block as usize) {
            None | Some(0) => Place::Nothing,
            Some(entry) => Place::At(u64::from(*entry) * self.unit),
        }
    }

    fn allocate(&mut self, file: &dyn Node, _block: u64) -> Result<u64> {
        let place = self.end;
        if u32::try_from(place / self.unit).is_err() {
            return Err(rustix::io::Errno::FBIG.into());
        }
        self.end += self.cluster;
        file.resize(self.end, Preallocation::Off)?;
        Ok(place)
    }

    fn commit(&mut self, file: &dyn Node, block: u64, place: u64) -> Result<()> {
        let entry = (place / self.unit) as u32;
        let slot = self.table.get_mut(block as usize);
        *slot.ok_or_else(|| Error::corrupt("The catalog is too short for the disk"))? = entry;
        file.write_at(&entry.to_le_bytes(), HEADER_BYTES as u64 + block * 4)
    }

    fn begin_writing(&mut self, file: &dyn Node) -> Result<()> {
        file.write_at(&IN_USE.to_le_bytes(), STATE as u64)
    }

    fn end_writing(&mut self, file: &dyn Node) -> Result<()> {
        file.flush()?;
        file.write_at(&0u32.to_le_bytes(), STATE as u64)
    }

    fn check(&mut self, file: &dyn Node, fix: Fix) -> Result<CheckReport> {
        let mut report =
            CheckReport { total_clusters: self.table.len() as u64, ..CheckReport::default() };
        let repairing = |fix: bool| if fix { "Repairing" } else { "ERROR" };
        if self.was_in_use {
            report
                .messages
                .push(format!("{} image was not closed correctly", repairing(fix.errors)));
            report.corruptions += 1;
            if fix.errors {
                file.write_at(&0u32.to_le_bytes(), STATE as u64)?;
                self.was_in_use = false;
                report.corruptions_fixed += 1;
            }
        }
        let (size, unit, cluster) = (file.size(), self.unit, self.cluster);
        let mut places = std::collections::HashSet::new();
        let mut last = None;
        for block in 0..self.table.len() {
            let entry = self.table[block];
            if entry == 0 {
                continue;
            }
            let place = u64::from(entry) * unit;
            let outside = place < self.data || place + cluster > size.next_multiple_of(cluster);
            if outside || !places.insert(entry) {
                let what = if outside {
                    "cluster {} is outside image"
                } else {
                    "duplicate offset in BAT entry {}"
                };
                let text = what.replace("{}", &block.to_string());
                report.messages.push(format!("{} {text}", repairing(fix.errors)));
                report.corruptions += 1;
                if fix.errors {
                    self.table[block] = 0;
                    file.write_at(&0u32.to_le_bytes(), HEADER_BYTES as u64 + block as u64 * 4)?;
                    report.corruptions_fixed += 1;
                }
                continue;
            }
            report.allocated_clusters += 1;
            if last.is_some_and(|last: u64| last + cluster != place) {
                report.fragmented_clusters += 1;
            }
            last = Some(place);
            report.image_end_offset = report.image_end_offset.max(place + cluster);
        }
        report.image_end_offset = report.image_end_offset.max(self.data);
        self.check_leaks(file, fix, &mut report)?;
        if fix.errors || fix.leaks {
            file.flush()?;
        }
        Ok(report)
    }
}

impl Parallels {
    fn check_leaks(&mut self, file: &dyn Node, fix: Fix, report: &mut CheckReport) -> Result<()> {
        let end = report.image_end_offset;
        if file.size() > end {
            let leaks = (file.size() - end).div_ceil(self.cluster);
            let word = if fix.leaks { "Repairing" } else { "ERROR" };
            report
                .messages
                .push(format!("{word} space leaked at the end of the image {}", file.size() - end));
            report.leaks += leaks;
            if fix.leaks {
                file.resize(end, Preallocation::Off)?;
                self.end = end.next_multiple_of(self.unit);
                report.leaks_fixed += leaks;
            }
        }
        Ok(())
    }
}

fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    let size = options.size("size")?.unwrap_or(0).next_multiple_of(SECTOR);
    let cluster = options.size("cluster_size")?.unwrap_or(CLUSTER_BYTES);
    if cluster == 0 || !cluster.is_multiple_of(SECTOR) || cluster > i32::MAX as u64 / 2 {
        return Err(Error::invalid("Cluster size must be a multiple of 512 bytes"));
    }
    let entries = size.div_ceil(cluster);
    if entries > u64::from(ENTRIES_MAX) {
        return Err(Error::Os(rustix::io::Errno::FBIG).during_text("Image size is too big".into()));
    }
    let start = (HEADER_BYTES as u64 + entries * 4).next_multiple_of(cluster);
    let mut header = vec![0; SECTOR as usize];
    header[..16].copy_from_slice(MAGIC_CLUSTERS);
    let cylinders = (size / SECTOR).div_ceil(u64::from(HEADS)).div_ceil(SECTORS_A_CYLINDER);
    let fields = [
        (VERSION, VERSION_2),
        (HEADS_AT, HEADS),
        (CYLINDERS, u32::try_from(cylinders).unwrap_or(u32::MAX)),
        (TRACKS, (cluster / SECTOR) as u32),
        (ENTRIES, entries as u32),
        (DATA_OFFSET, (start / SECTOR) as u32),
    ];
    for (at, value) in fields {
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    header[SECTORS..SECTORS + 8].copy_from_slice(&(size / SECTOR).to_le_bytes());
    create_protocol(filename, &CreateOptions::new())?;
    let file = open_created(filename)?;
    file.write_at(&header, 0)?;
    file.resize(start, Preallocation::Off)?;
    file.flush()
}
