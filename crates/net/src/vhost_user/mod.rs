//! Devices in other processes: the side of vhost-user that the machine is on.
//!
//! [`FrontEnd`] speaks over the socket, [`Ring`] is what a driver writes. The rings are always our
//! own, in a block of memory made for them, never the guest's: so that what a guest offers is
//! checked before another process sees it, and what that process writes is known when it is done.
//! [`VhostUserNet`] is a network back end by these means.

mod front_end;
mod message;
mod network;
mod ring;

use std::io;

pub use linux::shared::SharedMemory;

pub use front_end::{FrontEnd, MemoryRegion, Queue, QueueEvents};
pub use network::VhostUserNet;
pub use ring::{Buffer, Lie, Ring, Used};

/// The other process, or the connection to it, fails.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// The connection.
    #[error("the vhost-user back end does not answer {request}")]
    Connection {
        /// What was asked.
        request: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An answer that makes no sense.
    #[error("the vhost-user back end answers {request} with nonsense")]
    Nonsense {
        /// What was asked.
        request: &'static str,
    },
    /// The back end said no.
    #[error("the vhost-user back end refuses {request}")]
    Refused {
        /// What was asked.
        request: &'static str,
    },
    /// The back end lacks something.
    #[error("the vhost-user back end cannot do {feature}")]
    Lacks {
        /// What.
        feature: &'static str,
    },
    /// The host.
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, VhostUserError>;
