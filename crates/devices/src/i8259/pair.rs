//! The PC's two chips, the second on input 2 of the first.

use std::sync::Arc;

use device::{Device, Fields, Io, IrqLine, IrqSink, StateError, ones};
use parking_lot::Mutex;

use super::chip::{Chip, PicView};

/// The input of the first chip that the second one drives.
const CASCADE: u8 = 2;

/// Both chips, their sixteen inputs and the line to the processor.
///
/// Lock order: `chips`, then `output`, which is a leaf.
pub struct Pair {
    output: IrqLine,
    chips: Mutex<[Chip; 2]>,
}

impl Pair {
    /// A pair whose output drives `output`.
    #[must_use]
    pub fn new(output: IrqLine) -> Arc<Self> {
        Arc::new(Self { output, chips: Mutex::default() })
    }

    /// The registers of both chips, for people.
    #[must_use]
    pub fn view(&self) -> [PicView; 2] {
        let chips = self.chips.lock();
        [chips[0].view(), chips[1].view()]
    }

    /// Whether the processor is asked for an interrupt.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.chips.lock()[0].pending().is_some()
    }

    /// The processor takes the interrupt: its vector.
    pub fn acknowledge(&self) -> u8 {
        let mut chips = self.chips.lock();
        let cascaded = chips[0].pending() == Some(CASCADE);
        let first = chips[0].acknowledge();
        let vector = if cascaded { chips[1].acknowledge() } else { first };
        self.publish(&mut chips);
        vector
    }

    fn access<T>(&self, access: impl FnOnce(&mut [Chip; 2]) -> T) -> T {
        let mut chips = self.chips.lock();
        let result = access(&mut chips);
        self.publish(&mut chips);
        result
    }

    /// Carries the second chip's output to the first, and the first one's to the processor.
    fn publish(&self, chips: &mut [Chip; 2]) {
        let second = chips[1].pending().is_some();
        chips[0].set_line(CASCADE, second);
        // Still under the lock, or two threads could publish their levels in the wrong order.
        self.output.set_level(chips[0].pending().is_some());
    }
}

impl IrqSink for Pair {
    fn set_level(&self, pin: u32, level: bool) {
        if pin == u32::from(CASCADE) || pin > 15 {
            return; // the cascade input belongs to the second chip
        }
        self.access(|chips| chips[(pin / 8) as usize].set_line((pin % 8) as u8, level));
    }
}

impl Device for Pair {
    fn reset(&self) {
        self.access(|chips| *chips = Default::default());
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("chips", &self.chips)
    }
}

/// The two ports of one chip.
pub struct PicPorts {
    pair: Arc<Pair>,
    chip: usize,
}

impl PicPorts {
    /// The ports of the first (0) or second (1) chip.
    #[must_use]
    pub fn new(pair: &Arc<Pair>, chip: usize) -> Self {
        assert!(chip < 2, "a pair has two chips");
        Self { pair: Arc::clone(pair), chip }
    }
}

impl Io for PicPorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let value = self.pair.access(|chips| chips[self.chip].read((offset & 1) as u8));
        (ones(size) & !0xff) | u64::from(value)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        self.pair.access(|chips| chips[self.chip].write((offset & 1) as u8, value as u8));
    }
}

/// The edge/level control registers, one a chip.
pub struct Elcr(Arc<Pair>);

impl Elcr {
    /// Inputs that are wired to be edge-triggered: timer, keyboard and cascade; clock and FPU.
    const FIXED: [u8; 2] = [0x07, 0x21];

    /// The registers of this pair.
    #[must_use]
    pub fn new(pair: &Arc<Pair>) -> Self {
        Self(Arc::clone(pair))
    }
}

impl Io for Elcr {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let chips = self.0.chips.lock();
        let at = |chip: u64| u64::from(chips[(chip & 1) as usize].level_triggered());
        if size == 1 { at(offset) } else { at(0) | at(1) << 8 }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.0.access(|chips| {
            for byte in 0..u64::from(size.min(2)) {
                let chip = ((offset + byte) & 1) as usize;
                let mask = (value >> (8 * byte)) as u8 & !Self::FIXED[chip];
                chips[chip].set_level_triggered(mask);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use device::RecordedIrq;

    use super::*;

    fn initialised() -> (Arc<Pair>, Arc<RecordedIrq>) {
        let processor = Arc::new(RecordedIrq::default());
        let pair = Pair::new(IrqLine::new(Arc::clone(&processor) as Arc<dyn IrqSink>, 0));
        for (chip, base, cascade) in [(0, 0x20, 0x04), (1, 0x28, 0x02)] {
            let ports = PicPorts::new(&pair, chip);
            for (port, value) in [(0, 0x11), (1, base), (1, cascade), (1, 0x01)] {
                ports.write(port, 1, value);
            }
        }
        processor.take();
        (pair, processor)
    }

    #[test]
    fn the_second_chip_reaches_the_processor_through_the_first() {
        let (pair, processor) = initialised();
        pair.set_level(12, true);
        assert_eq!(processor.take().last(), Some(&(0, true)));
        assert_eq!(pair.acknowledge(), 0x2c);
        assert!(!pair.is_pending());
        PicPorts::new(&pair, 1).write(0, 1, 0x20);
        PicPorts::new(&pair, 0).write(0, 1, 0x20);
        pair.set_level(12, false);
        pair.set_level(0, true);
        assert_eq!(pair.acknowledge(), 0x20);
    }

    #[test]
    fn wired_inputs_stay_edge_triggered() {
        let (pair, _) = initialised();
        let elcr = Elcr::new(&pair);
        elcr.write(0, 2, 0xffff);
        assert_eq!((elcr.read(0, 1), elcr.read(1, 1), elcr.read(0, 2)), (0xf8, 0xde, 0xdef8));
    }
}
