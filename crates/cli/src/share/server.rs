//! Answers to the guest's kernel.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    self, AtFlags, CWD, Dir, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags,
    ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
};
use rustix::io::{Errno, pread, pwrite};

use super::nodes::Nodes;
use super::protocol::{Answer, DATA_BYTES_MAX, Request, operation, valid};

/// Files and folders that a guest may have open at a time.
const HANDLES_MAX: usize = 1 << 16;
/// A folder with more names than this is not listed.
const NAMES_MAX: usize = 1 << 20;
/// What a guest may set: no program of the host gets another's rights.
const MODE_MAX: u32 = 0o1777;

/// How a folder is shown.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nothing changes.
    pub read_only: bool,
    /// Whose the files of this process's user are in the guest.
    pub guest_user: u32,
    /// And its group's.
    pub guest_group: u32,
}

/// Something that is open.
enum Handle {
    File(OwnedFd),
    Folder(Vec<(u64, u32, Vec<u8>)>),
}

/// A folder, and what the guest knows of it.
pub struct Server {
    root: OwnedFd,
    options: Options,
    own: (u32, u32),
    nodes: Nodes,
    handles: HashMap<u64, Handle>,
    next_handle: u64,
}

type Answered = Result<Answer, Errno>;

fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

impl Server {
    pub fn new(folder: &Path, options: Options) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::openat(CWD, folder, flags, Mode::empty())?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (nodes, handles) = (Nodes::new(), HashMap::new());
        Ok(Self { root, options, own, nodes, handles, next_handle: 1 })
    }

    /// The answer to a request; none where none is expected.
    pub fn answer(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut request = Request::parse(bytes)?;
        let (unique, operation) = (request.unique, request.operation);
        let result = match operation {
            operation::FORGET => {
                self.nodes.forget(request.node, request.u64().unwrap_or(0));
                return None;
            }
            operation::BATCH_FORGET => {
                let count = request.u32().unwrap_or(0);
                _ = request.skip(4);
                for _ in 0..count {
                    let (Ok(node), Ok(times)) = (request.u64(), request.u64()) else { break };
                    self.nodes.forget(node, times);
                }
                return None;
            }
            // Nothing here waits long enough to be interrupted.
            operation::INTERRUPT => return None,
            operation if self.options.read_only && changes(operation) => Err(Errno::ROFS),
            operation => self.perform(operation, &mut request),
        };
        Some(Answer::framed(result, unique))
    }

    fn perform(&mut self, operation: u32, request: &mut Request<'_>) -> Answered {
        match operation {
            operation::INIT => init(request),
            operation::LOOKUP => {
                let path = self.nodes.child(request.node, request.name()?)?;
                self.entry(path)
            }
            operation::GETATTR => {
                let stat = self.stat(self.nodes.path(request.node)?)?;
                Ok(Answer::attributes(&stat, self.owner(&stat)))
            }
            operation::SETATTR => self.set_attributes(request),
            operation::READLINK => self.read_link(request),
            operation::SYMLINK | operation::MKNOD | operation::MKDIR | operation::LINK => {
                self.make(operation, request)
            }
            operation::UNLINK => self.unlink(request, AtFlags::empty()),
            operation::RMDIR => self.unlink(request, AtFlags::REMOVEDIR),
            operation::RENAME | operation::RENAME2 => {
                self.rename(request, operation == operation::RENAME2)
            }
            operation::OPEN => self.open(request),
            operation::CREATE => self.create(request),
            operation::READ => self.read(request),
            operation::WRITE => self.write(request),
            operation::STATFS => self.statistics(),
            operation::FLUSH => Ok(Answer::default()),
            operation::FSYNC => {
                let handle = request.u64()?;
                fs::fsync(self.file(handle)?)?;
                Ok(Answer::default())
            }
            operation::RELEASE | operation::RELEASEDIR => {
                self.handles.remove(&request.u64()?);
                Ok(Answer::default())
            }
            operation::OPENDIR => self.open_folder(request),
            operation::READDIR => self.read_folder(request),
            operation::FSYNCDIR | operation::DESTROY => Ok(Answer::default()),
            operation::FALLOCATE => self.allocate(request),
            operation::LSEEK => self.seek(request),
            // Among them extended attributes and locks, which the guest's kernel then does without.
            _ => Err(Errno::NOSYS),
        }
    }

    /// Opens a path below the folder, without following any link.
    fn open_at(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(&self.root, name(path), flags | OFlags::CLOEXEC, mode, resolve)
    }

    /// The folder of a path, and the last name of it.
    fn parent<'a>(&self, path: &'a [u8]) -> Result<(OwnedFd, &'a OsStr), Errno> {
        let (folder, last) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        if last.is_empty() {
            return Err(Errno::BUSY); // the folder itself
        }
        let folder = self.open_at(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((folder, name(last)))
    }

    fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        if path.is_empty() {
            return fs::fstat(&self.root);
        }
        let (folder, last) = self.parent(path)?;
        fs::statat(folder, last, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn entry(&mut self, path: Vec<u8>) -> Answered {
        let stat = self.stat(&path)?;
        let owner = self.owner(&stat);
        Ok(Answer::entry(self.nodes.look_up(path)?, &stat, owner))
    }

    /// Whose a file is, as the guest sees it.
    fn owner(&self, stat: &Stat) -> (u32, u32) {
        let user = if stat.st_uid == self.own.0 { self.options.guest_user } else { stat.st_uid };
        let group = if stat.st_gid == self.own.1 { self.options.guest_group } else { stat.st_gid };
        (user, group)
    }

    fn file(&self, handle: u64) -> Result<BorrowedFd<'_>, Errno> {
        match self.handles.get(&handle) {
            Some(Handle::File(file)) => Ok(file.as_fd()),
            _ => Err(Errno::BADF),
        }
    }

    fn keep(&mut self, handle: Handle) -> Result<u64, Errno> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(Errno::NFILE);
        }
        let number = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(number, handle);
        Ok(number)
    }

    fn set_attributes(&mut self, request: &mut Request<'_>) -> Answered {
        let path = self.nodes.path(request.node)?.to_vec();
        let which = request.u32()?;
        request.skip(4)?;
        let (handle, size) = (request.u64()?, request.u64()?);
        request.skip(8)?;
        let [access, modification, _] = [request.u64()?, request.u64()?, request.u64()?];
        let [access_ns, modification_ns, _] = [request.u32()?, request.u32()?, request.u32()?];
        let mode = request.u32()?;
        request.skip(4)?;
        let (user, group) = (request.u32()?, request.u32()?);
        if which & valid::SIZE != 0 {
            match which & valid::HANDLE != 0 {
                true => fs::ftruncate(self.file(handle)?, size)?,
                false => {
                    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
                    fs::ftruncate(self.open_at(&path, flags, Mode::empty())?, size)?;
                }
            }
        }
        if which & (valid::UID | valid::GID) != 0 {
            self.set_owner(&path, which, user, group)?;
        }
        if which & valid::MODE != 0 {
            self.set_mode(&path, Mode::from_raw_mode(mode & MODE_MAX))?;
        }
        if which & (valid::ATIME | valid::MTIME) != 0 {
            let time = |is: u32, now: u32, seconds: u64, nanoseconds: u32| {
                let nanoseconds = match (which & is != 0, which & now != 0) {
                    (_, true) => UTIME_NOW,
                    (true, false) => i64::from(nanoseconds.min(999_999_999)),
                    (false, false) => UTIME_OMIT,
                };
                Timespec { tv_sec: seconds as i64, tv_nsec: nanoseconds }
            };
            let times = Timestamps {
                last_access: time(valid::ATIME, valid::ATIME_NOW, access, access_ns),
                last_modification: time(
                    valid::MTIME,
                    valid::MTIME_NOW,
                    modification,
                    modification_ns,
                ),
            };
            match path.is_empty() {
                true => {
                    let root = self.open_at(b"", OFlags::RDONLY, Mode::empty())?;
                    fs::futimens(root, &times)?;
                }
                false => {
                    let (folder, last) = self.parent(&path)?;
                    fs::utimensat(folder, last, &times, AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
        }
        let stat = self.stat(&path)?;
        Ok(Answer::attributes(&stat, self.owner(&stat)))
    }

    /// Opened before it is changed, so that no link comes in between. It need not be readable.
    fn set_mode(&self, path: &[u8], mode: Mode) -> Result<(), Errno> {
        let file = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        use std::os::fd::AsRawFd;
        fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)
    }

    fn set_owner(&self, path: &[u8], which: u32, user: u32, group: u32) -> Result<(), Errno> {
        let own = |value: u32, guest: u32, own: u32| if value == guest { own } else { value };
        let stat = self.stat(path)?;
        let user = (which & valid::UID != 0)
            .then(|| own(user, self.options.guest_user, self.own.0))
            .filter(|user| *user != stat.st_uid);
        let group = (which & valid::GID != 0)
            .then(|| own(group, self.options.guest_group, self.own.1))
            .filter(|group| *group != stat.st_gid);
        if user.is_none() && group.is_none() {
            return Ok(());
        }
        let (folder, last) = self.parent(path)?;
        let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
        fs::chownat(folder, last, user, group, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn read_link(&self, request: &Request<'_>) -> Answered {
        let (folder, last) = self.parent(self.nodes.path(request.node)?)?;
        Ok(Answer(fs::readlinkat(folder, last, Vec::new())?.into_bytes()))
    }

    fn make(&mut self, operation: u32, request: &mut Request<'_>) -> Answered {
        let node = request.node;
        let words = match operation {
            operation::MKNOD => [request.u32()?, request.u32()?, request.u32()?, request.u32()?],
            operation::MKDIR => [request.u32()?, request.u32()?, 0, 0],
            _ => [0; 4],
        };
        let source = match operation {
            operation::LINK => Some(request.u64()?),
            _ => None,
        };
        let path = self.nodes.child(node, request.name()?)?;
        let (folder, last) = self.parent(&path)?;
        let mode = Mode::from_raw_mode(words[0] & MODE_MAX);
        match operation {
            operation::SYMLINK => fs::symlinkat(name(request.text()?), &folder, last)?,
            operation::MKDIR => fs::mkdirat(&folder, last, mode)?,
            operation::MKNOD => {
                let kind = FileType::from_raw_mode(words[0]);
                let is_harmless =
                    matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket);
                if !is_harmless {
                    return Err(Errno::PERM);
                }
                fs::mknodat(&folder, last, kind, mode, 0)?;
            }
            _ => {
                let source = self.nodes.path(source.unwrap_or(0))?;
                let (old_folder, old) = self.parent(source)?;
                fs::linkat(old_folder, old, &folder, last, AtFlags::empty())?;
            }
        }
        self.entry(path)
    }

    fn unlink(&mut self, request: &mut Request<'_>, flags: AtFlags) -> Answered {
        let path = self.nodes.child(request.node, request.name()?)?;
        let (folder, last) = self.parent(&path)?;
        fs::unlinkat(folder, last, flags)?;
        self.nodes.remove(&path);
        Ok(Answer::default())
    }

    fn rename(&mut self, request: &mut Request<'_>, has_flags: bool) -> Answered {
        let node = request.node;
        let to_folder = request.u64()?;
        let flags = if has_flags { request.u64()? as u32 } else { 0 };
        let from = self.nodes.child(node, request.name()?)?;
        let to = self.nodes.child(to_folder, request.name()?)?;
        let flags = RenameFlags::from_bits(flags)
            .filter(|flags| !flags.intersects(RenameFlags::EXCHANGE | RenameFlags::WHITEOUT));
        let flags = flags.ok_or(Errno::INVAL)?;
        let ((old_folder, old), (new_folder, new)) = (self.parent(&from)?, self.parent(&to)?);
        fs::renameat_with(old_folder, old, new_folder, new, flags)?;
        self.nodes.rename(&from, &to);
        Ok(Answer::default())
    }

    /// Only plain files are opened here; the guest's kernel does the others itself.
    fn plain(&self, path: &[u8], flags: u32, mode: Option<u32>) -> Result<OwnedFd, Errno> {
        let wanted = OFlags::from_bits_retain(flags);
        let known = OFlags::RDONLY | OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC | OFlags::EXCL;
        let mut flags = wanted & known | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        if self.options.read_only && flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
        {
            return Err(Errno::ROFS);
        }
        if mode.is_some() {
            flags |= OFlags::CREATE;
        } else {
            flags -= OFlags::EXCL;
        }
        let mode = Mode::from_raw_mode(mode.unwrap_or(0) & MODE_MAX);
        let file = self.open_at(path, flags, mode)?;
        match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file),
            _ => Err(Errno::ACCESS),
        }
    }

    fn open(&mut self, request: &mut Request<'_>) -> Answered {
        let flags = request.u32()?;
        let file = self.plain(self.nodes.path(request.node)?, flags, None)?;
        Ok(Answer::default().opened(self.keep(Handle::File(file))?))
    }

    fn create(&mut self, request: &mut Request<'_>) -> Answered {
        let (flags, mode) = (request.u32()?, request.u32()?);
        request.skip(8)?;
        let path = self.nodes.child(request.node, request.name()?)?;
        let file = self.plain(&path, flags, Some(mode))?;
        let entry = self.entry(path)?;
        Ok(entry.opened(self.keep(Handle::File(file))?))
    }

    fn read(&mut self, request: &mut Request<'_>) -> Answered {
        let (handle, offset, size) = (request.u64()?, request.u64()?, request.u32()?);
        let mut bytes = vec![0; size.min(DATA_BYTES_MAX) as usize];
        let count = pread(self.file(handle)?, &mut bytes, offset)?;
        bytes.truncate(count);
        Ok(Answer(bytes))
    }

    fn write(&mut self, request: &mut Request<'_>) -> Answered {
        let (handle, offset, size) = (request.u64()?, request.u64()?, request.u32()?);
        request.skip(20)?;
        let data = request.data(size)?;
        let count = pwrite(self.file(handle)?, data, offset)?;
        Ok(Answer::default().u32(count as u32).u32(0))
    }

    fn statistics(&self) -> Answered {
        let all = fs::fstatvfs(&self.root)?;
        let answer = Answer::default().u64(all.f_blocks).u64(all.f_bfree).u64(all.f_bavail);
        let answer = answer.u64(all.f_files).u64(all.f_ffree).u32(all.f_bsize as u32);
        let answer = answer.u32(all.f_namemax as u32).u32(all.f_frsize as u32);
        Ok((0..7).fold(answer, |answer, _| answer.u32(0)))
    }

    fn open_folder(&mut self, request: &Request<'_>) -> Answered {
        let path = self.nodes.path(request.node)?;
        let folder = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(folder)? {
            let entry = entry?;
            if names.len() >= NAMES_MAX {
                return Err(Errno::OVERFLOW);
            }
            let kind = match entry.file_type() {
                FileType::Fifo => 1,
                FileType::CharacterDevice => 2,
                FileType::Directory => 4,
                FileType::BlockDevice => 6,
                FileType::RegularFile => 8,
                FileType::Symlink => 10,
                FileType::Socket => 12,
                FileType::Unknown => 0,
            };
            names.push((entry.ino(), kind, entry.file_name().to_bytes().to_vec()));
        }
        Ok(Answer::default().opened(self.keep(Handle::Folder(names))?))
    }

    fn read_folder(&mut self, request: &mut Request<'_>) -> Answered {
        let (handle, offset, size) = (request.u64()?, request.u64()?, request.u32()?);
        let Some(Handle::Folder(names)) = self.handles.get(&handle) else {
            return Err(Errno::BADF);
        };
        let mut answer = Answer::default();
        let room = size.min(DATA_BYTES_MAX) as usize;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (inode, kind, name)) in names.iter().enumerate().skip(start) {
            if !answer.name(*inode, place as u64 + 1, *kind, name, room) {
                break;
            }
        }
        Ok(answer)
    }

    fn allocate(&mut self, request: &mut Request<'_>) -> Answered {
        let (handle, offset, length) = (request.u64()?, request.u64()?, request.u64()?);
        let flags = FallocateFlags::from_bits(request.u32()?).ok_or(Errno::OPNOTSUPP)?;
        fs::fallocate(self.file(handle)?, flags, offset, length)?;
        Ok(Answer::default())
    }

    fn seek(&mut self, request: &mut Request<'_>) -> Answered {
        let (handle, offset) = (request.u64()?, request.u64()?);
        let to = match request.u32()? {
            3 => SeekFrom::Data(offset),
            4 => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        Ok(Answer::default().u64(fs::seek(self.file(handle)?, to)?))
    }
}

fn init(request: &mut Request<'_>) -> Answered {
    let (major, minor, read_ahead) = (request.u32()?, request.u32()?, request.u32()?);
    // Older kernels than that expect shorter answers.
    match major == 7 && minor >= 23 {
        true => Ok(Answer::init(minor, read_ahead)),
        false => Err(Errno::PROTO),
    }
}

fn changes(operation: u32) -> bool {
    matches!(
        operation,
        operation::SETATTR
            | operation::SYMLINK
            | operation::MKNOD
            | operation::MKDIR
            | operation::UNLINK
            | operation::RMDIR
            | operation::RENAME
            | operation::RENAME2
            | operation::LINK
            | operation::CREATE
            | operation::WRITE
            | operation::FALLOCATE
    )
}

#[cfg(test)]
mod tests;
