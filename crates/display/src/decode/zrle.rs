//! ZRLE's tiles (RFC 6143, 7.7.6).

use super::Tried;
use crate::codec::{Bytes, PixelFormat, bad};
use crate::surface::{Frame, Rect};

/// The most bytes that a rectangle's tiles take: a run for each pixel, and a palette a tile.
pub fn bytes_max(rect: Rect) -> usize {
    let tiles = rect.width.div_ceil(64) as usize * rect.height.div_ceil(64) as usize;
    rect.pixels() * 5 + tiles * (1 + 127 * 4)
}

pub fn decode(bytes: &mut Bytes<'_>, frame: &mut Frame, rect: Rect, format: &PixelFormat) -> Tried {
    for y in (0..rect.height).step_by(64) {
        for x in (0..rect.width).step_by(64) {
            let tile = Rect {
                x: rect.x + x,
                y: rect.y + y,
                width: (rect.width - x).min(64),
                height: (rect.height - y).min(64),
            };
            if let Err(error) = self::tile(bytes, frame, tile, format)? {
                return Some(Err(error));
            }
        }
    }
    Some(Ok(()))
}

fn tile(bytes: &mut Bytes<'_>, frame: &mut Frame, tile: Rect, format: &PixelFormat) -> Tried {
    let kind = bytes.u8()?;
    let count = usize::from(kind & 0x7f);
    let colours = if kind == 0x80 { 0 } else { count };
    let mut palette = Vec::with_capacity(colours);
    for _ in 0..colours {
        palette.push(format.get_compact(bytes)?);
    }
    match kind {
        0 => {
            for row in 0..tile.height {
                for pixel in frame.row_mut(tile, row) {
                    *pixel = format.get_compact(bytes)?;
                }
            }
            Some(Ok(()))
        }
        1 => {
            frame.fill(tile, palette[0]);
            Some(Ok(()))
        }
        2..=16 => packed(bytes, frame, tile, &palette),
        17..=127 | 129 => Some(Err(bad("kind of a tile"))),
        _ => runs(bytes, frame, tile, &palette, format),
    }
}

fn packed(bytes: &mut Bytes<'_>, frame: &mut Frame, tile: Rect, palette: &[u32]) -> Tried {
    let bits = match palette.len() {
        ..=2 => 1,
        3..=4 => 2,
        _ => 4,
    };
    for row in 0..tile.height {
        let data = bytes.take((tile.width as usize * bits).div_ceil(8))?;
        for (at, pixel) in frame.row_mut(tile, row).iter_mut().enumerate() {
            let from_top = at * bits % 8;
            let index = data[at * bits / 8] >> (8 - bits - from_top) & ((1 << bits) - 1) as u8;
            match palette.get(usize::from(index)) {
                Some(colour) => *pixel = *colour,
                None => return Some(Err(bad("colour's number"))),
            }
        }
    }
    Some(Ok(()))
}

fn runs(
    bytes: &mut Bytes<'_>,
    frame: &mut Frame,
    tile: Rect,
    palette: &[u32],
    format: &PixelFormat,
) -> Tried {
    let (mut at, all) = (0, tile.pixels());
    while at < all {
        let (colour, is_run) = match palette.is_empty() {
            true => (format.get_compact(bytes)?, true),
            false => {
                let index = bytes.u8()?;
                match palette.get(usize::from(index & 0x7f)) {
                    Some(colour) => (*colour, index & 0x80 != 0),
                    None => return Some(Err(bad("colour's number"))),
                }
            }
        };
        let mut length = 1;
        let mut more = if is_run { 255 } else { 0 };
        while more == 255 {
            more = bytes.u8()?;
            length += usize::from(more);
        }
        if length > all - at {
            return Some(Err(bad("length of a run")));
        }
        for at in at..at + length {
            let (x, y) = (at % tile.width as usize, at / tile.width as usize);
            frame.row_mut(tile, y as u32)[x] = colour;
        }
        at += length;
    }
    Some(Ok(()))
}
