//! The fixed hardware of ACPI: events, control, timer, general-purpose events. ACPI 6.5, 4.8.
//!
//! Part of the PIIX4 and the ICH9, which only put it at different ports.

mod apm;
mod chip;

use std::sync::Arc;

use device::{Clock, Device, Fields, Io, IrqLine, Power, StateError, ones};
use parking_lot::Mutex;

pub use apm::{Apm, Commands};
pub use chip::{Chip, Effect};

/// Events: status and enable.
pub const EVENTS: u64 = 0;
/// Control.
pub const CONTROL: u64 = 4;
/// The timer.
pub const TIMER: u64 = 8;

const TIMER_HZ: u128 = 3_579_545;
const TIMER_MASK: u64 = 0xff_ffff;

/// The registers with time, interrupt and power.
///
/// Lock order: `chip`, then the interrupt line, which is a leaf.
pub struct AcpiPm {
    clock: Arc<dyn Clock>,
    sci: IrqLine,
    power: Arc<dyn Power>,
    chip: Mutex<Chip>,
}

impl AcpiPm {
    /// The hardware, which interrupts on `sci`.
    pub fn new(clock: Arc<dyn Clock>, sci: IrqLine, power: Arc<dyn Power>) -> Arc<Self> {
        Arc::new(Self { clock, sci, power, chip: Mutex::default() })
    }

    /// Presses the power button: the guest's system is asked to shut down.
    pub fn press_power_button(&self) {
        self.change(Chip::press_power_button);
    }

    /// A general-purpose event has come.
    pub fn raise(&self, event: u8) {
        self.change(|chip| chip.raise(event));
    }

    /// Switches ACPI mode, as firmware's commands do.
    pub fn set_enabled(&self, enabled: bool) {
        self.change(|chip| chip.set_enabled(enabled));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Chip) -> T) -> T {
        let mut chip = self.chip.lock();
        let result = change(&mut chip);
        self.sci.set_level(chip.interrupts());
        result
    }

    fn timer(&self) -> u64 {
        let now = u128::from(self.clock.now_ns());
        (now * TIMER_HZ / 1_000_000_000) as u64 & TIMER_MASK
    }
}

impl Device for AcpiPm {
    fn reset(&self) {
        self.change(|chip| *chip = Chip::default());
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("chip", &self.chip)
    }
}

/// Events, control and timer: sixteen ports.
pub struct FixedPorts(pub Arc<AcpiPm>);

impl Io for FixedPorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let value = match offset {
            TIMER..12 => self.0.timer() >> (8 * (offset - TIMER)),
            0..TIMER => self.0.chip.lock().fixed() >> (8 * offset),
            _ => 0,
        };
        value & ones(size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let effect = self.0.change(|chip| chip.write_fixed(offset, size, value));
        if effect == Effect::PowerOff {
            self.0.power.off();
        }
    }
}

/// Status and enable bytes of the general-purpose events.
pub struct GpePorts(pub Arc<AcpiPm>, pub u64);

impl Io for GpePorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let chip = self.0.chip.lock();
        let byte = |at: u64| u64::from(chip.gpe(offset + at, self.1)) << (8 * at);
        (0..u64::from(size)).map(byte).sum()
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.0.change(|chip| {
            for (at, byte) in (0..u64::from(size)).zip(value.to_le_bytes()) {
                chip.write_gpe(offset + at, self.1, byte);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use device::{IrqSink, RecordedIrq, StoppedClock};

    use super::*;

    #[derive(Default)]
    struct Offs(AtomicU32);

    impl Power for Offs {
        fn reset(&self) {}

        fn off(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn exit(&self, _code: u8) {}

        fn stop(&self) {}

        fn unplugged(&self) {}
    }

    fn fixture() -> (Arc<AcpiPm>, Arc<RecordedIrq>, Arc<Offs>, Arc<StoppedClock>) {
        let (irq, offs) = (Arc::new(RecordedIrq::default()), Arc::new(Offs::default()));
        let clock = Arc::new(StoppedClock::default());
        let sci = IrqLine::new(Arc::clone(&irq) as Arc<dyn IrqSink>, 9);
        let power = Arc::clone(&offs) as Arc<dyn Power>;
        (AcpiPm::new(Arc::clone(&clock) as Arc<dyn Clock>, sci, power), irq, offs, clock)
    }

    #[test]
    fn the_power_button_interrupts_until_it_is_acknowledged() {
        let (pm, irq, ..) = fixture();
        let ports = FixedPorts(Arc::clone(&pm));
        pm.set_enabled(true);
        ports.write(EVENTS + 2, 2, 1 << 8);
        pm.press_power_button();
        assert_eq!(irq.take().last(), Some(&(9, true)));
        assert_eq!(ports.read(EVENTS, 4), 1 << 24 | 1 << 8);
        ports.write(EVENTS, 2, 1 << 8);
        assert_eq!(irq.take().last(), Some(&(9, false)));
    }

    #[test]
    fn a_general_event_interrupts_when_it_is_enabled() {
        let (pm, irq, ..) = fixture();
        let gpe = GpePorts(Arc::clone(&pm), 4);
        pm.raise(1);
        assert_eq!(irq.take().last(), Some(&(9, false)));
        gpe.write(2, 1, 2);
        assert_eq!((irq.take().last(), gpe.read(0, 4)), (Some(&(9, true)), 0x2_0002));
        gpe.write(0, 1, 2);
        assert_eq!(irq.take().last(), Some(&(9, false)));
    }

    #[test]
    fn sleeping_in_s5_is_power_off_and_the_timer_counts() {
        let (pm, _, offs, clock) = fixture();
        let ports = FixedPorts(pm);
        for kind in [0, 1 << 13 | 5 << 10, 1 << 13] {
            ports.write(CONTROL, 2, kind);
        }
        assert_eq!(offs.0.load(Ordering::Relaxed), 1);
        clock.set_ns(1_000_000_000);
        assert_eq!(ports.read(TIMER, 4), 3_579_545);
        clock.set_ns(10_000_000_000);
        assert_eq!(ports.read(TIMER, 4), 35_795_450 & TIMER_MASK);
    }

    #[test]
    fn random_accesses_break_nothing() {
        let (pm, ..) = fixture();
        let ports: [Arc<dyn Io>; 2] =
            [Arc::new(FixedPorts(Arc::clone(&pm))), Arc::new(GpePorts(Arc::clone(&pm), 16))];
        let mut seed = 3_u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (port, size) = (&ports[(seed >> 63) as usize], 1 << (seed >> 60 & 3));
            port.write(seed >> 55 & 15, size, seed >> 5);
            _ = port.read(seed >> 50 & 15, size);
        }
        pm.reset();
        assert_eq!(ports[0].read(0, 8), 0);
    }
}
