//! ATA drives, apart from the controller that moves their data: disks and CD-ROMs.
//! Specifications: ATA/ATAPI-8 ACS-3, SCSI MMC-5 and SPC-4 for packets.
//!
//! `-device ide-hd,drive=NODE,bus=ide.0` and `-device ide-cd,drive=NODE,bus=ide.1`

mod cdrom;
mod channel;
mod disk;
mod identify;
mod models;

pub use cdrom::{Cdrom, PacketAction, Sense};
pub use channel::{Channel, Slots};
pub use disk::Disk;
pub use models::MODELS;

/// Bytes of a disk's sector, and of a unit of programmed transfers.
pub const SECTOR: u64 = 512;
/// Bytes of a CD's block.
pub const CD_BLOCK: u64 = 2048;

/// Status: an error.
pub const STATUS_ERROR: u8 = 0x01;
/// Status: data is there, or wanted.
pub const STATUS_DATA: u8 = 0x08;
/// Status: ready, and seeking is done.
pub const STATUS_READY: u8 = 0x50;
/// Error: the command was not understood.
pub const ERROR_ABORT: u8 = 0x04;
/// Error: no such address.
pub const ERROR_NOT_FOUND: u8 = 0x10;
/// Error: data cannot be read or written.
pub const ERROR_DATA: u8 = 0x40;

/// A command with its registers, both halves of the 48-bit ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskFile {
    /// What to do.
    pub command: u8,
    /// Variants of it.
    pub features: u16,
    /// Where.
    pub lba: u64,
    /// How much; 0 is the most.
    pub count: u16,
    /// Device register: bit 6 chooses LBA, bits 0 to 3 its upper bits in short commands.
    pub device: u8,
}

device::saved!(TaskFile { command, features, lba, count, device });

/// What a command asks of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing moves; the command is done.
    Done,
    /// These bytes go to the guest.
    Data(Vec<u8>),
    /// Sectors go to the guest.
    Read {
        /// From here.
        lba: u64,
        /// So many.
        sectors: u32,
        /// How: DMA, and how many sectors an interrupt otherwise.
        how: How,
    },
    /// Sectors come from the guest.
    Write {
        /// To here.
        lba: u64,
        /// So many.
        sectors: u32,
        /// How.
        how: How,
    },
    /// So many bytes come from the guest for [`Drive::take`].
    Take(u32),
    /// A packet comes next.
    Packet {
        /// Its data moves by DMA.
        dma: bool,
    },
    /// The command failed with this error register.
    Fail(u8),
    /// Done, with the signature in the registers.
    Signature,
}

/// How sectors move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By DMA.
    Dma,
    /// By DMA, queued.
    Queued,
    /// Through the data register, so many sectors an interrupt.
    Programmed(u32),
}

/// A drive.
pub enum Drive {
    /// A disk.
    Disk(Disk),
    /// A CD-ROM.
    Cdrom(Cdrom),
}

impl Drive {
    /// Sector count, LBA low, mid, high after reset: what kind it is.
    #[must_use]
    pub fn signature(&self) -> [u8; 4] {
        match self {
            Self::Disk(_) => [1, 1, 0, 0],
            Self::Cdrom(_) => [1, 1, 0x14, 0xeb],
        }
    }

    /// Whether it takes packets.
    #[must_use]
    pub fn is_packet(&self) -> bool {
        matches!(self, Self::Cdrom(_))
    }

    /// Begins a command.
    pub fn begin(&mut self, task: &TaskFile) -> Action {
        match self {
            Self::Disk(disk) => disk.begin(task),
            Self::Cdrom(cdrom) => cdrom.begin(task),
        }
    }

    /// The bytes of an [`Action::Take`]. False when the command fails.
    pub fn take(&mut self, task: &TaskFile, bytes: &[u8]) -> bool {
        match self {
            Self::Disk(disk) => disk.take(task, bytes),
            Self::Cdrom(_) => false,
        }
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        match self {
            Self::Disk(disk) => disk.reset(),
            Self::Cdrom(cdrom) => cdrom.reset(),
        }
    }
}
