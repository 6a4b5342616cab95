//! `file` and `host_device`: an image in a file or on a block device of the host.
//!
//! `-blockdev driver=file,filename=disk.img,node-name=disk0`

use std::fs::{File, OpenOptions as FsOpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range};
use rustix::io::Errno;

use super::{Protocol, locks};
use crate::error::{Error, Result};
use crate::node::{Extent, HostRange, Node, NodeRef, Preallocation, Zeroing, write_zeros};
use crate::open::OpenMode;
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "file",
    prefixes: &["file"],
    parse,
    open: |options, mode| open("file", options, mode),
    create: Some(create),
    create_options: CREATE_OPTIONS,
};

pub(super) const HOST_DEVICE: Protocol = Protocol {
    name: "host_device",
    prefixes: &["host_device"],
    parse,
    open: |options, mode| open("host_device", options, mode),
    create: Some(create_device),
    create_options: CREATE_OPTIONS,
};

pub(super) const HOST_CDROM: Protocol = Protocol {
    name: "host_cdrom",
    prefixes: &["host_cdrom"],
    parse,
    open: |options, mode| open("host_cdrom", options, mode),
    create: None,
    create_options: &[],
};

const CREATE_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("size", OptionKind::Size, "Virtual disk size"),
    OptionSpec::new("nocow", OptionKind::Bool, "Turn off copy-on-write (valid only on btrfs)"),
    OptionSpec::new(
        "preallocation",
        OptionKind::Text,
        "Preallocation mode (allowed values: off, falloc, full)",
    ),
    OptionSpec::new(
        "extent_size_hint",
        OptionKind::Size,
        "Extent size hint for the image file, 0 to disable",
    ),
];

/// File systems whose copies share blocks: XFS, btrfs, bcachefs.
const SHARING_FILE_SYSTEMS: [u64; 3] = [0x5846_5342, 0x9123_683e, 0xca45_1a4e];
/// Images end on a sector, whatever the file's length is.
const SECTOR_BYTES: u64 = 512;
/// What a new file gets at once.
const FIRST_BLOCK_BYTES: u64 = 4096;
/// Safe alignment of memory, offset and length for files opened past the page cache.
const DIRECT_ALIGN: usize = 4096;
/// The largest bounce buffer for such files.
const DIRECT_PIECE_BYTES: usize = 1 << 20;

fn parse(filename: &str, options: &mut OpenOptions) -> Result<()> {
    let own = |prefix: &&str| ["file", "host_device", "host_cdrom"].contains(prefix);
    match super::prefix(filename).filter(own) {
        None => options.set("filename", filename),
        Some(prefix) => {
            let path = &filename[prefix.len() + 1..];
            // What is left must not look like a protocol again.
            let relative = if super::prefix(path).is_some() { "./" } else { "" };
            options.set("filename", format!("{relative}{path}"));
        }
    }
    Ok(())
}

/// A file or block device of the host.
pub struct HostFile {
    driver: &'static str,
    file: File,
    path: String,
    device: bool,
    writable: AtomicBool,
    /// The same file, where it was opened for reading only and is written after all.
    writer: OnceLock<File>,
    /// The permissions that are used and refused to others.
    locked: Mutex<(u32, u32)>,
    direct: bool,
    no_flush: bool,
    unmap: bool,
    /// The file's length; only we change it while we hold the lock on resizing.
    length: AtomicU64,
    /// The last answer of the file system about holes: start, end, whether data.
    run: Mutex<Option<(u64, u64, bool)>>,
    can_zero_range: AtomicBool,
    can_punch: AtomicBool,
    locking: bool,
    /// Orders read-modify-write of partial blocks when the page cache is bypassed.
    partial: Mutex<()>,
}

