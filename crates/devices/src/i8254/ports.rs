//! The ports of the timer, and the interrupt of channel 0.

use std::sync::{Arc, Weak};

use device::{Clock, Device, Expired, Fields, Io, IrqLine, StateError, Timer, Timers, ones};
use parking_lot::Mutex;

use super::chip::Channel;

/// The three counters behind ports 0x40 to 0x43.
///
/// Lock order: `channels`, then `irq` and `timer`, which are leaves.
pub struct Pit {
    clock: Arc<dyn Clock>,
    irq: IrqLine,
    timer: Timer,
    channels: Mutex<[Channel; 3]>,
}

impl Pit {
    /// A timer whose channel 0 drives `irq`.
    pub fn new(clock: Arc<dyn Clock>, timers: &Arc<Timers>, irq: IrqLine) -> Arc<Self> {
        Arc::new_cyclic(|pit: &Weak<Self>| Self {
            clock,
            irq,
            timer: timers.timer(pit.clone() as Weak<dyn Expired>, 0),
            channels: Mutex::new(after_reset()),
        })
    }

    fn access<T>(&self, access: impl FnOnce(&mut [Channel; 3], u64) -> T) -> T {
        let now_ns = self.clock.now_ns();
        let mut channels = self.channels.lock();
        let result = access(&mut channels, now_ns);
        self.publish(&channels[0], now_ns);
        result
    }

    fn publish(&self, channel: &Channel, now_ns: u64) {
        self.irq.set_level(channel.output(now_ns));
        self.timer.arm(channel.next_rise_ns(now_ns));
    }
}

fn after_reset() -> [Channel; 3] {
    [Channel::new(true), Channel::new(true), Channel::new(false)]
}

impl Expired for Pit {
    fn expired(&self, _token: u32) {
        let now_ns = self.clock.now_ns();
        let channels = self.channels.lock();
        // The low phase may be over before anybody looked: the controller must see the edge.
        self.irq.set_level(false);
        self.irq.set_level(true);
        self.timer.arm(channels[0].next_rise_ns(now_ns));
    }
}

impl Device for Pit {
    fn reset(&self) {
        self.access(|channels, _| *channels = after_reset());
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("channels", &self.channels)?;
        self.timer.arm(self.channels.lock()[0].next_rise_ns(self.clock.now_ns()));
        Ok(())
    }
}

impl Io for Pit {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let byte = match offset & 3 {
            3 => 0xff, // the control word cannot be read
            channel => self.access(|channels, now_ns| channels[channel as usize].read(now_ns)),
        };
        (ones(size) & !0xff) | u64::from(byte)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        let value = value as u8;
        self.access(|channels, now_ns| match (offset & 3, value >> 6) {
            (3, 3) => {
                let (count, status) = (value & 0x20 == 0, value & 0x10 == 0);
                for (number, channel) in channels.iter_mut().enumerate() {
                    if value & 2 << number != 0 {
                        channel.read_back(count, status, now_ns);
                    }
                }
            }
            (3, channel) => channels[usize::from(channel)].control(value, now_ns),
            (channel, _) => channels[channel as usize].write(value, now_ns),
        });
    }
}

/// Port 0x61: the gate and output of channel 2, the speaker, the refresh toggle.
pub struct Port61 {
    pit: Arc<Pit>,
    speaker: Mutex<bool>,
}

const GATE: u8 = 0x01;
const SPEAKER: u8 = 0x02;
const REFRESH: u8 = 0x10;
const OUTPUT: u8 = 0x20;
/// The refresh bit toggles with each memory refresh, every 15.085 us on a PC AT.
const REFRESH_NS: u64 = 15_085;

impl Port61 {
    /// The port beside this timer.
    #[must_use]
    pub fn new(pit: &Arc<Pit>) -> Self {
        Self { pit: Arc::clone(pit), speaker: Mutex::new(false) }
    }
}

impl Device for Port61 {
    fn reset(&self) {
        *self.speaker.lock() = false;
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("speaker", &self.speaker)
    }
}

impl Io for Port61 {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        let speaker = *self.speaker.lock();
        let value = self.pit.access(|channels, now_ns| {
            let bit = |set: bool, bit: u8| if set { bit } else { 0 };
            bit(channels[2].gate(), GATE)
                | bit(speaker, SPEAKER)
                | bit((now_ns / REFRESH_NS) & 1 != 0, REFRESH)
                | bit(channels[2].output(now_ns), OUTPUT)
        });
        (ones(size) & !0xff) | u64::from(value)
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        *self.speaker.lock() = value as u8 & SPEAKER != 0;
        self.pit.access(|channels, now_ns| channels[2].set_gate(value as u8 & GATE != 0, now_ns));
    }
}

#[cfg(test)]
mod tests {
    use device::{IrqSink, RecordedIrq, StoppedClock};

    use super::*;

    #[test]
    fn channel_0_interrupts_once_a_period() {
        let (clock, recorded) =
            (Arc::new(StoppedClock::default()), Arc::new(RecordedIrq::default()));
        let timers = Timers::new(|| {});
        let irq = IrqLine::new(Arc::clone(&recorded) as Arc<dyn IrqSink>, 0);
        let pit = Pit::new(Arc::clone(&clock) as Arc<dyn Clock>, &timers, irq);
        for (port, value) in [(3, 0x34), (0, 0xe8), (0, 0x03)] {
            pit.write(port, 1, value);
        }
        recorded.take();
        let mut rises = 0;
        for _ in 0..5 {
            let deadline_ns = timers.next_ns().expect("a periodic timer is always armed");
            clock.set_ns(deadline_ns);
            timers.run(deadline_ns);
            rises += recorded.take().iter().filter(|(_, level)| *level).count();
        }
        assert_eq!((rises, clock.now_ns() / 1000), (5, 5 * 838_095 / 1000));
    }

    #[test]
    fn channel_2_is_calibrated_through_port_61() {
        let clock = Arc::new(StoppedClock::default());
        let timers = Timers::new(|| {});
        let pit = Pit::new(Arc::clone(&clock) as Arc<dyn Clock>, &timers, IrqLine::unconnected());
        let port = Port61::new(&pit);
        port.write(0, 1, 1);
        for (offset, value) in [(3, 0xb0), (2, 0xff), (2, 0xff)] {
            pit.write(offset, 1, value);
        }
        assert_eq!(port.read(0, 1) & 0x21, 0x01);
        clock.set_ns(55_000_000);
        assert_eq!(port.read(0, 1) & 0x21, 0x21, "65,535 ticks have passed");
    }
}
