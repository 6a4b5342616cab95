//! ZRLE's tiles (RFC 6143, 7.7.6), before they are compressed.

use super::{Palette, colours};
use crate::codec::PixelFormat;
use crate::surface::{Frame, Rect};

const SIDE: u32 = 64;
const RAW: u8 = 0;
const SOLID: u8 = 1;
const RUNS: u8 = 128;
const PALETTE_MAX: usize = 127;

pub fn encode(frame: &Frame, rect: Rect, format: &PixelFormat, out: &mut Vec<u8>) {
    for y in (0..rect.height).step_by(SIDE as usize) {
        for x in (0..rect.width).step_by(SIDE as usize) {
            let tile = Rect {
                x: rect.x + x,
                y: rect.y + y,
                width: (rect.width - x).min(SIDE),
                height: (rect.height - y).min(SIDE),
            };
            self::tile(frame, tile, format, out);
        }
    }
}

fn tile(frame: &Frame, tile: Rect, format: &PixelFormat, out: &mut Vec<u8>) {
    let pixel_bytes = format.compact_bytes();
    let runs = runs(frame, tile);
    let (count, long) = runs.iter().fold((0, 0), |(count, long), run| {
        (count + 1, long + if run.1 > 1 { 1 + (run.1 - 1) / 255 } else { 0 })
    });
    let raw_bytes = tile.pixels() * pixel_bytes;
    let plain_bytes = count * pixel_bytes + count + long;
    let Some(palette) = colours(frame, tile, PALETTE_MAX) else {
        match plain_bytes < raw_bytes {
            true => plain_runs(&runs, format, out),
            false => raw(frame, tile, format, out),
        }
        return;
    };
    let colours = palette.colours();
    if let [only] = colours {
        out.push(SOLID);
        format.put_compact(*only, out);
        return;
    }
    let bits = match colours.len() {
        2 => Some(1),
        3..=4 => Some(2),
        5..=16 => Some(4),
        _ => None,
    };
    let palette_bytes = colours.len() * pixel_bytes;
    let row_bytes = |bits: usize| (tile.width as usize * bits).div_ceil(8);
    let packed_bytes =
        bits.map_or(usize::MAX, |bits| palette_bytes + row_bytes(bits) * tile.height as usize);
    let palette_runs_bytes = palette_bytes + count + long;
    let least = raw_bytes.min(plain_bytes).min(packed_bytes).min(palette_runs_bytes);
    match bits {
        Some(bits) if packed_bytes == least => packed(frame, tile, &palette, bits, format, out),
        _ if palette_runs_bytes == least => palette_runs(&runs, &palette, format, out),
        _ if plain_bytes == least => plain_runs(&runs, format, out),
        _ => raw(frame, tile, format, out),
    }
}

/// Colours and how often each is repeated, over the ends of rows.
fn runs(frame: &Frame, tile: Rect) -> Vec<(u32, usize)> {
    let mut runs: Vec<(u32, usize)> = Vec::new();
    for pixel in (0..tile.height).flat_map(|row| frame.row(tile, row)) {
        match runs.last_mut() {
            Some((colour, length)) if colour == pixel => *length += 1,
            _ => runs.push((*pixel, 1)),
        }
    }
    runs
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    let mut rest = length - 1;
    while rest >= 255 {
        out.push(255);
        rest -= 255;
    }
    out.push(rest as u8);
}

fn raw(frame: &Frame, tile: Rect, format: &PixelFormat, out: &mut Vec<u8>) {
    out.push(RAW);
    let pixels = (0..tile.height).flat_map(|row| frame.row(tile, row));
    pixels.for_each(|pixel| format.put_compact(*pixel, out));
}

fn plain_runs(runs: &[(u32, usize)], format: &PixelFormat, out: &mut Vec<u8>) {
    out.push(RUNS);
    for (colour, length) in runs {
        format.put_compact(*colour, out);
        put_length(*length, out);
    }
}

fn palette_runs(runs: &[(u32, usize)], palette: &Palette, format: &PixelFormat, out: &mut Vec<u8>) {
    out.push(RUNS + palette.colours().len() as u8);
    palette.colours().iter().for_each(|colour| format.put_compact(*colour, out));
    for (colour, length) in runs {
        let index = palette.index(*colour);
        match length {
            1 => out.push(index),
            _ => {
                out.push(index | 0x80);
                put_length(*length, out);
            }
        }
    }
}

fn packed(
    frame: &Frame,
    tile: Rect,
    palette: &Palette,
    bits: usize,
    format: &PixelFormat,
    out: &mut Vec<u8>,
) {
    out.push(palette.colours().len() as u8);
    palette.colours().iter().for_each(|colour| format.put_compact(*colour, out));
    for row in 0..tile.height {
        for group in frame.row(tile, row).chunks(8 / bits) {
            let put = |byte: u8, (at, pixel): (usize, &u32)| {
                byte | palette.index(*pixel) << (8 - bits * (at + 1))
            };
            out.push(group.iter().enumerate().fold(0, put));
        }
    }
}
