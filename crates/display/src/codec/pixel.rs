//! How a client wants its pixels (RFC 6143, 7.4).

use super::bytes::{Bytes, Put};
use super::{ProtocolError, bad};

/// A client's pixel format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelFormat {
    /// 8, 16 or 32.
    pub bits: u8,
    /// Bits that mean something.
    pub depth: u8,
    /// The order of a pixel's bytes.
    pub big_endian: bool,
    /// The pixel holds its colour. Else it is an index into a palette that the server sends.
    pub true_colour: bool,
    /// The most of red, green and blue.
    pub max: [u16; 3],
    /// Where they stand.
    pub shift: [u8; 3],
}

impl PixelFormat {
    /// As frames have them: 0x00RRGGBB, little-endian.
    pub const NATIVE: Self = Self {
        bits: 32,
        depth: 24,
        big_endian: false,
        true_colour: true,
        max: [255; 3],
        shift: [16, 8, 0],
    };

    /// What clients without true colour get: three bits of red and green, two of blue, behind
    /// a palette that says so.
    pub const PALETTE: Self = Self {
        bits: 8,
        depth: 8,
        big_endian: false,
        true_colour: false,
        max: [7, 7, 3],
        shift: [5, 2, 0],
    };

    /// Reads its 16 bytes.
    pub fn read(bytes: &mut Bytes<'_>) -> Option<Result<Self, ProtocolError>> {
        let mut field = Bytes::new(bytes.take(16)?);
        let (bits, depth) = (field.u8()?, field.u8()?);
        let (big_endian, true_colour) = (field.u8()? != 0, field.u8()? != 0);
        let max = [field.u16()?, field.u16()?, field.u16()?];
        let shift = [field.u8()?, field.u8()?, field.u8()?];
        if !matches!(bits, 8 | 16 | 32) {
            return Some(Err(bad("number of bits in a pixel")));
        }
        if !true_colour {
            return Some(match bits {
                8 => Ok(Self::PALETTE),
                _ => Err(bad("pixel format: palettes are for 8 bits")),
            });
        }
        let fits = |(max, shift): (&u16, &u8)| {
            max.checked_add(1).is_none_or(u16::is_power_of_two)
                && *max > 0
                && u32::from(*shift) + (u16::BITS - max.leading_zeros()) <= u32::from(bits)
        };
        match max.iter().zip(&shift).all(fits) {
            true => Some(Ok(Self { bits, depth, big_endian, true_colour, max, shift })),
            false => Some(Err(bad("pixel format"))),
        }
    }

    /// Writes its 16 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend([self.bits, self.depth, self.big_endian.into(), self.true_colour.into()]);
        self.max.iter().for_each(|max| out.put16((*max).into()));
        out.extend(self.shift);
        out.extend([0; 3]);
    }

    /// Bytes of a pixel.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::from(self.bits / 8)
    }

    /// A pixel in the client's terms.
    #[must_use]
    pub fn convert(&self, pixel: u32) -> u32 {
        let part = |index: usize| {
            let value = pixel >> (16 - 8 * index) & 0xff;
            let most = u32::from(self.max[index]);
            let scaled = if most == 255 { value } else { (value * most + 127) / 255 };
            scaled << self.shift[index]
        };
        part(0) | part(1) | part(2)
    }

    /// And back.
    #[must_use]
    pub fn restore(&self, value: u32) -> u32 {
        let part = |index: usize| {
            let most = u32::from(self.max[index]);
            let part = value >> self.shift[index] & most;
            ((part * 255 + most / 2) / most) << (16 - 8 * index)
        };
        part(0) | part(1) | part(2)
    }

    fn order(&self, value: u32) -> [u8; 4] {
        // Little-endian bytes stand at the front, big-endian ones at the back.
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Writes a pixel.
    pub fn put(&self, pixel: u32, out: &mut Vec<u8>) {
        let bytes = self.order(self.convert(pixel));
        let count = self.bytes();
        out.extend(if self.big_endian { &bytes[4 - count..] } else { &bytes[..count] });
    }

    /// Writes many.
    pub fn put_all(&self, pixels: &[u32], out: &mut Vec<u8>) {
        out.reserve(pixels.len() * self.bytes());
        match *self == Self::NATIVE {
            true => out.extend(pixels.iter().flat_map(|pixel| (pixel & 0xff_ffff).to_le_bytes())),
            false => pixels.iter().for_each(|pixel| self.put(*pixel, out)),
        }
    }

    /// Reads a pixel.
    pub fn get(&self, bytes: &mut Bytes<'_>) -> Option<u32> {
        let count = self.bytes();
        Some(self.pixel_of(bytes.take(count)?))
    }

    fn pixel_of(&self, bytes: &[u8]) -> u32 {
        let fold = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        let value = match self.big_endian {
            true => bytes.iter().fold(0, fold),
            false => bytes.iter().rev().fold(0, fold),
        };
        self.restore(value)
    }

    /// Whether a pixel has a byte that says nothing, which ZRLE leaves out: the last in memory of
    /// three low ones, or the first.
    fn spare_byte(&self) -> Option<bool> {
        if self.bits != 32 || self.depth > 24 || !self.true_colour {
            return None;
        }
        let used = (0..3).fold(0, |used, at| used | u32::from(self.max[at]) << self.shift[at]);
        match used {
            _ if used >> 24 == 0 => Some(!self.big_endian), // the byte of the highest bits goes
            _ if used & 0xff == 0 => Some(self.big_endian),
            _ => None,
        }
    }

    /// Bytes of a pixel in ZRLE.
    #[must_use]
    pub fn compact_bytes(&self) -> usize {
        if self.spare_byte().is_some() { 3 } else { self.bytes() }
    }

    /// Writes a pixel as ZRLE has it (RFC 6143, 7.7.5).
    pub fn put_compact(&self, pixel: u32, out: &mut Vec<u8>) {
        match self.spare_byte() {
            None => self.put(pixel, out),
            Some(last) => {
                let bytes = self.order(self.convert(pixel));
                out.extend(if last { &bytes[..3] } else { &bytes[1..] });
            }
        }
    }

    /// Reads one of those.
    pub fn get_compact(&self, bytes: &mut Bytes<'_>) -> Option<u32> {
        let Some(last) = self.spare_byte() else { return self.get(bytes) };
        let taken = bytes.take(3)?;
        let whole = match last {
            true => [taken[0], taken[1], taken[2], 0],
            false => [0, taken[0], taken[1], taken[2]],
        };
        Some(self.pixel_of(&whole))
    }

    /// Whether Tight sends its three colours as a byte each.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.bits == 32 && self.depth == 24 && self.max == [255; 3] && self.true_colour
    }

    /// Bytes of a pixel in Tight.
    #[must_use]
    pub fn tight_bytes(&self) -> usize {
        if self.is_tight() { 3 } else { self.bytes() }
    }

    /// Writes a pixel as Tight has it.
    pub fn put_tight(&self, pixel: u32, out: &mut Vec<u8>) {
        match self.is_tight() {
            true => out.extend(&pixel.to_be_bytes()[1..]),
            false => self.put(pixel, out),
        }
    }

    /// Reads one of those.
    pub fn get_tight(&self, bytes: &mut Bytes<'_>) -> Option<u32> {
        match self.is_tight() {
            true => bytes.take(3).map(|rgb| u32::from_be_bytes([0, rgb[0], rgb[1], rgb[2]])),
            false => self.get(bytes),
        }
    }
}

