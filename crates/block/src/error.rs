//! What can go wrong with a disk image.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a disk image. The texts are those that users of image tools know.
#[derive(Debug, Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}", describe(*.0))]
    Os(Errno),
    /// Opening an image failed.
    #[error("Could not open '{filename}': {source}")]
    Open {
        /// As the user named it.
        filename: String,
        /// Why.
        source: Box<Error>,
    },
    /// Opening the backing file of an image failed.
    #[error("Could not open backing file: {source}")]
    Backing {
        /// Why.
        source: Box<Error>,
    },
    /// An action on an image failed; the action's text ends where the reason begins.
    #[error("{action}: {source}")]
    Failed {
        /// What was tried, for example `Could not resize image`.
        action: String,
        /// Why.
        source: Box<Error>,
    },
    /// A text of its own with a number of the operating system's.
    #[error("{text}")]
    Numbered {
        /// For callers that count in numbers.
        errno: Errno,
        /// Says what.
        text: String,
    },
    /// Another process holds the image.
    #[error("Failed to get {}\"{permission}\" lock\nIs another process using the image [{filename}]?", if *.shared { "shared " } else { "" })]
    Locked {
        /// The permission that could not be had.
        permission: &'static str,
        /// Whether others were to be kept from having it, or we were to have it.
        shared: bool,
        /// The file.
        filename: String,
    },
    /// The image is damaged or hostile.
    #[error("{text}")]
    Corrupt {
        /// Names the field and where it stands.
        text: String,
    },
    /// The image, the option or the combination is well-formed but cannot be served.
    #[error("{text}")]
    Unsupported {
        /// Says what.
        text: String,
    },
    /// The request makes no sense for this image.
    #[error("{text}")]
    Invalid {
        /// Says what.
        text: String,
    },
}

impl Error {
    /// A damaged image.
    pub fn corrupt(text: impl Into<String>) -> Self {
        Self::Corrupt { text: text.into() }
    }

    /// Something this program does not do.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::Unsupported { text: text.into() }
    }

    /// A senseless request.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid { text: text.into() }
    }

    /// This error as the reason why `action` failed.
    pub fn during(self, action: impl Into<String>) -> Self {
        Self::Failed { action: action.into(), source: Box::new(self) }
    }

    /// The same number with another text.
    #[must_use]
    pub fn during_text(self, text: String) -> Self {
        Self::Numbered { errno: self.errno(), text }
    }

    /// The operating system's number for the innermost reason.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Os(errno) | Self::Numbered { errno, .. } => *errno,
            Self::Open { source, .. } | Self::Backing { source } | Self::Failed { source, .. } => {
                source.errno()
            }
            Self::Locked { .. } => Errno::AGAIN,
            Self::Corrupt { .. } => Errno::IO,
            Self::Unsupported { .. } => Errno::NOTSUP,
            Self::Invalid { .. } => Errno::INVAL,
        }
    }

    /// The words for [`Self::errno`].
    pub fn reason(&self) -> String {
        describe(self.errno())
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Os(error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    }
}

/// The system's words for an error number.
pub fn describe(errno: Errno) -> String {
    let text = io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}
