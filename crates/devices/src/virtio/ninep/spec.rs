//! The numbers of 9P2000.L: requests, whose answers are one higher, and flags.

/// A tag that names the only version that is spoken here.
pub const VERSION: &[u8] = b"9P2000.L";
/// What a server says to a version that it does not know.
pub const VERSION_UNKNOWN: &[u8] = b"unknown";
/// No fid.
pub const NO_FID: u32 = u32::MAX;
/// The answer to a request that failed.
pub const ERROR: u8 = 7;
/// Size, type and tag.
pub const HEADER_BYTES: usize = 7;
/// What surrounds data in the answer to a read: the header and the count.
pub const READ_OVERHEAD: usize = HEADER_BYTES + 4;
/// A qid: type, version, path.
pub const QID_BYTES: usize = 13;

pub const STATFS: u8 = 8;
pub const OPEN: u8 = 12;
pub const CREATE: u8 = 14;
pub const SYMLINK: u8 = 16;
pub const MKNOD: u8 = 18;
pub const RENAME: u8 = 20;
pub const READLINK: u8 = 22;
pub const GETATTR: u8 = 24;
pub const SETATTR: u8 = 26;
pub const XATTRWALK: u8 = 30;
pub const XATTRCREATE: u8 = 32;
pub const READDIR: u8 = 40;
pub const FSYNC: u8 = 50;
pub const LOCK: u8 = 52;
pub const GETLOCK: u8 = 54;
pub const LINK: u8 = 70;
pub const MKDIR: u8 = 72;
pub const RENAMEAT: u8 = 74;
pub const UNLINKAT: u8 = 76;
pub const VERSION_REQUEST: u8 = 100;
pub const AUTH: u8 = 102;
pub const ATTACH: u8 = 104;
pub const FLUSH: u8 = 108;
pub const WALK: u8 = 110;
pub const READ: u8 = 116;
pub const WRITE: u8 = 118;
pub const CLUNK: u8 = 120;
pub const REMOVE: u8 = 122;

/// Types in qids.
pub const QID_FOLDER: u8 = 0x80;
pub const QID_LINK: u8 = 0x02;

/// Flags of opening, as Linux on most machines numbers them.
pub mod open {
    pub const ACCESS: u32 = 0o3;
    pub const EXCLUSIVE: u32 = 0o200;
    pub const TRUNCATE: u32 = 0o1000;
    pub const APPEND: u32 = 0o2000;
    pub const DATA_SYNC: u32 = 0o10000;
    pub const SYNC: u32 = 0o4000000;
}

/// What an answer to `GETATTR` holds: all of the classic fields.
pub const GETATTR_BASIC: u64 = 0x7ff;

/// What `SETATTR` sets.
pub mod set {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 2;
    pub const GID: u32 = 4;
    pub const SIZE: u32 = 8;
    pub const ATIME: u32 = 0x10;
    pub const MTIME: u32 = 0x20;
    pub const CTIME: u32 = 0x40;
    pub const ATIME_GIVEN: u32 = 0x80;
    pub const MTIME_GIVEN: u32 = 0x100;
}

/// `UNLINKAT`: a folder.
pub const UNLINK_FOLDER: u32 = 0x200;
/// The kind of a lock that is none.
pub const LOCK_NONE: u8 = 2;
/// A lock was taken.
pub const LOCK_SUCCESS: u8 = 0;
