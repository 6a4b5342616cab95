//! Hextile (RFC 6143, 7.7.4).

use super::colours;
use crate::codec::PixelFormat;
use crate::surface::{Frame, Rect};

const RAW: u8 = 1;
const BACKGROUND: u8 = 2;
const FOREGROUND: u8 = 4;
const SUBRECTS: u8 = 8;
const COLOURED: u8 = 16;
/// More colours in a tile are sent as they are.
const COLOURS_MAX: usize = 16;

pub fn encode(frame: &Frame, rect: Rect, format: &PixelFormat, out: &mut Vec<u8>) {
    // What the client remembers from tile to tile.
    let mut background = None;
    for y in (0..rect.height).step_by(16) {
        for x in (0..rect.width).step_by(16) {
            let tile = Rect {
                x: rect.x + x,
                y: rect.y + y,
                width: (rect.width - x).min(16),
                height: (rect.height - y).min(16),
            };
            if !few_colours(frame, tile, format, &mut background, out) {
                out.push(RAW);
                (0..tile.height).for_each(|row| format.put_all(frame.row(tile, row), out));
                background = None; // undefined behind raw tiles
            }
        }
    }
}

/// Writes the tile as rectangles on a background, if that is shorter than its pixels.
fn few_colours(
    frame: &Frame,
    tile: Rect,
    format: &PixelFormat,
    background: &mut Option<u32>,
    out: &mut Vec<u8>,
) -> bool {
    let Some(palette) = colours(frame, tile, COLOURS_MAX) else { return false };
    let ground = most_frequent(frame, tile, palette.colours());
    let start = out.len();
    let mut kind = 0;
    out.push(0);
    if *background != Some(ground) {
        kind |= BACKGROUND;
        format.put(ground, out);
    }
    let two = palette.colours().len() == 2;
    if palette.colours().len() > 1 {
        kind |= SUBRECTS | if two { FOREGROUND } else { COLOURED };
        if let (true, Some(other)) = (two, palette.colours().iter().find(|c| **c != ground)) {
            format.put(*other, out);
        }
        let counted_at = out.len();
        out.push(0);
        let mut count = 0_u16;
        subrects(frame, tile, ground, |colour, [x, y, width, height]| {
            if !two {
                format.put(colour, out);
            }
            out.extend([x << 4 | y, (width - 1) << 4 | (height - 1)]);
            count += 1;
        });
        let Ok(count) = u8::try_from(count) else {
            out.truncate(start);
            return false;
        };
        out[counted_at] = count;
    }
    if out.len() - start > tile.pixels() * format.bytes() {
        out.truncate(start);
        return false;
    }
    out[start] = kind;
    *background = Some(ground);
    true
}

fn most_frequent(frame: &Frame, tile: Rect, colours: &[u32]) -> u32 {
    let count = |colour: &&u32| -> usize {
        let in_row = |row| frame.row(tile, row).iter().filter(|pixel| *pixel == *colour).count();
        (0..tile.height).map(in_row).sum()
    };
    colours.iter().max_by_key(count).copied().unwrap_or(0)
}

/// Finds rectangles of one colour that cover all but the background.
fn subrects(frame: &Frame, tile: Rect, ground: u32, mut found: impl FnMut(u32, [u8; 4])) {
    let mut covered = [0_u16; 16];
    for y in 0..tile.height {
        for x in 0..tile.width {
            let colour = frame.row(tile, y)[x as usize];
            if colour == ground || covered[y as usize] >> x & 1 != 0 {
                continue;
            }
            let free = |row: u32, x: u32| {
                frame.row(tile, row)[x as usize] == colour && covered[row as usize] >> x & 1 == 0
            };
            let end = (x..tile.width).find(|x| !free(y, *x)).unwrap_or(tile.width);
            let whole = |row: &u32| (x..end).all(|x| free(*row, x));
            let last = (y..tile.height).take_while(whole).last().unwrap_or(y);
            let mask = ((1_u32 << end) - (1 << x)) as u16;
            (y..=last).for_each(|row| covered[row as usize] |= mask);
            found(colour, [x as u8, y as u8, (end - x) as u8, (last + 1 - y) as u8]);
        }
    }
}
