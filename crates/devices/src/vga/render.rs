//! From registers and video memory to pixels.

use device::{Picture, Rectangle};
use memory::Ram;

use super::chip::Chip;
use super::dispi::Linear;

/// What the registers make of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing is lit.
    Dark,
    /// Characters: columns, rows, and the size of a character.
    Text {
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
    },
    /// Four planes, or two bits of one: width, height, every line twice.
    Planar {
        width: u32,
        height: u32,
        double: bool,
    },
    /// A byte a pixel, with doubled columns.
    Bytes {
        width: u32,
        height: u32,
        double: bool,
    },
    Linear(Linear),
}

impl Chip {
    fn mode(&self) -> Mode {
        if let Some(linear) = self.dispi.linear() {
            return Mode::Linear(linear);
        }
        if !self.is_lit() {
            return Mode::Dark;
        }
        let crtc = |at: usize| u32::from(self.crtc[at]);
        let lines = (crtc(0x12) | (crtc(7) & 2) << 7 | (crtc(7) & 0x40) << 3) + 1;
        let columns = crtc(1) + 1;
        let line_height = (crtc(9) & 0x1f) + 1;
        if self.graphics[6] & 1 == 0 {
            let width = if self.sequencer[1] & 1 != 0 { 8 } else { 9 };
            return Mode::Text {
                columns: columns.min(160),
                rows: (lines / line_height).clamp(1, 100),
                width,
                height: line_height,
            };
        }
        // Lines can be doubled by two ways.
        let double = crtc(9) & 0x9f != 0;
        let height = if double { lines / 2 } else { lines }.max(1);
        if self.graphics[5] & 0x40 != 0 {
            return Mode::Bytes { width: columns * 4, height, double };
        }
        Mode::Planar { width: columns * 8, height, double }
    }

    fn start(&self) -> u64 {
        u64::from(self.crtc[0x0c]) << 8 | u64::from(self.crtc[0x0d])
    }

    /// Bytes of a plane from one line to the next.
    fn pitch(&self) -> u64 {
        u64::from(self.crtc[0x13]) * 2
    }

    /// A colour by a plane's four bits, through the attribute registers.
    fn attribute_colour(&self, index: u8) -> u32 {
        let index = index & self.attribute[0x12];
        let inner = self.attribute[usize::from(index & 15)];
        let outer = self.attribute[0x14];
        let whole = if self.attribute[0x10] & 0x80 != 0 {
            inner & 0x0f | outer << 4
        } else {
            inner & 0x3f | (outer & 0x0c) << 4
        };
        self.colour(whole)
    }

    /// Brings a picture up to date; see [`device::Screen::refresh`].
    pub fn render(&self, memory: &Ram, picture: &mut Picture, whole: bool) -> Vec<Rectangle> {
        let mode = self.mode();
        let (width, height) = match mode {
            Mode::Dark => (picture.width.max(640), picture.height.max(400)),
            Mode::Text { columns, rows, width, height } => (columns * width, rows * height),
            Mode::Planar { width, height, .. } | Mode::Bytes { width, height, .. } => {
                (width, height)
            }
            Mode::Linear(Linear { width, height, .. }) => (width.max(1), height.max(1)),
        };
        let whole = picture.resize(width, height) || whole;
        let mut rows = vec![0; picture.width as usize];
        let (mut first, mut last) = (u32::MAX, 0);
        for y in 0..picture.height {
            match mode {
                Mode::Dark => rows.fill(0),
                Mode::Text { columns, width, height, .. } => {
                    self.text_row(memory, y, (columns, width, height), &mut rows);
                }
                Mode::Planar { .. } => self.planar_row(memory, y, &mut rows),
                Mode::Bytes { .. } => self.byte_row(memory, y, &mut rows),
                Mode::Linear(linear) => self.linear_row(memory, y, linear, &mut rows),
            }
            let row = picture.row_mut(y);
            if row != rows {
                row.copy_from_slice(&rows);
                (first, last) = (first.min(y), y);
            }
        }
        let (first, last) = if whole { (0, height - 1) } else { (first, last) };
        if first > last {
            return Vec::new();
        }
        vec![Rectangle { x: 0, y: first, width: picture.width, height: last - first + 1 }]
    }

