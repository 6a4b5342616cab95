//! The old window at 0xa0000: four planes, of which a byte of each lies at every fourth address of
//! the video memory.

use memory::Ram;

use super::chip::Chip;

const PLANE_ADDRESSES: u64 = 0x1_0000;

impl Chip {
    /// Where in the window an offset from 0xa0000 lies, if the window is there.
    fn window(&self, offset: u64) -> Option<u64> {
        let (start, length) = match self.graphics[6] >> 2 & 3 {
            0 => (0, 0x2_0000),
            1 => (0, 0x1_0000),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        };
        let inside = offset.checked_sub(start)?;
        (inside < length).then_some(inside)
    }

    fn is_chained(&self) -> bool {
        self.sequencer[4] & 8 != 0
    }

    fn is_odd_even(&self) -> bool {
        self.graphics[5] & 0x10 != 0
    }

    /// Reads a byte at an offset from 0xa0000.
    pub fn read_window(&mut self, memory: &Ram, offset: u64) -> u8 {
        let Some(at) = self.window(offset) else { return 0xff };
        if self.is_chained() {
            return memory.read_value(self.dispi.bank() + at, 1) as u8;
        }
        if self.is_odd_even() {
            let plane = u64::from(self.graphics[4] & 2) | at & 1;
            return memory.read_value((at & !1) << 1 | plane, 1) as u8;
        }
        let at = at % PLANE_ADDRESSES;
        self.latch = (memory.read_value(at << 2, 4) as u32).to_le_bytes();
        if self.graphics[5] & 8 == 0 {
            return self.latch[usize::from(self.graphics[4] & 3)];
        }
        // Compare: a one where all planes that count have the wanted colour.
        let (wanted, counts) = (self.graphics[2], self.graphics[7]);
        (0..4).fold(0xff, |equal, plane| {
            if counts >> plane & 1 == 0 {
                return equal;
            }
            let wanted = if wanted >> plane & 1 != 0 { 0xff } else { 0 };
            equal & !(self.latch[plane as usize] ^ wanted)
        })
    }

    /// Writes a byte at an offset from 0xa0000.
    pub fn write_window(&mut self, memory: &Ram, offset: u64, value: u8) {
        let Some(at) = self.window(offset) else { return };
        let enabled = self.sequencer[2];
        if self.is_chained() {
            if enabled >> (at & 3) & 1 != 0 {
                memory.write_value(self.dispi.bank() + at, 1, u64::from(value));
            }
            return;
        }
        if self.is_odd_even() {
            let plane = u64::from(self.graphics[4] & 2) | at & 1;
            if enabled >> plane & 1 != 0 {
                memory.write_value((at & !1) << 1 | plane, 1, u64::from(value));
            }
            return;
        }
        let at = (at % PLANE_ADDRESSES) << 2;
        let planes = self.mix(value);
        for plane in 0..4 {
            if enabled >> plane & 1 != 0 {
                memory.write_value(at + plane, 1, u64::from(planes[plane as usize]));
            }
        }
    }

    /// What the four planes get for a byte of the processor.
    fn mix(&self, value: u8) -> [u8; 4] {
        let spread = |bits: u8, plane: usize| if bits >> plane & 1 != 0 { 0xff } else { 0 };
        let rotated = value.rotate_right(u32::from(self.graphics[3] & 7));
        let mut mask = self.graphics[8];
        let mode = self.graphics[5] & 3;
        std::array::from_fn(|plane| {
            let new = match mode {
                0 if self.graphics[1] >> plane & 1 != 0 => spread(self.graphics[0], plane),
                0 => rotated,
                1 => return self.latch[plane],
                2 => spread(value, plane),
                _ => {
                    mask = self.graphics[8] & rotated;
                    spread(self.graphics[0], plane)
                }
            };
            let latch = self.latch[plane];
            let new = match self.graphics[3] >> 3 & 3 {
                1 => new & latch,
                2 => new | latch,
                3 => new ^ latch,
                _ => new,
            };
            new & mask | latch & !mask
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_to_alternate_planes_and_is_read_back() {
        let (mut chip, memory) = (Chip::new(1 << 18), Ram::new("vga", 1 << 18).unwrap());
        (chip.graphics[5], chip.graphics[6], chip.sequencer[2]) = (0x10, 0x0e, 3);
        chip.write_window(&memory, 0x1_8000, b'A');
        chip.write_window(&memory, 0x1_8001, 7);
        assert_eq!(memory.read_value(0, 4), 0x0741);
        assert_eq!(chip.read_window(&memory, 0x1_8001), 7);
        assert_eq!(chip.read_window(&memory, 0), 0xff, "the window is elsewhere");
    }

    #[test]
    fn write_modes_mix_latches_and_set_bits() {
        let (mut chip, memory) = (Chip::new(1 << 18), Ram::new("vga", 1 << 18).unwrap());
        (chip.graphics[6], chip.graphics[8], chip.sequencer[2]) = (4, 0xff, 15);
        chip.write_window(&memory, 0, 0x81);
        assert_eq!(memory.read_value(0, 4), 0x8181_8181);
        (chip.graphics[5], chip.graphics[8]) = (2, 0x0f);
        _ = chip.read_window(&memory, 0);
        chip.write_window(&memory, 0, 5);
        assert_eq!(memory.read_value(0, 4), 0x808f_808f);
        chip.graphics[5] = 1;
        chip.write_window(&memory, 1, 0);
        assert_eq!(memory.read_value(4, 4), 0x8181_8181, "what was last read is copied");
    }
}
