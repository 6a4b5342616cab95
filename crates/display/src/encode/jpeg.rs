//! Baseline JPEG (ITU-T T.81), for parts of a screen that are photographs: colour at half resolution,
//! the standard's own example tables.

use super::jpeg_tables::{
    CHROMA_AC, CHROMA_DC, CHROMA_STEPS, Codes, Huffman, LUMA_AC, LUMA_DC, LUMA_STEPS, ZIGZAG,
};
use crate::surface::{Frame, Rect};

/// The inverse scale of each row and column after the fast transform below: cos(k pi/16) sqrt 2,
/// and 1 for the first.
const SCALE: [f32; 8] =
    [1.0, 1.387_039_8, 1.306_563, 1.175_875_6, 1.0, 0.785_694_96, 0.541_196_1, 0.275_899_38];

/// What a quality from 1 to 100 means, made once.
pub struct Jpeg {
    quality: u8,
    luma: Steps,
    chroma: Steps,
    codes: [Codes; 4],
}

/// Quantisation: as the file holds it, and as factors of what the transform leaves.
struct Steps {
    bytes: [u8; 64],
    factors: [f32; 64],
}

impl Steps {
    fn new(base: &[u8; 64], quality: u8) -> Self {
        let quality = u32::from(quality.clamp(1, 100));
        let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
        let bytes = base.map(|step| ((u32::from(step) * scale + 50) / 100).clamp(1, 255) as u8);
        let mut factors = [0.0; 64];
        for (place, factor) in factors.iter_mut().enumerate() {
            let scale = SCALE[place / 8] * SCALE[place % 8] * 8.0;
            *factor = 1.0 / (f32::from(bytes[place]) * scale);
        }
        Self { bytes, factors }
    }
}

impl Jpeg {
    pub fn new(quality: u8) -> Self {
        Self {
            quality,
            luma: Steps::new(&LUMA_STEPS, quality),
            chroma: Steps::new(&CHROMA_STEPS, quality),
            codes: [&LUMA_DC, &LUMA_AC, &CHROMA_DC, &CHROMA_AC].map(Huffman::codes),
        }
    }

    pub fn quality(&self) -> u8 {
        self.quality
    }

    /// A rectangle of a frame as a whole file.
    pub fn encode(&self, frame: &Frame, rect: Rect, out: &mut Vec<u8>) {
        self.head(rect, out);
        let mut bits = Bits { out, buffer: 0, count: 0 };
        let mut last = [0; 3];
        for top in (0..rect.height).step_by(16) {
            for left in (0..rect.width).step_by(16) {
                self.unit(frame, rect, (left, top), &mut last, &mut bits);
            }
        }
        bits.finish();
        out.extend([0xff, 0xd9]);
    }

