//! A disk. Virtio 1.3, 5.2.
//!
//! `-drive file=disk.qcow2,if=virtio`, or `-blockdev ... -device virtio-blk-pci,drive=NODE`.

mod request;
mod spec;
mod workers;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::NodeRef;
use device::{EventSink, Fields, StateError};

use super::device::{Driver, Kind, VirtioDevice};
use workers::Workers;

/// What becomes of a request that the image fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// The guest hears of it.
    Report,
    /// The guest is told that all is well.
    Ignore,
    /// The machine stops; the request is tried again when it goes on.
    Stop,
    /// `Stop` when the medium is full, else `Report`.
    StopWhenFull,
}

/// What a disk is made of.
pub struct BlkConfig {
    /// For events.
    pub id: String,
    /// The image.
    pub node: NodeRef,
    /// The guest must not write.
    pub read_only: bool,
    /// At most 20 bytes reach the guest.
    pub serial: String,
    /// Bytes of a logical block: a power of two from 512 on.
    pub logical_block_bytes: u32,
    /// Bytes of a physical block: a power of two, not below the logical one.
    pub physical_block_bytes: u32,
    /// The smallest and the best size of a request in bytes, 0 where nothing is known.
    pub io_bytes: (u32, u32),
    /// Queues, 1 or more.
    pub queues: u16,
    /// Entries of each queue, a power of two.
    pub queue_size: u16,
    /// Offer discard requests.
    pub discard: bool,
    /// Offer write-zeroes requests.
    pub write_zeroes: bool,
    /// Offer flushes, and a switch for the write cache.
    pub write_cache: bool,
    /// What becomes of failed reads.
    pub on_read_error: ErrorPolicy,
    /// What becomes of failed writes, flushes, discards.
    pub on_write_error: ErrorPolicy,
    /// Told of failures.
    pub events: Arc<dyn EventSink>,
}

/// What requests need to know.
struct Disk {
    config: BlkConfig,
    /// Writes reach the medium before they are answered.
    write_through: AtomicBool,
    /// The driver's wish for a write cache, where it can have one.
    writeback: AtomicBool,
}

/// A disk. Requests are served by threads of its own, so that no vCPU waits for the host's disk.
pub struct Blk {
    disk: Arc<Disk>,
    workers: Workers,
}

impl Blk {
    /// A disk after power-on.
    #[must_use]
    pub fn new(config: BlkConfig) -> Arc<Self> {
        let disk = Arc::new(Disk {
            config,
            write_through: AtomicBool::new(false),
            writeback: AtomicBool::new(true),
        });
        Arc::new(Self { workers: Workers::new(&disk), disk })
    }

    /// The image has another size now.
    pub fn resized(&self) {
        self.workers.config_changed();
    }

    /// The image.
    #[must_use]
    pub fn node(&self) -> &NodeRef {
        &self.disk.config.node
    }

    fn choose_cache(&self, features: u64) {
        let has = |feature| features & feature != 0;
        let cached = if has(spec::F_CONFIG_WCE) {
            self.disk.writeback.load(Ordering::Relaxed)
        } else {
            has(spec::F_FLUSH)
        };
        self.disk.write_through.store(!cached, Ordering::Relaxed);
    }
}

impl Disk {
    fn sectors(&self) -> u64 {
        self.config.node.size() / spec::SECTOR_BYTES
    }
}

impl VirtioDevice for Blk {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn features(&self) -> u64 {
        let BlkConfig { read_only, queues, discard, write_zeroes, write_cache, .. } =
            &self.disk.config;
        let on = |on: bool, feature: u64| if on { feature } else { 0 };
        spec::F_SEG_MAX
            | spec::F_GEOMETRY
            | spec::F_BLK_SIZE
            | spec::F_TOPOLOGY
            | on(*write_cache, spec::F_FLUSH | spec::F_CONFIG_WCE)
            | on(*read_only, spec::F_RO)
            | on(*queues > 1, spec::F_MQ)
            | on(*discard && !read_only, spec::F_DISCARD)
            | on(*write_zeroes && !read_only, spec::F_WRITE_ZEROES)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.disk.config.queue_size; usize::from(self.disk.config.queues.max(1))]
    }

    fn config(&self) -> Vec<u8> {
        let BlkConfig { logical_block_bytes, physical_block_bytes, io_bytes, queues, .. } =
            &self.disk.config;
        let sectors = self.disk.sectors();
        let blocks = |bytes: u32| bytes / (*logical_block_bytes).max(1);
        let exponent = (physical_block_bytes / logical_block_bytes.max(&1)).max(1).ilog2() as u8;
        let cylinders = (sectors / (16 * 63)).min(16383) as u16;
        // Header and status take two entries of a queue.
        let segments = u32::from(self.disk.config.queue_size.saturating_sub(2).max(1));
        let mut config = Vec::with_capacity(60);
        config.extend(sectors.to_le_bytes());
        config.extend(0_u32.to_le_bytes()); // a segment's size is not limited
        config.extend(segments.to_le_bytes());
        config.extend(cylinders.to_le_bytes());
        config.extend([16, 63]);
        config.extend(logical_block_bytes.to_le_bytes());
        config.extend([exponent, 0]);
        config.extend(u16::try_from(blocks(io_bytes.0)).unwrap_or(0).to_le_bytes());
        config.extend(blocks(io_bytes.1).to_le_bytes());
        config.extend([u8::from(self.disk.writeback.load(Ordering::Relaxed)), 0]);
        config.extend(queues.to_le_bytes());
        let alignment = logical_block_bytes / spec::SECTOR_BYTES as u32;
        for word in [spec::RANGE_SECTORS_MAX, spec::RANGES_MAX as u32, alignment] {
            config.extend(word.to_le_bytes());
        }
        for word in [spec::RANGE_SECTORS_MAX, spec::RANGES_MAX as u32] {
            config.extend(word.to_le_bytes());
        }
        config.extend([1, 0, 0, 0]); // zeroing may give space back
        config
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        if offset == spec::CONFIG_WRITEBACK && bytes.len() == 1 && self.disk.config.write_cache {
            self.disk.writeback.store(bytes[0] & 1 != 0, Ordering::Relaxed);
            if let Some(features) = self.workers.features() {
                self.choose_cache(features);
            }
        }
    }

    fn activate(&self, driver: Driver) {
        self.choose_cache(driver.features);
        self.workers.start(driver);
    }

    fn reset(&self) {
        self.workers.stop();
        self.disk.writeback.store(true, Ordering::Relaxed);
    }

    fn notify(&self, queue: u16) {
        self.workers.notify(queue);
    }

    fn set_running(&self, running: bool) {
        self.workers.set_running(running);
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut writeback = self.disk.writeback.load(Ordering::Relaxed);
        fields.item("writeback", &mut writeback)?;
        if fields.is_loading() {
            self.disk.writeback.store(writeback, Ordering::Relaxed);
            if let Some(features) = self.workers.features() {
                self.choose_cache(features);
            }
        }
        Ok(())
    }
}