fn open(driver: &'static str, options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    let path = options.take_text("filename").ok_or_else(|| {
        Error::invalid(format!("The '{driver}' block driver requires a file name"))
    })?;
    let locking = options.take_text("locking");
    check_aio(options)?;
    let locking = match locking.as_deref() {
        None | Some("auto" | "on") => true,
        Some("off") => false,
        Some(other) => {
            return Err(Error::invalid(format!(
                "Invalid parameter '{other}'\nAccepted values are 'auto', 'on', 'off'"
            )));
        }
    };
    let could_not = |error: Error| match error {
        Error::Os(_) => error.during(format!("Could not open '{path}'")),
        other => other,
    };
    let mut open = FsOpenOptions::new();
    open.read(true).write(mode.write);
    if mode.direct {
        open.custom_flags(nix::libc::O_DIRECT);
    }
    let mut writable = mode.write;
    let mut opened = open.open(&path);
    if let Err(error) = &opened
        && writable
        && mode.auto_read_only
        && is_refusal(error)
    {
        writable = false;
        opened = open.write(false).open(&path);
    }
    let file = opened.map_err(|error| could_not(error.into()))?;
    let metadata = file.metadata()?;
    let device = metadata.file_type().is_block_device();
    if driver == "file" && !metadata.file_type().is_file() && !device {
        return Err(Error::invalid(
            "'file' driver requires '".to_string() + &path + "' to be a regular file",
        ));
    }
    if driver != "file" && !device && !metadata.file_type().is_char_device() {
        return Err(Error::invalid(format!(
            "'{driver}' driver requires '{path}' to be either a character or block device"
        )));
    }
    let length = file_length(&file)?;
    Ok(Arc::new(HostFile {
        driver: if device && driver == "file" { "host_device" } else { driver },
        file,
        path,
        device,
        writable: AtomicBool::new(writable),
        writer: OnceLock::new(),
        locked: Mutex::new((0, 0)),
        direct: mode.direct,
        no_flush: mode.no_flush,
        unmap: mode.unmap,
        length: AtomicU64::new(length),
        run: Mutex::new(None),
        can_zero_range: AtomicBool::new(true),
        can_punch: AtomicBool::new(true),
        locking,
        partial: Mutex::new(()),
    }))
}

/// Whether a file is there, and only writing to it is refused.
fn is_refusal(error: &std::io::Error) -> bool {
    let refusals = [Errno::ACCESS, Errno::PERM, Errno::ROFS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| refusals.contains(&number))
}

/// Requests run on the threads that make them: there is no other way here.
fn check_aio(options: &mut OpenOptions) -> Result<()> {
    match options.take_text("aio").as_deref() {
        None | Some("threads") => Ok(()),
        Some(mode @ ("native" | "io_uring")) => Err(Error::unsupported(format!(
            "The option aio={mode} is not supported, only aio=threads is"
        ))),
        Some(other) => Err(Error::invalid(format!("Invalid parameter '{other}'"))),
    }
}

fn file_length(file: &File) -> Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

/// Makes a file, or empties one that is there.
fn create(filename: &str, options: &CreateOptions) -> Result<()> {
    let path = super::prefix(filename)
        .filter(|prefix| *prefix == "file")
        .map_or(filename, |prefix| &filename[prefix.len() + 1..]);
    let size = options.size("size")?.unwrap_or(0).next_multiple_of(SECTOR_BYTES);
    let preallocation = options.preallocation()?;
    if preallocation == Preallocation::Metadata {
        return Err(Error::invalid("Unsupported preallocation mode 'metadata'"));
    }
    let file = FsOpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
        .map_err(|error| Error::from(error).during(format!("Could not create '{path}'")))?;
    // Who uses the file now must not lose it: the locks come before the truncation.
    let changed = locks::WRITE | locks::RESIZE;
    locks::acquire(&file, path, changed, locks::RESIZE)?;
    if file.metadata()?.file_type().is_block_device() {
        return create_device(filename, options);
    }
    file.set_len(0)?;
    grow(&file, 0, size, preallocation)
}

/// A device cannot be made; it must be large enough.
fn create_device(filename: &str, options: &CreateOptions) -> Result<()> {
    let path = filename.strip_prefix("host_device:").unwrap_or(filename);
    let file = FsOpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|error| Error::from(error).during(format!("Could not open '{path}'")))?;
    let size = options.size("size")?.unwrap_or(0);
    if file_length(&file)? < size {
        return Err(Error::invalid("Device is too small"));
    }
    Ok(())
}

