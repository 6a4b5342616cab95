//! Sockets that whoever started us has opened already: `sd_listen_fds(3)`.

// UNSAFETY: a descriptor that was inherited is a number only, and only we know that it is ours.
#![expect(unsafe_code)]

use std::env;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first of them, by agreement.
const FIRST: RawFd = 3;
/// More would be a mistake.
const COUNT_MAX: RawFd = 64;

/// The descriptors that were meant for this process, in their order; the second call has none.
pub fn sockets() -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| env::var(name).ok()?.parse::<RawFd>().ok();
    let own = RawFd::try_from(std::process::id()).ok();
    let count = number("LISTEN_FDS").filter(|count| (1..=COUNT_MAX).contains(count));
    let Some(count) = count.filter(|_| number("LISTEN_PID") == own) else { return Vec::new() };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let open = |descriptor: RawFd| {
        let mut listens: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).ok()?;
        // SAFETY: the option writes as many bytes as it is told into an int that lives until then;
        // a number that is no socket is an error, no more.
        let asked = unsafe {
            libc::getsockopt(
                descriptor,
                libc::SOL_SOCKET,
                libc::SO_ACCEPTCONN,
                (&raw mut listens).cast(),
                &raw mut length,
            )
        };
        if asked < 0 || listens == 0 {
            return None; // a promise that was not kept; the number may be one of our own by now
        }
        // SAFETY: the descriptor is an open, listening socket, none of which we have made yet; our
        // parent has given it to this process alone, and the mark above sees to it that it is
        // taken once.
        Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
    };
    (FIRST..FIRST + count).filter_map(open).collect()
}
