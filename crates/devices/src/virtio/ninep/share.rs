//! A folder of the host that guests may use, and all that is done to its files.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Stat, StatFs, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::mapped::{self, Keep, Mapped};
use super::node::{CONFINED, Node};
use super::spec;
use super::wire::Qid;

/// Other file systems that may be mounted within a share.
const DEVICES_MAX: usize = 1 << 15;
/// The most bytes of a link or of an attribute.
const VALUE_BYTES_MAX: usize = 64 << 10;

type Result<T> = std::result::Result<T, Errno>;

/// Whose owners and modes the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// The host's; what the guest makes belongs to the guest's users by number.
    Passthrough,
    /// The host's; what the guest makes is given to its users where this process may do so.
    Lenient,
    /// The guest's own, kept beside the files, which belong to this process.
    Mapped(Keep),
}

/// What becomes of files on other file systems, whose numbers may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherDevices {
    /// The guest sees numbers that differ.
    Renumber,
    /// The guest does not see them.
    Forbid,
}

/// What a share is made of.
#[derive(Clone, Debug)]
pub struct ShareOptions {
    /// The folder.
    pub path: PathBuf,
    /// Whose owners and modes.
    pub security: Security,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Files on other file systems.
    pub other_devices: OtherDevices,
    /// The host's modes of files and folders that are made where the guest's are kept beside.
    pub modes: (u32, u32),
    /// What is written reaches the medium at once.
    pub write_out: bool,
}

