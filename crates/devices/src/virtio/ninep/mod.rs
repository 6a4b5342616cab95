//! A shared folder. Virtio 1.3, 5.9 (the transport of 9P2000.L).
//!
//! `-virtfs local,path=/srv/share,mount_tag=share,security_model=mapped-xattr`, in the guest
//! `mount -t 9p -o trans=virtio,version=9p2000.L share /mnt`
//!
//! The host's files are reached by descriptors that are opened step by step below the root, each
//! step confined by the kernel; no path of the guest's is ever given to the host.

mod mapped;
mod node;
mod server;
mod share;
mod spec;
#[cfg(test)]
mod tests;
mod wire;
mod worker;

use std::sync::Arc;

use super::device::{Driver, Kind, VirtioDevice};
use worker::Worker;

pub use mapped::Keep;
pub use share::{OtherDevices, Security, Share, ShareError, ShareOptions};

/// The device has a tag; all have.
const F_MOUNT_TAG: u64 = 1;
/// Entries of the only queue.
const QUEUE_SIZE: u16 = 128;
/// The longest tag.
pub const TAG_BYTES_MAX: usize = 31;

/// The device.
pub struct NineP {
    tag: Vec<u8>,
    worker: Worker,
}

impl NineP {
    /// A device by which a guest reaches a share under this tag, of [`TAG_BYTES_MAX`] at most.
    #[must_use]
    pub fn new(share: Arc<Share>, tag: &str) -> Arc<Self> {
        let tag = tag.as_bytes()[..tag.len().min(TAG_BYTES_MAX)].to_vec();
        Arc::new(Self { tag, worker: Worker::new(share) })
    }
}

impl VirtioDevice for NineP {
    fn kind(&self) -> Kind {
        Kind::NineP
    }

    fn features(&self) -> u64 {
        F_MOUNT_TAG
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = (self.tag.len() as u16).to_le_bytes().to_vec();
        config.extend(&self.tag);
        config
    }

    fn activate(&self, driver: Driver) {
        self.worker.start(driver.queue(0).cloned());
    }

    fn reset(&self) {
        self.worker.stop();
    }

    fn notify(&self, _queue: u16) {
        self.worker.wake();
    }

    fn set_running(&self, running: bool) {
        self.worker.set_running(running);
    }
}
