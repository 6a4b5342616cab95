//! Tight: one colour, palettes, or pixels, each compressed in a stream of its own.

use super::jpeg::Jpeg;
use super::{Deflater, Palette, colours};
use crate::codec::PixelFormat;
use crate::surface::{Frame, Rect};

const FILL: u8 = 0x80;
const JPEG: u8 = 0x90;
/// Of less JPEG's head would be most.
const PHOTOGRAPH_PIXELS_MIN: usize = 1024;
/// Neighbours that differ by more are an edge.
const SHARP: i32 = 40;
const FILTERED: u8 = 0x40;
const FILTER_PALETTE: u8 = 1;
/// Shorter data is not compressed.
const COMPRESSED_MIN: usize = 12;

/// The stream of each kind of data.
const PIXELS: u8 = 0;
const TWO_COLOURS: u8 = 1;
const INDEXES: u8 = 2;

pub fn encode(
    streams: &mut [Option<Deflater>; 4],
    jpeg: Option<&Jpeg>,
    scratch: &mut Vec<u8>,
    frame: &Frame,
    rect: Rect,
    format: &PixelFormat,
    out: &mut Vec<u8>,
) {
    // Of few pixels a large palette would be most of the data.
    let most = (rect.pixels() / 16).clamp(2, 256);
    let stream = match colours(frame, rect, most) {
        Some(palette) => match palette.colours() {
            [only] => {
                out.push(FILL);
                format.put_tight(*only, out);
                return;
            }
            colours => {
                let stream = if colours.len() == 2 { TWO_COLOURS } else { INDEXES };
                out.extend([stream << 4 | FILTERED, FILTER_PALETTE, (colours.len() - 1) as u8]);
                colours.iter().for_each(|colour| format.put_tight(*colour, out));
                indexes(frame, rect, &palette, scratch);
                stream
            }
        },
        None if jpeg.is_some() && is_photograph(frame, rect) => {
            out.push(JPEG);
            jpeg.into_iter().for_each(|jpeg| jpeg.encode(frame, rect, scratch));
            put_length(scratch.len(), out);
            out.extend(&*scratch);
            return;
        }
        None => {
            out.push(PIXELS << 4);
            for pixel in (0..rect.height).flat_map(|row| frame.row(rect, row)) {
                format.put_tight(*pixel, scratch);
            }
            PIXELS
        }
    };
    if scratch.len() < COMPRESSED_MIN {
        out.extend(&*scratch);
        return;
    }
    let mut compressed = Vec::new();
    streams[usize::from(stream)].get_or_insert_default().deflate(scratch, &mut compressed);
    put_length(compressed.len(), out);
    out.extend(compressed);
}

/// Whether a rectangle is smooth as photographs are: letters and lines, whose edges are sharp, would
/// suffer. Neighbours are compared, of every fourth row.
fn is_photograph(frame: &Frame, rect: Rect) -> bool {
    if rect.pixels() < PHOTOGRAPH_PIXELS_MIN || rect.width < 8 || rect.height < 8 {
        return false;
    }
    let (mut steps, mut sharp, mut flat) = (0_u32, 0, 0);
    for row in (0..rect.height).step_by(4).map(|row| frame.row(rect, row)) {
        for pair in row.windows(2) {
            let green = |pixel: u32| i32::from((pixel >> 8) as u8);
            steps += 1;
            flat += u32::from(pair[0] == pair[1]);
            sharp += u32::from((green(pair[0]) - green(pair[1])).abs() > SHARP);
        }
    }
    sharp * 16 < steps && flat * 8 < steps * 5
}

fn indexes(frame: &Frame, rect: Rect, palette: &Palette, out: &mut Vec<u8>) {
    let two = palette.colours().len() == 2;
    for row in (0..rect.height).map(|row| frame.row(rect, row)) {
        if !two {
            out.extend(row.iter().map(|pixel| palette.index(*pixel)));
            continue;
        }
        for eight in row.chunks(8) {
            let bit = |byte, (at, pixel): (usize, &u32)| byte | palette.index(*pixel) << (7 - at);
            out.push(eight.iter().enumerate().fold(0, bit));
        }
    }
}

/// Seven bits a byte, the lowest first, eight in the third: a rectangle's data is below 4 MiB.
fn put_length(length: usize, out: &mut Vec<u8>) {
    let low = |shift: u32| (length >> shift & 0x7f) as u8;
    match length {
        0..0x80 => out.push(low(0)),
        0x80..0x4000 => out.extend([low(0) | 0x80, low(7)]),
        _ => out.extend([low(0) | 0x80, low(7) | 0x80, (length >> 14 & 0xff) as u8]),
    }
}
