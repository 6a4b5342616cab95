//! A disk.

use std::sync::Arc;

use block::{Node, Zeroing};

use super::identify::Identity;
use super::{Action, ERROR_ABORT, ERROR_NOT_FOUND, How, SECTOR, TaskFile};

/// Sectors that one interrupt can cover in programmed transfers.
const MULTIPLE_MAX: u16 = 16;
/// The most sectors of a long command.
const LONG_MAX: u32 = 0x1_0000;
/// Ranges of a trim come in blocks of sixty-four.
const TRIM_BLOCKS_MAX: u16 = 8;

/// What a disk says of itself.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Its serial number.
    pub serial: String,
    /// Its firmware's version.
    pub firmware: String,
    /// Its model.
    pub model: String,
    /// Its world-wide name; 0 for none.
    pub wwn: u64,
    /// It does not turn.
    pub rotation: u16,
}

/// A disk.
pub struct Disk {
    node: Arc<dyn Node>,
    labels: Labels,
    multiple: u16,
    write_cache: bool,
}

device::saved!(Disk {
    multiple,
    write_cache,
} check |disk: &Disk| disk.multiple <= MULTIPLE_MAX);

impl Disk {
    /// A disk with these contents.
    #[must_use]
    pub fn new(node: Arc<dyn Node>, labels: Labels) -> Self {
        Self { node, labels, multiple: MULTIPLE_MAX, write_cache: true }
    }

