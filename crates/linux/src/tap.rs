//! Network interfaces of the kind tap: the kernel's end of a network card of ours.
//!
//! The calls are those of the kernel's `Documentation/networking/tuntap.rst` and of `netdevice(7)`.

// UNSAFETY: these requests have no system call of their own, only `ioctl`, whose arguments the
// compiler cannot check.
#![expect(unsafe_code)]

use std::ffi::{CString, c_int, c_ulong};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;

use libc::ifreq;

/// `SIOCBRADDIF` of `linux/sockios.h`, the same on all architectures.
const BRIDGE_ADD: libc::Ioctl = 0x89a2;

/// What may be left to the reader of a tap interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapOffload {
    /// Transport checksums.
    pub checksum: bool,
    /// Cutting TCP over IPv4.
    pub tso4: bool,
    /// Cutting TCP over IPv6.
    pub tso6: bool,
}

/// Opens the interface `name`, or makes it; a `%d` in the name becomes a number. With
/// `offload_header` each frame has a header of [`set_header_bytes`] bytes before it. Reading and
/// writing never block. Returns the descriptor and the interface's true name.
///
/// # Errors
/// As the kernel says; a right that is missing is `PermissionDenied`.
pub fn open(name: &str, offload_header: bool) -> io::Result<(OwnedFd, String)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let header = if offload_header { libc::IFF_VNET_HDR } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | header;
    let mut request = named(name)?;
    request.ifr_ifru.ifru_flags = flags.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    interface_request(&file, libc::TUNSETIFF, &mut request)?;
    Ok((file.into(), name_of(&request)))
}

/// The name of the interface of an inherited descriptor, and whether it has offload headers.
///
/// # Errors
/// The descriptor is no tap interface.
pub fn inspect(tap: impl AsFd) -> io::Result<(String, bool)> {
    let mut request = named("")?;
    interface_request(&tap, libc::TUNGETIFF, &mut request)?;
    let flags = c_int::from(flags_of(&request));
    if flags & libc::IFF_TAP == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it carries packets, not frames"));
    }
    Ok((name_of(&request), flags & libc::IFF_VNET_HDR != 0))
}

/// How many bytes the offload header has.
///
/// # Errors
/// As the kernel says.
pub fn set_header_bytes(tap: impl AsFd, bytes: i32) -> io::Result<()> {
    // SAFETY: the request reads an int, which lives until the call returns.
    let result =
        unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) };
    outcome(result)
}

/// What the kernel may leave to us.
///
/// # Errors
/// As the kernel says.
pub fn set_offload(tap: impl AsFd, offload: TapOffload) -> io::Result<()> {
    let mut flags: c_ulong = 0;
    if offload.checksum {
        flags |= c_ulong::from(libc::TUN_F_CSUM);
        flags |= if offload.tso4 { c_ulong::from(libc::TUN_F_TSO4) } else { 0 };
        flags |= if offload.tso6 { c_ulong::from(libc::TUN_F_TSO6) } else { 0 };
    }
    // SAFETY: the request takes its argument by value and touches no memory.
    let result = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
    outcome(result)
}

/// Plugs an interface into a bridge.
///
/// # Errors
/// As the kernel says: there is no such bridge, or the right is missing.
pub fn join_bridge(bridge: &str, interface: &str) -> io::Result<()> {
    let name = CString::new(interface)?;
    // SAFETY: the name is a string that ends with 0 and lives until the call returns.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let mut request = named(bridge)?;
    request.ifr_ifru.ifru_ifindex = index.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = UnixDatagram::unbound()?;
    match interface_request(&socket, BRIDGE_ADD, &mut request) {
        // It is there already.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        other => other,
    }
}

/// Switches an interface on.
///
/// # Errors
/// As the kernel says.
pub fn set_up(interface: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let mut request = named(interface)?;
    interface_request(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    let up = i16::try_from(libc::IFF_UP).map_err(|_| io::ErrorKind::InvalidInput)?;
    request.ifr_ifru.ifru_flags = flags_of(&request) | up;
    interface_request(&socket, libc::SIOCSIFFLAGS, &mut request)
}

fn named(name: &str) -> io::Result<ifreq> {
    let mut request = ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_newname: [0; libc::IFNAMSIZ] },
    };
    if name.len() >= request.ifr_name.len() || name.bytes().any(|byte| byte == 0) {
        let text = "an interface's name has at most 15 bytes";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn name_of(request: &ifreq) -> String {
    let bytes = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let bytes: Vec<u8> = bytes.map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn flags_of(request: &ifreq) -> i16 {
    // SAFETY: the union's first 16 bytes were set, and every value of them is a valid integer.
    unsafe { request.ifr_ifru.ifru_flags }
}

/// One of the requests of this module, all of which read and write an `ifreq`.
fn interface_request(
    descriptor: &impl AsFd,
    number: libc::Ioctl,
    request: &mut ifreq,
) -> io::Result<()> {
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: the request reads and writes an ifreq, which lives until the call returns.
    let result = unsafe { libc::ioctl(descriptor, number, std::ptr::from_mut(request)) };
    outcome(result)
}

fn outcome(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_impossible_names_are_refused_before_the_kernel_is_asked() {
        for name in ["sixteen-bytes-xx", "a\0b"] {
            let kind = open(name, false).map(|_| ()).map_err(|error| error.kind());
            assert!(
                matches!(
                    kind,
                    Err(io::ErrorKind::InvalidInput
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied)
                ),
                "{kind:?}"
            );
            assert!(named(name).is_err());
        }
        assert_eq!(name_of(&named("tap0").unwrap()), "tap0");
    }

    #[test]
    fn a_file_is_no_interface() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(inspect(&file).is_err());
        assert!(join_bridge("nobridge0", "nointerface0").is_err());
        assert!(set_up("nointerface0").is_err());
    }
}
