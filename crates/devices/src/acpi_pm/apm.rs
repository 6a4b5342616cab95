//! Ports 0xb2 and 0xb3: commands to firmware in system management mode, and a byte with them.
//!
//! There is no such mode here, so the two commands that the tables name are obeyed by the hardware.

use std::sync::Arc;

use device::{Device, Fields, Io, StateError, ones};
use parking_lot::Mutex;

use super::AcpiPm;

/// Which commands switch ACPI mode.
#[derive(Clone, Copy, Debug)]
pub struct Commands {
    /// On.
    pub enable: u8,
    /// Off.
    pub disable: u8,
}

/// The two ports.
pub struct Apm {
    pm: Arc<AcpiPm>,
    commands: Commands,
    values: Mutex<[u8; 2]>,
}

impl Apm {
    /// The ports, which command this hardware.
    pub fn new(pm: Arc<AcpiPm>, commands: Commands) -> Arc<Self> {
        Arc::new(Self { pm, commands, values: Mutex::default() })
    }
}

impl Device for Apm {
    fn reset(&self) {
        *self.values.lock() = [0; 2];
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("values", &self.values)
    }
}

impl Io for Apm {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let value = self.values.lock()[usize::from(offset == 1)];
        ones(size) & !0xff | u64::from(value)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        let value = value as u8;
        self.values.lock()[usize::from(offset == 1)] = value;
        if offset == 0 && value == self.commands.enable {
            self.pm.set_enabled(true);
        } else if offset == 0 && value == self.commands.disable {
            self.pm.set_enabled(false);
        }
    }
}
