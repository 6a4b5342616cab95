//! Blocks of 16 bytes of which all rings are made. xHCI 6.4.

use memory::FlatView;

/// A block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trb {
    /// Address, or data.
    pub parameter: u64,
    /// Lengths and codes.
    pub status: u32,
    /// Kind, cycle bit, flags.
    pub control: u32,
}

pub const NORMAL: u8 = 1;
pub const SETUP: u8 = 2;
pub const DATA: u8 = 3;
pub const STATUS: u8 = 4;
pub const LINK: u8 = 6;
pub const EVENT_DATA: u8 = 7;
pub const ENABLE_SLOT: u8 = 9;
pub const DISABLE_SLOT: u8 = 10;
pub const ADDRESS_DEVICE: u8 = 11;
pub const CONFIGURE: u8 = 12;
pub const EVALUATE: u8 = 13;
pub const RESET_ENDPOINT: u8 = 14;
pub const STOP_ENDPOINT: u8 = 15;
pub const SET_DEQUEUE: u8 = 16;
pub const RESET_DEVICE: u8 = 17;
pub const NO_OP_COMMAND: u8 = 23;
pub const TRANSFER_EVENT: u8 = 32;
pub const COMMAND_EVENT: u8 = 33;
pub const PORT_EVENT: u8 = 34;

pub const SUCCESS: u8 = 1;
pub const TRB_ERROR: u8 = 5;
pub const STALL: u8 = 6;
pub const NO_SLOTS: u8 = 9;
pub const SLOT_OFF: u8 = 11;
pub const SHORT_PACKET: u8 = 13;
pub const PARAMETER_ERROR: u8 = 17;
pub const STATE_ERROR: u8 = 19;
pub const STOPPED: u8 = 26;

/// Completion is told.
pub const ON_COMPLETION: u32 = 1 << 5;
/// So is a short packet.
pub const ON_SHORT: u32 = 1 << 2;
/// The data is in the block itself.
pub const IMMEDIATE: u32 = 1 << 6;
const TOGGLE: u32 = 1 << 1;

/// Links that are followed in a row.
const LINKS_MAX: u32 = 32;

impl Trb {
    pub fn kind(&self) -> u8 {
        (self.control >> 10 & 63) as u8
    }

    pub fn read(memory: &FlatView, at: u64) -> Self {
        let mut bytes = [0; 16];
        memory.read(at, &mut bytes);
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            parameter: u64::from(word(0)) | u64::from(word(4)) << 32,
            status: word(8),
            control: word(12),
        }
    }

    pub fn write(&self, memory: &FlatView, at: u64) {
        memory.write_value(at, 8, self.parameter);
        memory.write_value(at.wrapping_add(8), 4, u64::from(self.status));
        // The cycle bit last: whoever sees it sees the rest.
        memory.write_value(at.wrapping_add(12), 4, u64::from(self.control));
    }
}

/// A ring that the system fills.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ring {
    /// The next block.
    pub at: u64,
    /// Blocks with this cycle bit are ours.
    pub cycle: bool,
}

device::saved!(Ring { at, cycle });

impl Ring {
    pub fn new(pointer: u64) -> Self {
        Self { at: pointer & !15, cycle: pointer & 1 != 0 }
    }

    /// As contexts keep it.
    pub fn pointer(self) -> u64 {
        self.at | u64::from(self.cycle)
    }

    /// The next block, its place, and the ring behind it; links are followed on the way.
    pub fn next(mut self, memory: &FlatView) -> Option<(Trb, u64, Self)> {
        for _ in 0..LINKS_MAX {
            let trb = Trb::read(memory, self.at);
            if (trb.control & 1 != 0) != self.cycle {
                return None;
            }
            if trb.kind() != LINK {
                let at = self.at;
                self.at = at.wrapping_add(16);
                return Some((trb, at, self));
            }
            self.at = trb.parameter & !15;
            self.cycle ^= trb.control & TOGGLE != 0;
        }
        None
    }
}
