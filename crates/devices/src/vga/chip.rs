//! VGA's registers: pure.

use super::dispi::Dispi;

/// All register files.
#[derive(Clone, Debug)]
pub struct Chip {
    misc: u8,
    pub(super) sequencer: [u8; 8],
    sequencer_index: u8,
    pub(super) graphics: [u8; 16],
    graphics_index: u8,
    pub(super) attribute: [u8; 32],
    attribute_index: u8,
    /// The next write to the attribute port is data.
    attribute_data: bool,
    pub(super) crtc: [u8; 64],
    crtc_index: u8,
    /// Red, green, blue.
    pub(super) palette: [[u8; 3]; 256],
    palette_mask: u8,
    palette_read: (u8, u8),
    palette_write: (u8, u8),
    palette_state: u8,
    status: u8,
    pub(super) latch: [u8; 4],
    /// The extension.
    pub dispi: Dispi,
}

device::saved!(Chip {
    misc,
    sequencer,
    sequencer_index,
    graphics,
    graphics_index,
    attribute,
    attribute_index,
    attribute_data,
    crtc,
    crtc_index,
    palette,
    palette_mask,
    palette_read,
    palette_write,
    palette_state,
    status,
    latch,
    dispi,
} check |chip: &Chip| chip.palette_read.1 < 3 && chip.palette_write.1 < 3);

impl Chip {
    /// The registers before so much memory.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            misc: 0,
            sequencer: [0; 8],
            sequencer_index: 0,
            graphics: [0; 16],
            graphics_index: 0,
            attribute: [0; 32],
            attribute_index: 0,
            attribute_data: false,
            crtc: [0; 64],
            crtc_index: 0,
            palette: [[0; 3]; 256],
            palette_mask: 0xff,
            palette_read: (0, 0),
            palette_write: (0, 0),
            palette_state: 0,
            status: 0,
            latch: [0; 4],
            dispi: Dispi::new(memory_bytes),
        }
    }

    /// Whether the monochrome adapter's addresses are in use, and not the colour one's.
    fn is_monochrome(&self) -> bool {
        self.misc & 1 == 0
    }

    /// Whether this CRTC port, at 0x3b0 or 0x3d0 and on, is in use.
    fn is_in_use(&self, port: u64) -> bool {
        (port & 0xf0 == 0xb0) == self.is_monochrome()
    }

    /// Whether the screen is lit.
    #[must_use]
    pub fn is_lit(&self) -> bool {
        self.attribute_index & 0x20 != 0
    }

    /// Reads a port from 0x3b0 on.
    pub fn read(&mut self, port: u64) -> u8 {
        match port {
            0x3b4 | 0x3d4 if self.is_in_use(port) => self.crtc_index,
            0x3b5 | 0x3d5 if self.is_in_use(port) => {
                self.crtc.get(usize::from(self.crtc_index)).copied().unwrap_or(0)
            }
            0x3ba | 0x3da if self.is_in_use(port) => {
                self.attribute_data = false;
                // Retrace begins and ends whenever somebody looks: who waits for it never waits.
                self.status ^= 0x09;
                self.status
            }
            0x3c0 => {
                if self.attribute_data {
                    0
                } else {
                    self.attribute_index
                }
            }
            0x3c1 => self.attribute[usize::from(self.attribute_index & 31)],
            0x3c2 => 0x10, // a colour monitor is there
            0x3c4 => self.sequencer_index,
            0x3c5 => self.sequencer[usize::from(self.sequencer_index & 7)],
            0x3c6 => self.palette_mask,
            0x3c7 => self.palette_state,
            0x3c8 => self.palette_write.0,
            0x3c9 => {
                let (index, part) = self.palette_read;
                let value = self.palette[usize::from(index)][usize::from(part)];
                self.palette_read = next_part(index, part);
                value
            }
            0x3cc => self.misc,
            0x3ce => self.graphics_index,
            0x3cf => self.graphics[usize::from(self.graphics_index & 15)],
            0x3ca => 0,
            _ => 0xff,
        }
    }

    /// Writes a port from 0x3b0 on.
    pub fn write(&mut self, port: u64, value: u8) {
        match port {
            0x3b4 | 0x3d4 if self.is_in_use(port) => self.crtc_index = value,
            0x3b5 | 0x3d5 if self.is_in_use(port) => self.write_crtc(value),
            0x3c0 => {
                if self.attribute_data {
                    self.write_attribute(value);
                } else {
                    self.attribute_index = value & 0x3f;
                }
                self.attribute_data = !self.attribute_data;
            }
            0x3c2 => self.misc = value & !0x10,
            0x3c4 => self.sequencer_index = value & 7,
            0x3c5 => {
                const WRITABLE: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
                let at = usize::from(self.sequencer_index & 7);
                self.sequencer[at] = value & WRITABLE[at];
            }
            0x3c6 => self.palette_mask = value,
            0x3c7 => (self.palette_read, self.palette_state) = ((value, 0), 3),
            0x3c8 => (self.palette_write, self.palette_state) = ((value, 0), 0),
            0x3c9 => {
                let (index, part) = self.palette_write;
                self.palette[usize::from(index)][usize::from(part)] = value;
                self.palette_write = next_part(index, part);
            }
            0x3ce => self.graphics_index = value & 15,
            0x3cf => {
                const WRITABLE: [u8; 16] =
                    [15, 15, 15, 0x1f, 3, 0x7b, 15, 15, 0xff, 0, 0, 0, 0, 0, 0, 0];
                let at = usize::from(self.graphics_index & 15);
                self.graphics[at] = value & WRITABLE[at];
            }
            _ => {}
        }
    }

    fn write_attribute(&mut self, value: u8) {
        let index = usize::from(self.attribute_index & 31);
        let mask = match index {
            0..=15 | 0x12 => 0x3f,
            0x10 => 0xef,
            0x11 => 0xff,
            0x13 | 0x14 => 0x0f,
            _ => 0,
        };
        self.attribute[index] = value & mask;
    }

    fn write_crtc(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        let protects = self.crtc[0x11] & 0x80 != 0;
        match index {
            // Timing is protected but for one bit.
            0..=7 if protects => {
                if index == 7 {
                    self.crtc[7] = self.crtc[7] & !0x10 | value & 0x10;
                }
            }
            _ => {
                if let Some(register) = self.crtc.get_mut(index) {
                    *register = value;
                }
            }
        }
    }

    /// A colour of the palette as a pixel.
    #[must_use]
    pub fn colour(&self, index: u8) -> u32 {
        let [red, green, blue] = self.palette[usize::from(index & self.palette_mask)];
        let wide = |part: u8| {
            let part = if self.dispi.has_wide_palette() { part } else { part << 2 | part >> 4 & 3 };
            u32::from(part)
        };
        wide(red) << 16 | wide(green) << 8 | wide(blue)
    }
}

