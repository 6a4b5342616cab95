//! RFB's messages: RFC 6143 and the extensions of the community's `rfbproto`. Bytes in, messages
//! out; nothing here waits or opens anything.

mod bytes;
mod messages;
mod pixel;
mod sound;
mod security;
mod handshake;

use thiserror::Error;

pub use bytes::{Bytes, Put};
pub use handshake::VERSION;
pub use handshake::{Access, Greeting, Step};
pub use messages::FENCE_BYTES_MAX;
pub use messages::{ClientMessage, ScreenLayout, encoding};
pub use pixel::{PixelFormat, palette_message};
pub use security::{CHALLENGE_BYTES, response};
pub use sound::{SoundFormat, SoundNews, SoundOrder};

/// What the peer has done wrong; the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A message of no known kind.
    #[error("The peer sent a message of the unknown kind {kind}")]
    UnknownMessage {
        /// Its first byte.
        kind: u8,
    },
    /// A field out of its range.
    #[error("The peer sent a bad {what}")]
    Bad {
        /// The field.
        what: &'static str,
    },
    /// The other side does not let us in.
    #[error("The server refuses: {reason}")]
    Refused {
        /// In its words.
        reason: String,
    },
}

/// Short for the commonest of them.
pub(crate) const fn bad(what: &'static str) -> ProtocolError {
    ProtocolError::Bad { what }
}
