//! Files and file systems.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agent::{Entry, FrameKind, Mount, Put, read_frame};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;
use vsock::VsockStream;

use crate::session::{Failed, Host};

const PIECE_BYTES: usize = 256 << 10;
/// A listing of more than this is no transfer for one command.
const ENTRIES_MAX: usize = 1_000_000;

fn about(path: &str) -> impl Fn(io::Error) -> Failed {
    let path = path.to_owned();
    move |error| Failed { reason: format!("{path}: {error}"), code: 1 }
}

/// Sends a file.
pub fn send(path: &str, host: &Host) -> Result<(), Failed> {
    let mut file = File::open(path).map_err(about(path))?;
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut bytes).map_err(about(path))?;
        host.send(FrameKind::Output, &bytes[..count])?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Takes a file, beside its place first.
pub fn receive(what: &Put, host: &Host, from: &mut VsockStream) -> Result<(), Failed> {
    let path = Path::new(&what.path);
    if what.parents
        && let Some(parent) = path.parent()
    {
        fs::create_dir_all(parent).map_err(about(&what.path))?;
    }
    let mode = Permissions::from_mode(what.mode & 0o7777);
    if what.is_folder {
        fs::create_dir_all(path).map_err(about(&what.path))?;
        fs::set_permissions(path, mode).map_err(about(&what.path))?;
        host.answer(FrameKind::Answer, &json!({}));
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".hostel-new");
    let beside = PathBuf::from(beside);
    let written = write(&beside, what.mode, from).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        _ = fs::remove_file(&beside);
        return Err(about(&what.path)(error));
    }
    host.answer(FrameKind::Answer, &json!({}));
    Ok(())
}

fn write(path: &Path, mode: u32, from: &mut VsockStream) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode & 0o7777)
        .open(path)?;
    loop {
        match read_frame(from).map_err(io::Error::other)? {
            Some(frame) if frame.kind == FrameKind::Input && frame.payload.is_empty() => {
                file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
                return Ok(());
            }
            Some(frame) if frame.kind == FrameKind::Input => file.write_all(&frame.payload)?,
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Lists a folder with everything below, or a file by itself.
pub fn list(path: &str, host: &Host) -> Result<(), Failed> {
    let root = Path::new(path);
    let mut entries = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let full = if below.as_os_str().is_empty() { root.to_owned() } else { root.join(&below) };
        let metadata = fs::metadata(&full).map_err(about(path))?;
        let is_folder = metadata.is_dir();
        entries.push(Entry {
            path: below.to_string_lossy().into_owned(),
            mode: metadata.permissions().mode() & 0o7777,
            is_folder,
            size: metadata.len(),
        });
        if entries.len() > ENTRIES_MAX {
            let reason = format!("{path}: more than {ENTRIES_MAX} files");
            return Err(Failed { reason, code: 1 });
        }
        if is_folder {
            for child in fs::read_dir(&full).map_err(about(path))? {
                let child = child.map_err(about(path))?;
                // Links are not followed, and other oddities are not files.
                let kind = child.file_type().map_err(about(path))?;
                if kind.is_file() || kind.is_dir() {
                    pending.push(below.join(child.file_name()));
                }
            }
        }
    }
    // In pieces, for a frame has a bound.
    for piece in entries.chunks(1000) {
        host.answer(FrameKind::Answer, &piece);
    }
    host.send(FrameKind::Output, &[])?;
    Ok(())
}

/// Mounts a folder of the host.
pub fn mount(what: &Mount, host: &Host) -> Result<(), Failed> {
    fs::create_dir_all(&what.target).map_err(about(&what.target))?;
    let options = std::ffi::CString::new(what.options.clone())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let flags = MountFlags::empty();
    rustix::mount::mount(&what.source, &what.target, &what.kind, flags, Some(options.as_c_str()))
        .map_err(io::Error::from)
        .map_err(about(&what.target))?;
    host.answer(FrameKind::Answer, &json!({}));
    Ok(())
}

/// Unmounts it.
pub fn unmount(path: &str, host: &Host) -> Result<(), Failed> {
    rustix::mount::unmount(path, UnmountFlags::empty())
        .map_err(io::Error::from)
        .map_err(about(path))?;
    host.answer(FrameKind::Answer, &json!({}));
    Ok(())
}
