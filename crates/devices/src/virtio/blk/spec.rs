//! Virtio 1.3, 5.2: block device.

/// The configuration names the most segments of a request.
pub const F_SEG_MAX: u64 = 1 << 2;
/// Cylinders, heads, sectors.
pub const F_GEOMETRY: u64 = 1 << 4;
/// No writes.
pub const F_RO: u64 = 1 << 5;
/// The size of a logical block.
pub const F_BLK_SIZE: u64 = 1 << 6;
/// There is a cache that can be flushed.
pub const F_FLUSH: u64 = 1 << 9;
/// Physical blocks, best sizes.
pub const F_TOPOLOGY: u64 = 1 << 10;
/// The driver can switch the cache.
pub const F_CONFIG_WCE: u64 = 1 << 11;
/// Several queues.
pub const F_MQ: u64 = 1 << 12;
/// Discard requests.
pub const F_DISCARD: u64 = 1 << 13;
/// Write-zeroes requests.
pub const F_WRITE_ZEROES: u64 = 1 << 14;

/// Read.
pub const T_IN: u32 = 0;
/// Write.
pub const T_OUT: u32 = 1;
/// Flush.
pub const T_FLUSH: u32 = 4;
/// The serial number.
pub const T_GET_ID: u32 = 8;
/// Discard.
pub const T_DISCARD: u32 = 11;
/// Write zeroes.
pub const T_WRITE_ZEROES: u32 = 13;

/// Done.
pub const S_OK: u8 = 0;
/// Failed.
pub const S_IOERR: u8 = 1;
/// No such request.
pub const S_UNSUPP: u8 = 2;

/// All sectors on the wire have this size.
pub const SECTOR_BYTES: u64 = 512;
/// A serial number.
pub const ID_BYTES: usize = 20;
/// Type, priority, sector.
pub const HEADER_BYTES: usize = 16;
/// Sector, count, flags.
pub const RANGE_BYTES: usize = 16;
/// Of a write-zeroes range: the space may be given back.
pub const RANGE_UNMAP: u32 = 1;
/// The most ranges of a discard or write-zeroes request.
pub const RANGES_MAX: usize = 64;
/// The most sectors of a range: 2 GiB, what a request of the block layer can be.
pub const RANGE_SECTORS_MAX: u32 = (1 << 22) - 1;
/// Where the configuration says whether the cache is on.
pub const CONFIG_WRITEBACK: usize = 32;
