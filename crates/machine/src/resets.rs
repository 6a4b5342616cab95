//! The PC's ways to reset.

use std::sync::Arc;

use device::{Device, Fields, Io, IrqLine, StateError, ones};
use parking_lot::Mutex;

use crate::main_loop::{Request, Requests};
use crate::run_state::Cause;

/// Port 0xcf9: the reset control register of the PIIX and ICH.
pub struct ResetControl {
    requests: Arc<Requests>,
    value: Mutex<u8>,
}

impl ResetControl {
    /// The register.
    #[must_use]
    pub fn new(requests: Arc<Requests>) -> Self {
        Self { requests, value: Mutex::new(0) }
    }
}

impl Device for ResetControl {
    fn reset(&self) {
        *self.value.lock() = 0;
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("value", &self.value)
    }
}

impl Io for ResetControl {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        (ones(size) & !0xff) | u64::from(*self.value.lock())
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        let value = value as u8;
        *self.value.lock() = value & 0x0e;
        if value & 4 != 0 {
            self.requests.put(Request::Reset(Cause::GuestReset));
        }
    }
}

/// Port 0x92: the gate of address line 20, and fast reset.
pub struct Port92 {
    requests: Arc<Requests>,
    a20: IrqLine,
    value: Mutex<u8>,
}

const FAST_RESET: u8 = 1;
const A20: u8 = 2;

impl Port92 {
    /// The register.
    #[must_use]
    pub fn new(requests: Arc<Requests>, a20: IrqLine) -> Self {
        Self { requests, a20, value: Mutex::new(A20) }
    }
}

impl Device for Port92 {
    fn reset(&self) {
        *self.value.lock() = A20;
        self.a20.set_level(true);
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("value", &self.value)
    }
}

impl Io for Port92 {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        (ones(size) & !0xff) | u64::from(*self.value.lock())
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        let value = value as u8;
        let before = std::mem::replace(&mut *self.value.lock(), value & !FAST_RESET);
        self.a20.set_level(value & A20 != 0);
        if value & FAST_RESET != 0 && before & FAST_RESET == 0 {
            self.requests.put(Request::Reset(Cause::GuestReset));
        }
    }
}
