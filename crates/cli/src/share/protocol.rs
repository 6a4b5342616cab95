//! The kernel's FUSE protocol, as far as a shared folder needs it (`include/uapi/linux/fuse.h`,
//! version 7.31). Requests are the guest's: every length is checked, none is believed.

use rustix::fs::Stat;
use rustix::io::Errno;

pub const HEAD_BYTES: usize = 40;
const ANSWER_HEAD_BYTES: usize = 16;
/// One write, and one read.
pub const DATA_BYTES_MAX: u32 = 128 << 10;
const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4096;

/// What is asked for.
pub mod operation {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
}

/// Which members of SETATTR count.
pub mod valid {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 2;
    pub const GID: u32 = 4;
    pub const SIZE: u32 = 8;
    pub const ATIME: u32 = 16;
    pub const MTIME: u32 = 32;
    pub const HANDLE: u32 = 64;
    pub const ATIME_NOW: u32 = 128;
    pub const MTIME_NOW: u32 = 256;
}

/// What is said of the connection: large writes, several reads at a time, data that changed on the
/// host is read again, opening may empty a file.
const ABILITIES: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 12 | 1 << 18 | 1 << 22;

/// A request.
pub struct Request<'a> {
    pub operation: u32,
    pub unique: u64,
    pub node: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
        let mut head = Self { operation: 0, unique: 0, node: 0, body: head };
        head.skip(4).ok()?;
        let (operation, unique, node) = (head.u32().ok()?, head.u64().ok()?, head.u64().ok()?);
        Some(Self { operation, unique, node, body })
    }

    fn take<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Errno> {
        let (first, rest) = self.body.split_first_chunk().ok_or(Errno::INVAL)?;
        self.body = rest;
        Ok(*first)
    }

    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn skip(&mut self, count: usize) -> Result<(), Errno> {
        self.body = self.body.get(count..).ok_or(Errno::INVAL)?;
        Ok(())
    }

    /// The rest: data to write.
    pub fn data(&self, count: u32) -> Result<&'a [u8], Errno> {
        self.body.get(..count as usize).ok_or(Errno::INVAL)
    }

    /// A text that ends with a zero.
    pub fn text(&mut self) -> Result<&'a [u8], Errno> {
        let end = self.body.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
        let text = &self.body[..end];
        self.body = &self.body[end + 1..];
        if text.is_empty() || text.len() > PATH_BYTES_MAX {
            return Err(Errno::INVAL);
        }
        Ok(text)
    }

    /// One name in a folder, and nothing else.
    pub fn name(&mut self) -> Result<&'a [u8], Errno> {
        let name = self.text()?;
        match name {
            b"." | b".." => Err(Errno::INVAL),
            name if name.contains(&b'/') => Err(Errno::INVAL),
            name if name.len() > NAME_BYTES_MAX => Err(Errno::NAMETOOLONG),
            name => Ok(name),
        }
    }
}

/// An answer that grows.
#[derive(Default)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// With its head.
    pub fn framed(result: Result<Self, Errno>, unique: u64) -> Vec<u8> {
        let (error, body) = match result {
            Ok(answer) => (0, answer.0),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let mut bytes = Vec::with_capacity(ANSWER_HEAD_BYTES + body.len());
        bytes.extend(((ANSWER_HEAD_BYTES + body.len()) as u32).to_le_bytes());
        bytes.extend(error.to_le_bytes());
        bytes.extend(unique.to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// How long the guest may believe what it was told.
    const SECONDS: u64 = 1;

    pub fn attributes(stat: &Stat, (uid, gid): (u32, u32)) -> Self {
        Self::default().u64(Self::SECONDS).u64(0).attribute(stat, (uid, gid))
    }

    pub fn entry(node: u64, stat: &Stat, owner: (u32, u32)) -> Self {
        let answer = Self::default().u64(node).u64(0).u64(Self::SECONDS).u64(Self::SECONDS);
        answer.u64(0).attribute(stat, owner)
    }

    pub fn opened(self, handle: u64) -> Self {
        self.u64(handle).u64(0)
    }

    fn attribute(self, stat: &Stat, (uid, gid): (u32, u32)) -> Self {
        let answer = self
            .u64(stat.st_ino)
            .u64(stat.st_size as u64)
            .u64(stat.st_blocks as u64)
            .u64(stat.st_atime as u64)
            .u64(stat.st_mtime as u64)
            .u64(stat.st_ctime as u64)
            .u32(stat.st_atime_nsec as u32)
            .u32(stat.st_mtime_nsec as u32)
            .u32(stat.st_ctime_nsec as u32);
        let answer = answer.u32(stat.st_mode).u32(stat.st_nlink as u32).u32(uid).u32(gid);
        answer.u32(0).u32(stat.st_blksize as u32).u32(0)
    }

    /// The greeting's answer.
    pub fn init(minor: u32, read_ahead: u32) -> Self {
        let pages = DATA_BYTES_MAX / 4096;
        let answer = Self::default().u32(7).u32(minor.min(31)).u32(read_ahead).u32(ABILITIES);
        let answer = answer.u32(12 << 16 | 16).u32(DATA_BYTES_MAX).u32(1).u32(pages);
        (0..8).fold(answer, |answer, _| answer.u32(0))
    }

    /// One name in a listing; false when there is no room for it.
    pub fn name(&mut self, inode: u64, next: u64, kind: u32, name: &[u8], room: usize) -> bool {
        let bytes = (24 + name.len()).next_multiple_of(8);
        if self.0.len() + bytes > room {
            return false;
        }
        let end = self.0.len() + bytes;
        self.0.extend(inode.to_le_bytes());
        self.0.extend(next.to_le_bytes());
        self.0.extend((name.len() as u32).to_le_bytes());
        self.0.extend(kind.to_le_bytes());
        self.0.extend(name);
        self.0.resize(end, 0);
        true
    }
}
