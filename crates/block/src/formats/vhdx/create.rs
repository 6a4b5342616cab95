//! Making images.

use super::super::blocks::unique_id;
use super::header::{
    BAT, Guid, HEADER_PLACES, METADATA, REGION_BYTES, REGION_PLACES, SIGNATURE, new_header, seal,
};
use super::{BLOCK_BYTES_MAX, CHUNK_SECTORS, FULLY_PRESENT, MEBIBYTE, SIZE_MAX, item};
use crate::error::{Error, Result};
use crate::node::Preallocation;
use crate::open::{OpenContext, create_protocol, open_created};
use crate::options::CreateOptions;

const SECTOR: u64 = 512;
const PHYSICAL_SECTOR: u32 = 512;
/// The state of a block that reads as zeros.
const ZERO: u64 = 2;

/// Blocks are larger on larger disks.
fn automatic_block(size: u64) -> u64 {
    match size {
        size if size > 32 << 40 => 64 << 20,
        size if size > 100 << 30 => 32 << 20,
        size if size > 1 << 30 => 16 << 20,
        _ => 8 << 20,
    }
}

/// What an image is to be, checked.
struct Plan {
    size: u64,
    fixed: bool,
    block: u64,
    log_bytes: u64,
    /// Blocks that were never written are marked as zeros.
    zero_state: bool,
}

impl Plan {
    fn new(options: &CreateOptions) -> Result<Self> {
        let size = options.size("size")?.unwrap_or(0).next_multiple_of(SECTOR);
        if size > SIZE_MAX {
            return Err(Error::invalid("Image size too large; max of 64TB"));
        }
        let fixed = match options.text("subformat") {
            None | Some("dynamic") => false,
            Some("fixed") => true,
            Some(other) => {
                return Err(Error::invalid(format!("Invalid parameter '{other}'")));
            }
        };
        let log_bytes = options.size("log_size")?.unwrap_or(MEBIBYTE);
        if !(MEBIBYTE..1 << 32).contains(&log_bytes) || !log_bytes.is_multiple_of(MEBIBYTE) {
            return Err(Error::invalid("Log size must be a multiple of 1 MB"));
        }
        let block = match options.size("block_size")?.unwrap_or(0) {
            0 => automatic_block(size),
            block => block,
        };
        if !block.is_multiple_of(MEBIBYTE) {
            return Err(Error::invalid("Block size must be a multiple of 1 MB"));
        }
        if !block.is_power_of_two() {
            return Err(Error::invalid("Block size must be a power of two"));
        }
        if block > BLOCK_BYTES_MAX {
            return Err(Error::invalid(format!("Block size must not exceed {BLOCK_BYTES_MAX}")));
        }
        // They read as zeros in either state.
        let zero_state = options.bool("block_state_zero")?.unwrap_or(true);
        Ok(Self { size, fixed, block, log_bytes, zero_state })
    }

    fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block)
    }

    fn ratio(&self) -> u64 {
        CHUNK_SECTORS * SECTOR / self.block
    }

    /// Entries of the allocation table.
    fn entries(&self) -> u64 {
        self.blocks() + self.blocks().saturating_sub(1) / self.ratio()
    }

    /// The allocation table, for blocks that lie one behind the other from `data` on, if at all.
    fn table(&self, data: u64) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.entries() as usize * 8);
        let chunk = self.ratio() + 1;
        for index in 0..self.entries() {
            let block = index - index / chunk;
            let is_bitmap = index % chunk == self.ratio();
            let entry = match (is_bitmap, self.fixed) {
                (true, _) => 0,
                (false, true) => (data + block * self.block) | FULLY_PRESENT,
                (false, false) => ZERO,
            };
            table.extend(u64::to_le_bytes(entry));
        }
        table
    }
}

pub fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    let plan = Plan::new(options)?;
    let metadata = MEBIBYTE + plan.log_bytes;
    let bat = metadata + MEBIBYTE;
    let bat_bytes = (plan.entries() * 8).next_multiple_of(MEBIBYTE).max(MEBIBYTE);
    let data = bat + bat_bytes;
    create_protocol(filename, &CreateOptions::new())?;
    let file = open_created(filename)?;
    let bytes = if plan.fixed { plan.blocks() * plan.block } else { 0 };
    file.resize(data + bytes, Preallocation::Off)?;
    let mut identifier = SIGNATURE.to_vec();
    identifier.extend("Hostel".encode_utf16().flat_map(u16::to_le_bytes));
    file.write_at(&identifier, 0)?;
    for (number, place) in HEADER_PLACES.into_iter().enumerate() {
        file.write_at(&new_header(number as u64 + 1, (MEBIBYTE, plan.log_bytes)), place)?;
    }
    let regions = region_table(&[(BAT, bat, bat_bytes), (METADATA, metadata, MEBIBYTE)]);
    for place in REGION_PLACES {
        file.write_at(&regions, place)?;
    }
    let (table, items) = metadata_region(plan.block, plan.size, plan.fixed);
    file.write_at(&table, metadata)?;
    file.write_at(&items, metadata + REGION_BYTES as u64)?;
    if plan.fixed || plan.zero_state {
        file.write_at(&plan.table(data), bat)?;
    }
    file.flush()
}

fn region_table(rows: &[(Guid, u64, u64)]) -> Vec<u8> {
    let mut regions = vec![0; REGION_BYTES];
    regions[..4].copy_from_slice(b"regi");
    regions[8..12].copy_from_slice(&(rows.len() as u32).to_le_bytes());
    for (entry, (name, offset, length)) in regions[16..].chunks_exact_mut(32).zip(rows) {
        entry[..16].copy_from_slice(name);
        entry[16..24].copy_from_slice(&offset.to_le_bytes());
        entry[24..28].copy_from_slice(&(*length as u32).to_le_bytes());
        entry[28..32].copy_from_slice(&1u32.to_le_bytes()); // required
    }
    seal(&mut regions);
    regions
}

/// The table of items and the items.
fn metadata_region(block: u64, size: u64, fixed: bool) -> (Vec<u8>, Vec<u8>) {
    const IS_DISK: u32 = 2;
    const IS_REQUIRED: u32 = 4;
    let mut parameters = (block as u32).to_le_bytes().to_vec();
    parameters.extend(u32::from(fixed).to_le_bytes()); // blocks stay allocated
    let rows: [(_, Vec<u8>, u32); 5] = [
        (item::FILE_PARAMETERS, parameters, IS_REQUIRED),
        (item::DISK_SIZE, size.to_le_bytes().to_vec(), IS_REQUIRED | IS_DISK),
        (item::DISK_ID, unique_id().to_vec(), IS_REQUIRED | IS_DISK),
        (item::LOGICAL_SECTOR, (SECTOR as u32).to_le_bytes().to_vec(), IS_REQUIRED | IS_DISK),
        (item::PHYSICAL_SECTOR, PHYSICAL_SECTOR.to_le_bytes().to_vec(), IS_REQUIRED | IS_DISK),
    ];
    let mut table = b"metadata\0\0".to_vec();
    table.extend((rows.len() as u16).to_le_bytes());
    table.resize(32, 0);
    let mut items = Vec::new();
    for (name, bytes, flags) in rows {
        table.extend(name);
        table.extend((REGION_BYTES as u32 + items.len() as u32).to_le_bytes());
        table.extend((bytes.len() as u32).to_le_bytes());
        table.extend(flags.to_le_bytes());
        table.extend([0; 4]);
        items.extend(bytes);
    }
    table.resize(REGION_BYTES, 0);
    (table, items)
}
