//! Programs around a tap interface: scripts that set it up and down, and the helper with rights that
//! this process does not have.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

use crate::character::reason;

/// Run when no other is named, where there is one.
const SCRIPT: &str = "/etc/qemu-ifup";
const DOWN_SCRIPT: &str = "/etc/qemu-ifdown";
/// Where distributions put the helper for bridges.
const HELPER: &str = "/usr/lib/qemu/qemu-bridge-helper";

type Result<T> = std::result::Result<T, String>;

/// Runs a script for an interface when the interface goes.
pub struct DownScript {
    path: String,
    interface: String,
}

impl Drop for DownScript {
    fn drop(&mut self) {
        // There is nobody left to tell.
        _ = run(&self.path, &self.interface);
    }
}

/// The script that is meant: none for `no`, the customary one, if it is there, where none is named.
fn meant(asked: Option<String>, customary: &str) -> Option<String> {
    match asked {
        Some(path) if path == "no" || path.is_empty() => None,
        None => Path::new(customary).exists().then(|| customary.to_owned()),
        named => named,
    }
}

/// Sets an interface up by a script. What sets it down again is kept while the interface is.
pub fn scripts(
    interface: &str,
    up: Option<String>,
    down: Option<String>,
) -> Result<Option<DownScript>> {
    if let Some(path) = meant(up, SCRIPT) {
        run(&path, interface)?;
    }
    let down = meant(down, DOWN_SCRIPT);
    Ok(down.map(|path| DownScript { path, interface: interface.to_owned() }))
}

fn run(path: &str, interface: &str) -> Result<()> {
    let status = Command::new(path).arg(interface).status();
    let status = status
        .map_err(|error| format!("could not launch network script {path}: {}", reason(&error)))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(format!("network script {path} failed with status {code}")),
        None => Err(format!("network script {path} was killed")),
    }
}

/// The helper that is there without being named.
pub fn customary_helper() -> Option<String> {
    Path::new(HELPER).exists().then(|| HELPER.to_owned())
}

/// Has the helper open a tap interface that is part of a bridge.
pub fn from_helper(helper: &str, bridge: &str) -> Result<OwnedFd> {
    let failed = |error: io::Error| format!("bridge helper {helper}: {}", reason(&error));
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let (ours, theirs) = pair.map_err(|error| failed(error.into()))?;
    // The program finds the socket by its number.
    let open = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(&theirs, open).map_err(|error| failed(error.into()))?;
    let mut words = helper.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg("--use-vnet").arg(format!("--fd={}", theirs.as_raw_fd()));
    let mut child = command.arg(format!("--br={bridge}")).spawn().map_err(failed)?;
    drop(theirs);
    let tap = receive(&ours);
    let status = child.wait().map_err(failed)?;
    match tap {
        Some(tap) if status.success() => Ok(tap),
        _ => Err("bridge helper failed".to_owned()),
    }
}

/// A descriptor that comes over a socket; none if the socket closes first.
fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}
