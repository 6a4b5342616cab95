//! Locks against using an image twice, as other users of image files take them: open file
//! description locks on single bytes, one for each permission that is used or refused to others.

use std::fs::File;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Error, Result};

/// Byte `USED + n` is locked by who uses permission `n`, `REFUSED + n` by who refuses it to others.
const USED: i64 = 100;
const REFUSED: i64 = 200;

/// The numbers of the permissions, with the words for messages.
const PERMISSIONS: [(u32, &str); 4] = [
    (CONSISTENT_READ, "consistent read"),
    (WRITE, "write"),
    (WRITE_SAME, "write unchanged"),
    (RESIZE, "resize"),
];

/// Reading sees a state that makes sense.
pub const CONSISTENT_READ: u32 = 1 << 0;
/// Writing.
pub const WRITE: u32 = 1 << 1;
/// Writing what is there already.
const WRITE_SAME: u32 = 1 << 2;
/// Changing the size.
pub const RESIZE: u32 = 1 << 3;

fn byte_lock(kind: i32, start: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    }
}

/// Whether somebody else's lock on this byte would stop an exclusive one.
fn held_by_others(file: &File, start: i64) -> bool {
    let mut probe = byte_lock(libc::F_WRLCK, start);
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe)) {
        Ok(_) => i32::from(probe.l_type) != libc::F_UNLCK,
        // A file system without these locks protects nobody.
        Err(_) => false,
    }
}

/// Takes the locks for `used` permissions and for `refused` ones, or says who is in the way.
pub fn acquire(file: &File, filename: &str, used: u32, refused: u32) -> Result<()> {
    for (bit, word) in PERMISSIONS {
        let number = i64::from(bit.trailing_zeros());
        for (wanted, base, shared) in [(used, USED, false), (refused, REFUSED, true)] {
            if wanted & bit == 0 {
                continue;
            }
            let lock = byte_lock(libc::F_RDLCK, base + number);
            match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                    return Err(locked(filename, word, shared));
                }
                Err(_) => return Ok(()), // no such locks on this file system
            }
        }
    }
    for (base, wanted, shared) in [(REFUSED, used, false), (USED, refused, true)] {
        for (bit, word) in PERMISSIONS {
            let number = i64::from(bit.trailing_zeros());
            if wanted & bit != 0 && held_by_others(file, base + number) {
                release(file);
                return Err(locked(filename, word, shared));
            }
        }
    }
    Ok(())
}

/// Gives all locks back.
fn release(file: &File) {
    for start in (USED..USED + 8).chain(REFUSED..REFUSED + 8) {
        _ = fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_UNLCK, start)));
    }
}

fn locked(filename: &str, permission: &'static str, shared: bool) -> Error {
    Error::Locked { permission, shared, filename: filename.to_string() }
}
