//! Unix sockets at paths of the file system: taken over from the dead, left behind by nobody.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Error, Result};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// A path that a socket of ours is bound to; the path goes with it.
#[derive(Debug)]
pub(crate) struct BoundPath(PathBuf);

impl Drop for BoundPath {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.0);
    }
}

/// A socket bound to `path`. A socket that nobody listens on any more is replaced, as after a
/// crash; one that is in use, or another kind of file, is not.
pub(crate) fn bind(path: &Path, kind: SocketType) -> Result<(OwnedFd, BoundPath)> {
    let failed = |error: Errno| Error::Unix {
        action: if kind == SocketType::STREAM { "listen on" } else { "bind" },
        path: path.to_owned(),
        source: error.into(),
    };
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let new = || net::socket_with(AddressFamily::UNIX, kind, FLAGS, None);
    let socket = new().map_err(failed)?;
    match net::bind(&socket, &address) {
        Err(Errno::ADDRINUSE) if is_dead(path, &address, &new().map_err(failed)?) => {
            fs::remove_file(path).map_err(|source| Error::File {
                action: "remove",
                path: path.to_owned(),
                source,
            })?;
            net::bind(&socket, &address).map_err(failed)?;
        }
        other => other.map_err(failed)?,
    }
    Ok((socket, BoundPath(path.to_owned())))
}

fn is_dead(path: &Path, address: &SocketAddrUnix, probe: &OwnedFd) -> bool {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && net::connect(probe, address) == Err(Errno::CONNREFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_sockets_are_replaced_and_living_ones_are_not() {
        for kind in [SocketType::STREAM, SocketType::DGRAM] {
            let path = std::env::temp_dir().join(format!("net-unix-{}", std::process::id()));
            let (socket, bound) = bind(&path, kind).unwrap();
            if kind == SocketType::STREAM {
                net::listen(&socket, 1).unwrap();
            }
            let text = bind(&path, kind).unwrap_err().to_string();
            assert!(text.contains("net-unix"), "{text}");
            // As after a crash: the file stays, the socket is gone.
            core::mem::forget(bound);
            drop(socket);
            let again = bind(&path, kind).unwrap();
            drop(again);
            assert!(!path.exists());
            fs::write(&path, "precious").unwrap();
            assert!(bind(&path, kind).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
            fs::remove_file(&path).unwrap();
        }
    }
}