    fn text_row(
        &self,
        memory: &Ram,
        y: u32,
        (columns, width, height): (u32, u32, u32),
        row: &mut [u32],
    ) {
        let (line, inside) = (y / height, y % height);
        let start = self.start() + u64::from(line) * self.pitch();
        let cursor = u64::from(self.crtc[0x0e]) << 8 | u64::from(self.crtc[0x0f]);
        let shape = (u32::from(self.crtc[0x0a] & 0x1f), u32::from(self.crtc[0x0b] & 0x1f));
        let shows_cursor = self.crtc[0x0a] & 0x20 == 0 && (shape.0..=shape.1).contains(&inside);
        // Two fonts; bit 3 of the attribute chooses, where they differ.
        let font = |bits: u8| (u64::from(bits & 3) << 14) + (u64::from(bits >> 2 & 1) << 13);
        let select = self.sequencer[3];
        let fonts = [font(select & 3 | select >> 2 & 4), font(select >> 2 & 3 | select >> 3 & 4)];
        for column in 0..columns {
            let at = (start + u64::from(column)) & 0xffff;
            let cell = memory.read_value(at << 2, 4).to_le_bytes();
            let (character, attribute) = (cell[0], cell[1]);
            let glyph = fonts[usize::from(attribute & 8 == 0 && fonts[0] != fonts[1])];
            let glyph = glyph + u64::from(character) * 32 + u64::from(inside);
            let mut bits = memory.read_value((glyph & 0xffff) << 2 | 2, 1) as u8;
            if shows_cursor && at == cursor {
                bits = 0xff;
            }
            let (front, back) = (attribute & 15, attribute >> 4 & 15);
            let colours = [self.attribute_colour(back), self.attribute_colour(front)];
            // Frames of boxes reach into the ninth column.
            let ninth = (0xc0..=0xdf).contains(&character) && bits & 1 != 0;
            for pixel in 0..width {
                let lit = if pixel < 8 { bits >> (7 - pixel) & 1 != 0 } else { ninth };
                if let Some(target) = row.get_mut((column * width + pixel) as usize) {
                    *target = colours[usize::from(lit)];
                }
            }
        }
    }

    fn planar_row(&self, memory: &Ram, y: u32, row: &mut [u32]) {
        let mut at = self.start() + u64::from(y) * self.pitch();
        // CGA's modes keep every second line 8 KiB further.
        let interleaves = self.crtc[0x17] & 1 == 0;
        if interleaves {
            at = self.start() + u64::from(y / 2) * self.pitch() + u64::from(y & 1) * 0x2000;
        }
        let four_colours = self.graphics[5] & 0x20 != 0;
        for (x, target) in row.iter_mut().enumerate() {
            let x = x as u64;
            let planes = memory.read_value(((at + x / 8) & 0xffff) << 2, 4).to_le_bytes();
            let index = if four_colours {
                let byte = planes[usize::from(x & 4 != 0)];
                byte >> (6 - 2 * (x & 3)) & 3
            } else {
                let bit = 7 - x % 8;
                (0..4).fold(0, |index, plane| index | (planes[plane] >> bit & 1) << plane)
            };
            *target = self.attribute_colour(index);
        }
    }

    fn byte_row(&self, memory: &Ram, y: u32, row: &mut [u32]) {
        let at = (self.start() + u64::from(y) * self.pitch()) << 2;
        for (x, target) in row.iter_mut().enumerate() {
            *target = self.colour(memory.read_value((at + x as u64) & 0x3_ffff, 1) as u8);
        }
    }

