//! Hextile (RFC 6143, 7.7.4).

use super::{Tried, raw};
use crate::codec::{Bytes, PixelFormat, bad};
use crate::surface::{Frame, Rect};

pub fn decode(bytes: &mut Bytes<'_>, frame: &mut Frame, rect: Rect, format: &PixelFormat) -> Tried {
    let (mut background, mut foreground) = (0, 0);
    for y in (0..rect.height).step_by(16) {
        for x in (0..rect.width).step_by(16) {
            let tile = Rect {
                x: rect.x + x,
                y: rect.y + y,
                width: (rect.width - x).min(16),
                height: (rect.height - y).min(16),
            };
            let kind = bytes.u8()?;
            if kind & 1 != 0 {
                let data = bytes.take(tile.pixels() * format.bytes())?;
                _ = raw(data, frame, tile, format)?;
                continue;
            }
            if kind & 2 != 0 {
                background = format.get(bytes)?;
            }
            if kind & 4 != 0 {
                foreground = format.get(bytes)?;
            }
            frame.fill(tile, background);
            let count = if kind & 8 != 0 { bytes.u8()? } else { 0 };
            for _ in 0..count {
                let colour = if kind & 16 != 0 { format.get(bytes)? } else { foreground };
                let (at, size) = (bytes.u8()?, bytes.u8()?);
                let (x, y) = (u32::from(at >> 4), u32::from(at & 15));
                let (width, height) = (u32::from(size >> 4) + 1, u32::from(size & 15) + 1);
                if x + width > tile.width || y + height > tile.height {
                    return Some(Err(bad("part of a tile")));
                }
                frame.fill(Rect { x: tile.x + x, y: tile.y + y, width, height }, colour);
            }
        }
    }
    Some(Ok(()))
}