/// Lengthens a file and provides its space.
fn grow(file: &File, from: u64, to: u64, preallocation: Preallocation) -> Result<()> {
    match preallocation {
        Preallocation::Off | Preallocation::Metadata => {
            if from == 0 && to > 0 {
                // The first block is there from the beginning: programs read a size from it.
                let bytes = if to < FIRST_BLOCK_BYTES { SECTOR_BYTES } else { FIRST_BLOCK_BYTES };
                file.write_all_at(&vec![0; bytes as usize], 0)?;
            }
            file.set_len(to).map_err(|e| Error::from(e).during("Failed to resize the file"))
        }
        Preallocation::Falloc => {
            if to > from {
                rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from).map_err(
                    |errno| {
                        Error::from(errno).during("Could not preallocate data for the new file")
                    },
                )?;
            }
            Ok(())
        }
        Preallocation::Full => {
            let zeros = vec![0; 1 << 20];
            let mut at = from;
            while at < to {
                let piece = (to - at).min(zeros.len() as u64) as usize;
                file.write_all_at(&zeros[..piece], at).map_err(|error| {
                    Error::from(error).during("Could not write zeros for preallocation")
                })?;
                at += piece as u64;
            }
            Ok(())
        }
    }
}

impl HostFile {
    /// Whether another descriptor is of the same file.
    fn is_same(&self, other: &File) -> bool {
        let identity = |file: &File| file.metadata().ok().map(|facts| (facts.dev(), facts.ino()));
        identity(other).is_some_and(|own| identity(&self.file) == Some(own))
    }

    /// Reads until the buffer is full or the file ends, and returns the bytes read.
    fn read_plain(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Reads past the page cache through an aligned buffer.
    fn read_direct(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut bounce = Bounce::new(buffer.len());
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let start = at - at % DIRECT_ALIGN as u64;
            let skip = (at - start) as usize;
            let wanted = (buffer.len() - done + skip).next_multiple_of(DIRECT_ALIGN);
            let piece = bounce.slice(wanted);
            let got = self.read_plain(piece, start)?;
            let useful = got.saturating_sub(skip).min(buffer.len() - done);
            if useful == 0 {
                break;
            }
            buffer[done..done + useful].copy_from_slice(&piece[skip..skip + useful]);
            done += useful;
        }
        Ok(done)
    }

    /// Where writes go.
    fn out(&self) -> &File {
        self.writer.get().unwrap_or(&self.file)
    }

