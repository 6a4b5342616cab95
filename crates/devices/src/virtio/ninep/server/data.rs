//! Requests about contents: opening, reading, writing, listing.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::{Fid, Open, Result, Server};
use crate::virtio::ninep::share::Share;
use crate::virtio::ninep::spec;
use crate::virtio::ninep::wire::{Qid, Reader, Writer};

/// Names that are taken from the host at a time.
const LISTING_BYTES: usize = 32 << 10;

/// How a file is opened for a guest that asks for this.
pub(super) fn flags(asked: u32) -> Result<OFlags> {
    let mut flags = match asked & spec::open::ACCESS {
        0 => OFlags::RDONLY,
        1 => OFlags::WRONLY,
        2 => OFlags::RDWR,
        _ => return Err(Errno::INVAL),
    };
    for (bit, flag) in [
        (spec::open::EXCLUSIVE, OFlags::EXCL),
        (spec::open::TRUNCATE, OFlags::TRUNC),
        (spec::open::APPEND, OFlags::APPEND),
        (spec::open::DATA_SYNC, OFlags::DSYNC),
        (spec::open::SYNC, OFlags::SYNC),
    ] {
        if asked & bit == bit {
            flags |= flag;
        }
    }
    Ok(flags)
}

pub(super) fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR)
}

impl Server {
    pub(super) fn open(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let (number, asked) = (request.word()?, request.word()?);
        let flags = flags(asked)? - OFlags::EXCL;
        if writes(flags) || flags.contains(OFlags::TRUNC) {
            self.share.writable()?;
        }
        let node = self.node(number)?;
        if !matches!(self.fid(number)?.open, Open::Nothing) {
            return Err(Errno::INVAL);
        }
        let qid = self.share.qid(&node)?;
        self.fid(number)?.open = if node.is_folder() {
            Open::Folder(self.share.reopen(&node, OFlags::RDONLY | OFlags::DIRECTORY)?)
        } else {
            Open::File { file: self.share.reopen(&node, flags)?, writable: writes(flags) }
        };
        answer.qid(qid);
        answer.word(0); // the guest may move as much at a time as fits a message
        Ok(())
    }

    /// What fits an answer besides its fixed part.
    fn room(&self, asked: u32, fixed: usize) -> usize {
        (asked as usize).min((self.message_bytes as usize).saturating_sub(fixed))
    }

    pub(super) fn read(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let (number, offset, count) = (request.word()?, request.long()?, request.word()?);
        let room = self.room(count, spec::READ_OVERHEAD);
        match &self.fid(number)?.open {
            Open::File { file, .. } => {
                answer.counted(room, |bytes| rustix::io::pread(file, bytes, offset))
            }
            Open::Attribute(value) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
                let rest = &value[start..];
                answer.counted(room.min(rest.len()), |bytes| {
                    bytes.copy_from_slice(&rest[..bytes.len()]);
                    Ok(bytes.len())
                })
            }
            Open::Folder(_) => Err(Errno::ISDIR),
            Open::Nothing | Open::NewAttribute { .. } => Err(Errno::INVAL),
        }
    }

    pub(super) fn write(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let (number, offset, count) = (request.word()?, request.long()?, request.word()?);
        let data = request.bytes(count as usize)?;
        let share = std::sync::Arc::clone(&self.share);
        match &mut self.fid(number)?.open {
            Open::File { file, writable: true } => {
                let written = rustix::io::pwrite(&*file, data, offset)?;
                share.written(file)?;
                answer.word(written as u32);
                Ok(())
            }
            Open::NewAttribute { bytes, value, .. } => {
                if offset != value.len() as u64 || value.len() + data.len() > *bytes {
                    return Err(Errno::INVAL);
                }
                value.extend(data);
                answer.word(count);
                Ok(())
            }
            Open::File { .. } => Err(Errno::BADF),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn readdir(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let (number, offset, count) = (request.word()?, request.long()?, request.word()?);
        let room = self.room(count, spec::READ_OVERHEAD);
        let share = std::sync::Arc::clone(&self.share);
        let Fid { node, open, .. } = self.fid(number)?;
        let Open::Folder(file) = open else { return Err(Errno::NOTDIR) };
        let mut listing = Writer::new(0, 0);
        list(&share, node.identity.0, file, offset, room, &mut listing)?;
        let listing = listing.finish();
        let entries = &listing[spec::HEADER_BYTES..];
        answer.counted(entries.len(), |bytes| {
            bytes.copy_from_slice(entries);
            Ok(bytes.len())
        })
    }

    pub(super) fn fsync(&mut self, request: &mut Reader<'_>, _answer: &mut Writer) -> Result<()> {
        let number = request.word()?;
        // Older guests do not say whether data alone will do.
        let data_only = request.word().unwrap_or(0) != 0;
        match &self.fid(number)?.open {
            Open::File { file, .. } if data_only => fs::fdatasync(file),
            Open::File { file, .. } | Open::Folder(file) => fs::fsync(file),
            _ => Err(Errno::BADF),
        }
    }

    /// The guest is the only one who locks, and its kernel has done so before it asks.
    pub(super) fn lock(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        self.fid(request.word()?)?;
        answer.byte(spec::LOCK_SUCCESS);
        Ok(())
    }

    /// Nobody else has a lock.
    pub(super) fn getlock(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        self.fid(request.word()?)?;
        let _kind = request.byte()?;
        let (start, length, process) = (request.long()?, request.long()?, request.word()?);
        let client = request.string()?;
        answer.byte(spec::LOCK_NONE);
        answer.long(start);
        answer.long(length);
        answer.word(process);
        answer.string(client);
        Ok(())
    }
}

/// Puts a folder's entries from an offset on into an answer, as many as fit.
fn list(
    share: &Share,
    device: u64,
    file: &OwnedFd,
    offset: u64,
    room: usize,
    entries: &mut Writer,
) -> Result<()> {
    // Offsets are the host's own; a file system refuses those that are not.
    fs::seek(file, SeekFrom::Start(offset))?;
    let mut buffer = vec![MaybeUninit::uninit(); LISTING_BYTES];
    let mut raw = RawDir::new(file, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if share.hides(OsStr::from_bytes(name)) {
            continue;
        }
        let bytes = spec::QID_BYTES + 8 + 1 + 2 + name.len();
        if entries.len() - spec::HEADER_BYTES + bytes > room {
            break;
        }
        let kind = match entry.file_type() {
            FileType::Directory => (spec::QID_FOLDER, 4),
            // What is a file here may be something else for the guest.
            _ if !share.shows_kinds() => (0, 0),
            FileType::Symlink => (spec::QID_LINK, 10),
            FileType::RegularFile => (0, 8),
            FileType::Fifo => (0, 1),
            FileType::CharacterDevice => (0, 2),
            FileType::BlockDevice => (0, 6),
            FileType::Socket => (0, 12),
            _ => (0, 0),
        };
        // What is mounted here has other numbers; the guest learns them when it walks there.
        let path = share.number(device, entry.ino()).unwrap_or(0);
        entries.qid(Qid { kind: kind.0, version: 0, path });
        entries.long(entry.next_entry_cookie());
        entries.byte(kind.1);
        entries.string(name);
    }
    Ok(())
}
