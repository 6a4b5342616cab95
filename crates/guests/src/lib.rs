//! Images for guests: where they come from, how they are put together, and what makes them ours.

pub mod cache;
pub mod catalogue;
pub mod cpio;
pub mod debian;
pub mod debian_image;
pub mod disk;
pub mod download;
pub mod firmware;
pub mod keys;
pub mod library;
pub mod seed;
pub mod simplestreams;
pub mod spark;
pub mod yaml;

mod http;
#[cfg(test)]
mod mirror;

/// Fetches something short into memory.
pub fn fetch(url: &str, progress: &mut dyn Progress) -> Result<Vec<u8>> {
    http::get(url, progress)
}

/// The agent, as a static program for x86-64 guests.
pub const AGENT: &[u8] = include_bytes!(env!("HOSTEL_AGENT"));

/// Hears how long work goes on: what is done, how much of it, of how much.
pub trait Progress {
    /// A step begins.
    fn step(&mut self, what: &str);
    /// Bytes of the present step; the total where it is known.
    fn bytes(&mut self, done: u64, total: Option<u64>);
}

/// Nobody wants to know.
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _what: &str) {}
    fn bytes(&mut self, _done: u64, _total: Option<u64>) {}
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No package source is known.
    #[error("No Debian package source is configured on this machine")]
    NoMirror,
    /// A transfer failed.
    #[error("Cannot fetch {url}: {reason}")]
    Fetch {
        /// What.
        url: String,
        /// Why.
        reason: String,
    },
    /// What came is not what was announced.
    #[error("{what} is not what its index announces (sum {found} instead of {expected})")]
    Corrupt {
        /// What.
        what: String,
        /// The sum that was announced.
        expected: String,
        /// The sum of what came.
        found: String,
    },
    /// A signature is missing or wrong.
    #[error("{what} is not signed by a key of {keyring}: {reason}")]
    Signature {
        /// What.
        what: String,
        /// The keys that are trusted.
        keyring: String,
        /// Why not.
        reason: String,
    },
    /// A package does not exist.
    #[error("There is no package '{package}' in {suite}")]
    NoPackage {
        /// Which.
        package: String,
        /// Where.
        suite: String,
    },
    /// Nobody knows an image of this name.
    #[error("There is no image '{name}'")]
    NoImage {
        /// Which.
        name: String,
    },
    /// A machine that was to build an image has failed.
    #[error("The machine that sets the image up has failed: {reason}")]
    Build {
        /// Why.
        reason: String,
    },
    /// A file that is not what it should be.
    #[error("{what} cannot be read: {reason}")]
    Format {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
    /// The host's file system.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, GuestError>;

impl GuestError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoMirror => Some(
                "set HOSTEL_MIRROR to a Debian mirror (http://HOST/debian), or install Debian's \
                 apt sources",
            ),
            Self::Fetch { .. } => {
                Some("check the network; what was fetched before is used with --offline")
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Some(
                "make room, such as by 'hostel image remove --unused 30' and 'hostel purge', or set \
                 XDG_CACHE_HOME to a larger disk",
            ),
            Self::Corrupt { .. } => {
                Some("try again: a mirror in the middle of an update, or a broken proxy")
            }
            Self::Signature { .. } => Some(
                "the mirror is not to be trusted, or the package debian-archive-keyring is old",
            ),
            _ => None,
        }
    }

    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}
