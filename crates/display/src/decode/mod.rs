//! Rectangles as a server sends them, painted into a frame.
//!
//! `None` means that more bytes have to come; nothing was changed then that a second try would
//! change again.

mod hextile;
mod tight;
mod zlib;
mod zrle;

use crate::codec::{Bytes, PixelFormat, ProtocolError, bad, encoding};
use crate::surface::{Frame, Pointer, Rect};
pub(crate) use zlib::Inflater;

/// What a try gives.
pub type Tried<T = ()> = Option<Result<T, ProtocolError>>;

/// One connection's decoder.
#[derive(Default)]
pub struct Decoder {
    zlib: Inflater,
    zrle: Inflater,
    tight: [Inflater; 4],
}

/// The encodings that can be read, best first.
pub const KNOWN: &[i32] = &[
    encoding::TIGHT,
    encoding::ZRLE,
    encoding::HEXTILE,
    encoding::ZLIB,
    encoding::COPY_RECT,
    encoding::RAW,
];

impl Decoder {
    /// Paints a rectangle, which lies within the frame.
    pub fn decode(
        &mut self,
        bytes: &mut Bytes<'_>,
        frame: &mut Frame,
        rect: Rect,
        encoding: i32,
        format: &PixelFormat,
    ) -> Tried {
        match encoding {
            encoding::RAW => {
                let data = bytes.take(rect.pixels() * format.bytes())?;
                raw(data, frame, rect, format)
            }
            encoding::COPY_RECT => {
                let (x, y) = (u32::from(bytes.u16()?), u32::from(bytes.u16()?));
                let from = Rect { x, y, ..rect };
                if rect.pixels() > 0 && from.intersect(frame.area()) != Some(from) {
                    return Some(Err(bad("place to copy from")));
                }
                frame.copy((x, y), rect);
                Some(Ok(()))
            }
            encoding::HEXTILE => hextile::decode(bytes, frame, rect, format),
            encoding::ZLIB => {
                let data = compressed(bytes)?;
                let size = rect.pixels() * format.bytes();
                Some(self.zlib.inflate(data, size).and_then(|data| {
                    raw(&data, frame, rect, format).unwrap_or(Err(bad("length of pixels")))
                }))
            }
            encoding::ZRLE => {
                let data = compressed(bytes)?;
                let most = zrle::bytes_max(rect);
                Some(self.zrle.inflate(data, most).and_then(|data| {
                    let tiles = zrle::decode(&mut Bytes::new(&data), frame, rect, format);
                    tiles.unwrap_or(Err(bad("length of tiles")))
                }))
            }
            encoding::TIGHT => tight::decode(&mut self.tight, bytes, frame, rect, format),
            _ => Some(Err(bad("encoding"))),
        }
    }
}

fn compressed<'a>(bytes: &mut Bytes<'a>) -> Option<&'a [u8]> {
    let length = bytes.u32()?;
    bytes.take(length as usize)
}

fn raw(data: &[u8], frame: &mut Frame, rect: Rect, format: &PixelFormat) -> Tried {
    let mut pixels = Bytes::new(data);
    for row in 0..rect.height {
        for pixel in frame.row_mut(rect, row) {
            *pixel = format.get(&mut pixels)?;
        }
    }
    Some(Ok(()))
}

/// The pointer's picture.
pub fn cursor(bytes: &mut Bytes<'_>, rect: Rect, format: &PixelFormat) -> Option<Pointer> {
    let mut data = Bytes::new(bytes.take(rect.pixels() * format.bytes())?);
    let row_bytes = (rect.width as usize).div_ceil(8);
    let mask = bytes.take(row_bytes * rect.height as usize)?;
    let mut pixels = Vec::new();
    for at in 0..rect.pixels() {
        let (x, y) = (at % rect.width as usize, at / rect.width as usize);
        let is_there = mask[y * row_bytes + x / 8] << (x % 8) & 0x80 != 0;
        let pixel = format.get(&mut data)?;
        pixels.push(if is_there { 0xff00_0000 | pixel } else { 0 });
    }
    Some(Pointer { width: rect.width, height: rect.height, hot: (rect.x, rect.y), pixels })
}

/// The same with an alpha channel.
pub fn cursor_alpha(bytes: &mut Bytes<'_>, rect: Rect) -> Tried<Pointer> {
    if bytes.u32()? != 0 {
        return Some(Err(bad("encoding of a pointer")));
    }
    let data = bytes.take(rect.pixels() * 4)?;
    let pixel = |rgba: &[u8]| {
        let alpha = u32::from(rgba[3]);
        let part = |at: usize| match alpha {
            0 => 0,
            _ => ((u32::from(rgba[at]) * 255 + alpha / 2) / alpha).min(255),
        };
        alpha << 24 | part(0) << 16 | part(1) << 8 | part(2)
    };
    let pixels = data.chunks_exact(4).map(pixel).collect();
    Some(Ok(Pointer { width: rect.width, height: rect.height, hot: (rect.x, rect.y), pixels }))
}

#[cfg(test)]
pub mod tests;
