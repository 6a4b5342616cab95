//! Registers behind the base addresses of the LPC bridge that are not ACPI's fixed ones.

use device::{Fields, Io, StateError, ones};
use parking_lot::Mutex;

/// SMI_EN and SMI_STS at offset 0x30 of the power management ports.
///
/// There is no system management mode. Firmware that finds its commands enabled already takes
/// that mode as set up, and leaves it alone.
#[derive(Default)]
pub struct SmiPorts;

const APM_ENABLED: u32 = 1 << 5;

impl Io for SmiPorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let value = if offset < 4 { u64::from(APM_ENABLED) >> (8 * offset) } else { 0 };
        value & ones(size)
    }

    fn write(&self, _offset: u64, _size: u8, _value: u64) {}
}

/// The chipset's own 16 KiB of registers: what systems and firmware read back is kept.
pub struct ChipsetRegisters(Mutex<Box<[u8; BYTES]>>);

/// How many there are.
pub const BYTES: usize = 0x4000;

/// Device interrupt routes: A to D by pin.
const ROUTES: [usize; 7] = [0x3140, 0x3142, 0x3144, 0x3146, 0x3148, 0x314c, 0x3150];

impl Default for ChipsetRegisters {
    fn default() -> Self {
        let mut bytes = Box::new([0; BYTES]);
        for at in ROUTES {
            bytes[at..at + 2].copy_from_slice(&0x3210_u16.to_le_bytes());
        }
        bytes[0x3410] = 0x20; // a watchdog may not reboot the board
        Self(Mutex::new(bytes))
    }
}

impl ChipsetRegisters {
    /// As after power-on.
    pub fn reset(&self) {
        *self.0.lock() = Self::default().0.into_inner();
    }
}

impl ChipsetRegisters {
    /// Saves or loads them.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.item("chipset", &mut **self.0.lock())
    }
}

impl Io for ChipsetRegisters {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let bytes = self.0.lock();
        let byte = |at: u64| {
            let at = usize::try_from(offset + at).ok();
            u64::from(at.and_then(|at| bytes.get(at)).copied().unwrap_or(0))
                << (8 * at.map_or(0, |at| at as u64 - offset))
        };
        (0..u64::from(size)).map(byte).sum()
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let mut bytes = self.0.lock();
        // Of those that can be written, only the ones that systems look at again are kept.
        for (index, byte) in value.to_le_bytes().into_iter().enumerate().take(usize::from(size)) {
            let at = offset as usize + index;
            if (0x3400..0x3420).contains(&at) {
                bytes[at] = byte;
            }
        }
    }
}
