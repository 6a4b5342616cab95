//! The index and data ports, and the interrupt.

use std::sync::{Arc, Weak};

use device::{Clock, Device, Expired, Fields, Io, IrqLine, StateError, Timer, Timers, ones};
use parking_lot::Mutex;

use super::chip::Rtc;

/// The clock behind ports 0x70 (index) and 0x71 (data).
///
/// Lock order: `state`, then `irq` and `timer`, which are leaves.
pub struct Cmos {
    clock: Arc<dyn Clock>,
    irq: IrqLine,
    timer: Timer,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    rtc: Rtc,
    index: u8,
}

device::saved!(State { rtc, index });

impl Cmos {
    /// A clock that shows the host's UTC plus `offset_s` and drives `irq`.
    pub fn new(
        clock: Arc<dyn Clock>,
        timers: &Arc<Timers>,
        irq: IrqLine,
        offset_s: i64,
    ) -> Arc<Self> {
        let start_ns = signed(clock.unix_ns().saturating_sub(clock.now_ns()));
        let rtc = Rtc::new(start_ns.saturating_add(offset_s.saturating_mul(1_000_000_000)));
        Arc::new_cyclic(|cmos: &Weak<Self>| Self {
            clock,
            irq,
            timer: timers.timer(cmos.clone() as Weak<dyn Expired>, 0),
            state: Mutex::new(State { rtc, index: 0 }),
        })
    }

    /// Sets a byte of the memory, as the board's firmware interface needs it.
    pub fn set(&self, index: u8, value: u8) {
        self.state.lock().rtc.set(index, value);
    }

    fn access<T>(&self, access: impl FnOnce(&mut State, i64) -> T) -> T {
        let now_ns = signed(self.clock.now_ns());
        let mut state = self.state.lock();
        let result = access(&mut state, now_ns);
        self.irq.set_level(state.rtc.irq());
        self.timer.arm(state.rtc.next_ns(now_ns).and_then(|next_ns| u64::try_from(next_ns).ok()));
        result
    }
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

impl Expired for Cmos {
    fn expired(&self, _token: u32) {
        self.access(|state, now_ns| state.rtc.tick(now_ns));
    }
}

impl Device for Cmos {
    fn reset(&self) {
        self.access(|state, _| state.rtc.reset());
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("state", &self.state)?;
        let next_ns = self.state.lock().rtc.next_ns(signed(self.clock.now_ns()));
        self.timer.arm(next_ns.and_then(|next_ns| u64::try_from(next_ns).ok()));
        Ok(())
    }
}

impl Io for Cmos {
    fn read(&self, offset: u64, size: u8) -> u64 {
        if offset & 1 == 0 {
            return ones(size); // the index cannot be read
        }
        let value = self.access(|state, now_ns| state.rtc.read(state.index, now_ns));
        (ones(size) & !0xff) | u64::from(value)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        let value = value as u8;
        self.access(|state, now_ns| match offset & 1 {
            0 => state.index = value & 0x7f, // the high bit masks NMI, which nothing raises here
            _ => state.rtc.write(state.index, value, now_ns),
        });
    }
}

#[cfg(test)]
mod tests {
    use device::StoppedClock;

    use super::*;

    #[test]
    fn memory_is_read_through_the_index() {
        let clock = Arc::new(StoppedClock::default());
        let timers = Timers::new(|| {});
        let cmos = Cmos::new(clock, &timers, IrqLine::unconnected(), 0);
        cmos.set(0x34, 0x12);
        cmos.write(0, 1, 0x80 | 0x34);
        assert_eq!((cmos.read(1, 1), cmos.read(0, 1)), (0x12, 0xff));
        cmos.write(1, 1, 0x56);
        assert_eq!(cmos.read(1, 2), 0xff56);
    }
}