    fn linear_row(&self, memory: &Ram, y: u32, mode: Linear, row: &mut [u32]) {
        let bytes = u64::from(mode.depth.max(8)).div_ceil(8);
        let start = mode.start + u64::from(y) * mode.stride;
        let mut line = vec![0; row.len() * bytes as usize];
        if !memory.read(start, &mut line) {
            return row.fill(0);
        }
        let stretch = |value: u32, bits: u32| value << (8 - bits) | value >> (2 * bits - 8);
        for (target, pixel) in row.iter_mut().zip(line.chunks_exact(bytes as usize)) {
            *target = match (mode.depth, pixel) {
                (15, &[low, high]) => {
                    let value = u32::from(u16::from_le_bytes([low, high]));
                    stretch(value >> 10 & 31, 5) << 16
                        | stretch(value >> 5 & 31, 5) << 8
                        | stretch(value & 31, 5)
                }
                (16, &[low, high]) => {
                    let value = u32::from(u16::from_le_bytes([low, high]));
                    stretch(value >> 11 & 31, 5) << 16
                        | stretch(value >> 5 & 63, 6) << 8
                        | stretch(value & 31, 5)
                }
                (_, &[blue, green, red]) | (_, &[blue, green, red, _]) => {
                    u32::from_le_bytes([blue, green, red, 0])
                }
                (_, &[index, ..]) => self.colour(index),
                _ => 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_drawn_with_its_colours() {
        let (mut chip, memory) = (Chip::new(1 << 18), Ram::new("vga", 1 << 18).unwrap());
        chip.write(0x3c2, 1);
        for (index, value) in [(1, 0), (0x12, 7), (9, 7), (0x0a, 0x20), (0x13, 1)] {
            chip.crtc[index] = value;
        }
        chip.sequencer[1] = 1;
        (0..16).for_each(|at| chip.attribute[at] = at as u8);
        chip.attribute[0x12] = 15;
        (chip.palette[7], chip.palette[1]) = ([63; 3], [0, 0, 63]);
        chip.write(0x3c0, 0x20);
        memory.write_value(0, 4, 0x1741); // white on blue
        memory.write_value((0x41 * 32) << 2 | 2, 1, 0b1010_0000);
        let mut picture = Picture::default();
        let changed = chip.render(&memory, &mut picture, false);
        assert_eq!(changed, [Rectangle { x: 0, y: 0, width: 8, height: 8 }]);
        assert_eq!(picture.pixels[..4], [0xff_ffff, 0xff, 0xff_ffff, 0xff]);
        assert!(chip.render(&memory, &mut picture, false).is_empty());
        assert_eq!(chip.render(&memory, &mut picture, true).len(), 1);
    }

    #[test]
    fn linear_modes_of_all_depths_show_red() {
        for (depth, pixel) in [(15, 0x7c00), (16, 0xf800), (24, 0xff_0000), (32, 0xff_0000_u64)] {
            let (mut chip, memory) = (Chip::new(1 << 18), Ram::new("vga", 1 << 18).unwrap());
            for (at, value) in [(1, 8), (2, 1), (3, depth), (4, 0x41)] {
                chip.dispi.write(at, value);
            }
            memory.write_value(0, 4, pixel);
            let mut picture = Picture::default();
            chip.render(&memory, &mut picture, false);
            assert_eq!((picture.pixels.len(), picture.pixels[0]), (8, 0xff_0000), "{depth}");
        }
    }

    #[test]
    fn random_registers_render_something() {
        let memory = Ram::new("vga", 1 << 18).unwrap();
        let mut seed = 11_u64;
        let mut picture = Picture::default();
        for _ in 0..60 {
            let mut chip = Chip::new(1 << 18);
            for _ in 0..300 {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let value = (seed >> 40) as u8;
                chip.write(0x3b0 + (seed >> 50 & 0x2f), value);
                chip.dispi.write((seed >> 33 & 15) as u16, (seed >> 20) as u16 & 0x3ff);
                chip.write_window(&memory, seed >> 10 & 0x1_ffff, value);
                _ = chip.read_window(&memory, seed >> 12 & 0x1_ffff);
            }
            chip.render(&memory, &mut picture, false);
        }
    }
}