    /// Its sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.node.size() / SECTOR
    }

    pub(super) fn reset(&mut self) {
        (self.multiple, self.write_cache) = (MULTIPLE_MAX, true);
    }

    /// Cylinders, heads, sectors a track, as far as there are that many.
    fn geometry(&self) -> (u64, u64, u64) {
        let (heads, track) = (16, 63);
        ((self.sectors() / (heads * track)).clamp(1, 16383), heads, track)
    }

    fn identify(&self) -> Vec<u8> {
        let Labels { serial, firmware, model, wwn, rotation } = &self.labels;
        let mut words = Identity::new(serial, firmware, model);
        let (cylinders, heads, track) = self.geometry();
        let sectors = self.sectors();
        words.set_all(&[
            (0, 0x0040), // a fixed disk
            (1, cylinders as u16),
            (3, heads as u16),
            (6, track as u16),
            (47, 0x8000 | MULTIPLE_MAX),
            (49, 0x0f00), // DMA, LBA
            (50, 0x4000),
            (51, 0x0200),
            (53, 0x0007),
            (54, cylinders as u16),
            (55, heads as u16),
            (56, track as u16),
            (59, 0x100 | self.multiple),
            (63, 0x0007), // multi-word DMA modes
            (64, 0x0003), // programmed modes 3 and 4
            (65, 120),
            (66, 120),
            (67, 120),
            (68, 120),
            (69, 0x4020), // a trimmed sector reads as zeros
            (75, 31),     // queue depth less one
            (76, 0x0106), // queuing, both lower speeds
            (80, 0x01f0),
            (82, 0x4020 | 1), // write cache
            (83, 0x7400),     // long addresses, flush commands
            (84, 0x4000 | if *wwn != 0 { 0x100 } else { 0 }),
            (85, 0x4001 | if self.write_cache { 0x20 } else { 0 }),
            (86, 0x3400),
            (87, 0x4000 | if *wwn != 0 { 0x100 } else { 0 }),
            (88, 0x203f), // ultra DMA, mode 5 chosen
            (93, 0x600b),
            (105, TRIM_BLOCKS_MAX),
            (106, 0x6000), // sectors of 512 bytes
            (169, 1),      // trim
            (217, *rotation),
        ]);
        words.set_long(57, 2, cylinders * heads * track);
        words.set_long(60, 2, sectors.min(0x0fff_ffff));
        words.set_long(100, 4, sectors);
        for at in 0..4 {
            words.set(108 + at, (wwn >> (48 - 16 * at)) as u16);
        }
        words.finish()
    }

    /// First sector and number of a command with short or long addresses; none when they do not
    /// lie on the disk.
    fn range(&self, task: &TaskFile, long: bool) -> Option<(u64, u32)> {
        let sectors = match (long, task.count) {
            (true, 0) => LONG_MAX,
            (true, count) => u32::from(count),
            (false, count) if count & 0xff == 0 => 256,
            (false, count) => u32::from(count & 0xff),
        };
        let lba = if long {
            task.lba & 0xffff_ffff_ffff
        } else if task.device & 0x40 != 0 {
            task.lba & 0xff_ffff | u64::from(task.device & 15) << 24
        } else {
            let (_, heads, track) = self.geometry();
            let (sector, cylinder) = (task.lba & 0xff, task.lba >> 8 & 0xffff);
            (cylinder * heads + u64::from(task.device & 15)) * track + sector.checked_sub(1)?
        };
        let end = lba.checked_add(u64::from(sectors))?;
        (end <= self.sectors()).then_some((lba, sectors))
    }

    fn read(&self, task: &TaskFile, long: bool, how: How) -> Action {
        match self.range(task, long) {
            Some((lba, sectors)) => Action::Read { lba, sectors, how },
            None => Action::Fail(ERROR_NOT_FOUND | ERROR_ABORT),
        }
    }

    fn write(&self, task: &TaskFile, long: bool, how: How) -> Action {
        match self.range(task, long) {
            Some(_) if !self.node.writable() => Action::Fail(ERROR_ABORT),
            Some((lba, sectors)) => Action::Write { lba, sectors, how },
            None => Action::Fail(ERROR_NOT_FOUND | ERROR_ABORT),
        }
    }

    pub(super) fn begin(&mut self, task: &TaskFile) -> Action {
        let multiple = How::Programmed(u32::from(self.multiple));
        let single = How::Programmed(1);
        // Queued commands carry their number in the count and their count in the features.
        let queued = TaskFile { count: task.features, ..*task };
        match task.command {
            0xec => Action::Data(self.identify()),
            0x20 | 0x21 => self.read(task, false, single),
            0x24 => self.read(task, true, single),
            0xc4 => self.read(task, false, multiple),
            0x29 => self.read(task, true, multiple),
            0xc8 | 0xc9 => self.read(task, false, How::Dma),
            0x25 => self.read(task, true, How::Dma),
            0x60 => self.read(&queued, true, How::Queued),
            0x30 | 0x31 => self.write(task, false, single),
            0x34 => self.write(task, true, single),
            0xc5 => self.write(task, false, multiple),
            0x39 => self.write(task, true, multiple),
            0xca | 0xcb => self.write(task, false, How::Dma),
            0x35 | 0x3d => self.write(task, true, How::Dma),
            0x61 => self.write(&queued, true, How::Queued),
            0x40..=0x42 => match self.range(task, task.command == 0x42) {
                Some(_) => Action::Done,
                None => Action::Fail(ERROR_NOT_FOUND | ERROR_ABORT),
            },
            0xe7 | 0xea => match self.node.flush() {
                Ok(()) => Action::Done,
                Err(_) => Action::Fail(ERROR_ABORT),
            },
            0xc6 if task.count & 0xff <= MULTIPLE_MAX && (task.count & 0xff).is_power_of_two() => {
                self.multiple = task.count & 0xff;
                Action::Done
            }
            0xef => self.set_features(task),
            0x06 if task.features & 1 != 0 && (1..=TRIM_BLOCKS_MAX).contains(&task.count) => {
                Action::Take(u32::from(task.count) * SECTOR as u32)
            }
            0x90 => Action::Signature, // diagnostics
            // Recalibrate, initialise parameters, idle, standby, check power mode.
            0x10..=0x1f | 0x91 | 0xe0..=0xe3 | 0xe6 | 0x94..=0x97 | 0x99 => Action::Done,
            0xe5 | 0x98 => Action::Done,
            // The highest address.
            0xf8 | 0x27 => Action::Fail(ERROR_ABORT),
            _ => Action::Fail(ERROR_ABORT),
        }
    }

    fn set_features(&mut self, task: &TaskFile) -> Action {
        match task.features as u8 {
            0x02 => self.write_cache = true,
            0x82 => {
                self.write_cache = false;
                if self.node.flush().is_err() {
                    return Action::Fail(ERROR_ABORT);
                }
            }
            // Transfer modes, look-ahead, power management: nothing depends on them.
            0x03 | 0x05 | 0x42 | 0x55 | 0x66 | 0x67 | 0x85 | 0xaa | 0xc2 | 0xcc => {}
            _ => return Action::Fail(ERROR_ABORT),
        }
        Action::Done
    }

    /// Ranges that are no longer needed: 48 bits of address, 16 bits of count each.
    pub(super) fn take(&mut self, _task: &TaskFile, bytes: &[u8]) -> bool {
        for entry in bytes.chunks_exact(8) {
            let Ok(entry) = entry.try_into().map(u64::from_le_bytes) else { continue };
            let (lba, count) = (entry & 0xffff_ffff_ffff, entry >> 48);
            if count == 0 {
                continue;
            }
            if lba.checked_add(count).is_none_or(|end| end > self.sectors()) {
                return false;
            }
            let (offset, length) = (lba * SECTOR, count * SECTOR);
            if self.node.zero_at(offset, length, Zeroing::Unmap).is_err() {
                return false;
            }
        }
        true
    }

    /// Reads whole sectors. False when the medium cannot be read.
    #[must_use]
    pub fn read_sectors(&self, lba: u64, into: &mut [u8]) -> bool {
        self.node.read_at(into, lba * SECTOR).is_ok()
    }

    /// Writes whole sectors. False when the medium cannot be written.
    #[must_use]
    pub fn write_sectors(&self, lba: u64, from: &[u8]) -> bool {
        let written = self.node.write_at(from, lba * SECTOR).is_ok();
        written && (self.write_cache || self.node.flush().is_ok())
    }
}
