//! Rectangles of a frame as a client wants them.

mod hextile;
mod jpeg;
mod jpeg_tables;
mod palette;
mod tight;
mod zlib;
mod zrle;

use crate::codec::{PixelFormat, Put, encoding};
use crate::surface::{Frame, Pointer, Rect};
use jpeg::Jpeg;
use palette::Palette;
pub(crate) use zlib::Deflater;

/// The most pixels of a rectangle on its way: what has to be held for one is bounded.
const RECT_PIXELS_MAX: usize = 1 << 16;
/// Tight's rectangles are no wider.
const TIGHT_WIDTH_MAX: u32 = 2048;

/// JPEG's qualities for the levels that clients name.
const QUALITIES: [u8; 10] = [15, 25, 35, 45, 55, 65, 75, 82, 90, 96];

/// One client's encoder. Compressed streams go on from rectangle to rectangle.
#[derive(Default)]
pub struct Encoder {
    zlib: Option<Deflater>,
    zrle: Option<Deflater>,
    tight: [Option<Deflater>; 4],
    scratch: Vec<u8>,
    /// For photographs, if the client may be shown less than there is.
    jpeg: Option<Jpeg>,
}

/// Whether rectangles of an encoding can be written.
pub fn is_known(number: i32) -> bool {
    use encoding::{HEXTILE, RAW, TIGHT, ZLIB, ZRLE};
    [RAW, HEXTILE, ZLIB, TIGHT, ZRLE].contains(&number)
}

/// The head of a rectangle.
pub fn head(rect: Rect, encoding: i32, out: &mut Vec<u8>) {
    out.put16(rect.x);
    out.put16(rect.y);
    out.put16(rect.width);
    out.put16(rect.height);
    out.extend(encoding.to_be_bytes());
}

/// Cuts a rectangle into parts that are small enough to be sent.
pub fn split(rect: Rect, encoding: i32, parts: &mut Vec<Rect>) {
    let width = if encoding == encoding::TIGHT { TIGHT_WIDTH_MAX } else { rect.width }.max(1);
    let height = (RECT_PIXELS_MAX / width.min(rect.width).max(1) as usize) as u32 & !63;
    let height = height.max(64);
    for y in (0..rect.height).step_by(height as usize) {
        for x in (0..rect.width).step_by(width as usize) {
            parts.push(Rect {
                x: rect.x + x,
                y: rect.y + y,
                width: width.min(rect.width - x),
                height: height.min(rect.height - y),
            });
        }
    }
}

impl Encoder {
    /// Photographs may lose detail, to this quality from 0 to 9, or none.
    pub fn set_quality(&mut self, level: Option<u8>) {
        let quality = level.map(|level| QUALITIES[usize::from(level.min(9))]);
        if quality != self.jpeg.as_ref().map(Jpeg::quality) {
            self.jpeg = quality.map(Jpeg::new);
        }
    }

    /// Writes a rectangle of the frame, no larger than [`split`] makes them, with its head.
    pub fn encode(
        &mut self,
        frame: &Frame,
        rect: Rect,
        encoding: i32,
        format: &PixelFormat,
        out: &mut Vec<u8>,
    ) {
        head(rect, encoding, out);
        self.scratch.clear();
        match encoding {
            encoding::HEXTILE => hextile::encode(frame, rect, format, out),
            encoding::ZRLE => {
                zrle::encode(frame, rect, format, &mut self.scratch);
                put_deflated(&mut self.zrle, &self.scratch, out);
            }
            encoding::ZLIB => {
                raw(frame, rect, format, &mut self.scratch);
                put_deflated(&mut self.zlib, &self.scratch, out);
            }
            encoding::TIGHT => {
                let jpeg = self.jpeg.as_ref().filter(|_| format.bits > 8);
                tight::encode(&mut self.tight, jpeg, &mut self.scratch, frame, rect, format, out);
            }
            _ => raw(frame, rect, format, out),
        }
    }
}

fn put_deflated(stream: &mut Option<Deflater>, bytes: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    out.put32(0);
    stream.get_or_insert_default().deflate(bytes, out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn raw(frame: &Frame, rect: Rect, format: &PixelFormat, out: &mut Vec<u8>) {
    for row in 0..rect.height {
        format.put_all(frame.row(rect, row), out);
    }
}

/// The pointer's picture: pixels, and a bit for each that is there (RFC 6143, 7.8.1).
pub fn cursor(pointer: &Pointer, format: &PixelFormat, out: &mut Vec<u8>) {
    let (x, y) = pointer.hot;
    head(Rect { x, y, width: pointer.width, height: pointer.height }, encoding::CURSOR, out);
    format.put_all(&pointer.pixels, out);
    for row in pointer.pixels.chunks(pointer.width.max(1) as usize) {
        for eight in row.chunks(8) {
            let bit = |byte: u8, (at, pixel): (usize, &u32)| {
                byte | u8::from(pixel >> 24 >= 0x80) << (7 - at)
            };
            out.push(eight.iter().enumerate().fold(0, bit));
        }
    }
}

/// The same with an alpha channel, always in this form: red, green, blue, alpha, multiplied.
pub fn cursor_alpha(pointer: &Pointer, out: &mut Vec<u8>) {
    let (x, y) = pointer.hot;
    let rect = Rect { x, y, width: pointer.width, height: pointer.height };
    head(rect, encoding::CURSOR_ALPHA, out);
    out.extend(encoding::RAW.to_be_bytes());
    for pixel in &pointer.pixels {
        let alpha = pixel >> 24;
        let part = |shift: u32| (((pixel >> shift & 0xff) * alpha + 127) / 255) as u8;
        out.extend([part(16), part(8), part(0), alpha as u8]);
    }
}

/// The colours of a rectangle, as long as they are few.
fn colours(frame: &Frame, rect: Rect, most: usize) -> Option<Palette> {
    let mut palette = Palette::new(most);
    let rows = (0..rect.height).map(|row| frame.row(rect, row));
    for row in rows {
        let mut last = None;
        for pixel in row {
            if last != Some(pixel) && !palette.add(*pixel) {
                return None;
            }
            last = Some(pixel);
        }
    }
    Some(palette)
}
