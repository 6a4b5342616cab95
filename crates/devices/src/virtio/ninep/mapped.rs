//! Owners and modes that the guest sees, where they are not those of the host's files.
//!
//! The formats are QEMU's, so that a share can be used by either: extended attributes
//! `user.virtfs.*`, or text files in folders `.virtfs_metadata`.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::node::{CONFINED, Node};

/// Where text files lie, beside what they are about.
const FOLDER: &str = ".virtfs_metadata";
/// The root's own text file.
const ROOT_FILE: &str = ".virtfs_metadata_root";
/// The beginning of all attributes that are not the guest's.
pub const PREFIX: &[u8] = b"user.virtfs.";
/// Text files are four short lines.
const TEXT_BYTES_MAX: u64 = 4096;

type Result<T> = std::result::Result<T, Errno>;

/// What is kept of a file; what is none is the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// With the type.
    pub mode: Option<u32>,
    pub rdev: Option<u64>,
}

/// Where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In extended attributes.
    Attributes,
    /// In text files.
    Files,
}

impl Mapped {
    /// The same with what `change` says.
    fn with(self, change: &Self) -> Self {
        Self {
            uid: change.uid.or(self.uid),
            gid: change.gid.or(self.gid),
            mode: change.mode.or(self.mode),
            rdev: change.rdev.or(self.rdev),
        }
    }

    fn fields(&self) -> [(&'static str, Option<u64>, usize); 4] {
        [
            ("uid", self.uid.map(u64::from), 4),
            ("gid", self.gid.map(u64::from), 4),
            ("mode", self.mode.map(u64::from), 4),
            ("rdev", self.rdev, 8),
        ]
    }

    fn set(&mut self, field: &str, value: u64) {
        let word = u32::try_from(value).ok();
        match field {
            "uid" => self.uid = word,
            "gid" => self.gid = word,
            "mode" => self.mode = word,
            "rdev" => self.rdev = Some(value),
            _ => {}
        }
    }
}

impl Keep {
    /// What is kept of a file. What cannot be read is not there.
    pub fn load(self, node: &Node) -> Mapped {
        let mut mapped = Mapped::default();
        match self {
            Self::Attributes => {
                let path = node.path();
                for (field, _, bytes) in Mapped::default().fields() {
                    let mut value = [0; 8];
                    let name = format!("user.virtfs.{field}");
                    let read = fs::getxattr(path.as_str(), name.as_str(), &mut value[..bytes]);
                    if read == Ok(bytes) {
                        mapped.set(field, u64::from_le_bytes(value));
                    }
                }
            }
            Self::Files => {
                let text = read_text(node).unwrap_or_default();
                for line in text.lines() {
                    let field = line.strip_prefix("virtfs.").and_then(|line| line.split_once('='));
                    if let Some((field, value)) = field
                        && let Ok(value) = value.trim().parse()
                    {
                        mapped.set(field, value);
                    }
                }
            }
        }
        mapped
    }

    /// Changes what is kept of a file.
    pub fn store(self, node: &Node, change: &Mapped) -> Result<()> {
        match self {
            Self::Attributes => {
                let path = node.path();
                for (field, value, bytes) in change.fields() {
                    let Some(value) = value else { continue };
                    let name = format!("user.virtfs.{field}");
                    let value = &value.to_le_bytes()[..bytes];
                    fs::setxattr(path.as_str(), name.as_str(), value, XattrFlags::empty())?;
                }
                Ok(())
            }
            Self::Files => write_text(node, &self.load(node).with(change)),
        }
    }

    /// A file has got another name beside its old one: what is kept by name is kept for both.
    pub fn linked(self, from: &Node, to: &Node) -> Result<()> {
        match self {
            Self::Attributes => Ok(()),
            Self::Files => write_text(to, &self.load(from)),
        }
    }

    /// A file moves.
    pub fn renamed(self, from: (&Node, &OsStr), to: (&Node, &OsStr)) -> Result<()> {
        if self == Self::Attributes {
            return Ok(());
        }
        let Ok(old) = folder(from.0) else {
            return forget(to.0, to.1); // what was there before has nothing to say
        };
        make_folder(to.0)?;
        match fs::renameat(&old, from.1, folder(to.0)?, to.1) {
            Err(Errno::NOENT) => forget(to.0, to.1),
            done => done,
        }
    }

    /// A name goes, and with a folder what was kept in it.
    pub fn removed(self, parent: &Node, name: &OsStr) -> Result<()> {
        match self {
            Self::Attributes => Ok(()),
            Self::Files => forget(parent, name),
        }
    }

    /// A folder is about to be removed.
    pub fn empty(self, folder_node: &Node) -> Result<()> {
        if self == Self::Attributes {
            return Ok(());
        }
        match fs::unlinkat(folder_node, FOLDER, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }

    /// Whether a name is not the guest's.
    pub fn hides(self, name: &OsStr) -> bool {
        self == Self::Files && (name == FOLDER || name == ROOT_FILE)
    }
}

/// The folder of text files in a folder.
fn folder(parent: &Node) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    fs::openat2(parent, FOLDER, flags, Mode::empty(), CONFINED)
}

fn make_folder(parent: &Node) -> Result<()> {
    match fs::mkdirat(parent, FOLDER, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        done => done,
    }
}

fn forget(parent: &Node, name: &OsStr) -> Result<()> {
    let Ok(folder) = folder(parent) else { return Ok(()) };
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Opens a node's text file.
fn text_file(node: &Node, flags: OFlags) -> Result<std::fs::File> {
    let (parent, name): (OwnedFd, OsString) = match &node.place {
        None => (node.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?, ROOT_FILE.into()),
        Some(place) => (folder(&place.parent)?, place.name.clone()),
    };
    let made = flags.contains(OFlags::CREATE);
    let mode = if made { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    fs::openat2(parent, name, flags, mode, CONFINED).map(Into::into)
}

fn read_text(node: &Node) -> Result<String> {
    let mut text = Vec::new();
    let file = text_file(node, OFlags::RDONLY)?;
    file.take(TEXT_BYTES_MAX).read_to_end(&mut text).map_err(|_| Errno::IO)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn write_text(node: &Node, mapped: &Mapped) -> Result<()> {
    if let Some(place) = &node.place {
        make_folder(&place.parent)?;
    }
    let mut text = String::new();
    for (field, value, _) in mapped.fields() {
        if let Some(value) = value {
            text.push_str(&format!("virtfs.{field}={value}\n"));
        }
    }
    let mut file = text_file(node, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
    file.write_all(text.as_bytes()).map_err(|_| Errno::IO)
}

/// How an attribute of the guest is called on the host; none for what is ours.
pub fn attribute(keep: Option<Keep>, name: &[u8]) -> Option<Vec<u8>> {
    let acl = matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default");
    match keep {
        Some(_) if name.starts_with(PREFIX) => None,
        // The guest's access lists name the guest's users.
        Some(_) if acl => Some([PREFIX, name].concat()),
        _ => Some(name.to_vec()),
    }
}

/// How an attribute of the host is called for the guest.
pub fn shown(keep: Option<Keep>, name: &[u8]) -> Option<&[u8]> {
    if keep.is_none() {
        return Some(name);
    }
    match name.strip_prefix(PREFIX) {
        Some(inner) if inner.starts_with(b"system.posix_acl_") => Some(inner),
        Some(_) => None,
        None => Some(name).filter(|name| !name.starts_with(b"system.posix_acl_")),
    }
}
