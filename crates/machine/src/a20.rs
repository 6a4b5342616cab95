//! The gate of address line 20. While it is shut, addresses wrap around at 1 MiB, as on the first
//! PCs: a few programs of that time count on it, and firmware tries whether it is open.

use std::sync::Arc;

use device::{Device, Fields, IrqSink, StateError};
use memory::{AddressSpace, Owner, Ram, Region, RegionId};
use parking_lot::Mutex;

const MIB: u64 = 1 << 20;
/// What 16-bit code can reach above 1 MiB.
const REACH: u64 = 0x1_0000;

/// The gate: its one line is high while it is open.
pub struct A20Gate {
    memory: Arc<AddressSpace>,
    /// Low memory, seen again above 1 MiB.
    wrapped: RegionId,
    open: Mutex<bool>,
}

impl A20Gate {
    /// An open gate between processors and this memory, of which `ram` is the start.
    pub fn new(memory: &Arc<AddressSpace>, ram: &Arc<Ram>) -> Arc<Self> {
        let region = Region::new("a20-wrapped", MIB, REACH, Owner::Ram(Arc::clone(ram)));
        let wrapped = memory.add(region.with_priority(10).with_enabled(false));
        Arc::new(Self { memory: Arc::clone(memory), wrapped, open: Mutex::new(true) })
    }
}

impl Device for A20Gate {
    /// Whoever drives its line resets it.
    fn reset(&self) {}

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut open = *self.open.lock();
        fields.item("open", &mut open)?;
        self.set_level(0, open);
        Ok(())
    }
}

impl IrqSink for A20Gate {
    fn set_level(&self, _pin: u32, level: bool) {
        let mut open = self.open.lock();
        if std::mem::replace(&mut *open, level) != level {
            self.memory.update(|change| change.set_enabled(self.wrapped, !level));
        }
    }
}
