//! Power management: the ACPI fixed registers, and the PC's ways to reset.

use std::sync::Arc;

use device::{Clock, Io, IrqLine, ones};
use parking_lot::Mutex;

use crate::main_loop::{Request, Requests};
use crate::run_state::Cause;

/// Where the ACPI registers lie: event block, control, timer.
pub const PM_BASE: u64 = 0x600;
/// How many ports they take.
pub const PM_BYTES: u64 = 16;
/// The system control interrupt.
pub const SCI: u32 = 9;

const STATUS: u64 = 0;
const ENABLE: u64 = 2;
const CONTROL: u64 = 4;
const TIMER: u64 = 8;

const TIMER_HZ: u64 = 3_579_545;
const TIMER_MASK: u64 = 0xff_ffff;
const POWER_BUTTON: u16 = 1 << 8;
const CONTROL_SCI: u16 = 1; // ACPI mode: there is no other
const CONTROL_SLEEP: u16 = 1 << 13;
const CONTROL_KIND: u16 = 7 << 10;

/// The registers: pure but for the time.
#[derive(Default)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
}

/// The ACPI fixed hardware at [`PM_BASE`].
pub struct PowerManagement {
    clock: Arc<dyn Clock>,
    sci: IrqLine,
    requests: Arc<Requests>,
    state: Mutex<State>,
}

impl PowerManagement {
    /// Power management that interrupts on `sci`.
    pub fn new(clock: Arc<dyn Clock>, sci: IrqLine, requests: Arc<Requests>) -> Arc<Self> {
        Arc::new(Self { clock, sci, requests, state: Mutex::default() })
    }

    /// Presses the power button: the guest's system is asked to shut down.
    pub fn press_power_button(&self) {
        self.change(|state| state.status |= POWER_BUTTON);
    }

    /// The state after power-on.
    pub fn reset(&self) {
        self.change(|state| *state = State::default());
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.sci.set_level(state.status & state.enable != 0);
    }

    fn timer(&self) -> u64 {
        let now = u128::from(self.clock.now_ns());
        (now * u128::from(TIMER_HZ) / 1_000_000_000) as u64 & TIMER_MASK
    }
}

impl Io for PowerManagement {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let state = self.state.lock();
        let all = u64::from(state.status)
            | u64::from(state.enable) << 16
            | u64::from(state.control | CONTROL_SCI) << 32;
        let value = match offset {
            0..8 => all >> (8 * offset),
            TIMER..12 => self.timer() >> (8 * (offset - TIMER)),
            _ => 0,
        };
        value & ones(size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let value = value as u16;
        self.change(|state| match (offset, size) {
            (STATUS, 2..) => state.status &= !value, // ones clear
            (ENABLE, 2..) => state.enable = value,
            (CONTROL, 2..) => {
                state.control = value & !CONTROL_SLEEP;
                // The only sleep the tables offer is S5, whose kind is 0.
                if value & CONTROL_SLEEP != 0 && value & CONTROL_KIND == 0 {
                    self.requests.put(Request::PowerOff);
                }
            }
            _ => {} // byte accesses to words: nobody makes them
        });
    }
}

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

/// Port 0x92: fast A20 (always open here) and fast reset.
pub struct Port92 {
    requests: Arc<Requests>,
    value: Mutex<u8>,
}

const FAST_RESET: u8 = 1;
const A20: u8 = 2;

impl Port92 {
    /// The register.
    #[must_use]
    pub fn new(requests: Arc<Requests>) -> Self {
        Self { requests, value: Mutex::new(A20) }
    }
}

impl Io for Port92 {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        (ones(size) & !0xff) | u64::from(*self.value.lock())
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        let value = value as u8;
        let before = std::mem::replace(&mut *self.value.lock(), value & !FAST_RESET);
        if value & FAST_RESET != 0 && before & FAST_RESET == 0 {
            self.requests.put(Request::Reset(Cause::GuestReset));
        }
    }
}

#[cfg(test)]
mod tests {
    use device::{IrqSink, RecordedIrq, StoppedClock};

    use super::*;

    #[test]
    fn the_power_button_interrupts_until_it_is_acknowledged() {
        let (recorded, requests) = (Arc::new(RecordedIrq::default()), Requests::new());
        let sci = IrqLine::new(Arc::clone(&recorded) as Arc<dyn IrqSink>, SCI);
        let pm = PowerManagement::new(Arc::new(StoppedClock::default()), sci, requests);
        pm.write(ENABLE, 2, u64::from(POWER_BUTTON));
        pm.press_power_button();
        assert_eq!(recorded.take().last(), Some(&(SCI, true)));
        assert_eq!(pm.read(STATUS, 2), u64::from(POWER_BUTTON));
        pm.write(STATUS, 2, u64::from(POWER_BUTTON));
        assert_eq!(recorded.take().last(), Some(&(SCI, false)));
    }

    #[test]
    fn sleeping_in_s5_is_power_off() {
        let requests = Requests::new();
        let clock = Arc::new(StoppedClock::default());
        let pm = PowerManagement::new(clock, IrqLine::unconnected(), Arc::clone(&requests));
        pm.write(CONTROL, 2, 0);
        pm.write(CONTROL, 2, u64::from(CONTROL_SLEEP | 5 << 10));
        pm.write(CONTROL, 2, u64::from(CONTROL_SLEEP));
        assert_eq!(requests.wait(None), [Request::PowerOff]);
    }
}
