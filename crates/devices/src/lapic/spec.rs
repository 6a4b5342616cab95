//! The registers as the manual numbers them: offset / 16, which is also the x2APIC number less
//! 0x800.

/// Where the registers lie after reset.
pub const BASE: u64 = 0xfee0_0000;

pub const ID: u32 = 0x02;
pub const VERSION: u32 = 0x03;
pub const TASK_PRIORITY: u32 = 0x08;
pub const PROCESSOR_PRIORITY: u32 = 0x0a;
pub const END_OF_INTERRUPT: u32 = 0x0b;
pub const LOGICAL_DESTINATION: u32 = 0x0d;
pub const DESTINATION_FORMAT: u32 = 0x0e;
pub const SPURIOUS: u32 = 0x0f;
pub const IN_SERVICE: u32 = 0x10; // and seven more
pub const TRIGGER: u32 = 0x18; // and seven more
pub const REQUEST: u32 = 0x20; // and seven more
pub const ERROR: u32 = 0x28;
pub const CORRECTED_MACHINE_CHECK: u32 = 0x2f;
pub const COMMAND: u32 = 0x30;
pub const COMMAND_HIGH: u32 = 0x31; // the destination; absent in x2APIC
pub const TIMER: u32 = 0x32; // then thermal, performance, line 0, line 1
pub const ERROR_LINE: u32 = 0x37;
pub const INITIAL_COUNT: u32 = 0x38;
pub const CURRENT_COUNT: u32 = 0x39;
pub const DIVIDE: u32 = 0x3e;
pub const SELF: u32 = 0x3f; // x2APIC only

/// Version 0x14, six entries in the local vector table.
pub const VERSION_VALUE: u32 = 0x0005_0014;

pub const SPURIOUS_ENABLED: u32 = 1 << 8;
pub const ENTRY_MASKED: u32 = 1 << 16;
pub const ENTRY_DELIVERY: u32 = 7 << 8;
pub const TIMER_MODE: u32 = 3 << 17; // one-shot, periodic, deadline
pub const COMMAND_LOGICAL: u64 = 1 << 11;
pub const COMMAND_ASSERT: u64 = 1 << 14;
pub const COMMAND_LEVEL: u64 = 1 << 15;

pub const ERROR_SEND_VECTOR: u32 = 1 << 5;
pub const ERROR_RECEIVE_VECTOR: u32 = 1 << 6;

pub const BASE_BOOTSTRAP: u64 = 1 << 8;
pub const BASE_X2APIC: u64 = 1 << 10;
pub const BASE_ENABLED: u64 = 1 << 11;

/// How a message is delivered: the value of the three bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The vector, to all that are addressed.
    Fixed,
    /// The vector, to one of them.
    Lowest,
    /// System management.
    Smi,
    /// Non-maskable.
    Nmi = 4,
    /// Reset of the processor, which then waits for a start-up message.
    Init,
    /// Start in real mode at page `vector`.
    Startup,
    /// The 8259 has the vector.
    External,
}

impl Delivery {
    /// From the three bits of a command, a redirection entry or a message.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::Lowest,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            7 => Self::External,
            _ => return None,
        })
    }
}