/// The palette that goes with [`PixelFormat::PALETTE`], as the message that brings it.
#[must_use]
pub fn palette_message() -> Vec<u8> {
    let mut out = vec![1, 0];
    out.put16(0);
    out.put16(256);
    for index in 0..256 {
        let pixel = PixelFormat::PALETTE.restore(index);
        for shift in [16, 8, 0] {
            out.put16((pixel >> shift & 0xff) * 0x101);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: PixelFormat, pixel: u32, normal: &[u8], compact: &[u8]) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        format.put(pixel, &mut first);
        format.put_compact(pixel, &mut second);
        assert_eq!((first.as_slice(), second.as_slice()), (normal, compact), "{format:?}");
        let near = format.restore(format.convert(pixel));
        assert_eq!(format.get(&mut Bytes::new(&first)), Some(near), "{format:?}");
        assert_eq!(format.get_compact(&mut Bytes::new(&second)), Some(near), "{format:?}");
        let mut written = Vec::new();
        format.write(&mut written);
        assert_eq!(PixelFormat::read(&mut Bytes::new(&written)), Some(Ok(format)));
    }

    #[test]
    fn pixels_take_the_form_that_the_client_wants() {
        let native = PixelFormat::NATIVE;
        check(native, 0x123456, &[0x56, 0x34, 0x12, 0], &[0x56, 0x34, 0x12]);
        let big = PixelFormat { big_endian: true, ..native };
        check(big, 0x123456, &[0, 0x12, 0x34, 0x56], &[0x12, 0x34, 0x56]);
        let high = PixelFormat { shift: [24, 16, 8], ..native };
        check(high, 0x123456, &[0, 0x56, 0x34, 0x12], &[0x56, 0x34, 0x12]);
        let high_big = PixelFormat { big_endian: true, ..high };
        check(high_big, 0x123456, &[0x12, 0x34, 0x56, 0], &[0x12, 0x34, 0x56]);
        let short =
            PixelFormat { bits: 16, depth: 16, max: [31, 63, 31], shift: [11, 5, 0], ..native };
        check(short, 0xff00ff, &[0x1f, 0xf8], &[0x1f, 0xf8]);
        check(PixelFormat::PALETTE, 0xff0000, &[0xe0], &[0xe0]);
    }

    #[test]
    fn formats_that_make_no_sense_are_refused() {
        let read = |change: fn(&mut PixelFormat)| {
            let mut format = PixelFormat::NATIVE;
            change(&mut format);
            let mut bytes = Vec::new();
            format.write(&mut bytes);
            PixelFormat::read(&mut Bytes::new(&bytes)).unwrap()
        };
        assert!(read(|format| format.bits = 24).is_err());
        assert!(read(|format| format.max[1] = 0).is_err());
        assert!(read(|format| format.max[1] = 100).is_err());
        assert!(read(|format| format.shift[0] = 200).is_err());
        assert!(read(|format| format.shift[0] = 25).is_err(), "it reaches beyond bit 32");
        assert!(read(|format| format.true_colour = false).is_err());
    }
}
