//! A shared folder, served by another process. Virtio 1.3, 5.11, over vhost-user.
//!
//! `virtiofsd --socket-path=/run/fs.sock --shared-dir=/srv/share`, then
//! `-chardev socket,id=c,path=/run/fs.sock -device vhost-user-fs-pci,chardev=c,tag=share`, and in
//! the guest `mount -t virtiofs share /mnt`.
//!
//! The other process works on rings of our own and on the guest's memory, which is always shared.

mod link;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ::net::vhost_user::{FrontEnd, VhostUserError};
use memory::AddressSpace;

use super::device::{Driver, Kind, VirtioDevice};
use link::Link;

/// Bytes of a tag.
pub const TAG_BYTES_MAX: usize = 36;
/// Queues for requests, beside the one for urgent ones.
pub const QUEUES_MAX: u16 = 64;

/// What a folder is made of.
pub struct FsConfig {
    /// The folder's name, 1 to [`TAG_BYTES_MAX`] bytes.
    pub tag: String,
    /// A connection to who serves it.
    pub socket: OwnedFd,
    /// Queues for requests, 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// Entries of each, a power of two.
    pub queue_size: u16,
    /// The guest's memory.
    pub memory: Arc<AddressSpace>,
}

/// The device.
pub struct Fs {
    tag: String,
    queues: u16,
    queue_size: u16,
    features: u64,
    link: Link,
}

impl Fs {
    /// Gets to know the back end.
    pub fn new(config: FsConfig) -> Result<Arc<Self>, VhostUserError> {
        let FsConfig { tag, socket, queues, queue_size, memory } = config;
        let front = FrontEnd::new(socket)?;
        if front.queues_max().is_some_and(|most| most < u64::from(queues) + 1) {
            return Err(VhostUserError::Lacks { feature: "so many queues" });
        }
        let features = front.features();
        let link = Link::new(front, memory);
        Ok(Arc::new(Self { tag, queues, queue_size, features, link }))
    }
}

impl VirtioDevice for Fs {
    fn kind(&self) -> Kind {
        Kind::Fs
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.queue_size; usize::from(self.queues) + 1]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = self.tag.as_bytes().to_vec();
        config.resize(TAG_BYTES_MAX, 0);
        config.extend(u32::from(self.queues).to_le_bytes());
        config
    }

    fn activate(&self, driver: Driver) {
        self.link.start(driver);
    }

    fn reset(&self) {
        self.link.stop();
    }

    fn notify(&self, queue: u16) {
        self.link.forward(usize::from(queue));
    }

    fn set_running(&self, running: bool) {
        self.link.set_running(running);
    }
}
