//! One 8259A: pure.

use super::spec;

/// The registers of one chip. The caller feeds lines and reads off the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chip {
    /// Requests latched from the lines.
    irr: u8,
    /// Requests being served.
    isr: u8,
    /// Masked requests.
    imr: u8,
    /// The lines' levels, to see edges.
    lines: u8,
    /// Lines that are level-triggered, from the ELCR.
    level_triggered: u8,
    vector_base: u8,
    /// The input with the highest priority.
    top: u8,
    /// Which initialisation word comes next.
    awaited: Awaited,
    needs_icw4: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    fully_nested: bool,
    special_mask: bool,
    polled: bool,
    reads_isr: bool,
}

device::saved!(Chip {
    irr,
    isr,
    imr,
    lines,
    level_triggered,
    vector_base,
    top,
    awaited,
    needs_icw4,
    single,
    auto_eoi,
    rotate_on_auto_eoi,
    fully_nested,
    special_mask,
    polled,
    reads_isr,
} check |chip: &Chip| chip.top < 8);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaited {
    #[default]
    Nothing,
    Icw2,
    Icw3,
    Icw4,
}

device::saved_enum!(Awaited { Nothing = 0, Icw2 = 1, Icw3 = 2, Icw4 = 3 });

/// The registers, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PicView {
    /// Requests.
    pub requests: u8,
    /// Masked ones.
    pub masks: u8,
    /// Those that are served.
    pub served: u8,
    /// The input with the highest priority.
    pub top: u8,
    /// The first vector.
    pub vectors: u8,
    /// What is read: those that are served rather than requests.
    pub reads_served: bool,
    /// Level-triggered inputs.
    pub levels: u8,
    /// Special fully nested mode.
    pub nested: bool,
}

impl Chip {
    /// The registers, for people.
    #[must_use]
    pub fn view(&self) -> PicView {
        PicView {
            requests: self.irr,
            masks: self.imr,
            served: self.isr,
            top: self.top,
            vectors: self.vector_base,
            reads_served: self.reads_isr,
            levels: self.level_triggered,
            nested: self.fully_nested,
        }
    }