    fn head(&self, rect: Rect, out: &mut Vec<u8>) {
        out.extend([0xff, 0xd8]);
        for (number, steps) in [&self.luma, &self.chroma].into_iter().enumerate() {
            out.extend([0xff, 0xdb, 0, 67, number as u8]);
            out.extend(ZIGZAG.iter().map(|place| steps.bytes[usize::from(*place)]));
        }
        let [h1, h0] = (rect.height as u16).to_be_bytes();
        let [w1, w0] = (rect.width as u16).to_be_bytes();
        out.extend([0xff, 0xc0, 0, 17, 8, h1, h0, w1, w0, 3]);
        // Component, how often it is sampled, its steps.
        out.extend([1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
        let tables = [(0x00, &LUMA_DC), (0x10, &LUMA_AC), (0x01, &CHROMA_DC), (0x11, &CHROMA_AC)];
        for (class, table) in tables {
            let length = 2 + 1 + 16 + table.values.len() as u16;
            out.extend([0xff, 0xc4]);
            out.extend(length.to_be_bytes());
            out.push(class);
            out.extend(table.counts);
            out.extend(table.values);
        }
        out.extend([0xff, 0xda, 0, 12, 3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]);
    }

    /// 16 by 16 pixels: four blocks of brightness, one of each colour.
    fn unit(
        &self,
        frame: &Frame,
        rect: Rect,
        (left, top): (u32, u32),
        last: &mut [i32; 3],
        bits: &mut Bits<'_>,
    ) {
        let mut luma = [[0.0_f32; 64]; 4];
        let mut colour = [[0.0_f32; 64]; 2];
        for y in 0..16_usize {
            // Beyond the edge the last pixel goes on.
            let row = frame.row(rect, (top + y as u32).min(rect.height - 1));
            for x in 0..16_usize {
                let pixel = row[(left as usize + x).min(row.len() - 1)];
                let part = |shift: u32| (pixel >> shift & 0xff) as f32;
                let (red, green, blue) = (part(16), part(8), part(0));
                let block = &mut luma[y / 8 * 2 + x / 8];
                block[y % 8 * 8 + x % 8] = 0.299 * red + 0.587 * green + 0.114 * blue - 128.0;
                let place = y / 2 * 8 + x / 2;
                colour[0][place] += (-0.168_736 * red - 0.331_264 * green + 0.5 * blue) / 4.0;
                colour[1][place] += (0.5 * red - 0.418_688 * green - 0.081_312 * blue) / 4.0;
            }
        }
        let [luma_dc, luma_ac, chroma_dc, chroma_ac] = &self.codes;
        for block in &mut luma {
            put_block(block, &self.luma, &mut last[0], (luma_dc, luma_ac), bits);
        }
        for (block, last) in colour.iter_mut().zip(&mut last[1..]) {
            put_block(block, &self.chroma, last, (chroma_dc, chroma_ac), bits);
        }
    }
}

fn put_block(
    block: &mut [f32; 64],
    steps: &Steps,
    last: &mut i32,
    (dc, ac): (&Codes, &Codes),
    bits: &mut Bits<'_>,
) {
    transform(block);
    let value = |place: u8| {
        let place = usize::from(place);
        (block[place] * steps.factors[place]).round() as i32
    };
    let first = value(0);
    bits.put_value(dc, 0, first - *last);
    *last = first;
    let mut zeros = 0;
    for place in &ZIGZAG[1..] {
        match value(*place) {
            0 => zeros += 1,
            value => {
                while zeros > 15 {
                    bits.put_code(ac, 0xf0); // sixteen zeros
                    zeros -= 16;
                }
                bits.put_value(ac, zeros << 4, value);
                zeros = 0;
            }
        }
    }
    if zeros > 0 {
        bits.put_code(ac, 0); // nothing but zeros
    }
}

/// The discrete cosine transform by Arai, Agui and Nakajima: rows, then columns.
fn transform(block: &mut [f32; 64]) {
    for row in 0..8 {
        lines(block, row * 8, 1);
    }
    for column in 0..8 {
        lines(block, column, 8);
    }
}

fn lines(block: &mut [f32; 64], start: usize, step: usize) {
    let at = |index: usize| start + index * step;
    let d: [f32; 8] = std::array::from_fn(|index| block[at(index)]);
    let sums: [f32; 4] = std::array::from_fn(|index| d[index] + d[7 - index]);
    let differences: [f32; 4] = std::array::from_fn(|index| d[index] - d[7 - index]);
    let (even, odd) = (sums[0] + sums[3], sums[0] - sums[3]);
    let (inner, cross) = (sums[1] + sums[2], sums[1] - sums[2]);
    block[at(0)] = even + inner;
    block[at(4)] = even - inner;
    let turned = (cross + odd) * std::f32::consts::FRAC_1_SQRT_2;
    block[at(2)] = odd + turned;
    block[at(6)] = odd - turned;
    let [d0, d1, d2, d3] = differences;
    let (a, b, c) = (d3 + d2, d2 + d1, d1 + d0);
    let shared = (a - c) * 0.382_683_43;
    let low = 0.541_196_1 * a + shared;
    let high = 1.306_563 * c + shared;
    let middle = b * std::f32::consts::FRAC_1_SQRT_2;
    let (plus, minus) = (d0 + middle, d0 - middle);
    block[at(5)] = minus + low;
    block[at(3)] = minus - low;
    block[at(1)] = plus + high;
    block[at(7)] = plus - high;
}

/// Bits, the first one highest. A byte of ones is followed by one of zeros.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    buffer: u32,
    count: u32,
}

impl Bits<'_> {
    fn put(&mut self, value: u32, count: u32) {
        self.buffer = self.buffer << count | value;
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.buffer >> self.count) as u8;
            self.out.push(byte);
            if byte == 0xff {
                self.out.push(0);
            }
        }
    }

    fn put_code(&mut self, codes: &Codes, symbol: u8) {
        let (code, length) = codes.0[usize::from(symbol)];
        self.put(code.into(), length.into());
    }

    /// A value behind the code of its size; `run` stands in the code's upper half.
    fn put_value(&mut self, codes: &Codes, run: u8, value: i32) {
        // Baseline has no larger ones; 8 bits of colour do not make any.
        let value = value.clamp(-2047, 2047);
        let size = 32 - value.unsigned_abs().leading_zeros();
        self.put_code(codes, run | size as u8);
        let low = if value < 0 { value - 1 } else { value } as u32;
        if size > 0 {
            self.put(low & ((1 << size) - 1), size);
        }
    }

    fn finish(&mut self) {
        if self.count > 0 {
            let missing = 8 - self.count;
            self.put((1 << missing) - 1, missing);
        }
    }
}
