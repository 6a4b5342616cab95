//! Landlock: a process gives away rights on files, for itself and all that it starts.

// UNSAFETY: the C library has no functions for these system calls, so they are made by number.
#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Rights on files: the kernel's numbers.
pub mod access {
    /// Start a program.
    pub const EXECUTE: u64 = 1;
    /// Open for writing.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// Open for reading.
    pub const READ_FILE: u64 = 1 << 2;
    /// List a folder.
    pub const READ_DIR: u64 = 1 << 3;
    /// Take a file out of a folder.
    pub const REMOVE_FILE: u64 = 1 << 5;
    /// Make a file.
    pub const MAKE_REG: u64 = 1 << 8;
    /// Make a socket.
    pub const MAKE_SOCK: u64 = 1 << 9;
    /// Shorten a file.
    pub const TRUNCATE: u64 = 1 << 14;
    /// Use a device's own calls.
    pub const IOCTL_DEV: u64 = 1 << 15;
}

/// The number of rights on files by version of the interface, the first version first.
const RIGHTS: [u32; 5] = [13, 14, 15, 15, 16];
/// The first version that keeps signals and abstract sockets inside.
const SCOPES_SINCE: u32 = 6;
/// Abstract sockets and signals.
const SCOPES: u64 = 3;
const CREATE_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: RawFd,
}

/// The version of the kernel's interface, or none where there is no Landlock.
pub fn version() -> Option<u32> {
    let nothing: *const RulesetAttributes = std::ptr::null();
    // SAFETY: with this flag the call reads nothing and answers a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, CREATE_VERSION)
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// What is allowed beneath which files; everything else is forbidden.
pub struct Ruleset {
    descriptor: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// One that forbids all rights on files that this kernel knows, and, where it can, signals and
    /// abstract sockets of processes outside.
    ///
    /// # Errors
    /// There is no Landlock in this kernel.
    pub fn new() -> io::Result<Self> {
        let version = version().ok_or(io::ErrorKind::Unsupported)?;
        let place = (version as usize).min(RIGHTS.len()) - 1;
        let handled = (1u64 << RIGHTS[place]) - 1;
        let scoped = if version >= SCOPES_SINCE { SCOPES } else { 0 };
        let attributes =
            RulesetAttributes { handled_access_fs: handled, handled_access_net: 0, scoped };
        // Older kernels know a shorter structure, and refuse a longer one only if it has news.
        // SAFETY: the kernel reads as many bytes as it is told of a structure that lives until
        // then.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size_of::<RulesetAttributes>(),
                0u32,
            )
        };
        let Ok(descriptor) = RawFd::try_from(descriptor) else {
            return Err(io::Error::last_os_error());
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened it for us.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor, handled })
    }

    /// Allows these rights on a file, or on all beneath a folder.
    ///
    /// # Errors
    /// As the kernel says: rights that only folders have were given for a file.
    pub fn allow(&self, place: impl AsFd, rights: u64) -> io::Result<()> {
        let rule = PathBeneath {
            allowed_access: rights & self.handled,
            parent_fd: place.as_fd().as_raw_fd(),
        };
        // SAFETY: the kernel reads a structure of the kind that is named, which lives until then.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.descriptor.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0u32,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Puts the rules on this thread and on all that it starts, for good. New programs get no
    /// privileges any more either.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn enforce(self) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        // SAFETY: the call takes two numbers.
        let result = unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, self.descriptor.as_raw_fd(), 0u32)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::thread;

    use super::*;

    #[test]
    fn what_is_not_allowed_is_forbidden() {
        let Some(version) = version() else {
            ::tests::skip!("the kernel has no Landlock");
        };
        assert!(version > 0);
        let folder = std::env::temp_dir().join(format!("hostel-landlock-{}", std::process::id()));
        fs::create_dir_all(folder.join("open")).unwrap();
        for name in ["open/file", "closed"] {
            fs::write(folder.join(name), "text").unwrap();
        }
        let place = File::open(folder.join("open")).unwrap();
        let inside = folder.clone();
        // The rules are on one thread only.
        let seen = thread::spawn(move || {
            let rules = Ruleset::new().unwrap();
            rules.allow(place, access::READ_FILE).unwrap();
            rules.enforce().unwrap();
            ["open/file", "open/new", "closed"].map(|name| match name {
                "open/new" => fs::write(inside.join(name), "x").is_ok(),
                name => fs::read(inside.join(name)).is_ok(),
            })
        });
        assert_eq!(seen.join().unwrap(), [true, false, false]);
        assert!(fs::read(folder.join("closed")).is_ok(), "other threads go on as before");
        fs::remove_dir_all(folder).unwrap();
    }
}
