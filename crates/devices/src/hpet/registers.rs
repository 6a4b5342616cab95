//! The registers in memory, the time, and the interrupts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use device::{Clock, Device, Expired, Fields, Io, IrqSink, StateError, Timer, Timers, ones};
use parking_lot::Mutex;

use super::chip::{Chip, TIMERS};

/// The old timer's and clock's way to their lines, which the HPET can take over.
pub struct LegacyGate {
    lines: Arc<dyn IrqSink>,
    closed: AtomicBool,
}

impl LegacyGate {
    /// An open gate before these lines.
    #[must_use]
    pub fn new(lines: Arc<dyn IrqSink>) -> Arc<Self> {
        Arc::new(Self { lines, closed: AtomicBool::new(false) })
    }

    fn close(&self, closed: bool) {
        if self.closed.swap(closed, Ordering::AcqRel) != closed {
            [0, 8].iter().for_each(|line| self.lines.set_level(*line, false));
        }
    }
}

impl IrqSink for LegacyGate {
    fn set_level(&self, pin: u32, level: bool) {
        if !self.closed.load(Ordering::Acquire) {
            self.lines.set_level(pin, level);
        }
    }
}

/// The timer.
///
/// Lock order: `state`, then lines and timer, which are leaves.
pub struct Hpet {
    clock: Arc<dyn Clock>,
    timer: Timer,
    gate: Arc<LegacyGate>,
    ioapic: Arc<dyn IrqSink>,
    routes: u32,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    chip: Chip,
    /// The I/O APIC input that each comparator holds up.
    held: [Option<u32>; TIMERS],
}

device::saved!(State { chip, held });

impl Hpet {
    /// A timer whose comparators can be routed to these inputs (a bit each) of the I/O APIC.
    pub fn new(
        clock: Arc<dyn Clock>,
        timers: &Arc<Timers>,
        gate: Arc<LegacyGate>,
        ioapic: Arc<dyn IrqSink>,
        routes: u32,
    ) -> Arc<Self> {
        Arc::new_cyclic(|hpet: &Weak<Self>| Self {
            clock,
            timer: timers.timer(hpet.clone() as Weak<dyn Expired>, 0),
            gate,
            ioapic,
            routes,
            state: Mutex::new(State { chip: Chip::new(routes), held: [None; TIMERS] }),
        })
    }

    fn access<T>(&self, access: impl FnOnce(&mut Chip, u64) -> T) -> T {
        let now_ns = self.clock.now_ns();
        let mut state = self.state.lock();
        let State { chip, held } = &mut *state;
        let result = access(chip, now_ns);
        self.gate.close(chip.replaces_old());
        for fired in chip.take_fired(now_ns) {
            let sink: &dyn IrqSink = if fired.legacy { &*self.gate.lines } else { &*self.ioapic };
            // An edge: the line stays up until the next one, so that whoever looks later sees it.
            sink.set_level(fired.line, false);
            sink.set_level(fired.line, true);
            if fired.level && !fired.legacy {
                held[fired.timer] = Some(fired.line);
            }
        }
        for (timer, held) in held.iter_mut().enumerate() {
            if !chip.asserts(timer)
                && let Some(line) = held.take()
            {
                self.ioapic.set_level(line, false);
            }
        }
        self.timer.arm(chip.next_ns(now_ns));
        result
    }
}

impl Expired for Hpet {
    fn expired(&self, _token: u32) {
        self.access(|_, _| {});
    }
}

impl Device for Hpet {
    fn reset(&self) {
        self.access(|chip, _| *chip = Chip::new(self.routes));
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("state", &self.state)?;
        let (chip, now_ns) = (&self.state.lock().chip, self.clock.now_ns());
        // The gate's lines are those of the interrupt controllers, which are loaded, too.
        self.gate.closed.store(chip.replaces_old(), Ordering::Release);
        self.timer.arm(chip.next_ns(now_ns));
        Ok(())
    }
}

impl Io for Hpet {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let now_ns = self.clock.now_ns();
        let value = self.state.lock().chip.read(offset, now_ns);
        value >> (8 * (offset & 7)) & ones(size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let shift = 8 * (offset & 7);
        self.access(|chip, now_ns| {
            chip.write(offset, ones(size) << shift, (value & ones(size)) << shift, now_ns);
        });
    }
}