    /// Writes past the page cache; partial blocks are read, changed and written.
    fn write_direct(&self, data: &[u8], offset: u64) -> Result<()> {
        let _order = self.partial.lock();
        let end = offset + data.len() as u64;
        let length_before = self.length.load(Ordering::Acquire);
        let mut bounce = Bounce::new(data.len());
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let start = at - at % DIRECT_ALIGN as u64;
            let skip = (at - start) as usize;
            let wanted = (data.len() - done + skip).next_multiple_of(DIRECT_ALIGN);
            let piece = bounce.slice(wanted);
            let useful = (piece.len() - skip).min(data.len() - done);
            if skip != 0 || useful + skip != piece.len() {
                piece.fill(0);
                self.read_plain(piece, start)?;
            }
            piece[skip..skip + useful].copy_from_slice(&data[done..done + useful]);
            self.out().write_all_at(piece, start)?;
            done += useful;
        }
        // A partial last block must not lengthen the file beyond what was written.
        if !self.device && !end.is_multiple_of(DIRECT_ALIGN as u64) && end > length_before {
            self.out().set_len(end.max(length_before))?;
        }
        Ok(())
    }

    fn note_written(&self, offset: u64, length: u64) {
        self.length.fetch_max(offset + length, Ordering::AcqRel);
        let mut run = self.run.lock();
        if run.is_some_and(|(start, end, data)| !data && start < offset + length && offset < end) {
            *run = None;
        }
    }

    /// Whether the range is data, and how far that holds.
    fn run_at(&self, offset: u64) -> Result<(u64, bool)> {
        let mut cached = self.run.lock();
        if let Some((start, end, data)) = *cached
            && (start..end).contains(&offset)
        {
            return Ok((end, data));
        }
        let length = self.length.load(Ordering::Acquire);
        let (start, end, data) = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => (offset, data.min(length), false),
            Ok(_) => match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => (offset, hole.min(length), true),
                _ => (offset, length, true),
            },
            Err(Errno::NXIO) => (offset, length, false),
            Err(_) => (offset, length, true),
        };
        *cached = Some((start, end, data));
        Ok((end, data))
    }

    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        if self.device || !self.can_punch.load(Ordering::Relaxed) {
            return Err(Error::unsupported("Operation not supported"));
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(self.out(), flags, offset, length) {
            Ok(()) => {
                *self.run.lock() = None;
                Ok(())
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                self.can_punch.store(false, Ordering::Relaxed);
                Err(Error::unsupported("Operation not supported"))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn zero_range(&self, offset: u64, length: u64) -> Result<()> {
        if self.can_zero_range.load(Ordering::Relaxed) {
            match rustix::fs::fallocate(self.out(), FallocateFlags::ZERO_RANGE, offset, length) {
                Ok(()) => {
                    self.note_written(offset, length);
                    return Ok(());
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => {
                    self.can_zero_range.store(false, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        self.punch(offset, length)?;
        rustix::fs::fallocate(self.out(), FallocateFlags::empty(), offset, length)?;
        self.note_written(offset, length);
        Ok(())
    }
}

/// A buffer at an aligned address, without unsafe code: the slack before it is skipped.
struct Bounce {
    bytes: Vec<u8>,
    skip: usize,
}

impl Bounce {
    fn new(wanted: usize) -> Self {
        let usable =
            (wanted + 2 * DIRECT_ALIGN).next_multiple_of(DIRECT_ALIGN).min(DIRECT_PIECE_BYTES);
        let bytes = vec![0; usable + DIRECT_ALIGN];
        let skip = bytes.as_ptr().align_offset(DIRECT_ALIGN);
        Self { bytes, skip }
    }

    fn slice(&mut self, wanted: usize) -> &mut [u8] {
        let usable = self.bytes.len() - DIRECT_ALIGN;
        &mut self.bytes[self.skip..self.skip + wanted.min(usable)]
    }
}

impl Node for HostFile {
    fn driver(&self) -> &'static str {
        self.driver
    }

    fn filename(&self) -> String {
        self.path.clone()
    }

    fn size(&self) -> u64 {
        self.length.load(Ordering::Acquire).next_multiple_of(SECTOR_BYTES)
    }

    fn writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let got = if self.direct {
            self.read_direct(buffer, offset)?
        } else {
            self.read_plain(buffer, offset)?
        };
        buffer[got..].fill(0);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        if !self.writable() {
            return Err(Errno::BADF.into());
        }
        if self.direct {
            self.write_direct(data, offset)?;
        } else {
            self.out().write_all_at(data, offset)?;
        }
        self.note_written(offset, data.len() as u64);
        Ok(())
    }

    fn copy_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        let (mut from, mut to) = (source.offset, offset);
        let end = offset + source.length;
        while to < end {
            let wanted = usize::try_from(end - to).unwrap_or(usize::MAX);
            match copy_file_range(source.file, Some(&mut from), self.out(), Some(&mut to), wanted) {
                Ok(0) => return Err(Error::unsupported("Operation not supported")),
                Ok(_) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return Err(Error::unsupported("Operation not supported"));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        self.note_written(offset, source.length);
        Ok(())
    }

    fn shares_blocks(&self) -> bool {
        let kind = rustix::fs::fstatfs(&self.file).map(|stat| stat.f_type as u64 & 0xffff_ffff);
        kind.is_ok_and(|kind| SHARING_FILE_SYSTEMS.contains(&kind))
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        match self.zero_fast(offset, length, zeroing) {
            Err(Error::Unsupported { .. }) => write_zeros(self, offset, length),
            done => done,
        }
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        if !self.writable() {
            return Err(Errno::BADF.into());
        }
        if length == 0 {
            return Ok(());
        }
        let end = offset + length;
        let file_end = self.length.load(Ordering::Acquire);
        if zeroing == Zeroing::Keep {
            return self.zero_range(offset, length);
        }
        if offset < file_end {
            self.punch(offset, length.min(file_end - offset))?;
        }
        if end > file_end && !self.device {
            self.out().set_len(end)?;
            self.note_written(offset, length);
        }
        Ok(())
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        if !self.unmap {
            return Ok(());
        }
        let file_end = self.length.load(Ordering::Acquire);
        if offset >= file_end {
            return Ok(());
        }
        match self.punch(offset, length.min(file_end - offset)) {
            Err(Error::Unsupported { .. }) => Ok(()), // a discard is a hint
            done => done,
        }
    }

    fn flush(&self) -> Result<()> {
        if self.no_flush || !self.writable() {
            return Ok(());
        }
        Ok(rustix::fs::fdatasync(self.out())?)
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        let file_end = self.length.load(Ordering::Acquire);
        if offset >= file_end {
            // The rest of the last sector.
            return Ok(Extent {
                length,
                zero: true,
                allocated: true,
                host: Some(offset),
                ..Extent::default()
            });
        }
        let (end, data) = self.run_at(offset)?;
        Ok(Extent {
            length: length.min(end - offset),
            data,
            zero: !data,
            allocated: true,
            host: Some(offset),
            ..Extent::default()
        })
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        let before = self.length.load(Ordering::Acquire);
        if self.device {
            return if size <= before {
                Ok(())
            } else {
                Err(Error::invalid("Cannot grow device files"))
            };
        }
        if preallocation != Preallocation::Off && size < before {
            return Err(Error::unsupported("Preallocation can't be used for shrinking files"));
        }
        grow(self.out(), before, size, preallocation)?;
        self.length.store(size, Ordering::Release);
        *self.run.lock() = None;
        Ok(())
    }

    fn allocated_bytes(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.blocks() * SECTOR_BYTES)
    }

    fn starts_zeroed(&self) -> bool {
        !self.device
    }

    fn lock(&self, mode: &OpenMode, metadata: bool) -> Result<()> {
        if !self.locking {
            return Ok(());
        }
        let mut used = locks::CONSISTENT_READ;
        let mut refused = 0;
        if mode.write {
            used |= locks::WRITE | if metadata { locks::RESIZE } else { 0 };
        }
        if metadata && !mode.force_share {
            refused = locks::WRITE | locks::RESIZE;
        }
        *self.locked.lock() = (used, refused);
        locks::acquire(&self.file, &self.path, used, refused)
    }

    fn set_writable(&self, writable: bool) -> Result<()> {
        if self.writable() == writable {
            return Ok(());
        }
        if writable && self.writer.get().is_none() {
            // The name may mean another file by now; the descriptor does not.
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let mut open = FsOpenOptions::new();
            open.read(true).write(true);
            if self.direct {
                open.custom_flags(nix::libc::O_DIRECT);
            }
            let file = open.open(own).or_else(|error| {
                // A file that was shown for reading only may be shown for writing by now, which the
                // old descriptor does not know.
                let other = if is_refusal(&error) { open.open(&self.path).ok() } else { None };
                other.filter(|other| self.is_same(other)).ok_or(error)
            });
            let file = file.map_err(|error| {
                Error::from(error).during(format!("Could not reopen '{}'", self.path))
            })?;
            _ = self.writer.set(file); // another thread may have been faster
        }
        let (used, refused) = *self.locked.lock();
        if writable && self.locking && used != 0 {
            let more = used | locks::WRITE | locks::RESIZE;
            if let Err(error) = locks::acquire(&self.file, &self.path, more, refused) {
                // What was locked before stays so.
                locks::acquire(&self.file, &self.path, used, refused)?;
                return Err(error);
            }
        }
        self.writable.store(writable, Ordering::Release);
        Ok(())
    }

    fn host_file(&self) -> Option<&File> {
        (!self.direct).then_some(&self.file)
    }
}