fn next_part(index: u8, part: u8) -> (u8, u8) {
    if part < 2 { (index, part + 1) } else { (index.wrapping_add(1), 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_is_written_and_read_in_threes() {
        let mut chip = Chip::new(1 << 20);
        chip.write(0x3c8, 5);
        [0x3f, 0x20, 0, 1].iter().for_each(|part| chip.write(0x3c9, *part));
        chip.write(0x3c7, 5);
        assert_eq!([0; 4].map(|_| chip.read(0x3c9)), [0x3f, 0x20, 0, 1]);
        assert_eq!(chip.colour(5), 0x00ff_8200);
    }

    #[test]
    fn the_attribute_port_alternates_and_protected_timing_stays() {
        let mut chip = Chip::new(1 << 20);
        chip.write(0x3c2, 1);
        _ = chip.read(0x3da);
        chip.write(0x3c0, 0x03);
        chip.write(0x3c0, 0x15);
        chip.write(0x3c0, 0x23);
        assert_eq!((chip.attribute[3], chip.is_lit(), chip.read(0x3c1)), (0x15, true, 0x15));
        for (index, value) in [(1, 79), (0x11, 0x80), (1, 5)] {
            chip.write(0x3d4, index);
            chip.write(0x3d5, value);
        }
        assert_eq!((chip.crtc[1], chip.read(0x3b5)), (79, 0xff));
    }
}
