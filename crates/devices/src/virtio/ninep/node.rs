//! A file of the share that is held: by a descriptor that gives no access to its contents.
//!
//! A node is reached only by going down from the root, name by name, and knows its way up, so that
//! whatever the guest asks for, and whatever is moved meanwhile, nothing outside is ever reached.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How deep folders may lie in each other. Paths of the host end at about this depth too.
const DEPTH_MAX: u16 = 2048;
/// The longest name.
const NAME_BYTES_MAX: usize = 255;

/// No step leads upwards or through a link.
pub const CONFINED: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

type Result<T> = std::result::Result<T, Errno>;

/// A file. It never changes: one that is renamed gets a new node.
#[derive(Debug)]
pub struct Node {
    file: OwnedFd,
    /// Device and number on it, which stay taken while the file is held.
    pub identity: (u64, u64),
    /// What it is on the host.
    pub kind: FileType,
    /// Where it was found; none for the root.
    pub place: Option<Place>,
    depth: u16,
}

/// A name in a folder.
#[derive(Clone, Debug)]
pub struct Place {
    pub parent: Arc<Node>,
    pub name: OsString,
}

impl Place {
    pub fn is(&self, parent: &Node, name: &OsStr) -> bool {
        self.parent.identity == parent.identity && self.name == name
    }
}

impl Node {
    /// The root of a share.
    pub fn root(file: OwnedFd) -> Result<Arc<Self>> {
        Self::new(file, None)
    }

    fn new(file: OwnedFd, place: Option<Place>) -> Result<Arc<Self>> {
        let stat = fs::fstat(&file)?;
        let depth = place.as_ref().map_or(0, |place| place.parent.depth + 1);
        if depth > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let (identity, kind) = ((stat.st_dev, stat.st_ino), FileType::from_raw_mode(stat.st_mode));
        Ok(Arc::new(Self { file, identity, kind, place, depth }))
    }

    /// What a name in this folder stands for. Links are not followed.
    pub fn child(self: &Arc<Self>, name: &OsStr) -> Result<Arc<Self>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A link at the end is what is wanted itself; only on the way there would be none.
        let file = fs::openat2(&self.file, name, flags, Mode::empty(), CONFINED)?;
        let place = Place { parent: Arc::clone(self), name: name.to_owned() };
        Self::new(file, Some(place))
    }

    /// The folder above; the root's is the root.
    pub fn parent(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(self.place.as_ref().map_or(self, |place| &place.parent))
    }

    /// The same file at another place.
    pub fn moved(&self, parent: &Arc<Self>, name: &OsStr) -> Result<Arc<Self>> {
        let place = Place { parent: Arc::clone(parent), name: name.to_owned() };
        Self::new(self.file.try_clone().map_err(|_| Errno::MFILE)?, Some(place))
    }

    pub fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// The name below `/proc/self/fd`, by which what cannot be done to the descriptor can.
    pub fn link(&self) -> String {
        self.file.as_raw_fd().to_string()
    }

    /// The same as a whole path.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A name for something in a folder; never one that leads elsewhere.
pub fn name(bytes: &[u8]) -> Result<&OsStr> {
    match bytes {
        b"" => Err(Errno::NOENT),
        b"." | b".." => Err(Errno::EXIST),
        _ if bytes.len() > NAME_BYTES_MAX => Err(Errno::NAMETOOLONG),
        _ if bytes.contains(&b'/') || bytes.contains(&0) => Err(Errno::NOENT),
        _ => Ok(OsStr::from_bytes(bytes)),
    }
}
