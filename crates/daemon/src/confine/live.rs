//! Files in a machine's view: put there before it starts, or by the daemon while it runs.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, chown};
use std::path::Path;

use linux::mounts;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_remount, move_mount, open_tree,
    unmount,
};

/// A file of the host's, on its way into a view.
pub enum Source {
    /// Any that is mounted.
    Tree(OwnedFd),
    /// A device, which gets a node of its own: its type and its number.
    Node(FileType, u64),
}

impl Source {
    /// Takes hold of a file by the name that the host knows it under.
    pub fn open(path: &Path) -> io::Result<Self> {
        let facts = fs::metadata(path)?;
        let kind = facts.file_type();
        if kind.is_block_device() {
            return Ok(Self::Node(FileType::BlockDevice, facts.rdev()));
        }
        if kind.is_char_device() {
            return Ok(Self::Node(FileType::CharacterDevice, facts.rdev()));
        }
        Self::tree(path)
    }

    /// A file or a folder with all that is mounted in it.
    pub fn tree(path: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        Ok(Self::Tree(open_tree(CWD, path, flags)?))
    }

    /// Puts a file where this process's view has nothing yet, or over what it has.
    pub fn place_file(
        &self,
        path: &Path,
        writable: bool,
        user: Option<(u32, u32)>,
    ) -> io::Result<()> {
        make_parents(path)?;
        match self {
            Self::Tree(tree) => {
                if !path.exists() {
                    OpenOptions::new().create(true).append(true).open(path)?;
                }
                self.attach(tree, path)?;
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                restrict(path, flags, writable)
            }
            Self::Node(kind, number) => {
                _ = fs::remove_file(path);
                let mode = if writable { Mode::RUSR | Mode::WUSR } else { Mode::RUSR };
                mknodat(CWD, path, *kind, mode, *number)?;
                match user {
                    Some((user, group)) => chown(path, Some(user), Some(group)),
                    None => Ok(()),
                }
            }
        }
    }

    /// Puts a program into this process's view.
    pub fn place_program(&self, path: &Path) -> io::Result<()> {
        let Self::Tree(tree) = self else { return Err(io::ErrorKind::InvalidInput.into()) };
        make_parents(path)?;
        if !path.exists() {
            OpenOptions::new().create(true).append(true).open(path)?;
        }
        self.attach(tree, path)?;
        restrict(path, MountFlags::NOSUID | MountFlags::NODEV, false)
    }

    /// Puts a folder into this process's view, to be read only.
    pub fn place_folder(&self, path: &Path, writable: bool) -> io::Result<()> {
        let Self::Tree(tree) = self else { return Err(io::ErrorKind::NotADirectory.into()) };
        make_parents(path)?;
        if !path.exists() {
            fs::DirBuilder::new().mode(0o755).create(path)?;
        }
        self.attach(tree, path)?;
        restrict(path, MountFlags::NOSUID, writable)
    }

    fn attach(&self, tree: &OwnedFd, path: &Path) -> io::Result<()> {
        Ok(move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }
}

fn make_parents(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::DirBuilder::new().recursive(true).mode(0o755).create(parent),
        None => Ok(()),
    }
}

fn restrict(path: &Path, flags: MountFlags, writable: bool) -> io::Result<()> {
    let read_only = if writable { MountFlags::empty() } else { MountFlags::RDONLY };
    Ok(mount_remount(path, MountFlags::BIND | flags | read_only, "")?)
}

/// Shows a file to a machine that runs, under the name that the host knows it by.
pub fn show(
    process: BorrowedFd<'_>,
    path: &Path,
    writable: bool,
    user: Option<(u32, u32)>,
) -> io::Result<()> {
    let source = Source::open(path)?;
    mounts::in_view_of(process, || source.place_file(path, writable, user))
}

/// Takes a file out of a machine's view.
pub fn hide(process: BorrowedFd<'_>, path: &Path) {
    let hidden = mounts::in_view_of(process, || {
        // One that was opened for writing later lies there twice.
        while unmount(path, UnmountFlags::DETACH).is_ok() {}
        match fs::remove_file(path) {
            // It lies in a folder of the system's.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            other => other,
        }
    });
    if let Err(error) = hidden {
        eprintln!("warning: Cannot hide {} from its machine: {error}", path.display());
    }
}
