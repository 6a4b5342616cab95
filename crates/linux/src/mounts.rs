//! Views of the file system: one of one's own, and a look into another process's.

// UNSAFETY: leaving what threads share has a hazard for descriptors, which none of these touches.
#![expect(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{
    ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe,
};

/// Gives this process a view of its own: what it mounts, no other sees, and what others unmount
/// goes here too.
///
/// # Errors
/// As the kernel says: the right is missing.
pub fn detach() -> io::Result<()> {
    // SAFETY: descriptors stay shared, which is all that could go wrong.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", flags)?)
}

/// Does something in another process's view, on a thread of its own.
///
/// # Errors
/// Those of the work, and the kernel's: the process is gone, the right is missing.
pub fn in_view_of<T: Send>(
    process: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            // SAFETY: descriptors stay shared, which is all that could go wrong.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            move_into_thread_name_spaces(process, ThreadNameSpaceType::MOUNT)?;
            work()
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("the work was not finished")))
    })
}