/// Why there can be no such share.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The folder.
    #[error("failed to open '{path}'")]
    Open {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Files are reopened through it.
    #[error("/proc is needed and cannot be used")]
    Proc(#[source] io::Error),
    /// Without it a guest could leave its folder.
    #[error("sharing folders needs a kernel with openat2, Linux 5.6")]
    Kernel(#[source] io::Error),
}

/// The numbers of a user and a group.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// A folder of the host for guests.
pub struct Share {
    root: Arc<Node>,
    /// `/proc/self/fd`.
    links: OwnedFd,
    security: Security,
    read_only: bool,
    other_devices: OtherDevices,
    modes: (Mode, Mode),
    write_out: bool,
    /// Other file systems so far.
    devices: Mutex<Vec<u64>>,
}

/// A new time of a file.
pub enum NewTime {
    Keep,
    Now,
    At(u64, u64),
}

impl Share {
    /// Opens the folder.
    pub fn open(options: &ShareOptions) -> std::result::Result<Arc<Self>, ShareError> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let open = |path: &Path| fs::open(path, flags, Mode::empty());
        let fails =
            |source: Errno| ShareError::Open { path: options.path.clone(), source: source.into() };
        let root = open(&options.path).and_then(Node::root).map_err(fails)?;
        let links = open(Path::new("/proc/self/fd"));
        let links = links.map_err(|error| ShareError::Proc(error.into()))?;
        fs::openat2(&root, ".", flags, Mode::empty(), CONFINED)
            .map_err(|error| ShareError::Kernel(error.into()))?;
        let modes = (Mode::from_raw_mode(options.modes.0), Mode::from_raw_mode(options.modes.1));
        Ok(Arc::new(Self {
            root,
            links,
            security: options.security,
            read_only: options.read_only,
            other_devices: options.other_devices,
            modes,
            write_out: options.write_out,
            devices: Mutex::default(),
        }))
    }

    pub(super) fn root(&self) -> Arc<Node> {
        Arc::clone(&self.root)
    }

    pub(super) fn keep(&self) -> Option<Keep> {
        match self.security {
            Security::Mapped(keep) => Some(keep),
            _ => None,
        }
    }

    /// Whether what a folder says of the kinds of its files is what the guest would see.
    pub(super) fn shows_kinds(&self) -> bool {
        self.keep().is_none()
    }

    /// Whether a name is not the guest's.
    pub(super) fn hides(&self, name: &OsStr) -> bool {
        self.keep().is_some_and(|keep| keep.hides(name))
    }

    /// Refuses what changes a share that must not change.
    pub(super) fn writable(&self) -> Result<()> {
        if self.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Something in a folder.
    pub(super) fn child(&self, parent: &Arc<Node>, name: &OsStr) -> Result<Arc<Node>> {
        if self.hides(name) {
            return Err(Errno::NOENT);
        }
        let child = parent.child(name)?;
        if self.other_devices == OtherDevices::Forbid && child.identity.0 != self.root.identity.0 {
            return Err(Errno::NODEV);
        }
        Ok(child)
    }

    /// What the guest sees of a file.
    pub(super) fn stat(&self, node: &Node) -> Result<Stat> {
        let mut stat = fs::fstat(node)?;
        if let Some(keep) = self.keep() {
            let mapped = keep.load(node);
            stat.st_uid = mapped.uid.unwrap_or(stat.st_uid);
            stat.st_gid = mapped.gid.unwrap_or(stat.st_gid);
            stat.st_rdev = mapped.rdev.unwrap_or(stat.st_rdev);
            if let Some(mode) = mapped.mode {
                // A folder is one, whatever is written there.
                let folder = FileType::from_raw_mode(mode) == FileType::Directory;
                stat.st_mode = match folder == node.is_folder() && mode >> 12 != 0 {
                    true => mode,
                    false => stat.st_mode & !0o7777 | mode & 0o7777,
                };
            }
        }
        Ok(stat)
    }

    /// What names a file to the guest.
    pub(super) fn qid(&self, node: &Node) -> Result<Qid> {
        let stat = self.stat(node)?;
        self.qid_of(&stat)
    }

    /// The same for who has asked already.
    pub(super) fn qid_of(&self, stat: &Stat) -> Result<Qid> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => spec::QID_FOLDER,
            FileType::Symlink => spec::QID_LINK,
            _ => 0,
        };
        let version = (stat.st_mtime as u32) ^ (stat.st_size as u32) << 8;
        let path = self.number(stat.st_dev, stat.st_ino)?;
        Ok(Qid { kind, version, path })
    }

    /// A number that no other file of the share has.
    pub(super) fn number(&self, device: u64, inode: u64) -> Result<u64> {
        if device == self.root.identity.0 && inode >> 48 == 0 {
            return Ok(inode);
        }
        if inode >> 48 != 0 {
            // No file system that is known here has that many files; two could get one number.
            return Err(Errno::NFILE);
        }
        let mut devices = self.devices.lock();
        let index = match devices.iter().position(|known| *known == device) {
            Some(index) => index,
            None if devices.len() < DEVICES_MAX => {
                devices.push(device);
                devices.len() - 1
            }
            None => return Err(Errno::NFILE),
        };
        Ok((index as u64 + 1) << 48 | inode)
    }

    /// Opens a file's contents.
    pub(super) fn reopen(&self, node: &Node, flags: OFlags) -> Result<OwnedFd> {
        // Pipes and devices are the guest kernel's own business; those of the host are not for it.
        if !matches!(node.kind, FileType::RegularFile | FileType::Directory) {
            return Err(if node.kind == FileType::Symlink { Errno::LOOP } else { Errno::NXIO });
        }
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        fs::openat(&self.links, node.link(), flags, Mode::empty())
    }

    /// Makes a file. The one that is there already is opened unless it must be new.
    pub(super) fn create(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        flags: OFlags,
        mode: u32,
        owner: Owner,
    ) -> Result<(Arc<Node>, OwnedFd)> {
        if self.hides(name) {
            return Err(Errno::INVAL);
        }
        let made = flags
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK;
        let host_mode = if self.keep().is_some() { self.modes.0 } else { Mode::RUSR | Mode::WUSR };
        match fs::openat2(parent, name, made, host_mode, CONFINED) {
            Ok(file) => {
                let node = self.made(parent, name, FileType::RegularFile, mode, 0, owner)?;
                Ok((node, file))
            }
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                let node = self.child(parent, name)?;
                let file = self.reopen(&node, flags)?;
                Ok((node, file))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a folder.
    pub(super) fn make_folder(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        mode: u32,
        owner: Owner,
    ) -> Result<Arc<Node>> {
        if self.hides(name) {
            return Err(Errno::INVAL);
        }
        let host_mode = if self.keep().is_some() { self.modes.1 } else { Mode::RWXU };
        fs::mkdirat(parent, name, host_mode)?;
        self.made(parent, name, FileType::Directory, mode, 0, owner)
    }

    /// Makes a pipe, a socket's place, a device.
    pub(super) fn make_node(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        mode: u32,
        device: (u32, u32),
        owner: Owner,
    ) -> Result<Arc<Node>> {
        if self.hides(name) {
            return Err(Errno::INVAL);
        }
        let kind = match FileType::from_raw_mode(mode) {
            FileType::Unknown => FileType::RegularFile,
            FileType::Directory | FileType::Symlink => return Err(Errno::INVAL),
            kind => kind,
        };
        let device = fs::makedev(device.0, device.1);
        let (host_kind, host_mode, host_device) = match self.keep() {
            Some(_) => (FileType::RegularFile, self.modes.0, 0),
            None => (kind, Mode::RUSR | Mode::WUSR, device),
        };
        fs::mknodat(parent, name, host_kind, host_mode, host_device)?;
        self.made(parent, name, kind, mode, device, owner)
    }

    /// Makes a symbolic link.
    pub(super) fn make_link(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        target: &[u8],
        owner: Owner,
    ) -> Result<Arc<Node>> {
        if target.is_empty() || target.len() > 4095 || target.contains(&0) {
            return Err(if target.is_empty() { Errno::NOENT } else { Errno::NAMETOOLONG });
        }
        if self.keep().is_none() {
            fs::symlinkat(target, parent, name)?;
            return self.made(parent, name, FileType::Symlink, 0o777, 0, owner);
        }
        if self.hides(name) {
            return Err(Errno::INVAL);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = fs::openat2(parent, name, flags | OFlags::CLOEXEC, self.modes.0, CONFINED)?;
        let written = rustix::io::write(&file, target);
        if written != Ok(target.len()) {
            _ = fs::unlinkat(parent, name, AtFlags::empty());
            return Err(written.err().unwrap_or(Errno::NOSPC));
        }
        self.made(parent, name, FileType::Symlink, 0o777, 0, owner)
    }

    /// Gives what was just made to its owner, or takes it away again.
    fn made(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        kind: FileType,
        mode: u32,
        device: u64,
        owner: Owner,
    ) -> Result<Arc<Node>> {
        let give = || {
            let node = parent.child(name)?;
            let mode = mode & 0o7777;
            match self.security {
                Security::Mapped(keep) => {
                    let mapped = Mapped {
                        uid: Some(owner.uid),
                        gid: Some(owner.gid),
                        mode: Some(kind.as_raw_mode() | mode),
                        rdev: (device != 0).then_some(device),
                    };
                    keep.store(&node, &mapped)?;
                }
                Security::Passthrough | Security::Lenient => {
                    let given = self.give(&node, Some(owner.uid), Some(owner.gid));
                    if self.security == Security::Passthrough {
                        given?;
                    }
                    if kind != FileType::Symlink {
                        self.chmod(&node, mode)?;
                    }
                }
            }
            Ok(node)
        };
        give().inspect_err(|_| {
            let folder = kind == FileType::Directory;
            let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            _ = fs::unlinkat(parent, name, flags);
        })
    }

    fn give(&self, node: &Node, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        // All ones say that nothing is to change.
        let uid = uid.filter(|uid| *uid != u32::MAX).map(Uid::from_raw);
        let gid = gid.filter(|gid| *gid != u32::MAX).map(Gid::from_raw);
        fs::chownat(node, "", uid, gid, AtFlags::EMPTY_PATH)
    }

    fn chmod(&self, node: &Node, mode: u32) -> Result<()> {
        if node.kind == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        let mode = Mode::from_raw_mode(mode & 0o7777);
        fs::chmodat(&self.links, node.link(), mode, AtFlags::empty())
    }

    /// Another mode.
    pub(super) fn set_mode(&self, node: &Node, mode: u32) -> Result<()> {
        let Some(keep) = self.keep() else { return self.chmod(node, mode) };
        let kind = self.stat(node)?.st_mode & !0o7777;
        keep.store(node, &Mapped { mode: Some(kind | mode & 0o7777), ..Mapped::default() })
    }

    /// Another owner, another group.
    pub(super) fn set_owner(&self, node: &Node, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        match self.security {
            Security::Mapped(keep) => keep.store(node, &Mapped { uid, gid, ..Mapped::default() }),
            Security::Passthrough => self.give(node, uid, gid),
            Security::Lenient => match self.give(node, uid, gid) {
                Err(Errno::PERM) => Ok(()),
                given => given,
            },
        }
    }

    /// Another size.
    pub(super) fn set_size(&self, node: &Node, open: Option<&OwnedFd>, size: u64) -> Result<()> {
        match open {
            Some(file) => fs::ftruncate(file, size),
            None if node.kind != FileType::RegularFile => Err(Errno::INVAL),
            None => fs::ftruncate(self.reopen(node, OFlags::WRONLY)?, size),
        }
    }

    /// Other times: of the last access and of the last change.
    pub(super) fn set_times(&self, node: &Node, times: &[NewTime; 2]) -> Result<()> {
        let time = |time: &NewTime| match time {
            NewTime::Keep => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT as _ },
            NewTime::Now => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW as _ },
            NewTime::At(seconds, nanoseconds) => fs::Timespec {
                tv_sec: *seconds as i64,
                tv_nsec: (*nanoseconds % 1_000_000_000) as _,
            },
        };
        let times = Timestamps { last_access: time(&times[0]), last_modification: time(&times[1]) };
        fs::utimensat(&self.links, node.link(), &times, AtFlags::empty())
    }

    /// What a symbolic link says.
    pub(super) fn read_link(&self, node: &Node) -> Result<Vec<u8>> {
        if node.kind == FileType::Symlink {
            return Ok(fs::readlinkat(node, "", Vec::new())?.into_bytes());
        }
        if FileType::from_raw_mode(self.stat(node)?.st_mode) != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let mut target = vec![0; 4096];
        let count = rustix::io::pread(self.reopen(node, OFlags::RDONLY)?, &mut target, 0)?;
        target.truncate(count);
        Ok(target)
    }

    /// Another name for a file.
    pub(super) fn link(&self, node: &Node, parent: &Arc<Node>, name: &OsStr) -> Result<()> {
        if self.hides(name) {
            return Err(Errno::INVAL);
        }
        fs::linkat(&self.links, node.link(), parent, name, AtFlags::SYMLINK_FOLLOW)?;
        match self.keep() {
            Some(keep) => keep.linked(node, &*parent.child(name)?),
            None => Ok(()),
        }
    }

    /// Moves a name.
    pub(super) fn rename(&self, from: (&Node, &OsStr), to: (&Node, &OsStr)) -> Result<()> {
        if self.hides(from.1) || self.hides(to.1) {
            return Err(Errno::INVAL);
        }
        fs::renameat(from.0, from.1, to.0, to.1)?;
        match self.keep() {
            Some(keep) => keep.renamed(from, to),
            None => Ok(()),
        }
    }

    /// Takes a name away.
    pub(super) fn remove(&self, parent: &Arc<Node>, name: &OsStr, folder: bool) -> Result<()> {
        if self.hides(name) {
            return Err(Errno::NOENT);
        }
        if let Some(keep) = self.keep().filter(|_| folder) {
            keep.empty(&*parent.child(name)?)?;
        }
        let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        fs::unlinkat(parent, name, flags)?;
        match self.keep() {
            Some(keep) => keep.removed(parent, name),
            None => Ok(()),
        }
    }

    /// What is known of the file system.
    pub(super) fn statfs(&self, node: &Node) -> Result<StatFs> {
        fs::fstatfs(node)
    }

    /// What was written is to reach the medium before it is answered.
    pub(super) fn written(&self, file: &OwnedFd) -> Result<()> {
        if self.write_out { fs::fdatasync(file) } else { Ok(()) }
    }

    /// The value of an extended attribute.
    pub(super) fn attribute(&self, node: &Node, name: &[u8]) -> Result<Vec<u8>> {
        let name = mapped::attribute(self.keep(), name).ok_or(Errno::NODATA)?;
        let mut value = vec![0; VALUE_BYTES_MAX];
        let count = fs::getxattr(node.path(), name, &mut value[..])?;
        value.truncate(count);
        Ok(value)
    }

    /// The names of all, each behind it a zero.
    pub(super) fn attributes(&self, node: &Node) -> Result<Vec<u8>> {
        let mut names = vec![0; VALUE_BYTES_MAX];
        let count = fs::listxattr(node.path(), &mut names[..])?;
        names.truncate(count);
        let mut shown = Vec::with_capacity(count);
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if let Some(name) = mapped::shown(self.keep(), name) {
                shown.extend(name);
                shown.push(0);
            }
        }
        Ok(shown)
    }

    /// Another value of an extended attribute; none takes it away.
    pub(super) fn set_attribute(
        &self,
        node: &Node,
        name: &[u8],
        value: Option<&[u8]>,
        flags: u32,
    ) -> Result<()> {
        let name = mapped::attribute(self.keep(), name).ok_or(Errno::ACCESS)?;
        match value {
            Some(value) => {
                let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
                fs::setxattr(node.path(), name, value, flags)
            }
            None => fs::removexattr(node.path(), name),
        }
    }
}