    /// A line changes. Level-triggered inputs follow it, others latch its rising edge.
    pub fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << (input & 7);
        let rising = level && self.lines & bit == 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        if rising || (level && self.level_triggered & bit != 0) {
            self.irr |= bit;
        } else if !level {
            // Edge requests too: the data sheet wants the line high until it is acknowledged.
            self.irr &= !bit;
        }
    }

    /// The ELCR: which inputs are level-triggered.
    pub fn set_level_triggered(&mut self, mask: u8) {
        self.level_triggered = mask;
    }

    /// What was last written to the ELCR.
    #[must_use]
    pub fn level_triggered(&self) -> u8 {
        self.level_triggered
    }

    /// The request that the output announces, if any.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let request = self.highest(self.irr & !self.imr)?;
        let masked_service = if self.special_mask { self.isr & !self.imr } else { self.isr };
        match self.highest(masked_service) {
            None => Some(request),
            Some(served) => {
                let (request_rank, served_rank) = (self.rank(request), self.rank(served));
                // A cascade input may interrupt itself in special fully nested mode.
                let above = request_rank < served_rank;
                let nested = self.fully_nested && request == 2 && request_rank == served_rank;
                (above || nested).then_some(request)
            }
        }
    }

    /// The processor takes the request: the vector, or the spurious one.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.pending() else { return self.vector_base | spec::SPURIOUS };
        self.take(input);
        self.vector_base | input
    }

    fn take(&mut self, input: u8) {
        let bit = 1 << input;
        if self.level_triggered & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.top = (input + 1) & 7;
        }
    }

    /// Reads port 0 (IRR, ISR or a poll) or port 1 (the mask).
    pub fn read(&mut self, port: u8) -> u8 {
        if std::mem::take(&mut self.polled) {
            return match self.pending() {
                None => spec::SPURIOUS,
                Some(input) => {
                    self.take(input);
                    0x80 | input
                }
            };
        }
        match port {
            0 if self.reads_isr => self.isr,
            0 => self.irr,
            _ => self.imr,
        }
    }

    /// Writes port 0 (ICW1, OCW2, OCW3) or port 1 (ICW2 to ICW4, the mask).
    pub fn write(&mut self, port: u8, value: u8) {
        match port {
            0 if value & spec::ICW1 != 0 => self.initialise(value),
            0 if value & spec::OCW3 != 0 => self.operate(value),
            0 => self.end_of_interrupt(value),
            _ => self.data(value),
        }
    }

    fn initialise(&mut self, icw1: u8) {
        *self = Self {
            awaited: Awaited::Icw2,
            needs_icw4: icw1 & spec::ICW1_NEEDS_ICW4 != 0,
            single: icw1 & spec::ICW1_SINGLE != 0,
            // The lines and their triggering are not the chip's to forget.
            lines: self.lines,
            level_triggered: self.level_triggered,
            irr: self.lines & self.level_triggered,
            ..Self::default()
        };
    }

    fn operate(&mut self, ocw3: u8) {
        self.polled = ocw3 & spec::OCW3_POLL != 0;
        if ocw3 & spec::OCW3_READ != 0 {
            self.reads_isr = ocw3 & 1 != 0;
        }
        if ocw3 & spec::OCW3_SPECIAL_MASK != 0 {
            self.special_mask = ocw3 & 0x20 != 0;
        }
    }

    /// OCW2: rotate, specific, end of interrupt, and an input.
    fn end_of_interrupt(&mut self, ocw2: u8) {
        let input = ocw2 & 7;
        match ocw2 >> 5 {
            0 => self.rotate_on_auto_eoi = false,
            4 => self.rotate_on_auto_eoi = true,
            command @ (1 | 5) => {
                if let Some(served) = self.highest(self.isr) {
                    self.isr &= !(1 << served);
                    if command == 5 {
                        self.top = (served + 1) & 7;
                    }
                }
            }
            3 => self.isr &= !(1 << input),
            6 => self.top = (input + 1) & 7,
            7 => {
                self.isr &= !(1 << input);
                self.top = (input + 1) & 7;
            }
            _ => {} // 2 is no operation
        }
    }

    fn data(&mut self, value: u8) {
        match self.awaited {
            Awaited::Nothing => self.imr = value,
            Awaited::Icw2 => {
                self.vector_base = value & 0xf8;
                self.awaited = match (self.single, self.needs_icw4) {
                    (false, _) => Awaited::Icw3,
                    (true, true) => Awaited::Icw4,
                    (true, false) => Awaited::Nothing,
                };
            }
            // Which input the other chip is on: the board has wired that.
            Awaited::Icw3 => {
                self.awaited = if self.needs_icw4 { Awaited::Icw4 } else { Awaited::Nothing };
            }
            Awaited::Icw4 => {
                self.auto_eoi = value & spec::ICW4_AUTO_EOI != 0;
                self.fully_nested = value & spec::ICW4_FULLY_NESTED != 0;
                self.awaited = Awaited::Nothing;
            }
        }
    }

    /// The input of the highest priority in `set`.
    fn highest(&self, set: u8) -> Option<u8> {
        (set != 0).then(|| {
            let rotated = set.rotate_right(u32::from(self.top));
            (rotated.trailing_zeros() as u8 + self.top) & 7
        })
    }

    /// 0 is the highest priority.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.top) & 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialised() -> Chip {
        let mut chip = Chip::default();
        for (port, value) in [(0, 0x11), (1, 0x20), (1, 0x04), (1, 0x01)] {
            chip.write(port, value);
        }
        chip
    }

    fn raise(chip: &mut Chip, inputs: &[u8]) {
        inputs.iter().for_each(|input| chip.set_line(*input, true));
    }

    #[test]
    fn the_lowest_input_is_served_first_and_blocks_the_rest() {
        let mut chip = initialised();
        raise(&mut chip, &[5, 3]);
        assert_eq!(chip.acknowledge(), 0x23);
        assert_eq!(chip.pending(), None, "5 waits for the end of 3");
        raise(&mut chip, &[1]);
        assert_eq!(chip.acknowledge(), 0x21, "1 interrupts 3");
        chip.write(0, 0x20);
        chip.write(0, 0x20);
        assert_eq!(chip.acknowledge(), 0x25);
    }

    #[test]
    fn a_line_that_drops_before_the_acknowledge_is_spurious() {
        let mut chip = initialised();
        chip.set_line(4, true);
        chip.set_line(4, false);
        assert_eq!((chip.pending(), chip.acknowledge()), (None, 0x27));
        assert_eq!(chip.read(0), 0, "nothing is in service after a spurious interrupt");
    }

    #[test]
    fn an_edge_is_seen_once_and_a_level_again() {
        for (level_triggered, again) in [(0x00, None), (0x10, Some(4))] {
            let mut chip = initialised();
            chip.set_level_triggered(level_triggered);
            chip.set_line(4, true);
            chip.acknowledge();
            chip.write(0, 0x64); // specific end of interrupt 4
            assert_eq!(chip.pending(), again, "ELCR {level_triggered:#x}");
        }
    }

    #[test]
    fn masks_hold_back_and_release() {
        let mut chip = initialised();
        chip.write(1, 0xfe);
        raise(&mut chip, &[0, 1]);
        assert_eq!(chip.pending(), Some(0));
        chip.write(1, 0xff);
        assert_eq!(chip.pending(), None);
        assert_eq!((chip.read(1), chip.read(0)), (0xff, 0x03));
    }

    #[test]
    fn rotation_makes_the_served_input_the_last() {
        let mut chip = initialised();
        raise(&mut chip, &[0, 1]);
        assert_eq!(chip.acknowledge(), 0x20);
        chip.write(0, 0xa0); // end of interrupt, rotate
        chip.set_line(0, false);
        chip.set_line(0, true);
        assert_eq!(chip.acknowledge(), 0x21, "0 now comes after 7");
    }

    #[test]
    fn a_poll_takes_the_request() {
        let mut chip = initialised();
        raise(&mut chip, &[6]);
        chip.write(0, 0x0c);
        assert_eq!((chip.read(0), chip.pending()), (0x86, None));
        chip.write(0, 0x0b);
        assert_eq!(chip.read(0), 0x40, "6 is in service");
    }
}
