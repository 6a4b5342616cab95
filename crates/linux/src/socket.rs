//! Socket options that no well-kept crate wraps.

// UNSAFETY: the option has no system call of its own, only `setsockopt`, whose arguments the
// compiler cannot check.
#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Keeps a socket to one link: what comes by others is not seen, and what is sent goes there.
///
/// # Errors
/// As the kernel says: there is no such link, or the right is missing.
pub fn bind_to_device(socket: impl AsFd, link: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(link.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the option reads as many bytes as it is told, of a text that lives until then.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            link.as_ptr().cast(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_not_there_is_an_error() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(bind_to_device(&socket, "no-such-link-0").is_err());
    }
}
